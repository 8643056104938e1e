"""The gateway starts, serves, dies and comes back as the lab runs it, and the lab sees when it is idle."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.lab.client import Request, chat, data_of, post
from tests.lab.gateway import Gateway, serving
from tests.lab.quiescence import baseline_of, returns_to_idle
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually

pytestmark = pytest.mark.e2e

MODELS = ("ok-5", "hold-after-1", "echo-headers")
CHAT = "/v1/chat/completions"


@pytest.fixture
async def gateway(upstream: ScriptedUpstream) -> AsyncIterator[Gateway]:
    async with Gateway.embedded(serving(upstream.url, *MODELS)) as running:
        yield running


def asking(model: str, key: str, *, stream: bool = False) -> Request:
    return post(CHAT, chat(model, stream=stream), key)


async def test_a_call_passes_and_both_ledgers_agree(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    key = await gateway.create_key("alice")
    answer = await gateway.ask(asking("ok-5", key.secret, stream=True))
    assert answer.status == 200, answer.body
    assert data_of(answer.events)[-1] == "[DONE]"
    (record,) = await gateway.ledger(1)
    (call,) = upstream.calls
    assert record["request_id"] == call.request_id == answer.header("x-request-id")
    assert record["tokens"]["prompt"] == call.prompt_tokens
    assert record["tokens"]["completion"] == call.completion_tokens
    assert (record["key_id"], record["user"], record["outcome"]) == (key.id, "alice", "completed")


async def test_it_comes_back_with_keys_and_records_after_sigkill(gateway: Gateway) -> None:
    key = await gateway.create_key()
    assert (await gateway.ask(asking("ok-5", key.secret))).status == 200
    await gateway.ledger(1)
    await gateway.kill()
    assert not await gateway.is_alive()
    await gateway.start()
    assert (await gateway.ask(asking("ok-5", key.secret))).status == 200
    assert len(await gateway.ledger(2)) == 2


async def test_it_stops_in_order(gateway: Gateway) -> None:
    assert await gateway.is_ready()
    assert await gateway.stop() == 0
    await gateway.start()
    assert await gateway.is_ready()


async def test_quiescence_tells_idle_from_busy(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    key = await gateway.create_key()
    await gateway.ask(asking("ok-5", key.secret))
    baseline = await baseline_of(gateway)
    async with await gateway.connect() as connection:
        await connection.send(asking("hold-after-1", key.secret, stream=True))
        await upstream.held(1)
        with pytest.raises(AssertionError, match="1 requests in flight"):
            await returns_to_idle(gateway, baseline, seconds=0.2)
        connection.reset()
    await returns_to_idle(gateway, baseline)
    assert (await upstream.ended(2))[1].ending == "peer_gone"


async def test_a_gateway_that_cannot_start_shows_why(upstream: ScriptedUpstream) -> None:
    broken = Gateway.embedded(serving("not a url", "ok-5"))
    with pytest.raises(pytest.fail.Exception, match="LLM_DEFAULT_URL"):
        async with broken:
            pass


async def test_a_fleet_shares_keys_and_ledger(
    upstream: ScriptedUpstream, redis_url: str, mongo_url: str
) -> None:
    fleet = Gateway.fleet(serving(upstream.url, *MODELS), redis_url=redis_url, mongo_url=mongo_url)
    async with fleet:
        await eventually(lambda: len(fleet.workers) == 2, "both workers run")
        key = await fleet.create_key("bob")
        answers = await asyncio.gather(*(fleet.ask(asking("ok-5", key.secret)) for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        records = await fleet.ledger(20)
        assert {record["request_id"] for record in records} == {call.request_id for call in upstream.calls}
        assert await fleet.stop() == 0
