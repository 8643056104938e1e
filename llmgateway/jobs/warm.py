"""Keeps the shared cache of keys filled from the store, so that it can stand in for a store that is away.

Without it no key would fail: whoever finds nothing in the cache asks the store. What is in the cache is never
older than `SECONDS`, however little of a change was heard.
"""

import asyncio

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.keys import with_owner
from llmgateway.domain.ports import Document, Documents, State
from llmgateway.domain.upkeep import Warmth

SECONDS = 300.0  # the hard limit of what may be believed in an outage
PERIOD = (200, 240)  # seconds between two rounds
PAGE = 500


class KeyCache:
    """All keys, with their owners as calls look them up; revoked ones too, so that nothing old
    stays in their place."""

    def __init__(self, store: Documents, state: State, warmth: Warmth) -> None:
        self._store = store
        self._state = state
        self._warmth = warmth

    async def fill(self) -> dict[str, int]:
        count, after = 0, None
        while True:
            page = await self._store.find("keys", {}, limit=PAGE, after=after)
            owners = await self._owners({key["user"] for key in page.data})  # as late as can be
            owned = (with_owner(key, owners[key["user"]]) for key in page.data)
            await asyncio.gather(*(self._state.cache_key(key, SECONDS) for key in owned))
            count += len(page.data)
            if page.next is None:
                break
            after = page.next
        await self._warmth.warmed()
        return {"keys": count}

    async def is_cold(self) -> bool:
        """Whether it has lost everything; while nobody can tell, there is nothing to fill either."""
        try:
            return await self._warmth.is_cold()
        except StoreUnavailable:
            return False

    async def _owners(self, users: set[str]) -> dict[str, Document | None]:
        found = await asyncio.gather(*(self._store.get("users", user) for user in users))
        return dict(zip(users, found, strict=True))
