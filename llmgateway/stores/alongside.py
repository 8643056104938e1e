"""Tasks that live as long as a store is open: held with it, cancelled and awaited when it closes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

from llmgateway.domain.falls import Falls

log = logging.getLogger(__name__)

Work = Callable[[], Coroutine[object, object, object]]


@asynccontextmanager
async def alongside(*works: Work) -> AsyncIterator[None]:
    """Runs `works` beside the body; one that fails begins anew. What the body raises passes unchanged; a task
    group would wrap it."""
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(_kept(work)) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _kept(work: Work) -> None:
    falls, now = (
        Falls(f"background work of a store ({work.__qualname__})", log),
        asyncio.get_running_loop().time,
    )
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - whatever it is: the store's callers wait for this work
            await asyncio.sleep(falls.note(error, now()))
        else:
            return
