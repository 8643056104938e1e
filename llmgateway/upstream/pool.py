"""The connections to one origin: kept alive, capped, handed out last-in first-out."""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from llmgateway.domain.catalog import Deadlines
from llmgateway.domain.errors import UpstreamFailed, UpstreamTimeout
from llmgateway.domain.sweep import Sweep, Timed
from llmgateway.upstream.connection import Connection
from llmgateway.upstream.peers import ANYBODY, Trust
from llmgateway.wire.outbox import Outbox

MAX_CONNECTIONS = 4096  # to one origin, from one worker


class Pool:
    """Connections to one origin. A place is held from the first SYN to the end of the socket."""

    def __init__(
        self,
        origin: str,
        sweep: Sweep[Timed],
        now: Callable[[], float],
        *,
        trust: Trust = ANYBODY,
        most: int = MAX_CONNECTIONS,
        outbox: Outbox | None = None,
    ) -> None:
        parts = urlsplit(origin)
        assert parts.hostname is not None
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = trust.tls if parts.scheme == "https" else None
        self._peers = trust.peers
        self._sweep = sweep
        self._now = now
        self._free = most
        self._idle: deque[Connection] = deque()
        self.loop = asyncio.get_running_loop()
        self.outbox = outbox or Outbox(self.loop.call_soon)
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._open: set[Connection] = set()

    def idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:  # else it was broken in this turn of the loop
                return connection
        return None

    async def take(self, deadlines: Deadlines, *, fresh: bool = False) -> Connection:
        """An idle connection, else a new one, else the first that comes free within the pool deadline."""
        if not fresh and (connection := self.idle()) is not None:
            return connection
        if self._free > 0:
            self._free -= 1
        else:
            if fresh and self._idle:
                self._idle.popleft().expire(self._now())
            given = await self._turn(deadlines.pool)
            if given is not None:
                return given if given.is_open else await self.take(deadlines)
        try:
            return await self._connect(deadlines.connect)
        except BaseException:
            self._release_place()
            raise

    async def _turn(self, seconds: float) -> Connection | None:
        """Waits in line for a connection, or for the place to open one (None)."""
        turn: asyncio.Future[Connection | None] = self.loop.create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(seconds):
                return await turn
        except BaseException as error:
            if not turn.done() or turn.cancelled():
                with suppress(ValueError):
                    self._waiting.remove(turn)
            elif (connection := turn.result()) is None:
                self._release_place()  # it came in the moment that we gave up: the next one's
            elif connection.is_open:
                self.give_back(connection)
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout("pool", seconds) from None
            raise

    async def _connect(self, seconds: float) -> Connection:
        loop = self.loop
        try:
            async with asyncio.timeout(seconds):
                transport, connection = await loop.create_connection(
                    lambda: Connection(self, self._sweep, self._now),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except TimeoutError:
            raise UpstreamTimeout("connect", seconds) from None
        except ssl.SSLError as error:
            raise UpstreamFailed(
                f"No trusted connection to the model server: {error.reason or 'TLS failed'}.", reason="tls"
            ) from None
        except (OSError, UnicodeError):  # a name that IDNA cannot encode is no name
            raise UpstreamFailed("The model server cannot be reached.", reason="connect") from None
        if not connection.is_open:
            raise UpstreamFailed("The model server closed the connection at once.", reason="reset")
        if not self._peers.may_be_called(transport.get_extra_info("peername")[0]):
            transport.abort()
            raise UpstreamFailed("The model server has an address that is not called.", reason="address")
        self._open.add(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        if connection in self._open:
            self._open.discard(connection)
            self._release_place()
        if connection in self._idle:
            self._idle.remove(connection)

    def _release_place(self) -> None:
        """To the first in line: whoever comes in between must not take it, too."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def close(self) -> None:
        for connection in list(self._open):
            connection.fail(UpstreamFailed("The gateway is closing.", reason="closing"))

    @property
    def connections(self) -> int:
        return len(self._open)
