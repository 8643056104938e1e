import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from llmgateway.edge.draining import DrainingServer, config_of
from tests.lab.client import Request, fetch
from tests.lab.waiting import eventually


class Application:
    """Answers everything, and drains until it is let go or hurried."""

    def __init__(self) -> None:
        self.is_draining = False
        self.hurried = 0
        self.ended = False
        self.over = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.ended = True
        await send({"type": "lifespan.shutdown.complete"})

    async def drain(self) -> None:
        self.is_draining = True
        await self.over.wait()

    def hurry(self) -> None:
        self.hurried += 1
        self.over.set()


class Running:
    """A server in this loop, without its signals."""

    def __init__(self, server: DrainingServer, app: Application, url: str) -> None:
        self.server = server
        self.app = app
        self.url = url
        self.notified = 0

    def signal(self, number: signal.Signals) -> None:
        self.server.handle_exit(number, None)

    async def notify(self) -> None:
        self.notified += 1

    async def answers(self) -> bool:
        try:
            return (await fetch(self.url, Request("GET", "/"))).status == 200
        except OSError:
            return False


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    app = Application()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = config_of(app, loop="asyncio")
        server = DrainingServer(config, app, notify_every=0.01)
        one = Running(server, app, f"http://127.0.0.1:{listener.getsockname()[1]}")
        config.callback_notify = one.notify
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
            serving = tasks.create_task(server._serve([listener]))
            await eventually(lambda: server.started, "it has started")
            try:
                yield one
            finally:
                app.over.set()
                server.should_exit = True
                await serving


async def test_it_serves_while_it_drains_and_says_that_it_lives() -> None:
    async with running() as one:
        one.signal(signal.SIGTERM)
        await eventually(lambda: one.app.is_draining, "it drains")
        before = one.notified
        assert await one.answers()
        await eventually(lambda: one.notified > before + 2, "it gave signs of life")
        one.app.over.set()
        await eventually(lambda: one.app.ended, "it ended")
        assert one.app.hurried == 0
    assert not await one.answers()


async def test_a_second_interrupt_hurries() -> None:
    async with running() as one:
        one.signal(signal.SIGINT)
        await eventually(lambda: one.app.is_draining, "it drains")
        assert one.app.hurried == 0
        one.signal(signal.SIGINT)
        await eventually(lambda: one.app.ended, "it ended, in order")
        assert one.app.hurried == 1


async def test_a_supervisor_that_repeats_itself_hurries_nobody() -> None:
    async with running() as one:
        for _ in range(5):
            one.signal(signal.SIGTERM)
        await eventually(lambda: one.app.is_draining, "it drains")
        assert (one.app.hurried, one.server.force_exit) == (0, False)


async def test_a_third_interrupt_gives_up() -> None:
    async with running() as one:
        one.app.over = asyncio.Event()
        for _ in range(3):
            one.signal(signal.SIGINT)
        assert one.server.force_exit
