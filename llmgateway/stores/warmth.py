"""Whether the shared cache of keys was filled since it was empty: a mark that goes when all else does."""

from llmgateway.stores.redis import RedisState

MARK = "{lgw}:keys-warm"


class RedisWarmth:
    """The mark has no end of its own, so a Redis that is told to forget what is oldest keeps it."""

    def __init__(self, state: RedisState) -> None:
        self._ask = state.ask

    async def is_cold(self) -> bool:
        return not await self._ask(("EXISTS", MARK))

    async def warmed(self) -> None:
        await self._ask(("SET", MARK, b"1"))
