"""Tasks that live as long as a store is open: held with it, cancelled and awaited when it closes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

log = logging.getLogger(__name__)


@asynccontextmanager
async def alongside(*works: Coroutine[object, object, object]) -> AsyncIterator[None]:
    """Runs `works` beside the body. What the body raises passes unchanged; a task group would wrap it."""
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(work) for work in works]
    for task in tasks:
        task.add_done_callback(_report)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _report(task: "asyncio.Task[object]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background work of a store ended: %s", task.get_name(), exc_info=error)
