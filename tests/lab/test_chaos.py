"""The chaos proxy passes everything on when it is clean, and spoils it as told."""

import asyncio
import time

import pytest

from tests.lab.chaos import CLEAN, ChaosProxy, Toxics
from tests.lab.client import Connection, Request, chat, fetch, post, streaming
from tests.lab.upstream import ScriptedUpstream

BROKEN = (OSError, asyncio.IncompleteReadError)


def asking(model: str) -> Request:
    return post(f"/{model}/v1/chat/completions", chat(model, stream=True))


def proxy_url(proxy: ChaosProxy) -> str:
    return f"http://127.0.0.1:{proxy.port}"


async def test_clean_passes_the_same_bytes(upstream: ScriptedUpstream) -> None:
    async with ChaosProxy(upstream.port) as proxy:
        answer = await fetch(proxy_url(proxy), asking("ok-100"))
        assert answer.body == bytes(upstream.calls[0].sent)
        await upstream.closed(1)


@pytest.mark.parametrize("toxics", [Toxics(slice=7), Toxics(bandwidth=200_000), Toxics(latency=0.03)])
async def test_slow_and_sliced_bytes_are_the_same_bytes(upstream: ScriptedUpstream, toxics: Toxics) -> None:
    async with ChaosProxy(upstream.port, toxics) as proxy:
        began = time.monotonic()
        answer = await fetch(proxy_url(proxy), asking("ok-20"))
        assert answer.body == bytes(upstream.calls[0].sent)
        assert time.monotonic() - began >= 2 * toxics.latency


async def test_a_blackhole_takes_and_is_silent(upstream: ScriptedUpstream) -> None:
    async with (
        ChaosProxy(upstream.port, Toxics(blackhole=True)) as proxy,
        streaming(proxy_url(proxy), asking("ok-1")) as connection,
    ):
        await proxy.connected(1)
        assert not await connection.is_closed_by_server(seconds=0.1)
        assert upstream.calls == []
        proxy.toxics = CLEAN
        assert (await connection.head()).status == 200


async def test_resets(upstream: ScriptedUpstream) -> None:
    async with ChaosProxy(upstream.port, Toxics(reset_after=400)) as proxy:
        with pytest.raises(BROKEN):
            await fetch(proxy_url(proxy), asking("ok-100"))
        proxy.toxics = Toxics(refuse=True)
        with pytest.raises(BROKEN):
            await fetch(proxy_url(proxy), asking("ok-1"))
        proxy.toxics = CLEAN
        async with streaming(proxy_url(proxy), asking("stall-after-1")) as connection:
            await connection.head()
            proxy.reset_all()
            with pytest.raises(BROKEN):
                await connection.body()


async def test_it_goes_away_and_comes_back_on_its_port(upstream: ScriptedUpstream) -> None:
    async with ChaosProxy(upstream.port) as proxy:
        url = proxy_url(proxy)
        await proxy.stop()
        with pytest.raises(ConnectionRefusedError):
            await Connection.open(url)
        await proxy.start()
        assert (await fetch(url, asking("ok-1"))).status == 200
