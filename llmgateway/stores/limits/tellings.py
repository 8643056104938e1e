"""What Redis tells all workers: how a limit is shared out anew, whoever brought that about."""

from collections.abc import Callable
from contextlib import aclosing, suppress

import msgspec

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.stores.limits.grants import Shares, Spending
from llmgateway.stores.limits.limiter_turn import CHANNEL, TELLINGS, UNTOLD, Reply, key_of
from llmgateway.stores.patience import all_is_read
from llmgateway.stores.redis import RedisState

Telling = tuple[str, int, int, int]
"""Of a scope by its name: the telling's number, and what of each worker's share is used."""


class Tellings:
    """Keeps `shares` up to date."""

    def __init__(self, redis: RedisState, shares: Shares, milliseconds: Callable[[], int]) -> None:
        self._redis = redis
        self.shares = shares
        self._milliseconds = milliseconds

    async def listen(self) -> None:
        """For ever."""
        async with aclosing(self._redis.messages(CHANNEL)) as messages:
            async for message in messages:
                for telling in [message] if message is not None else await self._missed():
                    self._heed(telling)

    async def catch_up(self) -> None:
        """What was told before Redis went may still lie in the socket: it is heeded first."""
        await all_is_read()

    def answered(self, names: list[str], reply: Reply) -> None:
        """This worker's shares after a turn with these scopes."""
        now = self._milliseconds()
        for index, telling, requests, tokens in reply.shares:
            self.shares.heard(key_of(names[index - 1]), Spending(telling, requests, tokens, now))

    async def _missed(self) -> list[bytes]:
        """What was told while nobody listened. Before all have said to a new Redis what they let in it is too
        little: they hear it when it is whole."""
        with suppress(StoreUnavailable):
            missed: list[bytes] = await self._redis.ask(("ZRANGE", TELLINGS, 0, -1))
            if not await self._redis.ask(("EXISTS", UNTOLD)):
                return missed
        return []

    def _heed(self, message: bytes) -> None:
        now = self._milliseconds()
        for name, telling, requests, tokens in msgspec.msgpack.decode(message, type=list[Telling]):
            self.shares.told(key_of(name), Spending(telling, requests, tokens, now))
