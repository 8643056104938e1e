"""An application that does what a test says, behind the gateway's protocol on uvicorn's server."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import uvicorn

from llmgateway.edge.asgi import App, Receive, Scope, Send
from llmgateway.edge.protocol import ClientConnection
from tests.lab.client import Connection
from tests.lab.waiting import eventually

Behaviour = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class Impatient(ClientConnection):
    """Deadlines that a test can wait for."""

    head_seconds, body_seconds, idle_seconds, last_seconds = 0.2, 0.3, 0.3, 0.2
    tick_seconds = 0.02


class Application:
    """`begun` are the requests whose head arrived, `whole` those that were read to their end, with their
    bodies. What has no behaviour of its own is read and echoed."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.begun: list[Scope] = []
        self.whole: list[tuple[Scope, bytes]] = []
        self.left: list[str] = []
        self.behaviours: dict[str, Behaviour] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun.append(scope)
        await self.behaviours.get(scope["path"], self.echo)(scope, receive, send)

    async def echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self.body(scope, receive)
        if body is not None:
            await answer(send, b"%b %b %b" % (scope["method"].encode(), scope["raw_path"], body))

    async def body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body, None when the client went before its end."""
        pieces: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.append(scope["path"])
                return None
            pieces.append(message["body"])
            if not message["more_body"]:
                self.whole.append((scope, b"".join(pieces)))
                return self.whole[-1][1]


async def answer(send: Send, body: bytes, status: int = 200, headers: Headers | None = None) -> None:
    named = [(b"content-length", b"%d" % len(body))] if headers is None else headers
    await send({"type": "http.response.start", "status": status, "headers": named})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(app: App, protocol: type[ClientConnection]) -> AsyncIterator[str]:
    """The server's address."""
    config = uvicorn.Config(
        app,
        http=protocol,
        lifespan="off",
        log_config=None,
        server_header=False,
        date_header=False,
        access_log=False,
    )
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        running = asyncio.ensure_future(server.serve([listener]))
        await eventually(lambda: server.started, "the server listens")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = server.force_exit = True
        await running


async def said(connection: Connection, seconds: float = 5) -> bytes:
    """All that the server says until it closes; who still writes then may see the connection reset."""
    heard = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(seconds):
            while piece := await connection.reader.read(65536):
                heard += piece
    return heard
