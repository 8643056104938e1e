"""The shelf's contract on the SQLite file; a restart, an older file, clocks that jump, and sweeping."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from llmgateway.domain.ports import SystemClock
from llmgateway.stores.sqlite import open_sqlite
from llmgateway.stores.sqlite_file import STEPS
from llmgateway.stores.sqlite_shelf import SWEEP_SECONDS, SqliteShelf
from tests.doubles import SetClock
from tests.stores.contract import key
from tests.stores.shelf_contract import LONG, ShelfContract


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


class TestSqliteShelf(ShelfContract):
    @pytest.fixture
    async def shelf(self, path: Path) -> AsyncIterator[SqliteShelf]:
        async with open_sqlite(path) as store:
            yield SqliteShelf(store.file, SystemClock())

    @pytest.fixture
    async def other_shelf(self, path: Path) -> AsyncIterator[SqliteShelf]:
        async with open_sqlite(path) as store:
            yield SqliteShelf(store.file, SystemClock())


async def test_a_restart_loses_nothing(path: Path) -> None:
    async with open_sqlite(path) as store:
        await SqliteShelf(store.file, SystemClock()).put("sessions", "a", b"1", LONG)
    async with open_sqlite(path) as store:
        assert await SqliteShelf(store.file, SystemClock()).get("sessions", "a") == b"1"


async def test_a_file_from_before_there_were_shelves_is_taken_over(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{STEPS[0]}; PRAGMA user_version = 1;")
        connection.execute("INSERT INTO documents VALUES ('users', 'alice', 0, '{}')")
        connection.commit()
    async with open_sqlite(path) as store:
        assert await store.get("users", "alice") == {}
        await store.insert("keys", key())
        await SqliteShelf(store.file, SystemClock()).put("sessions", "a", b"1", LONG)


async def test_s_ses_07_a_clock_that_is_set_neither_ends_nor_lengthens_a_life(path: Path) -> None:
    clock = SetClock()
    async with open_sqlite(path) as store:
        shelf = SqliteShelf(store.file, clock)
        await shelf.put("sessions", "a", b"1", 100)
        clock.at += timedelta(days=2)
        assert await shelf.get("sessions", "a") == b"1"
        clock.at -= timedelta(days=4)
        clock.seconds += 99
        assert await shelf.get("sessions", "a") == b"1"
        clock.seconds += 2
        assert await shelf.get("sessions", "a") is None


async def test_what_is_over_is_swept_out_of_the_file(path: Path) -> None:
    clock = SetClock()
    async with open_sqlite(path) as store:
        shelf = SqliteShelf(store.file, clock)
        for n in range(20):
            await shelf.add("seen", str(n), b"1", 10)
        clock.pass_seconds(SWEEP_SECONDS)
        await shelf.put("sessions", "a", b"1", LONG)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM shelves").fetchone() == (1,)
