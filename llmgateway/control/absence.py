"""People who stay away: the keys of who has not signed in for long are suspended, and that is told before.

It concerns only who signs in with an identity provider: nobody else says that they still belong here. A key
itself is not changed, so one that somebody suspended by hand stays so when its owner comes back.
"""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from llmgateway.control.audit import Actor, Audit
from llmgateway.control.changes import announce_user, each
from llmgateway.control.moments import now_of
from llmgateway.domain.errors import Conflict
from llmgateway.domain.people import User
from llmgateway.domain.policy import KeyRules
from llmgateway.domain.ports import Clock, Document, State, Store

log = logging.getLogger(__name__)

ACTOR = Actor("llmgateway", "jobs")
WARNED = "absence_warned_for"  # of a user: the sign-in that was followed by a warning; another begins anew


class Absence:
    """What the periodic look does."""

    def __init__(self, store: Store, state: State, audit: Audit, clock: Clock) -> None:
        self._store = store
        self._state = state
        self._audit = audit
        self._clock = clock

    async def look(self, rules: KeyRules) -> dict[str, int]:
        """How many were warned, suspended and, since the rules are milder now, let in again."""
        done = {"warned": 0, "suspended": 0, "resumed": 0}
        now = now_of(self._clock)
        async for user in each(self._store, "users", {}):
            step = _step(user, rules, now)
            if step is not None and await self._take(step, user):
                done[step.counts_as] += 1
        return done

    async def _take(self, step: "Step", user: Document) -> bool:
        """False where there is nobody to tell, or the user has just changed, maybe by signing in."""
        if step.is_warning and not await self._has_keys(user["id"]):
            return False
        told = {"signed_in_at": user["signed_in_at"], **step.told}
        try:
            async with self._audit.change(ACTOR, step.action, user["id"]) as entry:
                await entry.accept(told)
                changed = {**user, **step.fields, "revision": user["revision"] + 1}
                await self._store.replace("users", changed)
        except Conflict:
            return False
        log.warning(step.says, extra={"fields": {"user": user["id"], **told}})
        if not step.is_warning:
            await announce_user(self._store, self._state, user["id"])
        return True

    async def _has_keys(self, user_id: str) -> bool:
        page = await self._store.find("keys", {"user": user_id, "state": "active"}, limit=1)
        return bool(page.data)


class Step(Struct, frozen=True, kw_only=True):
    """What is to be done about one user."""

    action: str
    counts_as: str
    says: str
    fields: Mapping[str, Any]
    told: Mapping[str, Any] = {}
    is_warning: bool = False


def due_at(user: User, rules: KeyRules) -> datetime | None:
    """Until when this user has to sign in for the keys to stay; None for ever."""
    if user.provider is None or user.signed_in_at is None or rules.sign_in_within is None:
        return None
    return user.signed_in_at + timedelta(days=rules.sign_in_within)


def _step(user: Document, rules: KeyRules, now: datetime) -> Step | None:
    signed_in, lapsed = user.get("signed_in_at"), user.get("lapsed")
    if user.get("provider") is None or signed_in is None or lapsed not in (None, "absent"):
        return None
    within = rules.sign_in_within
    due = None if within is None else signed_in + timedelta(days=within)
    if due is not None and due <= now:
        return None if lapsed == "absent" else _suspension()
    if lapsed == "absent":
        return _resumption()
    if due is None or now < due - timedelta(days=rules.warn) or user.get(WARNED) == signed_in:
        return None
    return _warning(signed_in, due) if rules.warn else None


def _suspension() -> Step:
    return Step(
        action="users.lapse", counts_as="suspended", fields={"lapsed": "absent"}, told={"why": "absent"},
        says="somebody has not signed in for too long; all their keys are suspended until they do",
    )  # fmt: skip


def _resumption() -> Step:
    return Step(
        action="users.resume", counts_as="resumed", fields={"lapsed": None},
        says="somebody may stay away for longer now; their keys are valid again",
    )  # fmt: skip


def _warning(signed_in: datetime, due: datetime) -> Step:
    return Step(
        action="users.sign_in_due", counts_as="warned", fields={WARNED: signed_in}, told={"due_at": due},
        says="somebody has to sign in soon, else all their keys will be suspended", is_warning=True,
    )  # fmt: skip
