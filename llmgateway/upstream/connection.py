"""One HTTP/1.1 connection to a model server, and the answer that is being read from it.

A connection is safe to cancel at any moment because it has two ends only: `close` gives it back when the
answer was read to its last byte and nothing else came, and breaks it in every other case. Nothing in between
is ever reused.
"""

import asyncio
from collections.abc import Callable
from itertools import chain
from typing import Protocol, cast

import httptools
from typing_extensions import override

from llmgateway.domain.catalog import Deadlines
from llmgateway.domain.errors import GatewayError, UpstreamFailed, UpstreamTimeout
from llmgateway.domain.ports import Sink
from llmgateway.domain.sweep import NEVER, Sweep, Timed
from llmgateway.wire.outbox import Outbox

HIGH_WATER = 256 * 1024  # bytes held for a reader that is slow to come back
AT_ONCE = 32 * 1024  # bytes of a request from which on it is written by itself, and its progress waited for
MAX_HEAD = 64 * 1024  # bytes of an answer's headers
IDLE_SECONDS = 30.0  # how long an unused connection is kept
_CLOSED = "The model server closed the connection before its answer was complete."
_LARGE_HEAD = "The model server's headers are too large."
LINGER_SECONDS = 1.0  # how long the end of a body may lag behind the last byte that matters


class Owner(Protocol):
    """The pool that a connection returns to."""

    loop: asyncio.AbstractEventLoop
    outbox: Outbox

    def give_back(self, connection: "Connection") -> None: ...

    def forget(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """Implements `domain.ports.Reply` for the one call that has it."""

    __slots__ = (
        "_blocked", "_complete", "_deadlines", "_drained", "_error", "_expires", "_head_bytes", "_head_done",
        "_heard_at", "_in_use", "_keeps_alive", "_lingers", "_now", "_owner", "_parser", "_parts", "_phase",
        "_room", "_sink", "_size", "_sweep", "_transport", "_waiter", "due", "headers", "on_close", "status",
        "used",
    )  # fmt: skip

    def __init__(self, owner: Owner, sweep: Sweep[Timed], now: Callable[[], float]) -> None:
        self._owner = owner
        self._sweep = sweep
        self._now = now
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self.due = NEVER
        self.used = 0
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.on_close: Callable[[int, GatewayError | None], None] | None = None
        self._parts: list[bytes] = []
        self._size = self._head_bytes = 0
        self._room = HIGH_WATER
        self._sink: Sink | None = None
        self._blocked: object = None
        self._error: GatewayError | None = None
        self._head_done = self._complete = self._keeps_alive = self._lingers = self._in_use = False

    # --- the call's side ---

    def write(self, request: bytes, deadlines: Deadlines) -> None:
        """Begins an exchange; `head` waits for its answer. Raises `UpstreamFailed` when the connection is
        gone."""
        transport = self._transport
        self._in_use = True
        self.used += 1
        if transport is None:
            raise UpstreamFailed(_CLOSED, reason="reset")
        now = self._now()
        self._deadlines = deadlines
        self._expires = now + deadlines.total
        if len(request) < AT_ONCE:
            self._owner.outbox.put(transport, request)
            self._enter("first_byte", now, deadlines.first_byte)
        else:
            transport.write(request)
            self._enter("send", now, deadlines.send)

    async def head(self) -> None:
        """Returns when the head of the answer is there."""
        if self._drained is not None:
            await self._drained
        if self._phase == "send":
            self._enter("first_byte", self._now(), self._deadlines.first_byte)
        while not self._head_done:
            await self._wait()
        if self._error is not None:
            raise self._error
        self._enter("idle", self._heard_at, self._deadlines.idle)

    async def read(self, most: int) -> bytes:
        self._room = max(most, HIGH_WATER)
        if self._size > HIGH_WATER and self._transport is not None:
            self._transport.resume_reading()
        while not self._complete and self._size <= most:
            await self._wait()
        return self._take()

    async def piece(self) -> bytes:
        while not self._parts:
            if self._complete:
                return b""
            await self._wait()
        return self._take()

    async def pour(self, sink: Sink) -> None:
        self._sink = sink
        try:
            self._flush()
            while not self._complete or self._parts or self._blocked is not None:
                if self._blocked is not None:
                    await self._unblock()
                elif not self._lingers:
                    await self._wait()
                else:
                    break
        finally:
            self._sink = None
        if self._error is not None:
            raise self._error

    def enough(self) -> None:
        """The sink has seen all that matters: `pour` returns, and what is left of the body is not waited
        for."""
        self._lingers = True
        self._wake()

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def saw_nothing(self, error: BaseException) -> bool:
        """Whether a request can be sent again: the server had closed the kept connection meanwhile, and
        nothing of an answer has come."""
        is_reset = isinstance(error, UpstreamFailed) and error.reason == "reset"
        return is_reset and self.used > 1 and self._head_bytes == 0

    def close(self) -> None:
        if not self._in_use:
            return
        self._in_use = False
        if self.on_close is not None:
            self.on_close(self.status, self._error)
        if self._transport is None or self._transport.is_closing():
            return
        if self._complete and self._blocked is None and self._size <= HIGH_WATER:  # it still reads
            self._retire()
        elif self._lingers and not self._complete and self._error is None:
            self.due = self._now() + LINGER_SECONDS
            self._parts.clear()
        else:
            self._transport.abort()

    def fail(self, error: GatewayError) -> None:
        """Breaks the connection; the call that waits on it gets `error`."""
        if self._error is None:
            self._error = error
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    # --- deadlines ---

    def _enter(self, phase: str, now: float, seconds: float) -> None:
        self._phase = phase
        self._heard_at = now
        self.due = min(now + seconds, self._expires)

    def expire(self, now: float) -> None:
        if not self._in_use:
            self.due = NEVER
            if self._transport is not None:
                self._transport.abort()
            return
        if self._expires <= now:
            self.fail(UpstreamTimeout("total", self._deadlines.total))
        elif self._phase == "idle" and self._heard_at + self._deadlines.idle > now:
            self.due = min(self._heard_at + self._deadlines.idle, self._expires)
            return
        elif self._blocked is not None:  # it is the client that is slow
            self.due = now + self._deadlines.idle
            return
        else:
            self.fail(UpstreamTimeout(self._phase, getattr(self._deadlines, self._phase)))
        self.due = NEVER

    # --- what the transport says ---

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not asyncio's classes
        self._sweep.add(self)

    @override
    def data_received(self, data: bytes) -> None:
        if not self._in_use and not self._lingers:  # bytes that nobody asked for
            self.fail(
                UpstreamFailed("The model server sent bytes that were not asked for.", reason="protocol")
            )
            return
        self._heard_at = self._now()
        if not self._head_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._distrust("The model server did not speak valid HTTP.")
        if self._head_bytes > MAX_HEAD and not self._head_done:
            self._distrust(_LARGE_HEAD)
        if self._sink is not None and self._parts:
            self._flush()
        elif self._complete and not self._in_use and self._transport is not None:
            self._retire()  # the end of a body that had lagged behind

    @override
    def eof_received(self) -> bool:
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._sweep.discard(self)
        self._owner.forget(self)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self._complete:
            return
        if self._head_done and exc is None and self._error is None and self._ends_with_connection():
            self._complete = True
        elif self._error is None and not self._lingers:
            self._error = UpstreamFailed(_CLOSED, reason="reset")
        self._wake()

    @override
    def pause_writing(self) -> None:
        self._drained = self._owner.loop.create_future()

    @override
    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    # --- what the parser says ---

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # else it is a trailer's, or of an answer that nobody asked for
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue, 103 Early Hints: the answer is still to come
            self.headers.clear()
            return
        if self._head_done:  # a second answer: nobody's, and the connection is not used again
            self._keeps_alive = False
            return
        if self._head_bytes > MAX_HEAD and _size_of(self.headers) > MAX_HEAD:
            self._distrust(_LARGE_HEAD)
            return
        self.status = status
        self._keeps_alive = self._parser.should_keep_alive()
        self._head_done = True
        self._wake()

    def on_body(self, data: bytes) -> None:
        if not self._in_use or self._complete:
            return
        self._parts.append(data)
        self._size += len(data)
        if self._sink is None:
            self._wake()
            if self._size > self._room and self._transport is not None:
                self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._head_done:  # else it was an interim answer
            self._complete = True
            self._wake()

    # --- inside ---

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = waiter = self._owner.loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None
        if self._error is not None:
            raise self._error

    def _distrust(self, message: str) -> None:
        """What comes now is no HTTP: an error while it matters, afterwards only the connection's end."""
        if self._complete or self._lingers:
            self._keeps_alive = False
        else:
            self.fail(UpstreamFailed(message, reason="protocol"))

    def _ends_with_connection(self) -> bool:
        """Whether the answer's body has no other end."""
        return b"content-length" not in self.headers and b"transfer-encoding" not in self.headers

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _take(self) -> bytes:
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        if self._size > HIGH_WATER and self._transport is not None:
            self._transport.resume_reading()
        self._size = 0
        self._room = HIGH_WATER
        return data

    def _flush(self) -> None:
        """Gives the sink what is there; where the client is slow, reading stops until it has caught up."""
        if self._blocked is not None or not self._parts:
            return
        assert self._sink is not None
        try:
            self._blocked = self._sink(self._take())
        except GatewayError as error:
            self.fail(error)
            return
        if self._blocked is not None:
            if self._transport is not None:
                self._transport.pause_reading()
            self._wake()

    async def _unblock(self) -> None:
        await self._blocked  # type: ignore[misc]  # `_wait` may not run: the sink's own wait comes first
        self._blocked = None
        self._heard_at = self._now()  # until now nobody listened
        if self._transport is not None:
            self._transport.resume_reading()
        self._flush()

    def _retire(self) -> None:
        """Back to the pool, clean, or closed."""
        transport = self._transport
        assert transport is not None
        if not self._keeps_alive or self._error is not None:
            transport.close()
            return
        self._reset()
        self.due = self._now() + IDLE_SECONDS
        self._owner.give_back(self)


def _size_of(headers: dict[bytes, bytes]) -> int:
    return sum(map(len, chain.from_iterable(headers.items())))
