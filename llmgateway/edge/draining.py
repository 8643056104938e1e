"""A server that says good-bye in order: not ready, then nothing new, then what is open ends, then the server.

uvicorn alone closes its listeners at the signal, while load balancers still send requests, and cuts streams
at a deadline; and while it waits, gunicorn hears nothing from it and takes it for dead.
"""

import asyncio
import signal
from types import FrameType
from typing import Any, Protocol

import uvicorn
from typing_extensions import override

from llmgateway.edge.server import OPTIONS

LEFTOVER_SECONDS = 5  # for what is still open after the drain: slow downloads, event streams of operators
NOTIFY_SECONDS = 1.0


class Draining(Protocol):
    """The application, as far as its end is concerned."""

    async def drain(self) -> None:
        """Returns when no call is in flight any more."""

    def hurry(self) -> None:
        """Ends the calls in flight now."""


class DrainingServer(uvicorn.Server):
    """The first signal drains, a second one hurries, a third one gives up."""

    def __init__(
        self, config: uvicorn.Config, app: Draining, *, notify_every: float = NOTIFY_SECONDS
    ) -> None:
        super().__init__(config)
        self._app = app
        self._notify_every = notify_every
        self._signals = 0

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not uvicorn's, which dies of the signal after a clean end, so that supervisors see a failure."""
        self.should_exit = True
        self._signals += sig in (signal.SIGINT, signal.SIGQUIT) or not self._signals
        self.force_exit = self._signals > 2
        if self._signals > 1:
            self._app.hurry()

    @override
    async def shutdown(self, sockets: Any = None) -> None:
        async with asyncio.TaskGroup() as tasks:
            notifying = tasks.create_task(self._keep_notifying())
            draining = tasks.create_task(self._app.drain())
            while not draining.done() and not self.force_exit:
                await asyncio.wait([draining], timeout=self._notify_every)
            draining.cancel()
            await super().shutdown(sockets)
            notifying.cancel()

    async def _keep_notifying(self) -> None:
        while self.config.callback_notify is not None:
            await self.config.callback_notify()
            await asyncio.sleep(self._notify_every)


def config_of(app: Any, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(app, timeout_graceful_shutdown=LEFTOVER_SECONDS, **{**OPTIONS, **options})
