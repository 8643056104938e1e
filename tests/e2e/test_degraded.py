"""A part that is away, slow or empty: calls pass, limits hold, and it is told once: a line and a metric."""

import json
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from tests.e2e.deployment import CHAT
from tests.lab.chaos import ChaosProxy, Toxics
from tests.lab.client import Request, chat, post
from tests.lab.gateway import Gateway, Json, serving
from tests.lab.oracle import books_agree
from tests.lab.servers import Mongod, Valkey
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually_answers

pytestmark = pytest.mark.e2e

CONFIG = """
drain_pause: 0
stores: {redis_timeout: 0.3, mongo_timeout: 0.6}
limits:
  default: {tokens_per_day: 4000, concurrent_requests: 50}
models:
  - id: full
    max_in_flight: 20
    targets: [{url: "${LLM_DEFAULT_URL}/ok-1~full/v1"}]
  - id: uncounted
    targets: [{url: "${LLM_DEFAULT_URL}/ok-1~uncounted/v1"}]
"""
CALLS = 300
FLOOD = 1024  # bytes of log for each call
BACK = 30.0  # seconds to find a store again
MOST_LINES = 4  # warnings of one outage, from all parts that feel it
ON_THE_WAY = 5  # records, where calls come one after the other


@pytest.fixture
async def fleet(upstream: ScriptedUpstream, own_valkey: Valkey, own_mongod: Mongod) -> AsyncIterator[Gateway]:
    async with fleet_on(upstream, own_valkey.url(), own_mongod.url("degraded")) as running:
        yield running


def fleet_on(upstream: ScriptedUpstream, redis_url: str, mongo_url: str) -> Gateway:
    environment = serving(upstream.url, "ok-1")
    return Gateway.fleet(environment, redis_url=redis_url, mongo_url=mongo_url, workers=1, config=CONFIG)


async def health(gateway: Gateway) -> Json:
    found: Json = (await gateway.get("/health")).json
    return found


async def asked(gateway: Gateway, question: Request, count: int) -> tuple[Counter[int], list[float]]:
    """The statuses of so many calls, one after the other on one connection, and how long each took."""
    took, statuses = [], Counter[int]()
    async with await gateway.connect() as connection:
        for _ in range(count):
            began = time.perf_counter()
            statuses[(await connection.ask(question)).status] += 1
            took.append(time.perf_counter() - began)
    return statuses, took


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def warnings(output: str) -> list[str]:
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [line["message"] for line in lines if line.get("level") in ("warning", "error")]


@pytest.mark.parametrize("store", ["redis", "mongodb"])
async def test_r_load_15_r_fault_21_31_53_a_frozen_store_is_told_once(
    fleet: Gateway, upstream: ScriptedUpstream, own_valkey: Valkey, own_mongod: Mongod, store: str
) -> None:
    """Of three hundred calls none fails or adds a line of warning."""
    question = post(CHAT, chat("full", max_tokens=1), (await fleet.create_key("alice")).secret)
    assert (await asked(fleet, question, 5))[0] == {200: 5}
    assert (await health(fleet))["degraded"] == []
    before = len(fleet.output())
    server = own_valkey if store == "redis" else own_mongod
    server.freeze()
    try:
        statuses, _ = await asked(fleet, question, CALLS)
        assert statuses == {200: CALLS}

        async def is_told() -> bool:
            told: list[str] = (await health(fleet))["degraded"]
            return store in told

        await eventually_answers(is_told, "it is told", 10)
        now = await health(fleet)
        assert (now["status"], now["live"], now["ready"]) == ("degraded", True, True)
        assert (await fleet.metrics())[f'llmgateway_store_up{{store="{store}"}}'] == 0
        told = fleet.output()[before:]
    finally:
        server.thaw()
    assert 1 <= len(warnings(told)) <= MOST_LINES, warnings(told)
    assert len(told) < CALLS * FLOOD

    async def is_well() -> bool:
        return not (await health(fleet))["degraded"]

    await eventually_answers(is_well, "all is well again", BACK)
    assert (await fleet.metrics())[f'llmgateway_store_up{{store="{store}"}}'] == 1
    assert (await asked(fleet, question, 5))[0] == {200: 5}
    await books_agree(fleet, upstream, BACK)


async def test_r_fault_23_a_flush_amid_work_changes_no_limit(
    fleet: Gateway, upstream: ScriptedUpstream, own_valkey: Valkey
) -> None:
    """Keys, limits set by operators, and what was used: all comes from MongoDB again, but for what ended in
    the tenth of a second before and is still on its way there."""
    key = await fleet.create_key("alice")
    assert (await fleet.admin("PUT", "/limits/user/alice", {"tokens_per_day": 400})).status in (200, 201)
    question = post(CHAT, chat("ok-1", max_tokens=1), key.secret)  # four tokens

    async def is_limited() -> bool:
        answer = await fleet.ask(question)
        return answer.header("x-ratelimit-limit-tokens") == "400"

    await eventually_answers(is_limited, "the limit holds", 5)
    spent = len(await books_agree(fleet, upstream))
    assert (await asked(fleet, question, 40))[0] == {200: 40}
    await books_agree(fleet, upstream)
    own_valkey.restart_empty()
    statuses, _ = await asked(fleet, question, 150)
    beyond = statuses[200] - (60 - spent)
    assert 0 <= beyond <= ON_THE_WAY
    assert statuses[429] == 150 - statuses[200]
    assert len(await books_agree(fleet, upstream)) == 100 + beyond


@pytest.mark.alone
async def test_r_fault_17_a_tokeniser_that_hangs_costs_one_wait(
    fleet: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.tokenizer("ok-1~uncounted", "hang")
    question = post(CHAT, chat("uncounted", max_tokens=1), (await fleet.create_key("alice")).secret)
    statuses, took = await asked(fleet, question, 40)
    assert statuses == {200: 40}
    assert took[0] < 1
    assert median(took[1:]) < 0.05
    await books_agree(fleet, upstream)


@pytest.mark.alone
async def test_r_fault_22_slow_stores_delay_no_more_than_they_must(
    upstream: ScriptedUpstream, own_valkey: Valkey, own_mongod: Mongod
) -> None:
    """MongoDB is not on a call's way. Redis is, once each; it is slow, not away, so nothing is degraded."""
    slow = Toxics(latency=0.02)
    async with ChaosProxy(own_valkey.port) as redis, ChaosProxy(own_mongod.port) as mongo:
        mongo_url = f"mongodb://127.0.0.1:{mongo.port}/slow?directConnection=true"
        async with fleet_on(upstream, f"redis://127.0.0.1:{redis.port}/0", mongo_url) as gateway:
            question = post(CHAT, chat("ok-1", max_tokens=1), (await gateway.create_key("alice")).secret)
            _, took = await asked(gateway, question, 40)
            usual = median(took[5:])
            mongo.toxics = slow
            statuses, took = await asked(gateway, question, 40)
            assert statuses == {200: 40}
            assert median(took) - usual < 0.005
            redis.toxics = slow
            statuses, took = await asked(gateway, question, 40)
            assert statuses == {200: 40}
            assert median(took) - usual < 0.1, "there and back, twice at most"
            assert (await health(gateway))["degraded"] == []
            redis.toxics = mongo.toxics = Toxics()
            await books_agree(gateway, upstream, BACK)
