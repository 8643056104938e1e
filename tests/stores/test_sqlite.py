"""The conformance suite on SQLite, and what several processes make of one file."""

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llmgateway.stores.sqlite import SqliteStore, open_sqlite
from tests.lab.waiting import eventually_answers
from tests.stores.contract import StoreContract, key
from tests.stores.samples import record
from tests.stores.upkeep_contract import UpkeepContract
from tests.stores.watching import works

PATIENCE = 0.4
ROOT = Path(__file__).parents[2]

INSERT_USER = """
import asyncio, sys
from pathlib import Path
from llmgateway.stores.sqlite import open_sqlite
async def main():
    async with open_sqlite(Path(sys.argv[1]), 10) as store:
        await store.insert("users", {"id": sys.argv[2], "revision": 0})
asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "gateway.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with open_sqlite(path, PATIENCE) as store:
        yield store


class TestSqlite(StoreContract, UpkeepContract):
    @pytest.fixture
    async def store(self, path: Path) -> AsyncIterator[SqliteStore]:
        async with open_sqlite(path) as store:
            yield store


def command(path: Path, user: str) -> "subprocess.Popen[bytes]":
    """Another process that writes, as the command line does."""
    return subprocess.Popen([sys.executable, "-c", INSERT_USER, path, user], cwd=ROOT)


async def test_what_was_stored_is_there_after_a_restart(path: Path) -> None:
    made = record(random.Random(1))
    async with open_sqlite(path) as store:
        await store.insert("keys", key())
        await store.append([made])
    assert [file.name for file in path.parent.iterdir()] == ["gateway.db"]
    async with open_sqlite(path) as store:
        assert await store.get("keys", "k1") == key()
        assert await store.known([made.id]) == {made.id}


async def test_many_processes_may_make_the_file_at_once(path: Path) -> None:
    users = [f"user{n}" for n in range(4)]
    for process in [command(path, user) for user in users]:
        assert await asyncio.to_thread(process.wait, 20) == 0
    async with open_sqlite(path) as store:
        assert [one["id"] for one in (await store.find("users", {}, limit=10)).data] == users


async def test_a_cancelled_caller_harms_nobody(store: SqliteStore) -> None:
    chance = random.Random(7)
    calls = [asyncio.ensure_future(store.insert("keys", key(f"k{n}"))) for n in range(60)]
    await asyncio.sleep(0.005)
    cancelled = {n for n, call in enumerate(calls) if chance.random() < 0.5 and call.cancel()}
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert not [one for one in done if isinstance(one, Exception)]
    for n in set(range(60)) - cancelled:
        assert await store.get("keys", f"k{n}") == key(f"k{n}")

    async def writes() -> bool:
        return await works(store.ping())

    assert await eventually_answers(writes, "the store still writes")
