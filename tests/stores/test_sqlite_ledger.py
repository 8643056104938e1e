"""The embedded ledger beyond the contract: older files, the order of pages, what roll-ups read."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from llmgateway.domain.ports import RecordQuery, UsageQuery
from llmgateway.stores.sqlite import SqliteStore, open_sqlite
from llmgateway.stores.sqlite_file import STEPS
from llmgateway.stores.sqlite_ledger import _row
from tests.stores.contract import plain_sums, sums_of
from tests.stores.samples import NOON, moments, record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(path) as opened:
        yield opened


@pytest.mark.parametrize("version", [1, 2])
async def test_a_file_of_an_earlier_version_is_taken_over(path: Path, version: int) -> None:
    chance = random.Random(version)
    made = [record(chance, at) for at in moments(chance, 50, NOON, NOON + timedelta(days=3))]
    old = sqlite3.connect(path)
    for step in STEPS[:version]:
        old.executescript(step)
    old.executemany(f"INSERT INTO records VALUES ({', '.join('?' * 12)})", [_row(one) for one in made])
    old.execute(f"PRAGMA user_version = {version}")
    old.commit()
    old.close()
    async with open_sqlite(path) as store:
        for _ in range(2):
            query = UsageQuery(by=("user", "day"))
            assert sums_of(await store.usage(query)) == plain_sums(made, query)
            await store.append(made)
            await store.roll_up()
        assert await store.known([one.id for one in made]) == {one.id for one in made}


async def test_a_page_after_a_record_that_is_gone_goes_on_where_it_was(store: SqliteStore) -> None:
    chance = random.Random(3)
    made = [record(chance, NOON + timedelta(seconds=n)) for n in range(9)]
    await store.append(made[:5] + made[6:])
    page = await store.records(RecordQuery(after=made[5].id, limit=2))
    assert [one["id"] for one in page] == [made[4].id, made[3].id]


async def test_the_middle_is_answered_without_the_records(store: SqliteStore) -> None:
    """What is in the sums is not looked up again: proved by records that have gone."""
    chance = random.Random(4)
    made = [record(chance, at) for at in moments(chance, 200, NOON, NOON + timedelta(days=9))]
    await store.append(made)
    await store.roll_up()
    await store.file.write(lambda connection: connection.execute("DELETE FROM records"))
    query = UsageQuery(by=("user", "model", "day"), time_zone="Europe/Helsinki")
    assert sums_of(await store.usage(query)) == plain_sums(made, query)
    late = record(chance, NOON + timedelta(hours=1))
    await store.append([late])  # its number is above all that are in the sums, though the table was empty
    assert sums_of(await store.usage(query)) == plain_sums([*made, late], query)


async def test_sums_that_were_kept_in_mind_are_those_of_the_rows(path: Path) -> None:
    """While this process alone appends; beside another, after a batch with repeated or refused records, and
    after one that was cut off, the rows are read."""
    chance = random.Random(5)
    made = [record(chance, at) for at in moments(chance, 600, NOON, NOON + timedelta(days=1))]
    query, stored = UsageQuery(by=("user", "project", "day")), list(made[:1])

    async with open_sqlite(path) as store, open_sqlite(path) as other:

        async def append(to: SqliteStore, first: int, last: int) -> None:
            await to.append(made[first:last])
            stored.extend(one for one in made[first:last] if one not in stored)

        await append(store, 0, 1)
        await store.roll_up()
        for step, (to, first, last) in enumerate([
            (store, 1, 100), (store, 100, 200), (store, 150, 250), (store, 250, 300), (other, 300, 310),
            (store, 310, 400), (other, 350, 450), (store, 450, 500), (store, 500, 600),
        ]):  # fmt: skip
            await append(to, first, last)
            if step % 2 or step > 5:
                await store.roll_up()
            assert sums_of(await store.usage(query)) == plain_sums(stored, query), step
        assert await store.roll_up() == 0
        assert await store.differing(NOON, NOON + timedelta(days=2)) == []
        assert len(stored) == 600


async def test_a_transaction_that_failed_leaves_nothing_in_the_sums(store: SqliteStore) -> None:
    chance = random.Random(6)
    made = [record(chance, NOON + timedelta(seconds=n)) for n in range(40)]
    await store.append(made[:10])
    await store.roll_up()
    task = asyncio.ensure_future(store.append(made[10:20]))
    await asyncio.sleep(0)
    task.cancel()  # the thread may or may not have it
    await asyncio.gather(task, return_exceptions=True)
    await store.append([*made[20:30], record(chance, cost=2**70)])
    await store.roll_up()
    await store.append(made)
    await store.roll_up()
    assert sums_of(await store.usage(UsageQuery())) == plain_sums(made, UsageQuery())
    assert await store.differing(NOON - timedelta(days=1), NOON + timedelta(days=1)) == []
