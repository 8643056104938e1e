"""The HTTP client towards models: a request to a target, over that origin's pool, with what the answer tells
of its health."""

import ssl
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from llmgateway.domain.catalog import Deadlines, Target
from llmgateway.domain.ports import UpstreamRequest
from llmgateway.domain.sweep import Sweep, Timed
from llmgateway.upstream.connection import Connection
from llmgateway.upstream.health import Replica, Replicas
from llmgateway.upstream.peers import ANYWHERE, Peers, Trust
from llmgateway.upstream.pool import MAX_CONNECTIONS, Pool
from llmgateway.wire.outbox import Outbox

MAX_HEADS = 4096  # prepared request heads; targets times endpoints are far fewer


class UpstreamClient:
    """Implements `domain.ports.Upstream`."""

    def __init__(
        self,
        sweep: Sweep[Timed],
        now: Callable[[], float],
        *,
        peers: Peers = ANYWHERE,
        most: int = MAX_CONNECTIONS,
        outbox: Outbox | None = None,
    ) -> None:
        self._sweep = sweep
        self._now = now
        self._peers = peers
        self._most = most
        self._outbox = outbox
        self._pools: dict[str, Pool] = {}
        self._heads: dict[tuple[str, str | None, str], tuple[Pool, Replica, bytes]] = {}
        self._tls: ssl.SSLContext | None = None
        self.replicas = Replicas(now)

    def order(self, targets: Sequence[Target]) -> Sequence[Target]:
        return self.replicas.order(targets)

    async def send(self, target: Target, request: UpstreamRequest, deadlines: Deadlines) -> Connection:
        pool, replica, head = self._prepared(target, request)
        named = b"x-request-id: %b\r\n" % request.request_id.encode("ascii") if request.request_id else b""
        written = b"%scontent-type: %s\r\n%s%scontent-length: %d\r\n\r\n%s" % (
            head,
            request.content_type,
            named,
            request.trace,
            len(request.body),
            request.body,
        )
        replica.in_flight += 1
        connection: Connection | None = None
        try:
            connection = pool.idle() or await pool.take(deadlines)
            connection.write(written, deadlines)
            await connection.head()
        except BaseException as error:
            if connection is not None:
                connection.close()
            if connection is None or not connection.saw_nothing(error):
                replica.left(error)
                raise
            connection = await self._again(pool, replica, written, deadlines)
        connection.on_close = replica.answered
        return connection

    async def _again(self, pool: Pool, replica: Replica, written: bytes, deadlines: Deadlines) -> Connection:
        """On a connection of its own, after a kept one turned out to be closed."""
        connection: Connection | None = None
        try:
            connection = await pool.take(deadlines, fresh=True)
            connection.write(written, deadlines)
            await connection.head()
        except BaseException as error:
            if connection is not None:
                connection.close()
            replica.left(error)
            raise
        return connection

    def _prepared(self, target: Target, request: UpstreamRequest) -> tuple[Pool, Replica, bytes]:
        key = (target.url, target.credential, request.path)
        prepared = self._heads.get(key)
        if prepared is None:
            if len(self._heads) >= MAX_HEADS:
                self._heads.clear()
            prepared = self._heads[key] = self._prepare(target, request)
        return prepared

    def _prepare(self, target: Target, request: UpstreamRequest) -> tuple[Pool, Replica, bytes]:
        """All of a request's head that does not change from call to call."""
        base = urlsplit(target.url)
        is_beside = "://" in request.path  # such as a tokeniser: that it fails says nothing of the model
        url = urlsplit(request.path) if is_beside else base._replace(path=base.path + request.path)
        place = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        is_home = (url.scheme, url.netloc) == (base.scheme, base.netloc)
        lines = [
            f"{request.method} {place} HTTP/1.1",
            f"host: {url.netloc}",
            "accept: */*",
            "accept-encoding: identity",
            "user-agent: llmgateway",
        ]
        if target.credential and is_home:
            lines.append(f"authorization: Bearer {target.credential}")
        head = "\r\n".join([*lines, ""]).encode("ascii")
        replica = Replica(self._now) if is_beside else self.replicas.of(target)
        return self._pool(f"{url.scheme}://{url.netloc}"), replica, head

    def _pool(self, origin: str) -> Pool:
        if origin not in self._pools:
            if origin.startswith("https:") and self._tls is None:
                self._tls = ssl.create_default_context()
            self._pools[origin] = Pool(
                origin, self._sweep, self._now,
                trust=Trust(self._peers, self._tls), most=self._most, outbox=self._outbox,
            )  # fmt: skip
        return self._pools[origin]

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
