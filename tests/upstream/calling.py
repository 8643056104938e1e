"""An `UpstreamClient` whose deadlines are looked at every few milliseconds, and questions for it to ask."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from llmgateway.domain.catalog import Deadlines, Target
from llmgateway.domain.ports import UpstreamRequest
from llmgateway.domain.sweep import Sweep, Timed
from llmgateway.upstream.client import UpstreamClient
from llmgateway.upstream.connection import Connection
from llmgateway.upstream.pool import Pool
from tests.lab.client import chat
from tests.lab.upstream import ScriptedUpstream

PATIENT = Deadlines(pool=5, connect=5, send=5, first_byte=5, idle=5, total=20)
SWEEP_SECONDS = 0.005
MIB = 1 << 20


def question(
    *, stream: bool = False, body: bytes | None = None, path: str = "/chat/completions", **more: Any
) -> UpstreamRequest:
    said = json.dumps(chat("m", stream=stream, **more)).encode() if body is None else body
    return UpstreamRequest("POST", path, b"application/json", said, "call-1")


async def asked(connection: Connection, request: bytes) -> None:
    """Until the head of the answer is there."""
    connection.write(request, PATIENT)
    await connection.head()


@asynccontextmanager
async def sweeping() -> AsyncIterator[Sweep[Timed]]:
    """A sweep that is turned all the time."""
    sweep = Sweep[Timed]()

    async def turn() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            sweep.turn(time.monotonic())

    turning = asyncio.ensure_future(turn())
    try:
        yield sweep
    finally:
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)


class Calls:
    """Calls of one client to the models of one scripted upstream."""

    def __init__(self, upstream: ScriptedUpstream, client: UpstreamClient) -> None:
        self.upstream = upstream
        self.client = client

    def target(self, model: str = "ok", **more: Any) -> Target:
        return Target(url=self.upstream.base_url(model), model=model, **more)

    async def send(
        self, model: str, asked: UpstreamRequest | None = None, deadlines: Deadlines = PATIENT
    ) -> Connection:
        return await self.client.send(self.target(model), asked or question(), deadlines)

    async def whole(
        self, model: str, asked: UpstreamRequest | None = None, deadlines: Deadlines = PATIENT
    ) -> bytes:
        """The body of the answer, read and given back."""
        reply = await self.send(model, asked, deadlines)
        try:
            return await reply.read(16 * MIB)
        finally:
            reply.close()

    async def poured(self, model: str, deadlines: Deadlines = PATIENT) -> bytes:
        """A streamed answer, read like the relay does: after its last word nothing matters."""
        pieces: list[bytes] = []
        reply = await self.send(model, question(stream=True), deadlines)

        def sink(data: bytes) -> None:
            pieces.append(data)
            if b"[DONE]" in data:
                reply.enough()

        try:
            await reply.pour(sink)
        finally:
            reply.close()
        return b"".join(pieces)

    @property
    def pool(self) -> Pool:
        """The only one: all models are at one origin."""
        (pool,) = self.client._pools.values()
        return pool

    @property
    def in_flight(self) -> int:
        return sum(replica.in_flight for replica in self.client.replicas.seen().values())


@asynccontextmanager
async def calling(upstream: ScriptedUpstream, most: int = 64) -> AsyncIterator[Calls]:
    async with sweeping() as sweep:
        client = UpstreamClient(sweep, time.monotonic, most=most)
        try:
            yield Calls(upstream, client)
        finally:
            client.close()
            await asyncio.sleep(0.01)  # the transports that were aborted are gone before the loop is
