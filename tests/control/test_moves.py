"""Part by part: what is the same, what is missing, what is in the way."""

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmgateway.control.audit import Actor, Audit
from llmgateway.control.moves import (
    PAGE,
    ChainMove,
    DocumentMove,
    LedgerMove,
    Move,
    SumsMove,
    Tally,
    pages,
    pairs,
    record_of,
)
from llmgateway.domain.call import Record
from llmgateway.domain.ports import Documents, SystemClock, UsageQuery
from llmgateway.domain.upkeep import Retention
from llmgateway.stores.mongo import MongoStore, open_mongo
from llmgateway.stores.sqlite import SqliteStore, open_sqlite
from tests.stores.samples import NOON, line, moments, record
from tests.stores.upkeep_contract import adjusting

pytestmark = pytest.mark.service


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(tmp_path / "gateway.db") as store:
        yield store


@pytest.fixture
async def target(mongo_url: str) -> AsyncIterator[MongoStore]:
    async with open_mongo(mongo_url, 5) as store:
        yield store


def silent(part: str, done: int, of: int) -> None:
    pass


def made(count: int, seed: int = 1) -> list[Record]:
    chance = random.Random(seed)
    return [record(chance, at) for at in moments(chance, count, NOON, NOON + timedelta(days=3))]


async def counts(move: Move) -> tuple[int, int, int, int]:
    tally = await move.look()
    return tally.source, tally.there, tally.conflicts, tally.others


async def moved(move: Move) -> Tally:
    tally = await move.look()
    await move.copy(tally)
    return tally


async def put(documents: Documents, *ids: str, **fields: Any) -> None:
    for id in ids:
        await documents.insert("keys", {"id": id, "revision": 0, **fields})


# --- documents


async def test_pairs_of_both_sides_in_the_order_of_ids(source: SqliteStore, target: MongoStore) -> None:
    await put(source, "b", "d", "\uffff", "\U0001f511")
    await put(target, "a", "b", "c", "\uffff", "z")
    found = [
        (ours and ours["id"], theirs and theirs["id"]) async for ours, theirs in pairs(source, target, "keys")
    ]
    assert found == [
        (None, "a"), ("b", "b"), (None, "c"), ("d", None), (None, "z"), ("\uffff", "\uffff"),
        ("\U0001f511", None),
    ]  # fmt: skip


async def test_what_is_there_and_the_same_is_passed_over(source: SqliteStore, target: MongoStore) -> None:
    move = DocumentMove("keys", source, target, silent)
    await put(source, "a", "b", "c", at=NOON, limits={"tokens_per_day": 2**40}, models=None)
    await put(target, "b", "x", at=NOON, limits={"tokens_per_day": 2**40}, models=None)
    assert await counts(move) == (3, 1, 0, 1)
    assert (await moved(move)).copied == 2
    assert await counts(move) == (3, 3, 0, 1)
    assert (await moved(move)).copied == 0
    assert await target.get("keys", "a") == await source.get("keys", "a")


async def test_what_is_there_and_another_is_a_conflict(source: SqliteStore, target: MongoStore) -> None:
    move = DocumentMove("keys", source, target, silent)
    await put(source, "a", "b", name="laptop")
    await put(target, "b", name="batch")
    tally = await move.look()
    assert [(finding.part, finding.id) for finding in tally.findings] == [("keys", "b")]
    assert (tally.missing, tally.conflicts) == (1, 1)


async def test_more_than_a_page(source: SqliteStore, target: MongoStore) -> None:
    """Some of it is there, as after a run that broke off."""
    some = [{"id": f"{number:05}", "revision": 0, "n": number} for number in range(PAGE + 7)]

    def insert(connection: Any) -> None:
        rows = [("keys", one["id"], 0, msgspec.json.encode(one).decode()) for one in some]
        connection.executemany("INSERT INTO documents VALUES (?, ?, ?, ?)", rows)

    await source.file.write(insert)
    await target.insert_all("keys", [*some[:3], some[PAGE + 1]])
    move = DocumentMove("keys", source, target, silent)
    assert (await moved(move)).copied == PAGE + 3
    assert await counts(move) == (PAGE + 7, PAGE + 7, 0, 0)


# --- the audit log


async def write_lines(store: Documents, count: int, word: str = "keys.create") -> None:
    audit = Audit(store, SystemClock())
    for number in range(count):
        await audit.write(Actor("operator", "cli"), word, f"k{number}", result="ok", details={"n": [number]})


async def test_a_log_goes_on_where_it_broke_off(source: SqliteStore, target: MongoStore) -> None:
    await write_lines(source, 5)
    lines = (await source.find("audit", {}, limit=9)).data
    await target.insert_all("audit", lines[:2])
    move = ChainMove("audit", source, target, silent)
    tally = await moved(move)
    assert (tally.there, tally.copied, tally.findings) == (2, 3, [])
    verdict = await Audit(target, SystemClock()).verify()
    assert (verdict.lines, verdict.bad) == (5, None)
    assert verdict.head == lines[-1]["hash"]


async def test_another_log_is_in_the_way(source: SqliteStore, target: MongoStore) -> None:
    await write_lines(source, 2)
    await write_lines(target, 3)
    tally = await ChainMove("audit", source, target, silent).look()
    assert [finding.id[-1] for finding in tally.findings] == ["1", "2", "3"]
    assert (tally.conflicts, tally.others) == (2, 1)


async def test_a_log_with_a_gap_is_in_the_way(source: SqliteStore, target: MongoStore) -> None:
    await write_lines(source, 3)
    lines = (await source.find("audit", {}, limit=9)).data
    await target.insert_all("audit", [lines[0], lines[2]])
    tally = await ChainMove("audit", source, target, silent).look()
    assert [finding.id for finding in tally.findings] == [lines[2]["id"]]


# --- the ledger


async def test_records_keep_their_ids_and_times(source: SqliteStore, target: MongoStore) -> None:
    some = made(50)
    corrections = [adjusting(some[3], cost=-7, why="twice"), adjusting(some[3], 2, requests=-1)]
    await source.append([*some, *corrections])
    await target.append(some[:20])
    move = LedgerMove(source, target, silent)
    assert await counts(move) == (52, 20, 0, 0)
    assert (await moved(move)).copied == 32
    assert await counts(move) == (52, 52, 0, 0)
    ids = [one.id for one in (*some, *corrections)]
    assert await target.lines(ids) == await source.lines(ids)


async def test_another_record_under_an_id_is_a_conflict(source: SqliteStore, target: MongoStore) -> None:
    some = made(3)
    await source.append(some)
    await target.append([msgspec.structs.replace(some[1], cost=some[1].cost + 1)])
    tally = await LedgerMove(source, target, silent).look()
    assert [finding.id for finding in tally.findings] == [some[1].id]


async def test_records_of_others_are_in_the_way(source: SqliteStore, target: MongoStore) -> None:
    await source.append(made(3))
    await target.append(made(2, seed=2))
    tally = await LedgerMove(source, target, silent).look()
    assert tally.others == 2
    assert [finding.what for finding in tally.findings] == ["2 of other calls are in the target's ledger"]


async def test_all_records_page_by_page(source: SqliteStore) -> None:
    """Many of the same moment, too."""
    some = [*made(300), *(record(random.Random(seed)) for seed in range(PAGE))]
    await source.append(some)
    found = [one.id async for page in pages(source) for one in page]
    assert len(found) == len(some)
    assert set(found) == {one.id for one in some}


def test_a_line_is_the_record_again() -> None:
    one = made(1)[0]
    assert line(record_of(line(one))) == line(one)
    adjusted = adjusting(one, cost=-1)
    assert line(record_of(line(adjusted))) == line(adjusted)


# --- sums of what is gone


async def drop(store: SqliteStore | MongoStore) -> None:
    await store.drop(Retention(records=5, hourly=10), NOON + timedelta(days=20))


async def old(store: SqliteStore, some: list[Record]) -> None:
    await store.append(some)
    await drop(store)


async def test_sums_move_where_records_are_gone(source: SqliteStore, target: MongoStore) -> None:
    await old(source, made(40))
    move = SumsMove(source, target, silent)
    tally = await moved(move)
    assert tally.source == tally.copied > 0
    assert await counts(move) == (tally.source, tally.source, 0, 0)
    assert (await moved(move)).copied == 0


async def test_where_the_target_would_throw_records_away_their_sums_move(
    source: SqliteStore, target: MongoStore
) -> None:
    """A gateway has run on it before, and has seen to its retention."""
    some = made(40)
    await source.append(some)
    await source.roll_up()
    await drop(target)
    for move in (SumsMove(source, target, silent), LedgerMove(source, target, silent)):
        await moved(move)
    await target.roll_up()
    rows = await target.usage(query := UsageQuery(by=("day", "user")))
    assert rows == await source.usage(query)
    assert sum(row.requests for row in rows) == 40


async def test_sums_that_are_not_the_same_are_in_the_way(
    source: SqliteStore, target: MongoStore, tmp_path: Path
) -> None:
    """Of a key that the source does not know, and of one that it knows."""
    some = made(5)
    await old(source, some)
    async with open_sqlite(tmp_path / "other.db") as other:
        await old(other, [msgspec.structs.replace(some[0], cost=1), record(random.Random(9), key_id="else")])
        await moved(SumsMove(other, target, silent))
    tally = await SumsMove(source, target, silent).look()
    assert (tally.conflicts, tally.others) == (1, 1)
    assert sorted(finding.what for finding in tally.findings) == [
        "is a sum of other calls", "is there already, and is not the same",
    ]  # fmt: skip
