"""The plan stands on figures that are measured, and its page on the plan."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pymongo import MongoClient
from redis.asyncio import Redis

from llmgateway.stores.limits.limiter_turn import EPOCH
from tests.capacity.ledger import bytes_of_a_record
from tests.capacity.plan import GIB, Load, Measured, Prices, Shape, plan
from tests.capacity.spread import fullest, hashed, slot_of, written
from tests.capacity.tables import PAGE, TABLES, with_tables
from tests.deploy.policy import REST_MIB, WORKER_MIB
from tests.e2e.deployment import CHAT
from tests.lab.client import chat, post
from tests.lab.gateway import Gateway
from tests.lab.servers import Mongod

GOAL = plan(Load(), Measured(), Shape(), Prices())


@pytest.fixture
def fresh(own_mongod: Mongod) -> Iterator[MongoClient[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](own_mongod.url()) as client:
        yield client


def test_the_page_is_the_plan_s() -> None:
    """`python -m tests.capacity` writes it."""
    text = PAGE.read_text()
    assert with_tables(text, TABLES) == text


def test_the_bytes_of_a_record(fresh: MongoClient[dict[str, Any]]) -> None:
    """Fewer records than those of the figures, whose pages are less full: so within a third."""
    record, indexes = bytes_of_a_record(fresh["ledger"], 20_000)
    assert record == pytest.approx(Measured().record_bytes, rel=0.33)
    assert sum(indexes.values()) == pytest.approx(Measured().index_bytes, rel=0.33)


def test_the_goal_fits() -> None:
    assert GOAL.workers * Measured().worker_streams >= Load().streams
    assert GOAL.processors / GOAL.workers <= Shape().busy
    assert GOAL.pods <= 12, "what the autoscaler may"
    assert GOAL.pod_bytes < GIB, "the memory of a pod"
    assert GOAL.redis_share < 0.1
    assert GOAL.outage > 3 * 86_400, "a long weekend without MongoDB"


def test_the_plan_and_the_manifests_reckon_alike() -> None:
    measured = Measured()
    assert measured.worker_bytes / 2**20 <= REST_MIB
    assert (measured.worker_bytes + 2 * measured.worker_streams * measured.stream_bytes) / 2**20 <= WORKER_MIB


def test_more_of_anything_never_needs_less() -> None:
    for change in ({"requests": 1e9}, {"streams": 20_000}, {"days": 800}):
        more = plan(replace(Load(), **change), Measured(), Shape(), Prices())
        assert (more.workers, more.shards, more.cost) >= (GOAL.workers, GOAL.shards, 0)
        assert more.cost > GOAL.cost


def test_only_a_hash_of_the_id_spreads_and_keeps_ids_apart() -> None:
    everything = written(20_000, 10_000)
    old, new = everything[:10_000], everything[10_000:]
    assert fullest(old, new, lambda one: one.id, 3) == 1
    assert fullest(old, new, lambda one: hashed(one.id), 3) < 0.36
    one_user = written(20_000, 1)
    assert fullest(one_user[:10_000], one_user[10_000:], lambda one: one.user, 3) == 1


def test_slots_are_redis_cluster_s() -> None:
    assert slot_of("123456789") == 0x31C3 % 16384
    assert slot_of("{user1000}.following") == slot_of("{user1000}.followers") != slot_of("user1000.followers")


async def test_all_keys_of_a_fleet_lie_in_one_slot(redis_url: str, mongo_url: str) -> None:
    config = (
        "drain_pause: 0\nmodels: [{id: echo, max_in_flight: 2, targets: [{provider: echo}]}]\n"
        "limits: {default: {requests_per_minute: 60, tokens_per_day: 100000}}\n"
    )
    async with Gateway.fleet(redis_url=redis_url, mongo_url=mongo_url, workers=1, config=config) as gateway:
        key = (await gateway.create_key("alice")).secret
        assert (await gateway.ask(post(CHAT, chat("echo"), key))).status == 200
        async with Redis.from_url(redis_url, decode_responses=True) as client:
            names = await client.keys("*")
    assert len(names) > 4
    assert {slot_of(str(name)) for name in names} == {slot_of(EPOCH)}
