"""kill -9 at any moment: every request that the upstream accepted is in the ledger once, and none twice."""

import asyncio
import contextlib
import json
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.e2e.command import run
from tests.e2e.deployment import CHAT
from tests.lab.client import chat, post
from tests.lab.gateway import Gateway, Json, serving
from tests.lab.reservations import nothing_is_reserved
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually, eventually_answers

pytestmark = pytest.mark.e2e

KILLS = [25, pytest.param(300, marks=pytest.mark.soak)]
WORKER_KILLS = [5, pytest.param(700, marks=pytest.mark.soak)]
SEED = 20_261
CALLERS = 6
MODELS = ("ok-5", "ok-5x4ms", "ok-40x3ms", "no-usage")
SHORTEST, LONGEST = 0.02, 0.25  # seconds of load before a kill
QUICK = "drain_pause: 0\ndrain: 5\n"
LIMITED = """
drain_pause: 0
drain: 5
limits:
  default: {tokens_per_day: 1000000000, cost_per_month: 1000000000, requests_per_minute: 1000000, concurrent_requests: 100}
models:
  - id: full
    max_in_flight: 2
    max_waiting: 100
    price: {input: 1, output: 2}
    targets: [{url: "${LLM_DEFAULT_URL}/ok-5x4ms~full/v1"}]
"""  # noqa: E501


class Load:
    """Callers that ask one question after the other, whole and streamed, whatever happens to the gateway."""

    def __init__(
        self, gateway: Gateway, secret: str, dice: random.Random, models: Sequence[str] = MODELS
    ) -> None:
        self._gateway = gateway
        self._secret = secret
        self._dice = dice
        self._models = models
        self._number = 0
        self.answered: list[str] = []

    async def caller(self) -> None:
        while True:
            self._number += 1
            request_id = f"crash-{self._number}"
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                await self._ask(request_id)
            await asyncio.sleep(0.001)

    async def _ask(self, request_id: str) -> None:
        stream = self._dice.random() < 0.7
        question = post(
            CHAT, chat(self._dice.choice(self._models), stream=stream), self._secret, x_request_id=request_id
        )
        async with asyncio.timeout(10):
            answer = await self._gateway.ask(question)
        if answer.status == 200 and (not stream or answer.body.endswith(b"data: [DONE]\n\n")):
            self.answered.append(request_id)


@asynccontextmanager
async def under_load(
    gateway: Gateway, dice: random.Random, models: Sequence[str] = MODELS
) -> AsyncIterator[Load]:
    key = await gateway.create_key("crash")
    load = Load(gateway, key.secret, dice, models)
    callers = [asyncio.ensure_future(load.caller()) for _ in range(CALLERS)]
    try:
        yield load
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)


async def check(gateway: Gateway, upstream: ScriptedUpstream, load: Load) -> list[Json]:
    """The records, when both ledgers agree: one record for each request that was accepted, and the truth in
    those that were answered to the end."""
    accepted = {call.request_id: call for call in upstream.calls}

    async def all_there() -> list[Json]:
        records = await gateway.records(user="crash")
        return records if accepted.keys() <= {record["request_id"] for record in records} else []

    records = await eventually_answers(all_there, f"{len(accepted)} requests are in the ledger", 20)
    assert [name for name, count in Counter(r["request_id"] for r in records).items() if count > 1] == []
    by_request = {record["request_id"]: record for record in records}
    assert {by_request[name]["outcome"] for name in load.answered} <= {"completed", "recovered"}
    for record in records:
        call = accepted.get(record["request_id"])
        if call is not None and record["outcome"] == "completed":
            tokens = record["tokens"]
            assert (tokens["prompt"], tokens["completion"]) == (call.prompt_tokens, call.completion_tokens)
        if record["outcome"] == "recovered":
            assert record["usage_source"] == "estimated"
            assert record["tokens"]["prompt"] > 0
    return records


def verified(gateway: Gateway) -> None:
    """The gateway's own opinion of its ledger."""
    done = run(gateway, "ledger", "verify", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    json.loads(done.stdout)


@pytest.mark.parametrize("kills", KILLS)
async def test_r_fault_43_a_gateway_that_is_killed_again_and_again(
    upstream: ScriptedUpstream, kills: int, figure: Callable[[str], None]
) -> None:
    dice = random.Random(SEED)
    async with Gateway.embedded(serving(upstream.url, *MODELS), config=QUICK) as gateway:
        async with under_load(gateway, dice) as load:
            for _ in range(kills):
                await asyncio.sleep(dice.uniform(SHORTEST, LONGEST))
                await gateway.kill()
                await gateway.start()
        records = await check(gateway, upstream, load)
        assert sum(record["outcome"] == "recovered" for record in records) >= kills // 4, (
            "the kills hit nothing"
        )
        figure(f"{kills} kills, {told_of(records)}, 0 lost, 0 twice")
        await asyncio.to_thread(verified, gateway)
        assert await gateway.stop() == 0
        await asyncio.to_thread(verified, gateway)


@pytest.mark.parametrize("kills", WORKER_KILLS)
async def test_r_fault_43_49_a_fleet_whose_workers_are_killed(
    upstream: ScriptedUpstream, redis_url: str, mongo_url: str, kills: int, figure: Callable[[str], None]
) -> None:
    """Afterwards nothing is reserved, and what Redis has counted is what the ledger says."""
    dice = random.Random(SEED)
    fleet = Gateway.fleet(
        serving(upstream.url, *MODELS), redis_url=redis_url, mongo_url=mongo_url, config=LIMITED
    )
    async with fleet:
        await eventually(lambda: len(fleet.workers) == 2, "both workers run")
        async with under_load(fleet, dice, (*MODELS, "full")) as load:
            for _ in range(kills):
                await asyncio.sleep(dice.uniform(SHORTEST, LONGEST))
                await kill_one(fleet, dice)
        records = await check(fleet, upstream, load)
        assert any(record["outcome"] == "recovered" for record in records), "the kills hit nothing"
        await counters_agree(redis_url, fleet)
        figure(f"{kills} kills, {told_of(records)}, 0 lost, 0 twice, 0 reserved, sums to the unit")
        await asyncio.to_thread(verified, fleet)
        assert await fleet.stop() == 0
        await asyncio.to_thread(verified, fleet)


def told_of(records: list[Json]) -> str:
    recovered = sum(record["outcome"] == "recovered" for record in records)
    return f"{len(records)} records of which {recovered} recovered"


async def counters_agree(redis_url: str, fleet: Gateway) -> None:
    """0 open reservations, and sums that are the ledger's to the unit."""
    counted = await nothing_is_reserved(redis_url)

    async def in_ledger() -> tuple[int, int]:
        records = await fleet.records(user="crash")
        tokens = sum(record["tokens"]["prompt"] + record["tokens"]["completion"] for record in records)
        return tokens, sum(record["cost"] for record in records)

    async def agree() -> bool:
        """The last hang-ups are noticed, and shipped, some tenths of a second later."""
        return await in_ledger() == (counted.tokens["user:crash"], counted.cost["user:crash"])

    try:
        await eventually_answers(agree, "the sums are the ledger's", 10)
    except AssertionError:
        raise AssertionError(f"counted {counted}, in the ledger {await in_ledger()}") from None


async def kill_one(fleet: Gateway, dice: random.Random) -> None:
    """SIGKILL for one worker; returns when another has taken its place."""
    victim = dice.choice(fleet.workers)
    os.kill(victim, signal.SIGKILL)
    await eventually(lambda: victim not in fleet.workers and len(fleet.workers) == 2, "a new worker runs", 10)
