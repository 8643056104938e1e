"""Who does what one process does for all: whoever holds a lock on Redis, which runs out by itself."""

from llmgateway.stores.redis import RedisState

LOCK = "{lgw}:lead"
SECONDS = 10.0  # three times as long as the leader waits between two renewals

# Takes the lock, or renews it where it is this process's.
_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if holder then return 0 end
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
"""
_RESIGN = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class RedisLead:
    """`name` is this process's, and no other's ever."""

    def __init__(self, state: RedisState, *, name: str, seconds: float = SECONDS) -> None:
        self._ask = state.ask
        self._name = name
        self._life_ms = max(1, int(seconds * 1000))

    async def is_mine(self) -> bool:
        return bool(await self._ask(("EVAL", _TAKE, 1, LOCK, self._name, self._life_ms)))

    async def resign(self) -> None:
        await self._ask(("EVAL", _RESIGN, 1, LOCK, self._name))


class LoneLead:
    """Of a gateway that is one process."""

    async def is_mine(self) -> bool:
        return True

    async def resign(self) -> None:
        return None
