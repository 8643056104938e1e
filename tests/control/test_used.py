"""Where limiters begin: the ledger's sums of a scope, by all names that a model has."""

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llmgateway.control.used import used_by
from llmgateway.domain.admission import Used
from llmgateway.domain.limits import Limits, Scope, ScopeKind
from llmgateway.domain.periods import Calendar
from llmgateway.stores.sqlite import SqliteStore, open_sqlite
from tests.stores.samples import moments, record

HELSINKI = Calendar("Europe/Helsinki")
START, END = datetime(2026, 2, 20, tzinfo=UTC), datetime(2026, 4, 10, tzinfo=UTC)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "gateway.db", 5) as opened:
        yield opened


@pytest.mark.parametrize("is_rolled_up", [False, True])
async def test_the_sums_of_every_scope_in_its_day_and_month(store: SqliteStore, is_rolled_up: bool) -> None:
    chance = random.Random(1)
    made = [record(chance, at) for at in moments(chance, 800, START, END)]
    await store.append(made)
    if is_rolled_up:
        await store.roll_up()
    load = used_by(store, lambda model: {"qwen3-32b": ("qwen3-32b", "org/other")}.get(model, ()))
    now = datetime(2026, 3, 29, 20, 30, tzinfo=UTC)  # a day of 23 hours
    period = HELSINKI.period_of(now)
    scopes: list[tuple[ScopeKind, str, str]] = [
        ("user", "alice", "user"),
        ("project", "physics", "project"),
        ("key", "key000000001", "key_id"),
    ]
    for kind, id, field in scopes:
        mine = [one for one in made if getattr(one, field) == id]
        day = [one for one in mine if period.day_start <= one.at < period.day_end]
        month = [one for one in mine if period.month_start <= one.at < period.month_end]
        assert len(month) > 20
        expected = Used(
            sum(one.tokens.prompt + one.tokens.completion for one in day),
            sum(one.tokens.prompt + one.tokens.completion for one in month),
            sum(one.cost for one in month),
        )
        assert await load(Scope(kind, id, Limits()), period) == expected
    everything = await load(Scope("model", "qwen3-32b", Limits()), period)
    assert everything.cost_of_month == sum(
        one.cost for one in made if period.month_start <= one.at < period.month_end
    )
    assert await load(Scope("model", "nothing", Limits()), period) == Used()


async def test_nothing_was_used_in_a_period_to_come(store: SqliteStore) -> None:
    load = used_by(store, lambda model: (model,))
    period = HELSINKI.period_of(END + timedelta(days=90))
    assert await load(Scope("user", "alice", Limits()), period) == Used()
