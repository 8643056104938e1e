"""Step 1: a token becomes a principal, or 401, or 503 where nobody can tell.

Look-ups go to the process's memory, then the shared cache, then the store. Memory is trusted for 30 s, and
for five minutes while neither of the others answers; a change announced by any process is obeyed at once.

The cache can only say yes, to the very key that is asked for. What else it says, the store is asked about:
so a cache that was mixed up or written to shuts nobody out, and all keys that are refused cost the same work.
"""

import logging
from contextlib import suppress
from datetime import datetime
from hashlib import sha256

import msgspec
from msgspec import Struct

from llmgateway.domain.errors import NotAuthenticated, StoreUnavailable, Unavailable
from llmgateway.domain.keys import (
    Key,
    Owner,
    Principal,
    belongs,
    digest_of,
    id_of,
    is_valid,
    principal_of,
    with_owner,
)
from llmgateway.domain.later import Reader
from llmgateway.domain.ports import Change, Clock, Document, Documents, State

log = logging.getLogger(__name__)

FRESH_SECONDS, STALE_SECONDS = 30.0, 300.0
UNKNOWN_SECONDS = 5.0
MOST_KNOWN, MOST_UNKNOWN = 50_000, 10_000
SHARED_SECONDS = 60.0
NOBODY = ""  # is asked for where there is no key: a made-up id costs what a known one does


class Known(Struct, frozen=True):
    """A token that was proved: good without asking until `fresh_until`, in an outage until `stale_until`."""

    principal: Principal
    fresh_until: float
    stale_until: float


class Found(Struct, frozen=True):
    """What is stored of a key, and of whose it is."""

    key: Key
    owner: Owner

    def admits(self, digest: str, date: datetime) -> bool:
        return is_valid(self.key, digest, date) and self.owner.state == "active"


class Authenticate:
    """Knows tokens by full hashes only: SHA-256 in memory, the peppered HMAC in the stores. `strangers`: how
    often the cache gave a record of another key."""

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
        self._read = Reader(log).read
        self.strangers = 0

    async def __call__(self, token: bytes) -> Principal:
        fingerprint = sha256(token).digest()  # memory's own name for it: a third of the HMAC's time
        known = self._known.get(fingerprint)
        if known is not None and self._now() < known.fresh_until:
            return known.principal
        key_id = id_of(token)
        if key_id is None or self._unknown.get(fingerprint, 0.0) > self._now():
            raise NotAuthenticated
        changes, digest = self._changes, digest_of(token, self._pepper).hex()
        try:
            found = await self._look_up(key_id, digest)
        except Unavailable:
            known = self._known.get(fingerprint)
            if known is not None and self._now() < known.stale_until:
                return known.principal
            raise
        known = self._judge(fingerprint, digest, found)
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

    async def _look_up(self, key_id: str, digest: str) -> Found | None:
        cached = await self._cached(key_id)
        if cached is not None and cached.admits(digest, self._clock.now()):
            return cached
        try:
            return await self._truth(key_id, cached)
        except Unavailable:
            if cached is None or not belongs(cached.key, digest):
                raise
            return cached

    async def _cached(self, key_id: str) -> Found | None:
        """Nothing where the cache is away, knows nothing, or gives what is another key's."""
        try:
            document = await self._state.cached_key(key_id)
            if document is None:
                return None
            if document.get("id") == key_id:
                return self._found(document)
        except Unavailable:
            return None
        self.strangers += 1
        log.error("the cache gave a record of another key; it is not believed")
        return None

    async def _truth(self, key_id: str, cached: Found | None) -> Found | None:
        document = await self._store.get("keys", key_id)
        owner = await self._store.get("users", document["user"] if document else NOBODY)
        if document is None:
            return None
        document = with_owner(document, owner)
        found = self._found(document)
        if found != cached:
            with suppress(StoreUnavailable):  # the next one asks the store again
                await self._state.cache_key(document, SHARED_SECONDS)
        return found

    def _found(self, document: Document) -> Found:
        owned = document if "owner" in document else with_owner(document, None)
        return Found(self._read(document, Key), self._read(owned["owner"], Owner))

    def _judge(self, fingerprint: bytes, digest: str, found: Found | None) -> Known:
        now, date = self._now(), self._clock.now()
        if found is None or not found.admits(digest, date):
            if len(self._unknown) >= MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown[fingerprint] = now + UNKNOWN_SECONDS
            self._drop(fingerprint)
            raise NotAuthenticated
        ends = _seconds_left(found.key, digest, date)
        principal = principal_of(found.key, found.owner)
        return Known(principal, now + min(FRESH_SECONDS, ends), now + min(STALE_SECONDS, ends))

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
