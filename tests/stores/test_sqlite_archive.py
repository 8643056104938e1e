"""What the embedded ledger knows of times whose records are gone."""

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llmgateway.domain.moving import Since
from llmgateway.domain.upkeep import Retention
from llmgateway.stores.sqlite import SqliteStore, open_sqlite
from tests.stores.samples import NOON, moments, record

DAY = timedelta(days=1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "gateway.db") as store:
        yield store


async def test_sums_of_an_hour_and_its_day(store: SqliteStore) -> None:
    chance = random.Random(1)
    made = [record(chance, NOON, project=None, user="alice", key_id="k", model="m") for _ in range(3)]
    await store.append(made)
    assert await store.archive.count() == 3
    await store.roll_up()
    hour, day = sorted(await store.archive.sums(NOON.replace(hour=0)), key=lambda one: one.unit, reverse=True)
    assert (hour.unit, hour.start, day.start) == ("hour", NOON, NOON.replace(hour=0))
    for one in (hour, day):
        assert (one.user, one.key_id, one.project, one.model, one.requests) == ("alice", "k", None, "m", 3)
        assert one.prompt == sum(each.tokens.prompt for each in made)
        assert one.cost == sum(each.cost for each in made)
    assert await store.archive.sums(NOON.replace(hour=0) + DAY) == []


async def test_since_when_all_is_there(store: SqliteStore) -> None:
    assert await store.archive.since() == Since()
    chance, now = random.Random(2), NOON + 20 * DAY
    await store.append([record(chance, at) for at in moments(chance, 100, NOON, now)])
    await store.drop(Retention(records=5, hourly=10), now)
    since = await store.archive.since()
    assert since == Since(*(datetime(2026, 4, day, tzinfo=UTC) for day in (12, 7)))
    assert since.records is not None
    days = await store.archive.days(since.records)
    assert days == sorted(set(days))
    assert days[0] == NOON.replace(hour=0)
    assert days[-1] < since.records
    assert {one.unit for one in await store.archive.sums(days[0])} == {"day"}
    assert {one.unit for one in await store.archive.sums(days[-1])} == {"day", "hour"}


async def test_what_came_late_is_told_before_it_is_rolled_up(store: SqliteStore) -> None:
    """The same before and after."""
    chance, now = random.Random(3), NOON + 20 * DAY
    await store.append([record(chance, at) for at in moments(chance, 50, NOON, now)])
    await store.drop(Retention(records=5, hourly=5), now)
    late = NOON - 3 * DAY
    await store.append([record(chance, at) for at in (late, NOON, late, NOON + DAY / 24)])
    days = await store.archive.days(now)
    assert days[0] == late.replace(hour=0)
    sums = [sorted(map(repr, await store.archive.sums(day))) for day in days]
    await store.roll_up()
    assert [sorted(map(repr, await store.archive.sums(day))) for day in days] == sums
    assert await store.archive.days(now) == days
