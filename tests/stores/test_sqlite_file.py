"""The file and its thread: locks and changes of other processes, files that cannot be used, time limits."""

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.ports import UsageQuery
from llmgateway.stores.alongside import alongside
from llmgateway.stores.sqlite import SqliteStore, open_sealed, open_sqlite
from tests.stores.contract import key
from tests.stores.samples import NOON, record
from tests.stores.watching import lines_of, loop_lag, seconds_to_fail, works

LOG = "llmgateway.stores.sqlite"
PATIENCE = 0.4
NOBODY = 65534
ROOT = Path(__file__).parents[2]

HOLD_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""

INSERT_USER = """
import asyncio, sys
from pathlib import Path
from llmgateway.stores.alongside import alongside
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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process holds the file's lock."""
    argv = [sys.executable, "-c", HOLD_LOCK, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as it:
        assert it.stdout is not None
        assert it.stdout.readline() == b"locked\n"
        yield
        it.communicate()


def command(path: Path, user: str) -> "subprocess.Popen[bytes]":
    """Another process that writes, as the command line does."""
    return subprocess.Popen([sys.executable, "-c", INSERT_USER, path, user], cwd=ROOT)


async def run_command(path: Path, user: str) -> None:
    assert await asyncio.to_thread(command(path, user).wait, 20) == 0


async def test_files_are_for_the_owner_only(store: SqliteStore, path: Path) -> None:
    await store.insert("keys", key())
    assert path.parent.stat().st_mode & 0o777 == 0o700
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == {"gateway.db": 0o600, "gateway.db-wal": 0o600, "gateway.db-shm": 0o600}


async def test_a_file_open_to_others_is_closed_to_them(path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o644)
    async with open_sqlite(path):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_only_what_others_write_is_a_change(store: SqliteStore, path: Path) -> None:
    await store.insert("keys", key())
    await store.append([record(random.Random(1))])
    assert not await store.changed_elsewhere()
    await run_command(path, "alice")
    assert await store.changed_elsewhere()
    assert not await store.changed_elsewhere()


async def test_r_fault_35_anothers_lock_stops_writers_for_a_bounded_time(
    store: SqliteStore, path: Path
) -> None:
    await store.insert("keys", key())
    made = [record(random.Random(n)) for n in range(10)]
    with lines_of(LOG) as lines:
        async with loop_lag() as lag:
            with locked(path):
                took = await asyncio.gather(*(seconds_to_fail(store.append([one])) for one in made))
                assert await store.get("keys", "k1") == key()  # readers go on
                assert not store.is_healthy()
            await store.append(made)
        assert PATIENCE / 2 < min(took) <= max(took) < PATIENCE * 1.3
        assert lag.longest < 0.2
        assert store.is_healthy()
        assert lines[0].startswith(f"writing to the database {path} is not available: Locked")
        assert lines[1].startswith(f"writing to the database {path} is available again")
        assert len(lines) == 2
    assert await store.known([one.id for one in made]) == {one.id for one in made}


async def test_the_message_says_what_is_wrong_but_not_where(store: SqliteStore, path: Path) -> None:
    with locked(path), pytest.raises(StoreUnavailable, match="is locked by another process") as caught:
        await store.ping()
    assert str(path) not in caught.value.message


async def test_a_lock_that_is_let_go_in_time_is_only_a_delay(store: SqliteStore, path: Path) -> None:
    with locked(path):
        writing = asyncio.ensure_future(store.insert("keys", key()))
        await asyncio.sleep(PATIENCE / 4)
        assert not writing.done()
    await writing
    assert store.is_healthy()


async def test_r_fault_35_a_locked_file_does_not_stop_the_start(path: Path) -> None:
    path.parent.mkdir()
    sqlite3.connect(path).close()
    with locked(path):
        async with open_sqlite(path, PATIENCE) as store:
            assert not store.is_healthy()
            assert await seconds_to_fail(store.get("keys", "k1")) < PATIENCE * 1.3
    async with open_sqlite(path, PATIENCE) as store:
        assert await store.get("keys", "k1") is None


async def test_what_is_no_database_stops_the_start(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"PK\x03\x04" * 1000)
    with pytest.raises(StoreUnavailable, match="is not a SQLite database"):
        async with open_sqlite(path):
            raise AssertionError


async def test_a_file_of_a_newer_version_stops_the_start(path: Path) -> None:
    async with open_sqlite(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreUnavailable, match="newer version"):
        async with open_sqlite(path):
            raise AssertionError


async def test_r_fault_35_a_damaged_file_fails_and_a_restored_one_works_again(
    path: Path, tmp_path: Path
) -> None:
    chance = random.Random(1)
    async with open_sqlite(path) as store:
        await store.append([record(chance, NOON + timedelta(seconds=n)) for n in range(2000)])
    shutil.copy(path, tmp_path / "backup")
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xa5" * 4096 * 200)
    async with open_sqlite(path) as store:
        with pytest.raises(StoreUnavailable, match="is damaged"):
            await store.usage(UsageQuery(by=("user",)))
        assert not store.is_healthy()
        (tmp_path / "backup").replace(path)
        assert (await store.usage(UsageQuery()))[0].requests == 2000
        assert store.is_healthy()
        assert await store.changed_elsewhere()


async def test_a_file_that_was_swapped_is_noticed(store: SqliteStore, path: Path) -> None:
    await store.insert("keys", key())
    shutil.rmtree(path.parent)
    assert await store.get("keys", "k1") is None
    await store.insert("keys", key())
    assert await store.get("keys", "k1") == key()


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory to be used as somebody whom permissions hold: not root."""
    directory = Path(tempfile.mkdtemp(prefix="lab-"))
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(directory, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield directory
    finally:
        if is_root:
            os.seteuid(0)
        shutil.rmtree(directory)


async def test_r_fault_35_a_read_only_file_refuses_writes_until_it_may_be_written(unprivileged: Path) -> None:
    path = unprivileged / "gateway.db"
    async with open_sqlite(path) as store:
        await store.insert("keys", key())
    path.chmod(0o400)
    with lines_of(LOG) as lines:
        async with open_sqlite(path, PATIENCE) as store:
            for _ in range(3):
                with pytest.raises(StoreUnavailable, match="is read-only"):
                    await store.append([record(random.Random(1))])
                assert await store.get("keys", "k1") == key()
                assert not await works(store.ping())
                assert not store.is_healthy()
            path.chmod(0o600)
            await works(store.ping())  # finds out, and the next opens anew
            assert await works(store.ping())
            await store.append([record(random.Random(1))])
            assert store.is_healthy()
        assert len(lines) == 2


async def test_a_directory_that_may_not_be_used_stops_the_start(unprivileged: Path) -> None:
    unprivileged.chmod(0o500)
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        async with open_sqlite(unprivileged / "gateway.db"):
            raise AssertionError


async def test_an_endless_query_is_cut_off(store: SqliteStore) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    async with loop_lag() as lag:
        took = await seconds_to_fail(store._all(endless))
    assert took < PATIENCE * 1.5
    assert lag.longest < 0.2
    assert await store.get("keys", "k1") is None
    assert store.is_healthy()


async def test_a_busy_event_loop_does_not_starve_the_thread(store: SqliteStore) -> None:
    async def spin() -> None:
        while True:
            turn = time.perf_counter() + 0.0003
            while time.perf_counter() < turn:
                pass
            await asyncio.sleep(0)

    chance, took = random.Random(1), list[float]()
    async with alongside(spin):
        for _ in range(10):
            made = [record(chance) for _ in range(200)]
            began = time.perf_counter()
            await store.append(made)
            took.append(time.perf_counter() - began)
    assert max(took) < PATIENCE


# --- sealed: read as it lies there


def left_in(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in directory.iterdir()}


async def test_a_sealed_file_is_read_without_a_trace(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.insert("keys", key("a"))
        await store.append([record(random.Random(1))])
    before = left_in(path.parent)
    path.parent.chmod(0o500)
    try:
        async with open_sealed(path) as sealed:
            assert await sealed.get("keys", "a") == key("a")
            assert [row.requests for row in await sealed.usage(UsageQuery())] == [1]
            with pytest.raises(StoreUnavailable, match="read-only"):
                await sealed.insert("keys", key("b"))
            assert sealed.is_as_found()
    finally:
        path.parent.chmod(0o700)
    assert left_in(path.parent) == before


async def test_a_sealed_file_tells_that_somebody_has_written(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.insert("keys", key("a"))
    async with open_sealed(path) as sealed:
        async with open_sqlite(path) as store:
            await store.insert("keys", key("b"))
            assert not sealed.is_as_found()
        assert not sealed.is_as_found()


async def test_what_was_left_in_the_midst_of_a_write_is_not_sealed(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.insert("keys", key("a"))
        with pytest.raises(StoreUnavailable, match="start the gateway on it once"):
            async with open_sealed(path):
                pass


@pytest.mark.parametrize(("change", "by"), [(-1, "an older version"), (1, "a newer version")])
async def test_a_file_of_another_version_is_not_sealed(path: Path, change: int, by: str) -> None:
    async with open_sqlite(path):
        pass
    with sqlite3.connect(path) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version + change}")
    connection.close()
    with pytest.raises(StoreUnavailable, match=by):
        async with open_sealed(path):
            pass
