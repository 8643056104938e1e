"""A mark that tells of everything being gone."""

import pytest

from llmgateway.stores.redis import open_redis
from llmgateway.stores.warmth import RedisWarmth
from tests.lab.servers import Valkey
from tests.lab.waiting import eventually_answers
from tests.stores.watching import works

pytestmark = pytest.mark.service


async def test_it_is_cold_until_it_was_filled_and_again_when_all_is_lost(own_valkey: Valkey) -> None:
    async with open_redis(own_valkey.url(), 0.5) as state:
        warmth = RedisWarmth(state)
        assert await warmth.is_cold()
        await warmth.warmed()
        assert not await warmth.is_cold()
        await state.ask(("FLUSHALL",))
        assert await warmth.is_cold()
        await warmth.warmed()
        own_valkey.restart_empty()
        await eventually_answers(lambda: works(warmth.is_cold()), "it answers again")
        assert await warmth.is_cold()
