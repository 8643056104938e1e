import asyncio
import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmgateway.domain.call import Record, Tokens
from llmgateway.stores.journal import FileJournal
from llmgateway.stores.sqlite import open_sqlite
from tests.cli.conftest import Ask, Run
from tests.stores.samples import record


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir(mode=0o700)
    return tmp_path / "data" / "journal"


def made(seed: int, **changes: Any) -> Record:
    return record(random.Random(seed), **changes)


def left_by_the_dead(root: Path, *, settled: list[Record], open_: list[Record], worker: str = "dead") -> None:
    with FileJournal(root, worker=worker) as journal:
        for one in [*settled, *open_]:
            journal.reserve(one)
        for one in settled:
            journal.settle(one)


def store(tmp_path: Path, *records: Record) -> None:
    async def append() -> None:
        async with open_sqlite(tmp_path / "data" / "llmgateway.db") as opened:
            await opened.append(records)

    asyncio.run(append())


def test_with_nothing_there_all_agree(ask: Ask, run: Run) -> None:
    assert ask("ledger", "verify") == {
        "in_store": 0,
        "in_journals": 0,
        "stored": 0,
        "waiting": 0,
        "differences": [],
    }
    assert "agree" in run("ledger", "verify")[1]
    assert ask("ledger", "status")["stored"] == 0


def test_what_waits_is_no_difference_and_replay_ships_it(ask: Ask, root: Path) -> None:
    left_by_the_dead(root, settled=[made(1), made(2)], open_=[])
    assert ask("ledger", "verify") == {
        "in_store": 0,
        "in_journals": 2,
        "stored": 0,
        "waiting": 2,
        "differences": [],
    }
    assert ask("ledger", "status")["waiting"] == 2
    done = ask("ledger", "replay")
    assert (done["recovered"], done["shipped"]) == (0, 2)
    assert ask("ledger", "status") == {
        "stored": 2,
        "waiting": 0,
        "open": 0,
        "orphans": 0,
        "dead_letters": 0,
        "live_workers": 0,
        "dead_workers": 0,
    }


def test_what_a_dead_worker_left_open_is_a_difference_until_it_is_replayed(
    ask: Ask, run: Run, root: Path
) -> None:
    orphan = made(1, outcome=None)
    left_by_the_dead(root, settled=[made(2)], open_=[orphan])
    code, said = run("ledger", "verify", "--json")
    assert code == 1
    (difference,) = json.loads(said)["differences"]
    assert (difference["record"], difference["worker"]) == (orphan.id, "dead")
    assert ask("ledger", "status")["orphans"] == 1
    assert ask("ledger", "replay")["recovered"] == 1
    assert ask("ledger", "verify")["differences"] == []
    assert ask("ledger", "status")["stored"] == 2


def test_a_record_that_was_altered_is_found(run: Run, root: Path, tmp_path: Path) -> None:
    one = made(1)
    left_by_the_dead(root, settled=[one, made(2)], open_=[])
    store(tmp_path, msgspec.structs.replace(one, tokens=Tokens(1, 1)), made(2))
    code, said = run("ledger", "verify")
    assert code == 1
    assert f"{one.id}" in said
    assert "other in the store" in said


def test_a_live_worker_is_left_alone(ask: Ask, root: Path) -> None:
    with FileJournal(root, worker="alive") as journal:
        one = made(1, outcome=None)
        journal.reserve(one)
        status = ask("ledger", "status")
        assert (status["open"], status["orphans"], status["live_workers"]) == (1, 0, 1)
        assert ask("ledger", "verify")["differences"] == []
        assert ask("ledger", "replay")["recovered"] == 0
        journal.settle(one)


def test_dead_letters_are_told_of_and_tried_again(ask: Ask, run: Run, root: Path) -> None:
    with FileJournal(root, worker="a") as journal:
        journal.bury([made(1)])
    assert run("ledger", "verify")[0] == 1
    assert ask("ledger", "status")["dead_letters"] == 1
    done = ask("ledger", "replay")
    assert (done["dead_letters_stored"], done["dead_letters_left"]) == (1, 0)
    assert ask("ledger", "verify")["differences"] == []
    assert ask("ledger", "status")["stored"] == 1
