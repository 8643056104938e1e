"""Who counts and who gives places, by where the gateway keeps its state."""

from datetime import UTC, datetime

import pytest

from llmgateway.app.admission import open_admission
from llmgateway.app.memory import Memory, open_memory
from llmgateway.control.used import nobody_else
from llmgateway.domain.errors import BudgetSpent
from llmgateway.settings import Settings
from tests.doubles import SetClock
from tests.stores.limits.limiter_contract import CALENDAR, claim, limited

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


async def spend(memory: Memory) -> str:
    clock = SetClock(NOON)
    async with open_admission(
        memory, clock, worker="w-1", currency="EUR", names_of=lambda model: [model], known_as=nobody_else
    ) as (limiter, places):
        assert {limiter.name, places.name} <= {"memory", "redis"}
        asked = claim("1", limited(cost_per_month=100_000), cost=250_000, period=CALENDAR.period_of(NOON))
        with pytest.raises(BudgetSpent) as caught:
            await limiter.reserve(asked)
        return f"{limiter.name}: {caught.value.message}"


async def test_one_process_counts_alone_and_writes_money_in_its_currency(settings: Settings) -> None:
    async with open_memory(settings) as memory:
        said = await spend(memory)
    assert said.startswith("memory: ")
    assert "may cost up to 0.25 EUR, and your limit cost_per_month is 0.10 EUR: it never has room." in said


async def test_many_count_over_redis(settings: Settings, redis_url: str, mongo_url: str) -> None:
    production = Settings.load(
        {
            "REDIS_URL": redis_url,
            "MONGO_URL": mongo_url,
            "ADMIN_KEY": "x" * 32,
            "LLMGATEWAY_SECRET_KEYS": "y" * 32,
            "LLMGATEWAY_KEY_PEPPER": "z" * 32,
            "LLMGATEWAY_DATA_DIR": str(settings.data_dir),
        },
        config=settings.config,
    )
    async with open_memory(production) as memory:
        said = await spend(memory)
    assert said.startswith("redis: ")
    assert "0.10 EUR" in said
