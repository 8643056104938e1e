"""HTTP/1.1 towards clients: uvicorn's place for a protocol, filled with one that costs half and waits for
nobody.

uvicorn keeps the sockets, the signals and the lifespan; this reads requests and writes answers. Against
uvicorn's own protocol it joins head and first bytes into one write, has deadlines for slow heads and bodies,
bounds heads and unread bodies, and answers what is not HTTP in OpenAI's shape. Parsing is llhttp's, strict.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import chain
from secrets import token_hex
from typing import Any, cast
from urllib.parse import unquote

import httptools
import uvicorn
from typing_extensions import override
from uvicorn.server import ServerState

from llmgateway.domain.errors import InvalidRequest
from llmgateway.edge.asgi import App
from llmgateway.edge.errors import body_of
from llmgateway.edge.exchange import STATUS_LINES, Exchange
from llmgateway.wire.outbox import Outbox

MAX_HEAD, MAX_HEADERS = 16 * 1024, 100
MAX_UNREAD = 16 * 1024 * 1024  # bytes of a body that are read and dropped after the answer
BODY_RATE = 512  # bytes a second: who sends a body slower than that for as long as its deadline is cut off
LARGE_HEAD = f"The head of the request has more than {MAX_HEAD} bytes or {MAX_HEADERS} fields."


class Unacceptable(ValueError):
    """What this server does not read, though a parser may."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ClientConnection(asyncio.Protocol):
    """One client's connection; uvicorn makes it and may ask it to `shutdown`. Deadlines are in seconds: for a
    whole head, for a body that does not come on, between two requests, and for a client to take in its last
    answer."""

    head_seconds, body_seconds, idle_seconds, last_seconds = 10.0, 30.0, 75.0, 5.0
    tick_seconds = 2.5

    __slots__ = (
        "_app", "_app_state", "_client", "_current", "_drained", "_headers", "_is_deaf", "_is_in_head",
        "_is_tls", "_last_read", "_mute", "_outbox", "_parser", "_phase", "_queue", "_read", "_server",
        "_server_state", "_since", "_timer", "_transport", "_unread", "_url", "is_full", "loop",
    )  # fmt: skip

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
        self._outbox: Outbox = app_state.get("outbox") or Outbox(self.loop.call_soon)
        self._server_state = server_state
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._drained: asyncio.Future[None] | None = None
        self._current: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._phase, self._since = "idle", 0.0
        self._mute = self._unread = 0
        self._read = self._last_read = 0  # bytes since, and with, the piece in which the request began
        self._is_in_head = self._is_deaf = False
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
        self._timer = self.loop.call_later(self.tick_seconds, self._tick)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server_state.connections.discard(self)
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
        if self._is_deaf:
            self._drop(len(data))
            return
        if self._phase == "body":
            self._since = min(self.loop.time(), self._since + len(data) / BODY_RATE)
        self._last_read = len(data)
        self._mute += self._last_read
        self._read += self._last_read
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            cause = error.__context__
            if not isinstance(cause, Unacceptable):
                cause = Unacceptable(400, "The request is not valid HTTP.")
            self._refuse(cause)
        if self._mute > MAX_HEAD:  # the parser tells of whole lines only; one without an end would grow in it
            self._refuse(Unacceptable(431, LARGE_HEAD))

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
            self._outbox.put(self._transport, data)

    def _close(self) -> None:
        """What was written goes out first."""
        self._outbox.flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def shutdown(self) -> None:
        """uvicorn is closing: an idle connection ends now, a busy one with its answer."""
        if self._current is not None:
            self._current.keeps_alive = False
        else:
            self._close()

    # --- deadlines ---

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._since = self.loop.time()

    def _tick(self) -> None:
        """A slow head or body, or nothing at all for too long. One lazy timer a connection, precise to its
        period."""
        waited, phase = self.loop.time() - self._since, self._phase
        if (phase == "idle" and waited > self.idle_seconds) or (
            phase == "last" and waited > self.last_seconds
        ):
            self._outbox.flush()
            self.abort()  # what it has not taken in by now it never will
        elif (phase == "head" and waited > self.head_seconds) or (
            phase == "body" and waited > self.body_seconds
        ):
            self._refuse(Unacceptable(408, "The request did not arrive in time."))
        self._timer = self.loop.call_later(self.tick_seconds, self._tick)

    # --- the parser ---

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._mute = 0
        self._read = self._last_read
        self._is_in_head = True
        if self._current is None:
            self._enter("head")

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:  # a trailer is no header
            return
        self._headers.append((name.lower(), value))
        if len(self._headers) > MAX_HEADERS:
            raise Unacceptable(431, LARGE_HEAD)

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        if self._read > MAX_HEAD and len(self._url) + sum(map(len, chain.from_iterable(headers))) > MAX_HEAD:
            raise Unacceptable(431, LARGE_HEAD)
        version = parser.get_http_version()
        if parser.should_upgrade() or version not in ("1.1", "1.0"):
            raise Unacceptable(400, "This server speaks HTTP/1.1 only.")
        _refuse_ambiguity(headers, version)
        self._is_in_head = False
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
            "headers": headers,
            "client": self._client,
            "server": self._server,
            "state": self._app_state.copy(),
        }
        exchange = Exchange(self, scope, keeps_alive=version == "1.1" and parser.should_keep_alive())
        if (b"expect", b"100-continue") in headers:
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
        self._mute = 0
        exchange = self._queue[-1] if self._queue else self._current
        if exchange is None:
            self._drop(len(data))
        else:
            exchange.body_arrived(data)

    def _drop(self, size: int) -> None:
        self._unread += size
        if self._unread > MAX_UNREAD:
            self.abort()

    def on_message_complete(self) -> None:
        self._mute = 0
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
            self._enter("idle")
            self._close() if exchange.is_read else self._part()
        elif self._queue:
            self._start(self._queue.popleft())
            self.resume_reading()
        else:
            self._enter("body" if not exchange.is_read else "head" if self._is_in_head else "idle")
            self._transport.resume_reading()

    def _part(self) -> None:
        """The end after the last answer. Closed while the client is still sending, the connection would be
        reset, and with it the answer that it has not read yet."""
        self._is_deaf = True
        self._unread = 0
        self._queue.clear()
        self._enter("last")
        self._outbox.flush()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.can_write_eof():
            transport.write_eof()
            transport.resume_reading()
        else:
            transport.close()

    def _refuse(self, error: Unacceptable) -> None:
        """What no application has seen. While another answer is under way nothing may be put into it."""
        current = self._current
        if self._transport is None:
            return
        if current is not None and current.is_read:  # what is wrong came after it: answer it first
            self._is_deaf = True
            self._queue.clear()
            current.keeps_alive = False
            self._transport.resume_reading()
            return
        if current is not None:
            current.gone = True
            current.wake()
            if current.started:
                self.abort()
                return
        code = "request_timeout" if error.status == 408 else "invalid_http"
        body = body_of(InvalidRequest(error.message, code=code))
        head = (
            b"%bcontent-type: application/json\r\nx-request-id: %b\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n"
        )
        self.write(head % (STATUS_LINES[error.status], token_hex(16).encode("ascii"), len(body)) + body)
        self._part()


def _refuse_ambiguity(headers: Sequence[tuple[bytes, bytes]], version: str) -> None:
    """What two servers might read as two different requests."""
    named = dict(headers)
    if b"transfer-encoding" in named and not all(
        value.strip().lower() == b"chunked" for name, value in headers if name == b"transfer-encoding"
    ):
        raise Unacceptable(400, "The only transfer coding of this server is 'chunked'.")
    is_twice = len(named) < len(headers) and sum(name == b"host" for name, _ in headers) > 1
    if is_twice or (b"host" not in named and version == "1.1"):
        raise Unacceptable(400, "A request names one host.")


def _target(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, raw path and query of a request's target, which may be an absolute one."""
    if url.startswith(b"/"):
        raw_path, _, query = url.partition(b"?")
    else:
        parsed = httptools.parse_url(url)
        if parsed.schema not in (b"http", b"https"):
            raise Unacceptable(400, "The request's target is neither a path nor an address.")
        raw_path, query = parsed.path or b"/", parsed.query or b""
    path = raw_path.decode("ascii")
    return (unquote(path) if "%" in path else path), raw_path, query
