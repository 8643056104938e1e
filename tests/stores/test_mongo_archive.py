"""What the ledger on MongoDB takes over of times whose records it never had."""

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from llmgateway.domain.moving import Since
from llmgateway.domain.ports import UsageQuery
from llmgateway.domain.upkeep import Retention
from llmgateway.stores.mongo import MongoStore, open_mongo
from llmgateway.stores.sqlite import SqliteStore, open_sqlite
from tests.stores.samples import NOON, moments, record

pytestmark = pytest.mark.service

NOW = NOON + timedelta(days=20)
BY = UsageQuery(by=("day", "user", "key", "project", "model"))


@pytest.fixture
async def store(mongo_url: str) -> AsyncIterator[MongoStore]:
    async with open_mongo(mongo_url, 5) as store:
        yield store


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """One that has thrown records and hours away."""
    async with open_sqlite(tmp_path / "gateway.db") as other:
        chance = random.Random(4)
        await other.append([record(chance, at) for at in moments(chance, 150, NOON, NOW)])
        await other.drop(Retention(records=5, hourly=10), NOW)
        yield other


async def test_it_says_of_old_times_what_the_other_one_said(store: MongoStore, other: SqliteStore) -> None:
    """Before and after its own records come, and whatever is done with its sums."""
    since = await other.archive.since()
    assert since.records is not None
    for day in await other.archive.days(since.records):
        for _ in range(2):  # again is nothing new
            await store.archive.inherit(since, await other.archive.sums(day))
        assert sorted(map(repr, await store.archive.sums(day))) == sorted(
            map(repr, await other.archive.sums(day))
        )
    assert await store.archive.since() == since
    assert await store.archive.days(since.records) == await other.archive.days(since.records)
    late = [record(random.Random(5), NOON)]  # a left-over of before: it is in the sums, perhaps
    kept = [record(random.Random(6), NOW)]
    for ledger in (store, other):
        await ledger.append([*late, *kept] if ledger is store else kept)
    for step in (store.roll_up, store.rebuild, store.roll_up):
        await step()
        theirs = await store.usage(msgspec.structs.replace(BY, end=since.records))
        assert theirs == await other.usage(msgspec.structs.replace(BY, end=since.records))
    assert await store.archive.count() == 2


async def test_a_mark_never_goes_back_and_no_sum_is_changed(store: MongoStore, other: SqliteStore) -> None:
    since = await other.archive.since()
    assert since.records is not None
    (day, *_) = await other.archive.days(since.records)
    sums = await other.archive.sums(day)
    await store.archive.inherit(since, sums)
    changed = [msgspec.structs.replace(one, cost=one.cost + 1) for one in sums]
    await store.archive.inherit(Since(records=NOON), changed)
    assert await store.archive.since() == since
    assert sorted(map(repr, await store.archive.sums(day))) == sorted(map(repr, sums))
