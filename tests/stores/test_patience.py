"""Time that is up, and time that only seems so to a process that was not run."""

import asyncio
import time

import pytest

from llmgateway.stores.patience import Patience


async def test_time_is_up() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with Patience(0.02):
            await asyncio.Event().wait()
    assert 0.02 <= time.monotonic() - began < 5


async def test_who_is_in_time_goes_on() -> None:
    async with Patience(0.001):
        pass
    await asyncio.sleep(0.01)


async def test_an_answer_that_has_come_is_read_though_nobody_looked_in_time() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"pong")
        await writer.drain()
        time.sleep(0.1)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        async with Patience(0.05):
            writer.write(b"?")
            assert await reader.readexactly(4) == b"pong"
        writer.close()
        await writer.wait_closed()


async def test_who_is_cancelled_is_cancelled() -> None:
    async def wait() -> None:
        async with Patience(10):
            await asyncio.Event().wait()

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
