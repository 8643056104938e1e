"""Changes that could not be announced: kept, and told as soon as the server answers again."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.ports import Change

MOST = 10_000  # from then on it is cheaper to have everything forgotten
PAUSE = 0.1  # seconds between two tries of a server that answers, but not to this
EVERYTHING = Change("*")


class Untold:
    """`tell` announces one change. Telling one twice does no harm."""

    def __init__(self, tell: Callable[[Change], Awaitable[None]]) -> None:
        self._tell = tell
        self._waiting: dict[Change, object] = {}  # with a token of its own each time that it is kept
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def keep(self, change: Change) -> None:
        if len(self._waiting) >= MOST:
            self._waiting = {EVERYTHING: None}
        self._waiting[EVERYTHING if EVERYTHING in self._waiting else change] = object()
        self._some.set()

    async def run(self, available: Callable[[], Awaitable[None]]) -> NoReturn:
        """`available` returns when the server answers, as far as is known."""
        while True:
            await self._some.wait()
            await available()
            with suppress(StoreUnavailable):
                await self._tell_all()
            await asyncio.sleep(PAUSE)

    async def _tell_all(self) -> None:
        while self._waiting:
            change, token = next(iter(self._waiting.items()))
            await self._tell(change)
            if self._waiting.get(change) is token:  # else it has changed again since it was told
                del self._waiting[change]
        self._some.clear()
