"""What journals hold, looked at without touching them."""

import random
from pathlib import Path

from llmgateway.domain.call import Record
from llmgateway.stores.journal import FileJournal
from llmgateway.stores.survey import dead_letters, left_behind, survey
from tests.stores.samples import record

CHANCE = random.Random(3)


def made(count: int) -> list[Record]:
    return [record(CHANCE, outcome=None) for _ in range(count)]


def test_what_the_living_and_the_dead_hold(tmp_path: Path) -> None:
    (orphan,), (open_, done) = made(1), made(2)
    with FileJournal(tmp_path, worker="dead") as dead:
        dead.reserve(orphan)
    with FileJournal(tmp_path, worker="alive") as alive:
        for one in (open_, done):
            alive.reserve(one)
        done.outcome = "completed"
        alive.settle(done)
        workers = {worker.name: worker for worker in survey(tmp_path)}
        assert {name: worker.is_alive for name, worker in workers.items()} == {"alive": True, "dead": False}
        assert workers["dead"].open == {orphan.id: orphan}
        assert (workers["alive"].open, workers["alive"].settled) == ({open_.id: open_}, {done.id: done})
        open_.outcome = "completed"
        alive.settle(open_)
        assert set({worker.name: worker for worker in survey(tmp_path)}["alive"].settled) == {
            open_.id,
            done.id,
        }


def test_what_waits_for_the_next_start_is_seen(tmp_path: Path) -> None:
    """Neither what a worker that lives has in hand nor what was settled and shipped."""
    assert not left_behind(tmp_path / "journal")
    (one,) = made(1)
    with FileJournal(tmp_path, worker="first") as journal:
        journal.reserve(one)
        assert not left_behind(tmp_path)
    assert left_behind(tmp_path)
    with FileJournal(tmp_path, worker="second") as journal:
        journal.reserve(one)
        one.outcome = "completed"
        journal.settle(one)
        journal.shipped(journal.batch(1))
        (tmp_path / "first").joinpath("none").write_bytes(b"")
        for path in (tmp_path / "first").glob("*.journal"):
            path.unlink()
    assert not left_behind(tmp_path)


def test_where_there_is_nothing(tmp_path: Path) -> None:
    assert survey(tmp_path / "journal") == []
    assert list(dead_letters(tmp_path)) == []


def test_dead_letters(tmp_path: Path) -> None:
    letters = made(2)
    with FileJournal(tmp_path, worker="one") as journal:
        journal.bury(letters)
    assert list(dead_letters(tmp_path)) == letters


def test_a_dead_worker_without_records_is_not_told_of(tmp_path: Path) -> None:
    (tmp_path / "dead").mkdir()
    assert survey(tmp_path) == []
