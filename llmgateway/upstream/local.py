"""An answer that is made inside the gateway, read and poured like one that came over a socket."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from llmgateway.domain.catalog import Deadlines, Target
from llmgateway.domain.errors import GatewayError
from llmgateway.domain.ports import Reply, Sink, Upstream, UpstreamRequest


class LocalReply:
    """Implements `domain.ports.Reply`. It gives the event loop a turn between two pieces, as a network does:
    a long stream stops nobody, and a hang-up is seen. `pause` is in seconds, and not before the first."""

    __slots__ = ("_error", "_is_enough", "_next_pause", "_pause", "_pieces", "headers", "status")

    def __init__(
        self, status: int, headers: Mapping[bytes, bytes], pieces: Iterable[bytes], pause: float = 0.0
    ) -> None:
        self.status = status
        self.headers = dict(headers)
        self._pieces = deque(piece for piece in pieces if piece)
        self._error: GatewayError | None = None
        self._is_enough = False
        self._pause, self._next_pause = pause, 0.0

    async def read(self, most: int) -> bytes:
        self._check()
        data = b""
        while self._pieces and len(data) <= most:
            data += self._pieces.popleft()
        return data

    async def piece(self) -> bytes:
        await asyncio.sleep(self._next_pause if self._pieces else 0)
        self._next_pause = self._pause
        self._check()
        return self._pieces.popleft() if self._pieces else b""

    async def pour(self, sink: Sink) -> None:
        while not self._is_enough and (data := await self.piece()):
            blocked = sink(data)
            if blocked is not None:
                await blocked
        self._check()

    def enough(self) -> None:
        self._is_enough = True

    def fail(self, error: GatewayError) -> None:
        if self._error is None:
            self._error = error
        self._pieces.clear()

    def close(self) -> None:
        self._pieces.clear()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


class WithLocal:
    """Implements `domain.ports.Upstream`: providers of `local` answer here, all others over their sockets."""

    def __init__(
        self, upstream: Upstream, local: Mapping[str, Callable[[UpstreamRequest], LocalReply]]
    ) -> None:
        self.order = upstream.order
        self._send = upstream.send
        self._local = local

    def send(
        self, target: Target, request: UpstreamRequest, deadlines: Deadlines
    ) -> Coroutine[Any, Any, Reply]:
        """Not a coroutine itself: a call to a server pays for a look-up only."""
        answer = self._local.get(target.provider)
        return self._send(target, request, deadlines) if answer is None else _at_once(answer(request))


async def _at_once(reply: Reply) -> Reply:
    return reply
