"""HTTP/1.1 towards clients: uvicorn's place for a protocol, filled with one that costs half and waits for
nobody.

uvicorn keeps the sockets, the signals and the lifespan; this reads requests and writes answers. Against
uvicorn's own protocol it joins head and first bytes into one write, has deadlines for slow heads and bodies,
bounds heads and unread bodies, and answers what is not HTTP in OpenAI's shape. Parsing is llhttp's, strict.
"""

import asyncio
import http
import logging
from collections import deque
from typing import Any, cast
from urllib.parse import unquote

import httptools
import uvicorn
from typing_extensions import override
from uvicorn.server import ServerState

from llmgateway.domain.errors import InvalidRequest
from llmgateway.edge.asgi import App, Message, Scope
from llmgateway.edge.errors import body_of

log = logging.getLogger(__name__)

MAX_HEAD, MAX_HEADERS = 16 * 1024, 100
HEAD_SECONDS, BODY_SECONDS, IDLE_SECONDS = 10.0, 30.0, 75.0
TICK_SECONDS = 2.5
HIGH_WATER = 64 * 1024  # bytes of a body that wait for the application
MAX_UNREAD = 16 * 1024 * 1024  # bytes of a body that are read and dropped after the answer

_STATUS_LINES = {
    int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode("ascii") for status in http.HTTPStatus
}


class Exchange:
    """One request and its answer: ASGI's `receive` and `send`."""

    __slots__ = (
        "_body",
        "_body_ended",
        "_body_taken",
        "_chunked",
        "_connection",
        "_continue",
        "_head",
        "_left",
        "_waiter",
        "gone",
        "is_answered",
        "keeps_alive",
        "scope",
        "started",
    )

    def __init__(self, connection: "ClientConnection", scope: Scope, *, keeps_alive: bool) -> None:
        self._connection = connection
        self._body = b""
        self._body_ended = self._body_taken = False
        self._chunked = False
        self._continue = False
        self._head = b""
        self._left = 0
        self._waiter: asyncio.Future[None] | None = None
        self.scope = scope
        self.keeps_alive = keeps_alive
        self.gone = self.started = self.is_answered = False

    # --- the request ---

    def expect_continue(self) -> None:
        self._continue = True

    def body_arrived(self, data: bytes) -> None:
        if not self.is_answered:
            self._body = self._body + data if self._body else data
            self.wake()
            if len(self._body) > HIGH_WATER:
                self._connection.pause_reading()

    def body_ended(self) -> None:
        self._body_ended = True
        self.wake()

    @property
    def is_read(self) -> bool:
        return self._body_ended

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> Message:
        if self._continue:
            self._continue = False
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self._body or self._body_ended) or self._body_taken:
            if self.gone or self.is_answered:
                return {"type": "http.disconnect"}
            self._connection.resume_reading()
            self._waiter = self._connection.loop.create_future()
            await self._waiter
        if self.gone and not self._body_ended:
            return {"type": "http.disconnect"}
        body, self._body = self._body, b""
        self._body_taken = self._body_ended
        return {"type": "http.request", "body": body, "more_body": not self._body_ended}

    # --- the answer ---

    async def send(self, message: Message) -> None:
        connection = self._connection
        if connection.is_full:
            await connection.drained()
        if self.gone:
            return
        if not self.started:
            self._begin(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                data += b"0\r\n\r\n"
        else:
            self._left -= len(body)
            data = body
        if self._head:
            data = self._head + data
            self._head = b""
        connection.write(data)
        if not more:
            self._end()

    def _begin(self, message: Message) -> None:
        """Writes the head when the first piece of the body comes, at the latest in the next turn of the
        loop."""
        self.started = True
        status = message["status"]
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        length: bytes | None = None
        for name, value in (*self._connection.default_headers, *message.get("headers", ())):
            lines.append(b"%b: %b\r\n" % (name, value))
            if name == b"content-length":
                length = value
            elif name == b"connection" and value == b"close":
                self.keeps_alive = False
        if self.scope["method"] == "HEAD" or status in (204, 304):
            length = b"0"
        if length is None:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        else:
            self._left = int(length)
        if not self.keeps_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines):
            raise ValueError("a header of the answer holds a line end")
        self._head = head
        self._connection.loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._head and not self.gone:
            head, self._head = self._head, b""
            self._connection.write(head)

    def _end(self) -> None:
        self.is_answered = True
        if self._left and self.scope["method"] != "HEAD":
            log.error(
                "an answer's length is not the one announced", extra={"fields": {"path": self.scope["path"]}}
            )
            self.keeps_alive = False
        self.wake()
        self._connection.answered(self)

    async def run(self, app: App) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except Exception:
            log.exception("an application failed", extra={"fields": {"path": self.scope["path"]}})
        if (
            not self.is_answered
        ):  # broken off on purpose, or by a failure: the client must not take it for whole
            self._connection.abort()


class ClientConnection(asyncio.Protocol):
    """One client's connection; uvicorn makes it and may ask it to `shutdown`."""

    __slots__ = (
        "_app",
        "_app_state",
        "_client",
        "_current",
        "_drained",
        "_head_size",
        "_headers",
        "_is_tls",
        "_parser",
        "_phase",
        "_queue",
        "_server",
        "_server_state",
        "_since",
        "_timer",
        "_transport",
        "_unread",
        "_url",
        "is_full",
        "loop",
    )

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.loop = _loop or asyncio.get_running_loop()
        self._app = cast(App, config.loaded_app)
        self._app_state = app_state
        self._server_state = server_state
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._drained: asyncio.Future[None] | None = None
        self._current: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._phase, self._since = "idle", 0.0
        self._head_size = self._unread = 0
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self.is_full = False

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        return self._server_state.default_headers

    # --- the transport ---

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own classes only
        self._client = transport.get_extra_info("peername")
        self._server = transport.get_extra_info("sockname")
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        self._enter("head")
        self._timer = self.loop.call_later(TICK_SECONDS, self._tick)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server_state.connections.discard(self)  # type: ignore[arg-type]
        if self._timer is not None:
            self._timer.cancel()
        self.resume_writing()
        for exchange in (self._current, *self._queue):
            if exchange is not None:
                exchange.gone = True
                exchange.wake()
        self._queue.clear()
        del self._parser  # it holds this connection, which holds it

    @override
    def data_received(self, data: bytes) -> None:
        self._since = self.loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, InvalidRequest("This server speaks HTTP/1.1 only.", code="invalid_http"))
        except (httptools.HttpParserError, ValueError):
            self._refuse(400, InvalidRequest("The request is not valid HTTP.", code="invalid_http"))

    @override
    def pause_writing(self) -> None:
        self.is_full = True
        self._drained = self.loop.create_future()

    @override
    def resume_writing(self) -> None:
        self.is_full = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def drained(self) -> None:
        while self.is_full and self._drained is not None:
            await asyncio.shield(self._drained)

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._queue:
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def shutdown(self) -> None:
        """uvicorn is closing: an idle connection ends now, a busy one with its answer."""
        if self._current is not None:
            self._current.keeps_alive = False
        elif self._transport is not None:
            self._transport.close()

    # --- deadlines ---

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._since = self.loop.time()

    def _tick(self) -> None:
        """A slow head or body, or nothing at all for too long. One lazy timer a connection: precise to 2.5
        s."""
        waited = self.loop.time() - self._since
        if self._phase == "idle" and waited > IDLE_SECONDS and self._transport is not None:
            self._transport.close()
        elif (self._phase == "head" and waited > HEAD_SECONDS) or (
            self._phase == "body" and waited > BODY_SECONDS
        ):
            self._refuse(408, InvalidRequest("The request did not arrive in time.", code="request_timeout"))
        self._timer = self.loop.call_later(TICK_SECONDS, self._tick)

    # --- the parser ---

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._head_size = 0
        if self._current is None:
            self._phase = "head"

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._grow(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))
        self._grow(len(name) + len(value))

    def _grow(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD or len(self._headers) > MAX_HEADERS:
            raise ValueError("the head is too large")

    def on_headers_complete(self) -> None:
        parser = self._parser
        version = parser.get_http_version()
        path, raw_path, query = _target(self._url)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": parser.get_method().decode("ascii"),
            "scheme": "https" if self._is_tls else "http",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": self._headers,
            "client": self._client,
            "server": self._server,
            "state": self._app_state.copy(),
        }
        exchange = Exchange(self, scope, keeps_alive=version == "1.1" and parser.should_keep_alive())
        if (b"expect", b"100-continue") in self._headers:
            exchange.expect_continue()
        if self._current is None:
            self._start(exchange)
        else:  # pipelined: answered in its turn
            self._queue.append(exchange)
            self.pause_reading()

    def _start(self, exchange: Exchange) -> None:
        self._current = exchange
        self._unread = 0
        self._phase = "busy" if exchange.is_read else "body"
        task = self.loop.create_task(exchange.run(self._app))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def on_body(self, data: bytes) -> None:
        exchange = self._queue[-1] if self._queue else self._current
        if exchange is None:
            self._unread += len(data)
            if self._unread > MAX_UNREAD:
                self.abort()
        else:
            exchange.body_arrived(data)

    def on_message_complete(self) -> None:
        exchange = self._queue[-1] if self._queue else self._current
        if exchange is not None:
            exchange.body_ended()
        self._phase = "idle" if self._current is None else "busy"

    # --- the end of an exchange ---

    def answered(self, exchange: Exchange) -> None:
        self._current = None
        self._server_state.total_requests += 1
        if self._transport is None:
            return
        if not exchange.keeps_alive:
            self._transport.close()
        elif self._queue:
            self._start(self._queue.popleft())
            self.resume_reading()
        else:
            self._enter("idle" if exchange.is_read else "body")
            self._transport.resume_reading()

    def _refuse(self, status: int, error: InvalidRequest) -> None:
        """What no application has seen. While another answer is under way nothing may be put into it."""
        if self._transport is None:
            return
        if self._current is None or not self._current.started:
            body = body_of(error)
            head = b"%bcontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            self.write(head % (_STATUS_LINES[status], len(body)) + body)
        if self._current is not None:
            self._current.gone = True
            self._current.wake()
        self._transport.close()


def _target(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, raw path and query of a request's target, which may be an absolute one."""
    if url.startswith(b"/"):
        raw_path, _, query = url.partition(b"?")
    else:
        parsed = httptools.parse_url(url)
        raw_path, query = parsed.path or b"/", parsed.query or b""
    path = raw_path.decode("ascii")
    return (unquote(path) if "%" in path else path), raw_path, query
