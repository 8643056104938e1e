"""Step 1: a token becomes a principal, or 401, or 503 where nobody can tell.

Look-ups go to the process's memory, then the shared cache, then the store. Memory is trusted for 30 s, and
for five minutes while neither of the others answers; a change announced by any process is obeyed at once.
"""

from contextlib import suppress
from datetime import datetime
from hashlib import sha256

import msgspec
from msgspec import Struct

from llmgateway.domain.errors import NotAuthenticated, StoreUnavailable
from llmgateway.domain.keys import Key, Owner, Principal, digest_of, id_of, is_valid, principal_of, with_owner
from llmgateway.domain.ports import Change, Clock, Document, Documents, State

FRESH_SECONDS, STALE_SECONDS = 30.0, 300.0
UNKNOWN_SECONDS = 5.0
MOST_KNOWN, MOST_UNKNOWN = 50_000, 10_000
SHARED_SECONDS = 60.0


class Known(Struct, frozen=True):
    """A token that was proved: good without asking until `fresh_until`, in an outage until `stale_until`."""

    principal: Principal
    fresh_until: float
    stale_until: float


class Authenticate:
    """Knows tokens by full hashes only: SHA-256 in memory, the peppered HMAC in the stores."""

    def __init__(self, store: Documents, state: State, *, pepper: bytes, clock: Clock) -> None:
        self._store = store
        self._state = state
        self._pepper = pepper
        self._clock = clock
        self._now = clock.monotonic
        self._known: dict[bytes, Known] = {}
        self._of_key: dict[str, set[bytes]] = {}  # the known tokens of a key: two after a rotation
        self._unknown: dict[bytes, float] = {}
        self._changes = 0

    async def __call__(self, token: bytes) -> Principal:
        fingerprint = sha256(token).digest()  # memory's own name for it: a third of the HMAC's time
        known = self._known.get(fingerprint)
        if known is not None and self._now() < known.fresh_until:
            return known.principal
        key_id = id_of(token)
        if key_id is None or self._unknown.get(fingerprint, 0.0) > self._now():
            raise NotAuthenticated
        changes = self._changes
        try:
            document = await self._look_up(key_id)
        except StoreUnavailable:
            known = self._known.get(fingerprint)
            if known is not None and self._now() < known.stale_until:
                return known.principal
            raise
        known = self._judge(fingerprint, digest_of(token, self._pepper).hex(), document)
        if changes == self._changes:  # else what was read may be what was just changed: not to be remembered
            self._remember(fingerprint, known)
        return known.principal

    def forget(self, change: Change) -> None:
        """Obeys an announced change. After a gap in the announcements nothing is fresh, but an outage may
        still use it."""
        self._changes += 1
        if change.topic == "keys" and change.id is not None:
            for fingerprint in tuple(self._of_key.get(change.id, ())):
                self._drop(fingerprint)
        elif change.topic in ("keys", "*"):
            self._known = {
                d: msgspec.structs.replace(known, fresh_until=0.0) for d, known in self._known.items()
            }
        self._unknown.clear()

    async def _look_up(self, key_id: str) -> Document | None:
        try:
            document = await self._state.cached_key(key_id)
        except StoreUnavailable:
            document = None
        if document is not None:
            return document
        document = await self._store.get("keys", key_id)
        if document is None:
            return None
        owner = await self._store.get("users", document["user"])
        document = with_owner(document, owner)
        with suppress(StoreUnavailable):  # the next one asks the store again
            await self._state.cache_key(document, SHARED_SECONDS)
        return document

    def _judge(self, fingerprint: bytes, digest: str, document: Document | None) -> Known:
        now, date = self._now(), self._clock.now()
        key = None if document is None else msgspec.convert(document, Key)
        owner = msgspec.convert({} if document is None else document.get("owner", {}), Owner)
        if key is None or not is_valid(key, digest, date) or owner.state == "suspended":
            if len(self._unknown) >= MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown[fingerprint] = now + UNKNOWN_SECONDS
            self._drop(fingerprint)
            raise NotAuthenticated
        ends = _seconds_left(key, digest, date)
        return Known(principal_of(key, owner), now + min(FRESH_SECONDS, ends), now + min(STALE_SECONDS, ends))

    def _remember(self, fingerprint: bytes, known: Known) -> None:
        if len(self._known) >= MOST_KNOWN:
            self._drop(next(iter(self._known)))
        self._known[fingerprint] = known
        self._of_key.setdefault(known.principal.key_id, set()).add(fingerprint)

    def _drop(self, fingerprint: bytes) -> None:
        known = self._known.pop(fingerprint, None)
        if known is None:
            return
        others = self._of_key[known.principal.key_id]
        others.discard(fingerprint)
        if not others:
            del self._of_key[known.principal.key_id]


def _seconds_left(key: Key, digest: str, date: datetime) -> float:
    """Until the key, or the overlap after its rotation, ends."""
    ends = [key.expires_at] if key.expires_at else []
    if key.digest != digest and key.previous_until:
        ends.append(key.previous_until)
    return min(((end - date).total_seconds() for end in ends), default=float("inf"))
