"""The tasks that live beside the calls: owned in one place, their failures reported, ended together."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Self

from llmgateway.domain.falls import Falls

log = logging.getLogger(__name__)


Work = Callable[[], Coroutine[Any, Any, object]]


class Background:
    """As a task group, but a task that fails does not take the others with it: the gateway goes on."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def create_task(self, coro: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def begin(self, *works: Coroutine[Any, Any, Any]) -> None:
        for work in works:
            _ = self.create_task(work)

    def keep(self, *works: Work) -> None:
        """For work that goes on for ever: where it fails it begins anew."""
        self.begin(*(_kept(work) for work in works))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background work ended: %s", task.get_coro(), exc_info=error)


async def _kept(work: Work) -> None:
    falls, now = Falls(f"background work ({work.__qualname__})", log), asyncio.get_running_loop().time
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - whatever it is: the gateway goes on, and this with it
            await asyncio.sleep(falls.note(error, now()))
        else:
            return
