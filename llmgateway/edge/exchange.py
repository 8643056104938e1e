"""One request and its answer on a client's connection, as ASGI's `receive` and `send`."""

import asyncio
import http
import logging
from typing import Protocol

from llmgateway.edge.asgi import App, Message, Scope

log = logging.getLogger(__name__)

HIGH_WATER = 64 * 1024  # bytes of a body that wait for the application

STATUS_LINES = {
    int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode("ascii") for status in http.HTTPStatus
}


class Wire(Protocol):
    """The connection that an exchange goes over."""

    loop: asyncio.AbstractEventLoop
    is_full: bool

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]: ...

    def write(self, data: bytes) -> None: ...

    async def drained(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None: ...

    def answered(self, exchange: "Exchange") -> None: ...


class Exchange:
    """One request and its answer: ASGI's `receive` and `send`."""

    __slots__ = (
        "_body", "_body_ended", "_body_taken", "_chunked", "_connection", "_continue", "_head",
        "_is_bodiless", "_left", "_waiter", "gone", "is_answered", "keeps_alive", "scope", "started",
    )  # fmt: skip

    def __init__(self, connection: Wire, scope: Scope, *, keeps_alive: bool) -> None:
        self._connection = connection
        self._body = self._head = b""
        self._body_ended = self._body_taken = False
        self._chunked = self._is_bodiless = False
        self._continue = False
        self._left: int | None = None
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
        if self._continue and not self.started:
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
        if self.gone or self.is_answered:
            return
        if not self.started:
            self._begin(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        data, self._head = self._head + self._framed(body, more=more), b""
        if data:
            connection.write(data)
        if not more:
            self._end()

    def _framed(self, body: bytes, *, more: bool) -> bytes:
        if self._is_bodiless:
            return b""
        if not self._chunked:
            return body if self._left is None else self._measured(body, self._left)
        data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return data if more else data + b"0\r\n\r\n"

    def _measured(self, body: bytes, left: int) -> bytes:
        """No byte more than was announced: it would begin the next answer."""
        self._left = left - len(body)
        return body[:left] if self._left < 0 else body

    def _begin(self, message: Message) -> None:
        """The head waits for the first piece of the body, and goes out with it."""
        self.started = True
        status = message["status"]
        headers = [*self._connection.default_headers, *message.get("headers", ())]
        named = dict(headers)
        if b"connection" in named:
            self.keeps_alive = self.keeps_alive and (b"connection", b"close") not in headers
            headers = [header for header in headers if header[0] != b"connection"]
        self._frame(status, named.get(b"content-length"))
        lines = [b"%b: %b\r\n" % (name, value) for name, value in headers]
        if self._chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keeps_alive:
            lines.append(b"connection: close\r\n")
        first = STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        self._head = head = b"%b%b\r\n" % (first, b"".join(lines))
        if not head.count(b"\n") == head.count(b"\r") == len(lines) + 2:
            raise ValueError("a header of the answer holds a line end")

    def _frame(self, status: int, length: bytes | None) -> None:
        """How the end of the body will be told; HTTP/1.0 knows no chunks, there it is that of the
        connection."""
        if self.scope["method"] == "HEAD" or status in (204, 304):
            self._is_bodiless = True
        elif length is not None:
            self._left = int(length)
        else:
            self._chunked = self.scope["http_version"] == "1.1"

    def _end(self) -> None:
        self.is_answered = True
        if self._left:
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
        if not self.is_answered and not self.gone:
            self._connection.abort()  # broken off: the client must not take it for whole
