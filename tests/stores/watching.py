"""What outage tests watch: how long the event loop was held up, what was logged, how long a call took."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager

from llmgateway.domain.errors import StoreUnavailable

TICK = 0.005


class Lag:
    """The longest time, in seconds, that a tick came late."""

    longest = 0.0

    async def measure(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK)
            self.longest = max(self.longest, time.perf_counter() - before - TICK)


@asynccontextmanager
async def loop_lag() -> AsyncIterator[Lag]:
    lag = Lag()
    task = asyncio.get_running_loop().create_task(lag.measure())
    try:
        yield lag
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextmanager
def lines_of(logger: str) -> Iterator[list[str]]:
    """The messages logged there, as they come."""
    lines: list[str] = []
    log = logging.getLogger(logger)
    before = log.level

    def collect(record: logging.LogRecord) -> bool:
        lines.append(record.getMessage())
        return True

    log.addFilter(collect)
    log.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        log.removeFilter(collect)
        log.setLevel(before)


async def seconds_to_fail(call: Awaitable[object]) -> float:
    """How long a call took to say that the store is not available."""
    before = time.perf_counter()
    try:
        answer = await call
    except StoreUnavailable:
        return time.perf_counter() - before
    raise AssertionError(f"it answered: {answer!r}")


async def works(call: Awaitable[object]) -> bool:
    try:
        await call
    except StoreUnavailable:
        return False
    return True
