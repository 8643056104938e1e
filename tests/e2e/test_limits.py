"""Limits as callers meet them: exact over all workers and processes, and never off while a store is away."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from tests.e2e.deployment import CHAT
from tests.lab.client import Answer, Connection, Request, chat, post
from tests.lab.gateway import Gateway, IssuedKey, serving
from tests.lab.oracle import books_agree
from tests.lab.servers import Mongod, Valkey
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually_answers

pytestmark = pytest.mark.e2e

LANES = 40  # connections over which many requests go
PATIENCE = 0.3  # seconds that a Redis may take
MINUTE = "drain_pause: 0\nlimits: {default: {requests_per_minute: 100}}\n"
OUTAGE = f"""
drain_pause: 0
stores: {{redis_timeout: {PATIENCE}, mongo_timeout: 0.6}}
limits: {{default: {{requests_per_minute: 1000, concurrent_requests: 50}}}}
"""
BACK = 30.0  # seconds to find a store again


async def lane(gateway: Gateway, question: Request, count: int) -> list[Answer]:
    async with await gateway.connect() as connection:
        return [await connection.ask(question) for _ in range(count)]


async def offered(gateways: Sequence[Gateway], question: Request, count: int) -> Counter[int]:
    """The statuses of so many requests, over many connections to all gateways in turn."""
    lanes = (lane(gateways[n % len(gateways)], question, count // LANES) for n in range(LANES))
    return Counter(answer.status for answers in await asyncio.gather(*lanes) for answer in answers)


async def two_processes(
    stack: AsyncExitStack, upstream: ScriptedUpstream, redis_url: str, mongo_url: str, config: str
) -> list[Gateway]:
    """Two gateways of two workers each on the same stores."""
    environment = serving(upstream.url, "ok-1", "ok-5")
    made = [
        Gateway.fleet(environment, redis_url=redis_url, mongo_url=mongo_url, config=config) for _ in range(2)
    ]
    return list(await asyncio.gather(*(stack.enter_async_context(each) for each in made)))


async def test_r_acc_08_a_hundred_a_minute_over_four_workers(
    upstream: ScriptedUpstream, redis_url: str, mongo_url: str
) -> None:
    """Also for a user of whom nobody had heard before."""
    async with AsyncExitStack() as stack:
        gateways = await two_processes(stack, upstream, redis_url, mongo_url, MINUTE)
        key = (await gateways[0].create_key("alice")).secret
        statuses = await offered(gateways, post(CHAT, chat("ok-1"), key), 1000)
        assert statuses == {200: 100, 429: 900}
        assert len(upstream.calls) == 100
        assert len(await books_agree(gateways[0], upstream)) == 100


async def test_r_acc_08_a_balance_for_three_and_fifty_at_once_over_four_workers(
    upstream: ScriptedUpstream, redis_url: str, mongo_url: str
) -> None:
    config = "drain_pause: 0\nlimits: {default: {tokens_per_day: 24}}\n"
    async with AsyncExitStack() as stack:
        gateways = await two_processes(stack, upstream, redis_url, mongo_url, config)
        key = (await gateways[0].create_key("alice")).secret
        question = post(CHAT, chat("ok-5", max_tokens=5), key)  # three of the prompt, five of the answer
        connections = [await gateways[n % 2].connect() for n in range(50)]
        answers = await asyncio.gather(*(connection.ask(question) for connection in connections))
        assert Counter(answer.status for answer in answers) == {200: 3, 429: 47}
        for connection in connections:
            connection.close()
        assert (await gateways[1].ask(question)).status == 429
        records = await books_agree(gateways[0], upstream)
        assert sum(r["tokens"]["prompt"] + r["tokens"]["completion"] for r in records) == 24


# --- while a store is away


class Caller:
    """One connection of a known user, with the time that each answer took."""

    def __init__(self, connection: Connection, key: IssuedKey) -> None:
        self._connection = connection
        self._question = post(CHAT, chat("ok-1"), key.secret)

    async def timed(self, count: int) -> list[float]:
        """How long each of so many requests took; all must be served."""
        took = []
        for _ in range(count):
            began = time.perf_counter()
            answer = await self._connection.ask(self._question)
            took.append(time.perf_counter() - began)
            assert answer.status == 200, answer.body
        return took


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def limited(upstream: ScriptedUpstream, valkey: Valkey, mongod: Mongod, config: str = OUTAGE) -> Gateway:
    return Gateway.fleet(
        serving(upstream.url, "ok-1"), redis_url=valkey.url(), mongo_url=mongod.url("limited"), workers=1,
        config=config,
    )  # fmt: skip


@pytest.mark.alone
async def test_r_fault_20_21_23_53_redis_frozen_dead_and_empty_with_limits_on(
    upstream: ScriptedUpstream, own_valkey: Valkey, own_mongod: Mongod
) -> None:
    """One wait of one timeout, then no delay; and no valid key is refused at any moment."""
    async with limited(upstream, own_valkey, own_mongod) as gateway:
        known, unknown = await gateway.create_key("known"), await gateway.create_key("unknown")
        async with await gateway.connect() as connection:
            caller = Caller(connection, known)
            await caller.timed(5)
            quiet = median(await caller.timed(40))
            own_valkey.freeze()
            try:
                (first,) = await caller.timed(1)
                frozen = median(await caller.timed(40))
                assert await gateway.is_alive()
                assert await gateway.is_ready()
                assert (await gateway.ask(post(CHAT, chat("ok-1"), unknown.secret))).status == 200
            finally:
                own_valkey.thaw()
            assert first < 2 * PATIENCE + quiet, "one timeout for the key's state, at most one for the limit"
            assert frozen - quiet < 0.005
            own_valkey.kill()
            dead = median(await caller.timed(40))
            assert dead - quiet < 0.005
            await asyncio.to_thread(own_valkey.start)  # it has forgotten everything
            await caller.timed(40)
            for key in [await gateway.create_key("later"), unknown]:
                assert (await gateway.ask(post(CHAT, chat("ok-1"), key.secret))).status == 200
            await eventually_answers(lambda: up(gateway, "redis"), "Redis is used again", BACK)
            await caller.timed(20)
        await books_agree(gateway, upstream)


async def up(gateway: Gateway, store: str) -> bool:
    samples = await gateway.metrics()
    return any(value == 1 for name, value in samples.items() if "store_up" in name and store in name)


async def test_r_fault_20_23_limits_hold_by_local_share_and_by_the_ledger_afterwards(
    upstream: ScriptedUpstream, own_valkey: Valkey, own_mongod: Mongod
) -> None:
    """Without Redis a lone worker's share is all of the limit: never more, and never nothing."""
    config = "drain_pause: 0\nstores: {redis_timeout: 0.3}\nlimits: {default: {tokens_per_day: 400}}\n"
    async with limited(upstream, own_valkey, own_mongod, config) as gateway:
        question = post(CHAT, chat("ok-1", max_tokens=1), (await gateway.create_key("alice")).secret)
        assert await offered([gateway], question, 40) == {200: 40}
        own_valkey.kill()
        while_away = await offered([gateway], question, 200)
        assert while_away[200] + while_away[429] == 200
        assert while_away[200] <= 60
        assert while_away[200] >= 30, "it knows at least half of what was left"
        await asyncio.to_thread(own_valkey.start)
        await eventually_answers(lambda: up(gateway, "redis"), "Redis is used again", BACK)
        await books_agree(gateway, upstream)
        afterwards = await offered([gateway], question, 200)
        served = 40 + while_away[200] + afterwards[200]
        assert served == 100, "what was counted alone is counted for all"
        await books_agree(gateway, upstream)


@pytest.mark.alone
async def test_r_fault_30_31_53_mongodb_frozen_and_dead_with_limits_on(
    upstream: ScriptedUpstream, own_valkey: Valkey, own_mongod: Mongod
) -> None:
    """The way of a request does not lead through MongoDB, and what it missed is shipped once it is back."""
    async with limited(upstream, own_valkey, own_mongod) as gateway:
        known = await gateway.create_key("known")
        async with await gateway.connect() as connection:
            caller = Caller(connection, known)
            await caller.timed(5)
            quiet = median(await caller.timed(40))
            own_mongod.freeze()
            try:
                frozen = await caller.timed(60)
                assert await gateway.is_alive()
                assert await gateway.is_ready()
            finally:
                own_mongod.thaw()
            assert median(frozen) - quiet < 0.005
            await asyncio.to_thread(own_mongod.kill)
            dead = await caller.timed(60)
            assert median(dead) - quiet < 0.005
            await asyncio.to_thread(own_mongod.start)
            await caller.timed(20)

        async def is_back() -> bool:
            return all([(await gateway.admin("GET", "/requests?limit=1")).status == 200 for _ in range(4)])

        await eventually_answers(is_back, "both workers have MongoDB again", BACK)
        records = await books_agree(gateway, upstream, BACK)
        assert len(records) == 5 + 40 + 60 + 60 + 20
