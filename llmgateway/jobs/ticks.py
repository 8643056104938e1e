"""What comes again and again while the gateway runs: deadlines, changes elsewhere, what is read anew."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, TypeVar

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.ports import Change, Clock, State
from llmgateway.domain.sweep import PERIOD, Sweep, Timed

log = logging.getLogger(__name__)

CONFIG_PERIOD = 0.5  # seconds between two looks at the configuration file
RELOAD_AGAIN = 2.0  # seconds until a catalogue that could not be read is read again
RELOAD_PERIOD = 60.0  # seconds until it is read again though nobody said that it had changed
CHANGES_PAUSE = 1.0  # seconds until a feed of changes that ended is opened again

T = TypeVar("T", bound=Timed)


async def turn_sweep(sweep: Sweep[T], clock: Clock) -> NoReturn:
    """Fires what is due; one thing that fails must not stop all other deadlines."""
    while True:
        await asyncio.sleep(PERIOD)
        try:
            sweep.turn(clock.monotonic())
        except Exception:
            log.exception("a deadline failed")


async def every(seconds: float, work: Callable[[], object]) -> NoReturn:
    """Calls `work` again and again, for ever; what it raises is logged."""
    while True:
        await asyncio.sleep(seconds)
        try:
            work()
        except Exception:
            log.exception("periodic work failed")


async def heed_changes(state: State, listeners: Sequence[Callable[[Change], None]]) -> NoReturn:
    """Tells the listeners of every announced change, for ever."""
    while True:
        try:
            async for change in state.changes():
                for listener in listeners:
                    listener(change)
        except Exception:
            log.exception("the feed of changes ended")
        await asyncio.sleep(CHANGES_PAUSE)


class Reload:
    """Reads something again soon after it was asked to, and again and again until that has worked.
    `has_worked` turns true when it first has."""

    def __init__(self, read: Callable[[], Awaitable[None]], what: str) -> None:
        self._read = read
        self._what = what
        self._asked = asyncio.Event()
        self._is_failing = False
        self.has_worked = False

    def soon(self) -> None:
        self._asked.set()

    async def run(self) -> NoReturn:
        while True:
            self._asked.clear()
            seconds = RELOAD_PERIOD if await self.once() else RELOAD_AGAIN
            try:
                async with asyncio.timeout(seconds):
                    await self._asked.wait()
            except TimeoutError:
                pass

    async def once(self) -> bool:
        """Whether it worked; one log line each time that changes."""
        try:
            await self._read()
        except StoreUnavailable as error:
            if not self._is_failing:
                log.warning("%s cannot be read now", self._what, extra={"fields": {"reason": error.message}})
            self._is_failing = True
            return False
        except Exception:
            log.exception("%s cannot be read", self._what)
            return False
        if self._is_failing:
            log.info("%s can be read again", self._what)
        self._is_failing = False
        self.has_worked = True
        return True
