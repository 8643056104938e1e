"""Bounds in time that do not take a busy process for a server that is away."""

import asyncio
from types import TracebackType
from typing import Self

TURNS = 4  # of the event loop: what lies in the socket is read, and whoever waits for it goes on


async def all_is_read() -> None:
    """What lies in sockets by now."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


class Patience:
    """As `asyncio.timeout`, in seconds. An event loop that was late runs its timers before it reads what has
    come meanwhile, so time is up only some turns later."""

    __slots__ = ("_bound", "_ending", "_loop", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._bound = asyncio.timeout(None)
        await self._bound.__aenter__()
        self._ending: asyncio.Handle = self._loop.call_later(self._seconds, self._end, TURNS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.cancel()
        await self._bound.__aexit__(kind, error, trace)

    def _end(self, turns: int) -> None:
        if turns:
            self._ending = self._loop.call_soon(self._end, turns - 1)
        else:
            self._bound.reschedule(self._loop.time())
