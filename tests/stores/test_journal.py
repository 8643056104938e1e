"""The journal: what was reserved is settled once and shipped once, whatever dies in between."""

import asyncio
import gc
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC
from pathlib import Path

import msgspec
import pytest

from llmgateway.domain.call import Record
from llmgateway.domain.errors import LedgerUnavailable
from llmgateway.stores import journal as module
from llmgateway.stores.journal import Batch, FileJournal
from llmgateway.stores.segment import read, remains_of
from llmgateway.wire.frames import SETTLE, frame
from tests.lab.waiting import wait_until
from tests.stores.samples import record
from tests.stores.watching import loop_lag

SMALL = 32 * 1024  # bytes of a segment: some fifty frames
CHANCE = random.Random(5)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(root: Path) -> Iterator[FileJournal]:
    with FileJournal(root, worker="one", segment_bytes=SMALL) as opened:
        yield opened
        ship_all(opened)
        for made in list(opened._open.values()):
            opened.settle(made)
        ship_all(opened)


def made(count: int) -> list[Record]:
    return [record(CHANCE, outcome=None) for _ in range(count)]


def reserve(journal: FileJournal, records: Sequence[Record]) -> None:
    for one in records:
        journal.reserve(one)


def taken_over(journal: FileJournal) -> list[Record]:
    """As recovery does it: what is left beside the journal is given back at once."""
    estate = asyncio.run(journal.take_over())
    for worker in estate.workers:
        journal.given_back(worker)
    return list(estate.orphans)


def settle(journal: FileJournal, records: Sequence[Record]) -> None:
    for one in records:
        one.outcome = "completed"
        journal.settle(one)


def passed(journal: FileJournal, count: int) -> list[Record]:
    """Calls that came and went."""
    records = made(count)
    for one in records:
        journal.reserve(one)
        settle(journal, [one])
    return records


def ids(records: Sequence[Record]) -> list[str]:
    return [one.id for one in records]


def ship_all(journal: FileJournal, most: int = 100) -> list[str]:
    shipped: list[str] = []
    while (batch := journal.batch(most)).records:
        shipped += ids(batch.records)
        journal.shipped(batch)
    return shipped


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


@contextmanager
def abandoned(root: Path, worker: str) -> Iterator[FileJournal]:
    """A journal whose worker dies at the end of the block: its files stay as they are, its lock is free."""
    opened = FileJournal(root, worker=worker, segment_bytes=SMALL).__enter__()
    try:
        yield opened
    finally:
        opened._stopping.set()
        opened._dirty.set()
        opened._syncer.join()
        for segment in opened._segments:
            segment.close()
        for _, fd in opened._locks:
            os.close(fd)


# --- the way of a record


def test_a_record_is_reserved_settled_and_shipped(journal: FileJournal) -> None:
    (one,) = made(1)
    journal.reserve(one)
    assert (journal.open_records, journal.unshipped, journal.batch(10).records) == (1, 0, [])
    journal.progress([one])
    settle(journal, [one])
    assert (journal.open_records, journal.unshipped) == (0, 1)
    batch = journal.batch(10)
    assert batch.records == [one]
    assert journal.oldest == one.ended_at
    assert journal.batch(10) == batch  # until it is said to be shipped
    journal.shipped(batch)
    assert (journal.unshipped, journal.batch(10).records, journal.oldest) == (0, [], None)


def test_records_are_shipped_in_the_order_in_which_they_were_settled(journal: FileJournal) -> None:
    records = made(30)
    reserve(journal, records)
    random.Random(1).shuffle(records)
    settle(journal, records)
    assert ship_all(journal, 7) == ids(records)


def test_what_is_settled_while_a_batch_is_on_its_way_comes_next(journal: FileJournal) -> None:
    first = passed(journal, 5)
    batch = journal.batch(3)
    later = passed(journal, 5)
    journal.shipped(batch)
    assert ids(batch.records) + ship_all(journal) == ids(first + later)


def test_progress_of_what_is_closed_is_nothing(journal: FileJournal) -> None:
    (one,) = passed(journal, 1)
    journal.progress([one])
    (segment,) = journal._segments
    assert [kind for kind, _ in read(segment.path)][-1] == SETTLE


def test_dead_letters_are_kept_beside(journal: FileJournal, root: Path) -> None:
    records = made(2)
    journal.bury(records)
    journal.bury(records[:1])
    lines = (root / "dead-letters.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line)["_id"] for line in lines] == ids([*records, records[0]])


# --- segments


def test_a_full_segment_is_followed_by_the_next(journal: FileJournal, root: Path) -> None:
    shipped: list[str] = []
    records: list[Record] = []
    for _ in range(20):
        records += passed(journal, 20)
        shipped += ship_all(journal, 9)
    assert shipped == ids(records)
    assert len(journal._segments) == 1
    assert len([name for name in files(root) if name.endswith(".journal")]) == 1


def test_rotation_carries_what_is_open(journal: FileJournal) -> None:
    """The segment in which it was reserved is shipped and deleted long before it is settled."""
    (long,) = made(1)
    journal.reserve(long)
    first = journal._segments[0].path
    for number in range(20):
        long.tokens = record(CHANCE).tokens
        long.duration_ms = number
        journal.progress([long])
        passed(journal, 20)
        ship_all(journal)
    assert not first.exists()
    (open_one,) = remains_of([segment.path for segment in journal._segments]).orphans
    assert (open_one.id, open_one.duration_ms) == (long.id, 19)
    settle(journal, [long])
    assert ship_all(journal) == [long.id]


def test_an_idle_journal_leaves_nothing_behind(root: Path) -> None:
    with FileJournal(root, worker="one", segment_bytes=SMALL) as journal:
        passed(journal, 100)
        ship_all(journal)
    assert files(root) == []
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("left", ["open", "unshipped"])
def test_what_is_left_at_the_end_stays_for_the_next(root: Path, left: str) -> None:
    with FileJournal(root, worker="one", segment_bytes=SMALL) as journal:
        passed(journal, 100)
        ship_all(journal)
        (one,) = made(1)
        journal.reserve(one)
        if left == "unshipped":
            settle(journal, [one])
    with FileJournal(root, worker="two", segment_bytes=SMALL) as journal:
        orphans = taken_over(journal)
        settle(journal, orphans)
        assert ship_all(journal).count(one.id) == 1
        assert len(orphans) == (left == "open")


def test_two_workers_do_not_have_one_directory(root: Path) -> None:
    with abandoned(root, "one") as journal:
        passed(journal, 1)
    with pytest.raises(OSError, match="not empty"):
        FileJournal(root, worker="one").__enter__()


# --- falling behind


@pytest.fixture
def few_recent(monkeypatch: pytest.MonkeyPatch) -> int:
    """So many settled records are kept in memory."""
    monkeypatch.setattr(module, "RECENT", 50)
    return 50


@pytest.mark.parametrize("most", [1, 7, 500])
def test_a_store_that_is_behind_is_fed_from_disk(journal: FileJournal, few_recent: int, most: int) -> None:
    records = passed(journal, 3 * few_recent)
    assert not journal._recent
    assert journal.unshipped == len(records)
    assert ship_all(journal, most) == ids(records)
    assert (journal.unshipped, journal.bytes_held < SMALL) == (0, True)
    later = passed(journal, 5)
    assert len(journal._recent) == 5
    assert ship_all(journal, most) == ids(later)


@pytest.mark.parametrize("seed", range(8))
def test_behind_and_back_again_nothing_is_missing_or_twice(
    journal: FileJournal, few_recent: int, seed: int
) -> None:
    """Batches are on their way while records come, while it falls behind, and while it catches up."""
    chance = random.Random(seed)
    settled: list[str] = []
    shipped: list[str] = []
    under_way: Batch | None = None
    waiting = made(10)
    reserve(journal, waiting)
    for _ in range(600):
        what = chance.random()
        if what < 0.35:
            settled += ids(passed(journal, chance.randrange(1, 20)))
        elif what < 0.4:
            one = waiting.pop()
            settle(journal, [one])
            settled.append(one.id)
            waiting += made(1)
            journal.reserve(waiting[-1])
        elif what < 0.5:
            assert journal.oldest is not None or not journal.unshipped
        elif under_way is None:
            under_way = journal.batch(chance.randrange(1, 60))
        else:
            if chance.random() < 0.8:  # else the store was away, and the same is asked for again
                shipped += ids(under_way.records)
                journal.shipped(under_way)
            under_way = None
    assert shipped + ship_all(journal) == settled
    settle(journal, waiting)


def test_times_survive_the_disk(journal: FileJournal, few_recent: int) -> None:
    records = passed(journal, few_recent + 1)
    (first,) = journal.batch(1).records
    assert first is not records[0]
    assert first == records[0]
    assert first.at.tzinfo == UTC


# --- taking over


def test_r_fault_49_the_journal_of_a_dead_worker_is_taken_over(journal: FileJournal, root: Path) -> None:
    with abandoned(root, "dead") as dead:
        settled = passed(dead, 100)
        open_ones = made(3)
        reserve(dead, open_ones)
        open_ones[1].duration_ms = 77
        dead.progress([open_ones[1]])
    own = passed(journal, 2)
    orphans = taken_over(journal)
    assert sorted(ids(orphans)) == sorted(ids(open_ones))
    assert {one.duration_ms for one in orphans} == {77, 1500}
    assert journal.unshipped == len(settled) + len(own)
    settle(journal, orphans)
    assert ship_all(journal, 30) == ids(settled) + ids(own) + ids(orphans)
    assert not (root / "dead").exists()
    assert taken_over(journal) == []


def test_a_batch_on_its_way_does_not_take_an_adopted_one_with_it(journal: FileJournal, root: Path) -> None:
    """A worker dies while this one waits for its store."""
    own = passed(journal, 10)
    batch = journal.batch(500)
    with abandoned(root, "dead") as dead:
        settled = passed(dead, 200)
    assert taken_over(journal) == []
    journal.shipped(batch)
    assert ids(batch.records) + ship_all(journal) == ids(own + settled)


def test_an_adopted_batch_on_its_way_does_not_take_own_ones_with_it(journal: FileJournal, root: Path) -> None:
    with abandoned(root, "dead") as dead:
        settled = passed(dead, 10)
    taken_over(journal)
    batch = journal.batch(4)
    own = passed(journal, 100)
    journal.shipped(batch)
    assert ids(batch.records) + ship_all(journal) == ids(settled + own)


def test_an_adopted_one_stays_while_its_records_wait(root: Path) -> None:
    """This one dies before it has shipped what it took over; the next one ships all."""
    with abandoned(root, "a-dead") as dead:
        settled = passed(dead, 10)
        open_ones = made(2)
        reserve(dead, open_ones)
    with abandoned(root, "b-dead") as second:
        settle(second, taken_over(second))
    with FileJournal(root, worker="c", segment_bytes=SMALL) as third:
        assert taken_over(third) == []  # the second had settled what the first had left open
        assert sorted(ship_all(third)) == sorted(ids(settled + open_ones))
    assert list(root.iterdir()) == []


def test_r_fault_49_an_heir_that_dies_before_it_has_settled_all_loses_nothing(root: Path) -> None:
    """What it has settled is shipped, the rest is the next one's, also of files that hold nothing else."""
    with abandoned(root, "a-dead") as dead:
        open_ones = made(5)
        reserve(dead, open_ones)
        settled = passed(dead, 100)
        assert len(dead._segments) > 1
    with abandoned(root, "b-dead") as second:
        orphans = taken_over(second)
        settle(second, orphans[:2])
        own = passed(second, 3)
        shipped = ship_all(second)
        assert second.oldest is None
        assert shipped == ids(settled) + ids(orphans[:2]) + ids(own)
    with FileJournal(root, worker="c", segment_bytes=SMALL) as third:
        left = taken_over(third)
        assert ids(left) == ids(orphans[2:])
        settle(third, left)
        assert set(ship_all(third)) == set(shipped) | set(ids(left))
    assert list(root.iterdir()) == []


def test_the_files_of_the_dead_go_when_all_that_was_open_is_settled(journal: FileJournal, root: Path) -> None:
    with abandoned(root, "dead") as dead:
        reserve(dead, made(2))
        passed(dead, 100)
        reserve(dead, made(1))
    orphans = taken_over(journal)
    before = files(root / "dead")
    settle(journal, orphans[:2])
    ship_all(journal)
    assert files(root / "dead") == before
    settle(journal, orphans[2:])
    ship_all(journal)
    assert not (root / "dead").exists()


def test_a_living_worker_is_left_alone(journal: FileJournal, root: Path) -> None:
    with FileJournal(root, worker="alive", segment_bytes=SMALL) as alive:
        records = made(2)
        reserve(alive, records)
        assert taken_over(journal) == []
        settle(alive, records)
        assert ship_all(alive) == ids(records)


def test_strange_things_in_the_directory_are_left_alone(journal: FileJournal, root: Path) -> None:
    (root / "dead-letters.jsonl").write_text("{}\n")
    (root / ".unborn").mkdir()
    (root / "empty").mkdir()
    assert taken_over(journal) == []
    assert files(root)[-1] == "lock"
    assert not (root / "empty").exists()
    assert (root / ".unborn").exists()


def worker(root: Path, name: str, seed: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.stores.scribbling", str(root), name, seed, str(SMALL)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def said(lines: Sequence[str], word: str) -> set[str]:
    return {line[2:].strip() for line in lines if line.startswith(word)}


@pytest.mark.parametrize("seed", range(6))
def test_r_fault_43_a_killed_process_loses_nothing(root: Path, seed: int) -> None:
    """SIGKILL after so many lines; what it had said before is what must be there."""
    chance = random.Random(seed)
    with worker(root, "dead", str(seed)) as process:
        assert line_of(process) == "ready\n"
        lines = [line_of(process) for _ in range(chance.randrange(1, 3000))]
        process.kill()
        assert process.stdout is not None
        lines += [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        assert process.wait() == -signal.SIGKILL
    reserved, settled, stored = (said(lines, word) for word in "RSH")
    with FileJournal(root, worker="next", segment_bytes=SMALL) as journal:
        orphans = ids(taken_over(journal))
        shipped = ship_all(journal)
        assert len(set(orphans)) == len(orphans)
        assert len(set(shipped)) == len(shipped)
        assert not set(orphans) & (settled | stored | set(shipped))
        assert settled <= stored | set(shipped)
        unsaid = (set(orphans) | set(shipped)) - reserved  # it died before it could say so
        assert len(unsaid) <= 1
        assert reserved | unsaid == stored | set(shipped) | set(orphans)
        for one in list(journal._open.values()):
            journal.settle(one)
        assert ship_all(journal) == orphans


def test_r_fault_49_of_many_that_want_to_take_over_one_does(root: Path) -> None:
    dead: list[str] = []
    for name in ("dead-1", "dead-2", "dead-3"):
        with abandoned(root, name) as journal:
            records = made(5)
            reserve(journal, records)
            dead += ids(records)
    takers = [worker(root, f"taker-{n}", "adopt") for n in range(3)]
    for taker in takers:
        assert line_of(taker) == "ready\n"
    for taker in takers:
        assert taker.stdin is not None
        taker.stdin.write("go\n")
        taker.stdin.flush()
    found: list[str] = []
    for taker in takers:
        while (line := line_of(taker)) != "ready\n":
            found.append(line[2:].strip())
    assert sorted(found) == sorted(dead)
    for taker in takers:
        taker.kill()
        taker.wait()
        for pipe in (taker.stdin, taker.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


# --- a disk that is full, or fails


@contextmanager
def no_room() -> Iterator[None]:
    """No file of a segment's size can be made."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL // 2, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def use_up(journal: FileJournal, open_calls: int) -> tuple[list[Record], list[Record]]:
    """Calls come, and end when there are so many, until no more can come; those that ended and are open."""
    closed: list[Record] = []
    running: list[Record] = []
    with suppress(LedgerUnavailable):
        for one in made(1000):
            journal.reserve(one)
            running.append(one)
            if len(running) > open_calls:
                closed.append(running.pop(0))
                settle(journal, closed[-1:])
    assert len(closed) < 1000
    return closed, running


@pytest.mark.parametrize("open_calls", [1, 10, 15])
def test_r_fault_40_a_full_disk_refuses_new_calls_and_closes_those_that_run(
    journal: FileJournal, open_calls: int
) -> None:
    wait_until(lambda: journal._spare, "the next segment is laid out")
    with no_room():
        closed, running = use_up(journal, open_calls)
        assert len(closed) > 10
        assert journal.failures > 0
        settle(journal, running)
        assert not journal._overflow
        assert ship_all(journal) == ids(closed + running)
    journal._commit()
    wait_until(lambda: journal._spare, "there is room again")
    assert ship_all(journal) == [] == journal._overflow
    passed(journal, 5)


def test_r_fault_40_beyond_the_head_room_records_are_shipped_from_memory(journal: FileJournal) -> None:
    wait_until(lambda: journal._spare, "the next segment is laid out")
    with no_room():
        closed, records = use_up(journal, 10)
        for _ in range(20):
            journal.progress(records[:3])
        settle(journal, records)
        assert len(journal._overflow) > 5
        shipped = ship_all(journal, 9)
    assert sorted(shipped) == sorted(ids(closed + records))
    assert (journal._overflow, journal.unshipped) == ([], 0)


def test_r_fault_40_a_disk_that_is_full_at_the_start_is_told(root: Path) -> None:
    with no_room(), pytest.raises(LedgerUnavailable, match="no room for the journal"):
        FileJournal(root, worker="one", segment_bytes=SMALL).__enter__()
    with FileJournal(root, worker="two", segment_bytes=SMALL) as journal:
        assert taken_over(journal) == []
        assert [path.name for path in root.iterdir()] == ["two"]


def break_sync(journal: FileJournal) -> None:
    """The current segment's descriptor becomes one that cannot be synced."""
    reading, writing = os.pipe()
    os.dup2(writing, journal._segments[-1]._fd)
    os.close(reading)
    os.close(writing)


def test_r_fault_41_after_a_failed_sync_everything_is_written_again(journal: FileJournal, root: Path) -> None:
    """What the kernel could not write is gone from its cache: a second sync would say that all is well."""
    settled, open_ones = passed(journal, 3), made(2)
    reserve(journal, open_ones)
    break_sync(journal)
    (later,) = passed(journal, 1)
    wait_until(lambda: journal.failures, "the sync failed")
    (last,) = passed(journal, 1)
    assert len(journal._segments) == 2
    rescued = root.parent / "rescued"
    rescued.mkdir()
    shutil.copy(journal._segments[-1].path, rescued / "1.journal")
    assert sorted(ids(remains_of([rescued / "1.journal"]).orphans)) == sorted(ids(open_ones))
    written = {one.id for kind, one in read(rescued / "1.journal") if kind == SETTLE}
    assert written == set(ids([*settled, later, last]))
    assert set(ship_all(journal)) == written
    settle(journal, open_ones)


def test_nothing_is_deleted_while_it_waits_even_if_it_was_written_twice(root: Path, few_recent: int) -> None:
    """After a failed sync records stand in two segments, and a count of them says too much."""
    with FileJournal(root, worker="one", segment_bytes=SMALL) as journal:
        records = passed(journal, 20)
        break_sync(journal)
        records += passed(journal, 1)
        wait_until(lambda: journal.failures, "the sync failed")
        records += passed(journal, few_recent)
        seen = set()
        while journal.unshipped:
            batch = journal.batch(10)
            seen |= set(ids(batch.records))
            journal.shipped(batch)
    with FileJournal(root, worker="two", segment_bytes=SMALL) as journal:
        taken_over(journal)
        assert seen | set(ship_all(journal)) == set(ids(records))


def test_what_was_settled_is_synced_soon(journal: FileJournal) -> None:
    wait_until(lambda: not journal._dirty.is_set(), "the journal is in order")
    segment, synced = journal._segments[-1], []
    sync = segment.sync

    def noting() -> None:
        synced.append(segment.size)
        sync()

    segment.sync = noting  # type: ignore[method-assign]
    passed(journal, 1)
    wait_until(lambda: synced and synced[-1] == segment.size, "all of it is synced", 0.5)


@pytest.mark.alone
async def test_large_journals_of_the_dead_are_read_beside_the_event_loop(root: Path) -> None:
    """200 MB, as an outage of hours leaves them: no turn of the loop takes longer than 100 ms."""
    dead = root / "dead"
    dead.mkdir(parents=True)
    some = [record(CHANCE) for _ in range(500)]
    body = b"".join(frame(SETTLE, msgspec.json.encode(one)) for one in some)
    times = 8 * 2**20 // len(body)
    for number in range(25):
        (dead / f"{number:08}.journal").write_bytes(body * times)
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)  # as the gateway does, which also keeps the collector off what is old
    gc.collect()
    gc.freeze()
    try:
        with FileJournal(root, worker="alive") as journal:
            async with loop_lag() as lag:
                assert (await journal.take_over()).orphans == []
                assert journal.unshipped == 25 * times * len(some)
                for _ in range(30):
                    batch = journal.batch(1000)
                    assert len(batch.records) == 1000
                    await asyncio.sleep(0)
                    journal.shipped(batch)
            assert lag.longest < 0.1
            for path in dead.glob("*.journal"):
                path.unlink()
            journal._adopted.clear()
    finally:
        sys.setswitchinterval(before)
        gc.unfreeze()
