import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from typing_extensions import override

from llmgateway.domain.admission import Spent
from llmgateway.domain.call import Record, Tokens
from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.ports import Document, SystemClock
from llmgateway.jobs.ship import AT_ONCE, BATCH, Recovery, Shipper
from llmgateway.stores.journal import FileJournal
from tests.lab.waiting import eventually
from tests.stores.samples import record as sample

CLOCK = SystemClock()


def record(id: str) -> Record:
    return sample(random.Random(1), id=id, outcome=None)


class Shelf:
    """A ledger in memory that can be away, and refuses what it is told to."""

    def __init__(self) -> None:
        self.stored: dict[str, Record] = {}
        self.refused: set[str] = set()
        self.is_away = False
        self.appends = 0

    async def lines(self, ids: Sequence[str]) -> list[Document]:
        if self.is_away:
            raise StoreUnavailable("away")
        return [msgspec.to_builtins(self.stored[id]) | {"id": id} for id in ids if id in self.stored]

    async def append(self, records: Sequence[Record]) -> Sequence[str]:
        self.appends += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("away")
        self.stored.update({one.id: one for one in records if one.id not in self.refused})
        return [one.id for one in records if one.id in self.refused]


def settled(journal: FileJournal, count: int, start: int = 0) -> list[str]:
    ids = [f"id-{number:05}" for number in range(start, start + count)]
    for id in ids:
        one = record(id)
        journal.reserve(one)
        one.outcome = "completed"
        journal.settle(one)
    return ids


@asynccontextmanager
async def running(shipper: Shipper) -> AsyncIterator[None]:  # type: ignore[type-arg]
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(shipper.run())
        try:
            yield
        finally:
            task.cancel()


async def test_r_acc_07_everything_that_is_settled_is_shipped_once(tmp_path: Path) -> None:
    shelf = Shelf()
    with FileJournal(tmp_path, worker="a") as journal:
        ids = settled(journal, 2 * BATCH + 3)
        assert await Shipper(journal, shelf.append).ship()
        assert sorted(shelf.stored) == ids
        assert journal.unshipped == 0
        assert await Shipper(journal, shelf.append).ship()
        assert shelf.appends == 3
    assert list(tmp_path.iterdir()) == []


async def test_r_fault_31_a_store_that_is_away_loses_nothing_and_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf()
    shelf.is_away = True
    caplog.set_level(logging.INFO, "llmgateway.jobs.ship")
    with FileJournal(tmp_path, worker="a") as journal:
        shipper = Shipper(journal, shelf.append, period=0.001)
        ids = settled(journal, 5)
        async with running(shipper):
            await eventually(lambda: shelf.appends >= 2, "it was tried twice")
            shelf.is_away = False
            await eventually(lambda: journal.unshipped == 0, "all is shipped")
        assert sorted(shelf.stored) == ids
    words = [one.getMessage().partition(":")[0] for one in caplog.records]
    assert words == ["records wait in the journal", "records are shipped again"]


async def test_what_the_store_refuses_goes_to_the_dead_letters(tmp_path: Path) -> None:
    shelf = Shelf()
    with FileJournal(tmp_path, worker="a") as journal:
        ids = settled(journal, 3)
        shelf.refused = {ids[1]}
        assert await Shipper(journal, shelf.append).ship()
        assert journal.unshipped == 0
    assert sorted(shelf.stored) == [ids[0], ids[2]]
    assert ids[1] in (tmp_path / "dead-letters.jsonl").read_text()


async def test_a_drain_gives_up_in_time_and_the_journal_keeps_the_rest(tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.is_away = True
    with FileJournal(tmp_path, worker="a") as journal:
        ids = settled(journal, 3)
        assert not await Shipper(journal, shelf.append).drain(0.05)
    shelf.is_away = False
    with FileJournal(tmp_path, worker="b") as journal:
        assert (await journal.take_over()).orphans == []
        assert await Shipper(journal, shelf.append).drain(5)
    assert sorted(shelf.stored) == ids


async def test_an_unforeseen_failure_does_not_end_the_shipping(tmp_path: Path) -> None:
    class Broken(Shelf):
        @override
        async def append(self, records: Sequence[Record]) -> Sequence[str]:
            if not self.appends:
                self.appends += 1
                raise RuntimeError("broken")
            return await super().append(records)

    shelf = Broken()
    with FileJournal(tmp_path, worker="a") as journal:
        settled(journal, 1)
        async with running(Shipper(journal, shelf.append, period=0.001)):
            await eventually(lambda: journal.unshipped == 0, "it is shipped")


async def test_what_a_dead_worker_left_open_is_settled_with_what_is_known(tmp_path: Path) -> None:
    shelf, seen = Shelf(), list[Record]()
    with FileJournal(tmp_path, worker="dead") as dead:
        one = record("id-1")
        dead.reserve(one)
        one.tokens, one.cost = Tokens(7, 9), 11
        dead.progress([one])
        settled(dead, 2, start=10)
    with FileJournal(tmp_path, worker="alive") as journal:
        recovery = Recovery(journal, journal, CLOCK, lines=shelf.lines, sinks=[seen.append])
        assert await recovery.look() == 1
        assert await recovery.look() == 0
        assert recovery.recovered == 1
        assert await Shipper(journal, shelf.append).drain(5)
    found = shelf.stored["id-1"]
    assert (found.outcome, found.usage_source, found.tokens, found.cost) == (
        "recovered",
        "estimated",
        Tokens(7, 9),
        11,
    )
    assert found.ended_at is not None
    assert sorted(shelf.stored) == ["id-00010", "id-00011", "id-1"]
    assert [one.id for one in seen] == ["id-1"]


async def test_a_recovery_that_is_cut_off_leaves_the_rest_to_the_next_start(tmp_path: Path) -> None:
    """By a shutdown, while it lets others have their turn: they ship what is settled."""
    shelf = Shelf()

    def shut_down(_: Record) -> None:
        looking.cancel()

    async def nothing_held(worker: str, spent: Spent) -> None:
        pass

    with FileJournal(tmp_path, worker="dead") as dead:
        for number in range(AT_ONCE + 50):
            dead.reserve(record(f"id-{number}"))
    with FileJournal(tmp_path, worker="heir") as journal:
        recovery = Recovery(journal, journal, CLOCK, lines=shelf.lines, sinks=[shut_down])
        looking = asyncio.ensure_future(recovery.look())
        with pytest.raises(asyncio.CancelledError):
            await looking
        assert await Shipper(journal, shelf.append).drain(5)
        assert len(shelf.stored) == AT_ONCE
    with FileJournal(tmp_path, worker="next") as journal:
        recovery = Recovery(journal, journal, CLOCK, lines=shelf.lines, heirs=[nothing_held])
        assert await recovery.look() == 50
        assert await Shipper(journal, shelf.append).drain(5)
    assert len(shelf.stored) == AT_ONCE + 50
    assert list(tmp_path.iterdir()) == []


class Held:
    """What workers hold of something shared. `told` is what was given back of a dead one's, by call."""

    def __init__(self, *ids: str) -> None:
        self.ids = list(ids)
        self.is_away = False
        self.told: dict[str, tuple[int, int]] = {}

    async def recover(self, worker: str, spent: Spent) -> None:
        assert worker == "dead"
        if self.is_away:
            raise StoreUnavailable("away")
        used = await spent(self.ids)
        self.told |= used
        self.ids = [id for id in self.ids if id not in used]
        if self.ids:
            raise StoreUnavailable("nobody can tell")


async def test_r_acc_10_first_the_truth_is_settled_then_the_rest_is_given_back(tmp_path: Path) -> None:
    """Of calls that were open, that were settled, whose record is in the store only, and that are nowhere."""
    shelf, held = Shelf(), Held("id-1", "id-00010", "id-2", "id-3")
    shelf.stored["id-2"] = sample(random.Random(2), id="id-2", tokens=Tokens(1, 2), cost=3)
    with FileJournal(tmp_path, worker="dead") as dead:
        one = record("id-1")
        dead.reserve(one)
        one.tokens, one.cost = Tokens(7, 9), 11
        dead.progress([one])
        settled(dead, 1, start=10)
    with FileJournal(tmp_path, worker="alive") as journal:
        recovery = Recovery(journal, journal, CLOCK, lines=shelf.lines, heirs=[held.recover])
        held.is_away = True
        assert await recovery.look() == 1
        assert await Shipper(journal, shelf.append).drain(5)
        assert (tmp_path / "dead").is_dir(), "until all is given back"
        held.is_away, shelf.is_away = False, True
        assert await recovery.look() == 0
        assert held.ids == ["id-2", "id-3"], "the journal knows the others"
        shelf.is_away = False
        assert await recovery.look() == 0
        assert not (tmp_path / "dead").exists()
        assert await recovery.look() == 0
    closed = shelf.stored["id-00010"]
    in_all = closed.tokens.prompt + closed.tokens.completion
    assert held.told == {"id-1": (16, 11), "id-00010": (in_all, closed.cost), "id-2": (3, 3), "id-3": (0, 0)}


async def test_r_acc_10_what_one_could_not_give_back_the_next_start_does(tmp_path: Path) -> None:
    """Also after somebody without a hand in it, as a command is, has shipped all of the journal."""
    shelf, held = Shelf(), Held("id-00000", "id-00001")
    held.is_away = True
    with FileJournal(tmp_path, worker="dead") as dead:
        settled(dead, 1)
        dead.reserve(record("id-00001"))
    for heirs in ([held.recover], []):
        with FileJournal(tmp_path, worker="between") as journal:
            await Recovery(journal, journal, CLOCK, lines=shelf.lines, heirs=heirs).look()
            assert await Shipper(journal, shelf.append).drain(5)
    held.is_away = False
    with FileJournal(tmp_path, worker="next") as journal:
        await Recovery(journal, journal, CLOCK, lines=shelf.lines, heirs=[held.recover]).look()
    assert sorted(held.told) == ["id-00000", "id-00001"]
    assert list(tmp_path.iterdir()) == []
