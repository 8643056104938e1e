"""All parts together: looked at, copied, proved; broken off and gone on with."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from pymongo import MongoClient

from llmgateway.control.audit import Actor, Audit
from llmgateway.control.migration import KINDS, LEFT, Migration
from llmgateway.control.moves import Tally, Tell
from llmgateway.domain.ports import Kind, SystemClock, UsageQuery
from llmgateway.domain.upkeep import Retention
from llmgateway.stores.mongo import MongoStore, open_mongo
from llmgateway.stores.sqlite import SqliteStore, open_sqlite
from tests.stores.samples import NOON, moments, record

pytestmark = pytest.mark.service

CLOCK = SystemClock()
NOW = NOON + timedelta(days=12)
BY = UsageQuery(by=("day", "user", "key", "project", "model"))


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """With something of every kind; a part of the ledger is sums only."""
    chance = random.Random(11)
    async with open_sqlite(tmp_path / "gateway.db") as store:
        for kind in get_args(Kind):
            if kind != "audit":
                await store.insert(kind, {"id": f"a {kind}", "revision": 3, "at": NOON, "n": [1, None]})
        for number in range(3):
            await Audit(store, CLOCK).write(
                Actor("alice", "cli"), "a", f"{number}", result="ok", details={"n": 1}
            )
        await store.append([record(chance, at) for at in moments(chance, 400, NOON, NOW)])
        await store.drop(Retention(records=5, hourly=8), NOW)
        await store.append([record(chance, at) for at in moments(chance, 30, NOW, NOW + timedelta(hours=5))])
        yield store


@pytest.fixture
async def target(mongo_url: str) -> AsyncIterator[MongoStore]:
    async with open_mongo(mongo_url, 5) as store:
        yield store


class Run:
    """A migration, and what it told."""

    def __init__(self, source: SqliteStore, target: MongoStore) -> None:
        self.told: list[tuple[str, int, int]] = []
        self.migration = Migration(source, target, CLOCK, lambda *told: self.told.append(told))
        self.tallies: list[Tally] = []

    async def look(self) -> list[str]:
        self.tallies = await self.migration.look()
        return [finding.what for tally in self.tallies for finding in tally.findings]

    async def copy(self) -> None:
        assert await self.look() == []
        await self.migration.copy(self.tallies)

    @property
    def copied(self) -> int:
        return sum(tally.copied for tally in self.tallies)


def setting(event: asyncio.Event, part: str) -> Tell:
    def tell(told: str, done: int, of: int) -> None:
        if told == part:
            event.set()

    return tell


def test_every_kind_is_moved_or_has_a_reason() -> None:
    assert {*KINDS, *LEFT} == set(get_args(Kind))


async def test_all_of_it_arrives(source: SqliteStore, target: MongoStore) -> None:
    run = Run(source, target)
    await run.copy()
    proof = await run.migration.prove()
    assert proof.findings == []
    assert proof.audit.lines == 3
    assert proof.days == len({row.group["day"] for row in await source.usage(UsageQuery(by=("day",)))})
    for kind in KINDS:
        theirs = (await target.find(kind, {}, limit=9)).data
        assert theirs == (await source.find(kind, {}, limit=9)).data
    assert (await target.find("jobs", {}, limit=9)).data == []
    assert await target.usage(BY) == await source.usage(BY)
    assert sum(row.requests for row in await target.usage(BY)) == 430
    count = await source.archive.count()
    assert ("records", count, count) in run.told

    again = Run(source, target)
    await again.copy()
    assert again.copied == 0
    assert (await again.migration.prove()).findings == []


async def test_it_goes_on_where_it_was_broken_off(source: SqliteStore, target: MongoStore) -> None:
    """Cancelled a moment after a part was written, or in the midst of the next one."""
    for part in ("keys", "audit", "old sums", "records"):
        run, begun = Run(source, target), asyncio.Event()
        assert await run.look() == []
        run.migration = Migration(source, target, CLOCK, setting(begun, part))
        copying = asyncio.ensure_future(run.migration.copy(run.tallies))
        waiting = asyncio.ensure_future(begun.wait())
        await asyncio.wait([copying, waiting], return_when=asyncio.FIRST_COMPLETED)
        for task in (copying, waiting):
            task.cancel()
        await asyncio.gather(copying, waiting, return_exceptions=True)
    last = Run(source, target)
    await last.copy()
    assert (await last.migration.prove()).findings == []


async def test_beside_a_gateway_that_has_run_there(source: SqliteStore, target: MongoStore) -> None:
    """With nothing of its own yet but the notes of its jobs and its sums."""
    await target.insert("jobs", {"id": "retention", "revision": 0, "succeeded_at": NOW})
    await target.drop(Retention(records=3, hourly=8), NOW)
    run = Run(source, target)
    await run.copy()
    assert (await run.migration.prove()).findings == []
    assert await target.usage(BY) == await source.usage(BY)


async def test_what_differs_afterwards_is_found(
    source: SqliteStore, target: MongoStore, mongo_url: str
) -> None:
    run = Run(source, target)
    await run.copy()
    with MongoClient[dict[str, object]](mongo_url) as client:
        database = client.get_default_database()
        database["records"].delete_one({})
        database["sums"].update_one({"l": 86_400_000}, {"$inc": {"cost": 1}})
        database["audit"].update_one({}, {"$set": {"who": "eve"}})
    found = {finding.part for finding in (await run.migration.prove()).findings}
    assert {"records", "sums", "audit"} <= found


async def test_a_source_whose_sums_are_wrong_is_not_copied(source: SqliteStore, target: MongoStore) -> None:
    def spoil(connection: Any) -> None:
        connection.execute("UPDATE sums SET cost = cost + 1 WHERE unit = (SELECT max(unit) FROM sums)")

    await source.roll_up()
    await source.file.write(spoil)
    assert "the source's sums of this hour are not its records'" in await Run(source, target).look()
