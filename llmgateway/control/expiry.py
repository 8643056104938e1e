"""Keys that are about to expire: their people hear of it before their programs do."""

import logging
from datetime import timedelta

from llmgateway.control.audit import Actor, Audit
from llmgateway.control.changes import each
from llmgateway.control.moments import now_of
from llmgateway.domain.errors import Conflict
from llmgateway.domain.ports import Clock, Document, Store

log = logging.getLogger(__name__)

ACTOR = Actor("llmgateway", "jobs")
WARNED = "expiry_warned_for"  # of a key: the expiry that was warned of; another one is warned of again


async def warn_of_expiry(store: Store, audit: Audit, clock: Clock, days: int) -> int:
    """One log line and one audit line for each key that expires within `days`, and a field of the key that
    pages can show; returns how many there were that nobody had been warned of."""
    now = now_of(clock)
    count = 0
    async for key in each(store, "keys", {"state": "active"}):
        expires = key.get("expires_at")
        if expires is None or not now < expires <= now + timedelta(days=days) or key.get(WARNED) == expires:
            continue
        count += await _warn(store, audit, key)
    return count


async def _warn(store: Store, audit: Audit, key: Document) -> bool:
    told = {"user": key["user"], "name": key["name"], "expires_at": key["expires_at"]}
    try:
        async with audit.change(ACTOR, "keys.expiring", key["id"]) as entry:
            await entry.accept(told)
            await store.replace("keys", {**key, WARNED: key["expires_at"], "revision": key["revision"] + 1})
    except Conflict:
        return False  # it is being changed: maybe so that it does not expire
    log.warning("a key is about to expire", extra={"fields": {"key": key["id"], **told}})
    return True
