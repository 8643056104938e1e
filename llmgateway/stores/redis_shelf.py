"""The shelf on Redis: every value a key with its own expiry, and for each owner a set of what was put for it.

A set may name what is gone already: it is only where to look.
"""

from collections.abc import Sequence

from llmgateway.stores.redis import RedisState

SHELVES, OWNERS = "{lgw}:shelf:", "{lgw}:shelf-of:"
INDEX_MS = 31 * 86_400_000  # a set outlives whatever is put for an owner: at most 30 days

_COUNT = """
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return count
"""


class RedisShelf:
    """Ends are times of the server."""

    def __init__(self, state: RedisState) -> None:
        self._ask = state.ask

    async def put(
        self, shelf: str, id: str, value: bytes, seconds: float, *, owner: str | None = None
    ) -> None:
        store = ("SET", _key(shelf, id), value, "PX", _ms(seconds))
        if owner is None:
            await self._ask(store)
            return
        index = _index(shelf, owner)
        await self._ask(("SADD", index, id), ("PEXPIRE", index, INDEX_MS), store)

    async def get(self, shelf: str, id: str) -> bytes | None:
        found: bytes | None = await self._ask(("GET", _key(shelf, id)))
        return found

    async def take(self, shelf: str, id: str) -> bytes | None:
        found: bytes | None = await self._ask(("GETDEL", _key(shelf, id)))
        return found

    async def add(self, shelf: str, id: str, value: bytes, seconds: float) -> bool:
        return bool(await self._ask(("SET", _key(shelf, id), value, "PX", _ms(seconds), "NX")))

    async def delete(self, shelf: str, id: str) -> bool:
        return bool(await self._ask(("UNLINK", _key(shelf, id))))

    async def touch(self, shelf: str, id: str, seconds: float, value: bytes | None = None) -> bool:
        key, life = _key(shelf, id), _ms(seconds)
        if value is None:
            return bool(await self._ask(("PEXPIRE", key, life)))
        return bool(await self._ask(("SET", key, value, "PX", life, "XX")))

    async def count(self, shelf: str, id: str, seconds: float) -> int:
        return int(await self._ask(("EVAL", _COUNT, 1, _key(shelf, id), _ms(seconds))))

    async def owned(self, shelf: str, owner: str) -> dict[str, bytes]:
        index = _index(shelf, owner)
        ids: Sequence[bytes] = await self._ask(("SMEMBERS", index))
        if not ids:
            return {}
        names = [id.decode() for id in ids]
        values: Sequence[bytes | None] = await self._ask(("MGET", *(_key(shelf, name) for name in names)))
        found = dict(zip(names, values, strict=True))
        gone = [name for name, value in found.items() if value is None]
        if gone:
            await self._ask(("SREM", index, *gone))
        return {name: value for name, value in found.items() if value is not None}


def _key(shelf: str, id: str) -> str:
    return f"{SHELVES}{shelf}:{id}"


def _index(shelf: str, owner: str) -> str:
    return f"{OWNERS}{shelf}:{owner}"


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
