"""The worker class of gunicorn: one process of the fleet, with the gateway's own server in it."""

import asyncio
import os
import signal
import sys
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from typing_extensions import override
from uvicorn_worker import UvicornWorker

from llmgateway.edge.draining import LEFTOVER_SECONDS, DrainingServer
from llmgateway.edge.server import OPTIONS


class GatewayWorker(UvicornWorker):  # type: ignore[misc]  # the package is not typed
    """It tells the arbiter that it lives, also while it drains. SIGQUIT, the quick stop, ends the calls. When
    the arbiter has died nobody looks after its workers: they end as at SIGTERM, and give back the port."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {**OPTIONS, "timeout_graceful_shutdown": LEFTOVER_SECONDS}

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = DrainingServer(self.config, self.wsgi)
        self._server = server
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGQUIT, self._stop_quickly, server)
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    @override
    async def callback_notify(self) -> None:
        self.notify()
        if os.getppid() != self.ppid and not self._server.should_exit:
            self._server.handle_exit(signal.SIGTERM, None)

    @staticmethod
    def _stop_quickly(server: DrainingServer) -> None:
        server.handle_exit(signal.SIGQUIT, None)
        server.handle_exit(signal.SIGQUIT, None)
