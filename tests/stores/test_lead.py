"""One leader: of all who ask one is told yes, until it resigns or is silent for too long."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.stores.lead import LOCK, LoneLead, RedisLead
from llmgateway.stores.redis import RedisState, open_redis
from tests.lab.servers import Valkey
from tests.lab.waiting import eventually_answers

pytestmark = pytest.mark.service


@pytest.fixture
async def state(redis_url: str) -> AsyncIterator[RedisState]:
    async with open_redis(redis_url, 1) as opened:
        yield opened


async def test_of_many_one_leads_and_keeps_the_lead(state: RedisState) -> None:
    all_ = [RedisLead(state, name=f"worker-{n}") for n in range(10)]
    answers = await asyncio.gather(*(one.is_mine() for one in all_))
    assert answers.count(True) == 1
    for _ in range(3):
        assert await asyncio.gather(*(one.is_mine() for one in all_)) == answers


async def test_who_resigns_lets_another_lead_and_nobody_resigns_for_another(state: RedisState) -> None:
    one, other = RedisLead(state, name="one"), RedisLead(state, name="other")
    assert await one.is_mine()
    await other.resign()
    assert not await other.is_mine()
    await one.resign()
    assert await other.is_mine()
    assert not await one.is_mine()


async def test_a_dead_leader_is_followed_when_its_time_is_over(state: RedisState) -> None:
    dead, heir = RedisLead(state, name="dead", seconds=0.2), RedisLead(state, name="heir")
    assert await dead.is_mine()
    assert not await heir.is_mine()
    await eventually_answers(heir.is_mine, "the heir leads")
    assert not await dead.is_mine()


async def test_whoever_asks_goes_on_leading(state: RedisState) -> None:
    one = RedisLead(state, name="one", seconds=5)
    assert await one.is_mine()
    await state.ask(("PEXPIRE", LOCK, 1000))
    assert await one.is_mine()
    assert await state.ask(("PTTL", LOCK)) > 1000


async def test_without_redis_nobody_can_tell(own_valkey: Valkey) -> None:
    async with open_redis(own_valkey.url(), 0.4) as state:
        lead = RedisLead(state, name="one")
        assert await lead.is_mine()
        own_valkey.stop()
        with pytest.raises(StoreUnavailable):
            await lead.is_mine()


async def test_who_is_alone_leads() -> None:
    lead = LoneLead()
    assert await lead.is_mine()
    await lead.resign()
    assert await lead.is_mine()
