import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llmgateway.domain.catalog import Model, Target
from llmgateway.domain.ports import SystemClock
from llmgateway.domain.sweep import Sweep, Timed
from llmgateway.jobs.background import Background
from llmgateway.jobs.probe import KEPT_SECONDS, Capabilities, keep_probing, says_vllm
from llmgateway.upstream.client import UpstreamClient
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually

LISTED = b'{"object":"list","data":[{"id":"m","owned_by":"vllm"}]}'


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def client() -> UpstreamClient:
    return UpstreamClient(Sweep[Timed](), SystemClock.monotonic)


def model(url: str, *, continuous_usage: bool | None = None) -> Model:
    return Model(id="m", targets=(Target(url=url, model="m", continuous_usage=continuous_usage),))


@asynccontextmanager
async def vllm() -> AsyncIterator[str]:
    """A server that lists its models as vLLM does; gives its base address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"GET /v1/models HTTP/1.1\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(LISTED), LISTED))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@pytest.mark.parametrize(
    ("body", "is_vllm"),
    [
        (b'{"object":"list","data":[{"id":"m","owned_by":"vllm"}]}', True),
        (b'{"data":[{"id":"a","owned_by":"me"},{"id":"m","owned_by":"vllm"}]}', True),
        (b'{"data":[{"id":"m","owned_by":"lab"}]}', False),
        (b'{"data":{}}', False),
        (b'{"data":[1,null]}', False),
        (b"[]", False),
        (b"<html>", False),
        (b"\xff", False),
    ],
)
def test_vllm_is_known_by_its_list(body: bytes, is_vllm: bool) -> None:
    assert says_vllm(body) is is_vllm


async def test_vllm_is_found_out_and_told_of() -> None:
    async with vllm() as url:
        capabilities, models = Capabilities(client(), Hand()), [model(url)]
        assert await capabilities.probe(models)
        assert capabilities.applied(models)[0].targets[0].continuous_usage is True


async def test_another_server_is_asked_once_and_again_when_the_answer_is_old(
    upstream: ScriptedUpstream,
) -> None:
    now = Hand()
    capabilities = Capabilities(client(), now)
    models = [model(f"{upstream.url}/ok/v1")]
    assert not await capabilities.probe(models)  # nothing new: without an answer nothing is assumed either
    (found,) = capabilities.applied(models)
    assert found.targets[0].continuous_usage is False
    assert not await capabilities.probe(models)
    assert upstream.accepted_connections == 1
    now.now += KEPT_SECONDS
    await capabilities.probe(models)
    assert upstream.accepted_connections >= 1


async def test_what_is_configured_is_not_asked_for() -> None:
    capabilities = Capabilities(client(), Hand())
    echo = Model(id="e", targets=(Target(provider="echo", url="", model="e"),))
    models = [model("http://127.0.0.1:9/v1", continuous_usage=True), echo]
    assert not await capabilities.probe(models)
    assert capabilities.applied(models) == models


async def test_one_that_does_not_answer_stays_unknown() -> None:
    capabilities = Capabilities(client(), Hand())
    models = [model("http://127.0.0.1:9/v1")]
    assert not await capabilities.probe(models)
    assert capabilities.applied(models) == models


async def test_the_first_round_is_at_once(upstream: ScriptedUpstream) -> None:
    capabilities = Capabilities(client(), SystemClock.monotonic)
    models = [model(f"{upstream.url}/ok/v1")]
    async with Background() as background:
        background.begin(keep_probing(capabilities, lambda: models, lambda: None))
        await eventually(lambda: capabilities.applied(models) != models, "it was asked")
