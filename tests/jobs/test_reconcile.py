"""Reconciliation over a real ledger and real journals, with faults that were put there."""

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from llmgateway.app.periodic import left_in
from llmgateway.domain.call import Record, Tokens
from llmgateway.domain.ports import UsageQuery
from llmgateway.jobs.reconcile import Found, Left, Reconciliation
from llmgateway.jobs.ship import Recovery, Shipper
from llmgateway.stores.journal import FileJournal
from llmgateway.stores.mongo import MongoStore, open_mongo
from llmgateway.stores.sqlite import SqliteStore, open_sqlite
from tests.doubles import SetClock
from tests.stores.contract import plain_sums, sums_of
from tests.stores.samples import NOON, record

Store = SqliteStore | MongoStore
NOTHING = Found()


@pytest.fixture(params=["sqlite", pytest.param("mongo", marks=pytest.mark.service)])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "sqlite":
        async with open_sqlite(tmp_path / "gateway.db", 5) as store:
            yield store
    else:
        async with open_mongo(request.getfixturevalue("mongo_url"), 5) as mongo:
            yield mongo


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def calls(count: int) -> list[Record]:
    chance = random.Random(count)
    return [record(chance, NOON + timedelta(minutes=n), outcome=None) for n in range(count)]


def settle(journal: FileJournal, records: list[Record]) -> None:
    for one in records:
        journal.reserve(one)
        one.outcome = "completed"
        journal.settle(one)


def reconciliation(ledger: Store, root: Path) -> Reconciliation:
    async def recover() -> int:
        with FileJournal(root, worker="reconciler") as journal:
            recovered = await Recovery(journal, journal, clock, lines=ledger.lines).look()
            assert await Shipper(journal, ledger.append).drain(5)
            return recovered

    clock = SetClock(NOON + timedelta(days=1))
    return Reconciliation(ledger, clock, survey=lambda: left_in(root), recover=recover, pause=0.01)


async def test_r_acc_18_seeded_faults_are_found_and_put_right_once(ledger: Store, root: Path) -> None:
    made = calls(40)
    with FileJournal(root, worker="alive") as alive:
        with FileJournal(root, worker="dead") as dead:
            for orphan in made[:2]:
                dead.reserve(orphan)
        settle(alive, made[2:])
        other = msgspec.structs.replace(
            made[5], tokens=Tokens(1, 1), cost=1
        )  # it was estimated, for instance
        twin = msgspec.structs.replace(made[6], id=made[6].id[:-1] + "x")
        await ledger.append([other, *made[6:30], twin])  # 2, 3, 4 and 30 to 39 are missing
        await ledger.rebuild()
        work = reconciliation(ledger, root)
        found = await work.run()
        assert found == Found(missing=13, altered=1, twins=1, orphans=2) == work.last
        assert found.discrepancy == 15
        query = UsageQuery(by=("user", "model", "project"))
        assert sums_of(await ledger.usage(query)) == plain_sums(made, query)
        (correction,) = await ledger.lines([f"{made[5].id}:adj:1"])
        assert correction["adjusts"] == made[5].id
        assert correction["cost"] == made[5].cost - 1
        assert (await ledger.lines([made[5].id]))[0]["cost"] == 1  # the ledger itself never changes
        assert await work.run() == NOTHING
        assert await reconciliation(ledger, root).run() == NOTHING
        assert sums_of(await ledger.usage(query)) == plain_sums(made, query)
        assert await Shipper(alive, ledger.append).drain(5)


async def test_r_acc_18_calls_that_their_caller_named_alike_are_not_taken_back(
    ledger: Store, root: Path
) -> None:
    """Of calls of one millisecond. They may bear one name of the caller's own, or the id of another call: but
    nobody knows that in the millisecond in which it came, unless the answer took no longer."""
    first, quick, *_ = (msgspec.structs.replace(one, outcome="completed") for one in calls(10))
    quick.ttft_ms, quick.duration_ms = 0, 0
    made = [
        *(msgspec.structs.replace(first, id=f"{first.id[:-1]}{n}", request_id="of-mine") for n in "xyz"),
        quick, msgspec.structs.replace(quick, id=f"{quick.id[:-1]}x"),
    ]  # fmt: skip
    await ledger.append(made)
    assert len(await ledger.twins(NOON, NOON + timedelta(days=1))) == 2
    work = reconciliation(ledger, root)
    assert await work.run() == NOTHING
    double = msgspec.structs.replace(first, ttft_ms=None)
    await ledger.append([double, msgspec.structs.replace(double, id=f"{double.id[:-1]}w")])
    assert await work.run() == Found(twins=1)
    assert (await ledger.usage(UsageQuery()))[0].requests == len(made) + 1


async def test_a_correction_that_was_wrong_gets_another(ledger: Store, root: Path) -> None:
    (one,) = calls(1)
    with FileJournal(root, worker="alive") as alive:
        settle(alive, [one])
        await ledger.append([msgspec.structs.replace(one, cost=5)])
        work = reconciliation(ledger, root)
        assert (await work.run()).altered == 1
        wrong = msgspec.structs.replace((await work._look(NOON, NOON)), dead_letters=0)
        assert wrong.is_clean
        one.cost += 7
        settle(alive, [one])
        assert (await work.run()).altered == 1
        assert [line["id"] for line in await ledger.lines([f"{one.id}:adj:{n}" for n in (1, 2, 3)])] == [
            f"{one.id}:adj:1",
            f"{one.id}:adj:2",
        ]
        assert (await ledger.usage(UsageQuery()))[0].cost == one.cost
        assert await Shipper(alive, ledger.append).drain(5)


async def test_sums_that_drifted_are_made_anew(ledger: Store, root: Path) -> None:
    made = calls(30)
    for one in made:
        one.outcome = "completed"
    await ledger.append(made)
    await ledger.roll_up()
    if isinstance(ledger, MongoStore):
        await ledger._database["sums"].update_many({"user": "bob"}, {"$inc": {"cost": 1}})
        await ledger._database["sums"].delete_many({"user": "alice", "l": 3_600_000})
    else:
        await ledger.file.write(lambda c: c.execute("UPDATE sums SET cost = cost + 1 WHERE user = 'bob'"))
        await ledger.file.write(lambda c: c.execute("DELETE FROM sums WHERE user = 'alice' AND level < 4e6"))
    work = reconciliation(ledger, root)
    assert (await work.run()).drift > 0
    assert await work.run() == NOTHING
    query = UsageQuery(by=("user",))
    assert sums_of(await ledger.usage(query)) == plain_sums(made, query)


async def test_dead_letters_are_told_of_as_long_as_they_are_there(ledger: Store, root: Path) -> None:
    with FileJournal(root, worker="alive") as alive:
        alive.bury(calls(3))
    work = reconciliation(ledger, root)
    for _ in range(2):
        assert await work.run() == Found(dead_letters=3)
    assert await work.work() == {**dict.fromkeys(Found.__struct_fields__, 0), "dead_letters": 3}


async def test_what_is_on_its_way_is_no_fault(ledger: Store, root: Path) -> None:
    """What one look misses and the next one finds was only late."""
    made = calls(3)
    with FileJournal(root, worker="alive") as alive:
        settle(alive, made)
        looks = 0

        async def recover() -> int:
            return 0

        async def survey() -> Left:
            nonlocal looks
            looks += 1
            left = await left_in(root)
            if looks == 1:
                return left
            await Shipper(alive, ledger.append).ship()
            return left

        work = Reconciliation(
            ledger,
            SetClock(NOON),
            survey=survey,
            recover=recover,
            pause=0.01,
        )
        assert await work.run() == NOTHING
        assert looks == 2
