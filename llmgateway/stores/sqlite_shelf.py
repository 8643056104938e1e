"""The shelf of an embedded gateway: rows of its SQLite file, so that a restart signs nobody out.

Ends are times of the process's steady clock: a clock that is set neither ends nor lengthens what runs.
"""

from typing import Any

from llmgateway.domain.ports import Clock
from llmgateway.domain.steady import SteadyClock
from llmgateway.stores.sqlite_file import SqliteFile

SWEEP_SECONDS = 60.0  # between two removals of what is over

_PUT = """INSERT INTO shelves VALUES (?, ?, ?, ?, ?) ON CONFLICT (shelf, id)
DO UPDATE SET value = excluded.value, until = excluded.until, owner = excluded.owner"""
_ADD = f"{_PUT} WHERE until <= ?"
_GET = "SELECT value FROM shelves WHERE shelf = ? AND id = ? AND until > ?"
_DELETE = "DELETE FROM shelves WHERE shelf = ? AND id = ? AND until > ?"
_TOUCH = """UPDATE shelves SET until = ?, value = coalesce(?, value)
WHERE shelf = ? AND id = ? AND until > ?"""
_COUNT = """INSERT INTO shelves VALUES (?, ?, 1, ?, NULL) ON CONFLICT (shelf, id) DO UPDATE SET
value = iif(until > ?, value + 1, 1), until = iif(until > ?, until, excluded.until) RETURNING value"""
_OWNED = "SELECT id, value FROM shelves WHERE shelf = ? AND owner = ? AND until > ?"
_SWEEP = "DELETE FROM shelves WHERE until <= ?"


class SqliteShelf:
    """Of one process."""

    def __init__(self, file: SqliteFile, clock: Clock) -> None:
        self._file = file
        self._clock = SteadyClock(clock)
        self._next_sweep = 0.0

    async def put(
        self, shelf: str, id: str, value: bytes, seconds: float, *, owner: str | None = None
    ) -> None:
        await self._sweep()
        await self._change(_PUT, shelf, id, value, self._end(seconds), owner)

    async def get(self, shelf: str, id: str) -> bytes | None:
        rows = await self._read(_GET, shelf, id, self._now())
        return rows[0][0] if rows else None

    async def take(self, shelf: str, id: str) -> bytes | None:
        rows = await self._rows(f"{_DELETE} RETURNING value", shelf, id, self._now())
        return rows[0][0] if rows else None

    async def add(self, shelf: str, id: str, value: bytes, seconds: float) -> bool:
        await self._sweep()
        return bool(await self._change(_ADD, shelf, id, value, self._end(seconds), None, self._now()))

    async def delete(self, shelf: str, id: str) -> bool:
        return bool(await self._change(_DELETE, shelf, id, self._now()))

    async def touch(self, shelf: str, id: str, seconds: float, value: bytes | None = None) -> bool:
        return bool(await self._change(_TOUCH, self._end(seconds), value, shelf, id, self._now()))

    async def count(self, shelf: str, id: str, seconds: float) -> int:
        await self._sweep()
        now = self._now()
        rows = await self._rows(_COUNT, shelf, id, self._end(seconds), now, now)
        return int(rows[0][0])

    async def owned(self, shelf: str, owner: str) -> dict[str, bytes]:
        return dict(await self._read(_OWNED, shelf, owner, self._now()))

    def _now(self) -> int:
        return int(self._clock.now().timestamp() * 1000)

    def _end(self, seconds: float) -> int:
        return self._now() + max(1, int(seconds * 1000))

    async def _sweep(self) -> None:
        if self._clock.monotonic() >= self._next_sweep:
            self._next_sweep = self._clock.monotonic() + SWEEP_SECONDS
            await self._change(_SWEEP, self._now())

    async def _read(self, sql: str, *values: object) -> list[Any]:
        return await self._file.read(lambda connection: connection.execute(sql, values).fetchall())

    async def _rows(self, sql: str, *values: object) -> list[Any]:
        return await self._file.write(lambda connection: connection.execute(sql, values).fetchall())

    async def _change(self, sql: str, *values: object) -> int:
        return await self._file.write(lambda connection: connection.execute(sql, values).rowcount)
