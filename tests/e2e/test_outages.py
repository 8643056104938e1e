"""The stores stop and come back: who is known goes on, who is not hears 503, and nothing is lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.e2e.deployment import CHAT
from tests.lab.client import Answer, chat, post
from tests.lab.gateway import ADMIN_KEY, Gateway, IssuedKey, serving
from tests.lab.servers import Mongod, Valkey
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually_answers

pytestmark = pytest.mark.e2e

CONFIG = "drain_pause: 0\nstores: {redis_timeout: 0.3, mongo_timeout: 0.6}\n"
BACK = 30.0  # seconds for a gateway to find a store again


@pytest.fixture
async def fleet(upstream: ScriptedUpstream, own_valkey: Valkey, own_mongod: Mongod) -> AsyncIterator[Gateway]:
    """On stores of its own, one worker: what one worker knows the other would have to be asked for."""
    async with fleet_on(upstream, own_valkey, own_mongod) as running:
        yield running


def fleet_on(upstream: ScriptedUpstream, valkey: Valkey, mongod: Mongod) -> Gateway:
    return Gateway.fleet(
        serving(upstream.url, "ok-1", "ok-3"),
        redis_url=valkey.url(),
        mongo_url=mongod.url("outage"),
        workers=1,
        config=CONFIG,
    )


async def ask(gateway: Gateway, key: IssuedKey, **headers: str) -> Answer:
    return await gateway.ask(post(CHAT, chat("ok-1"), key.secret, **headers))


async def until(question: Callable[[], Awaitable[Answer]], status: int, seconds: float = BACK) -> None:
    async def is_so() -> bool:
        return (await question()).status == status

    await eventually_answers(is_so, f"the answer is {status}", seconds)


async def test_r_fault_20_30_53_both_stores_stop_and_come_back(
    fleet: Gateway, upstream: ScriptedUpstream, own_valkey: Valkey, own_mongod: Mongod
) -> None:
    known, unknown = await fleet.create_key("known"), await fleet.create_key("unknown")
    assert (await ask(fleet, known)).status == 200
    await asyncio.to_thread(own_mongod.stop)
    await asyncio.to_thread(own_valkey.kill)
    for _ in range(20):
        assert (await ask(fleet, known)).status == 200
    refused = await ask(fleet, unknown)
    assert (refused.status, refused.json["error"]["code"]) == (503, "store_unavailable")
    made_up = await fleet.ask(post(CHAT, chat("ok-1"), "lgw_wrong"))
    assert made_up.status == 401, "a key that is none needs no store"
    assert await fleet.is_alive()
    assert await fleet.is_ready(), "it can still authenticate those that it knows"
    down = await fleet.admin("GET", "/keys")
    assert down.status == 503
    await asyncio.to_thread(own_mongod.start)
    await asyncio.to_thread(own_valkey.start)
    await until(lambda: ask(fleet, unknown), 200)
    records = await fleet.ledger(len(upstream.calls), BACK)
    assert sorted(r["request_id"] for r in records) == sorted(str(call.request_id) for call in upstream.calls)


async def test_r_fault_20_only_the_shared_state_stops(fleet: Gateway, own_valkey: Valkey) -> None:
    known, unknown = await fleet.create_key("known"), await fleet.create_key("unknown")
    assert (await ask(fleet, known)).status == 200
    await asyncio.to_thread(own_valkey.kill)
    assert (await ask(fleet, known)).status == 200
    assert (await ask(fleet, unknown)).status == 200, "MongoDB can tell"
    assert await fleet.is_ready()
    await asyncio.to_thread(own_valkey.start)
    made = await fleet.create_key("later")
    await until(lambda: ask(fleet, made), 200)


async def test_r_fault_23_a_flushed_state_loses_nothing(fleet: Gateway, own_valkey: Valkey) -> None:
    keys = [await fleet.create_key(f"user-{number}") for number in range(5)]
    await asyncio.to_thread(own_valkey.restart_empty)
    for key in keys:
        await until(lambda key=key: ask(fleet, key), 200)  # type: ignore[misc]


async def test_r_fault_30_53_the_store_stops_only(
    fleet: Gateway, upstream: ScriptedUpstream, own_mongod: Mongod
) -> None:
    known, unknown = await fleet.create_key("known"), await fleet.create_key("unknown")
    assert (await ask(fleet, known)).status == 200
    await asyncio.to_thread(own_mongod.kill)
    for _ in range(20):
        assert (await ask(fleet, known)).status == 200
    assert (await ask(fleet, unknown)).status == 503
    assert await fleet.is_ready()
    await asyncio.to_thread(own_mongod.start)
    await until(lambda: ask(fleet, unknown), 200)
    records = await fleet.ledger(len(upstream.calls), BACK)
    assert len(records) == len(upstream.calls) == 22


async def test_r_fault_30_53_stores_that_are_absent_at_the_start(
    upstream: ScriptedUpstream, own_valkey: Valkey, own_mongod: Mongod
) -> None:
    """It starts, lives, is not ready, says 503 and never 401; and gets ready when they come."""
    async with fleet_on(upstream, own_valkey, own_mongod) as fleet:
        key = await fleet.create_key("early")
        await fleet.stop()
        await asyncio.to_thread(own_mongod.stop)
        await asyncio.to_thread(own_valkey.kill)
        fleet.program.start()
        await eventually_answers(fleet.is_alive, "it lives", 20)
        assert not await fleet.is_ready()
        assert (await ask(fleet, key)).status == 503
        assert ADMIN_KEY not in fleet.output()
        await asyncio.to_thread(own_mongod.start)
        await asyncio.to_thread(own_valkey.start)
        await eventually_answers(fleet.is_ready, "it is ready", BACK)
        await until(lambda: ask(fleet, key), 200)
        assert len(await fleet.ledger(1)) == 1
