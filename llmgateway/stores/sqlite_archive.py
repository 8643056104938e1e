"""What the embedded ledger knows beside its records, for whoever moves it elsewhere."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from llmgateway.domain.moving import Since, Sum
from llmgateway.stores.rollups import DAY, FIRST, HOUR, begin_of
from llmgateway.stores.sqlite_file import SqliteFile
from llmgateway.stores.sqlite_sums import HOURLY_SINCE, NONE, RECORDS_SINCE, mark
from llmgateway.stores.usage import milliseconds, moment_of

_AMOUNTS: Final = ("requests", "prompt", "completion", "cached", "reasoning", "cost")
_FIELDS: Final = ("user", "key_id", "project", "model", *_AMOUNTS)
_COLUMNS: Final = f"user, key_id, nullif(project, {NONE}), model, {', '.join(_AMOUNTS)}"
_OF_A_DAY: Final = f"level IN ({HOUR}, {DAY}) AND unit >= ? AND unit < ?"
_SUMS: Final = f"SELECT level, unit, {_COLUMNS} FROM sums WHERE {_OF_A_DAY}"  # noqa: S608 - own words
_DAYS: Final = "SELECT DISTINCT unit FROM sums WHERE level = ? AND unit < ? ORDER BY unit"


class SqliteArchive:
    """Implements `domain.moving.Archive`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def count(self) -> int:
        ((count,),) = await self._all("SELECT count(*) FROM records")
        return int(count)

    async def since(self) -> Since:
        def marks(connection: Any) -> list[int]:
            return [mark(connection, name, FIRST) for name in (RECORDS_SINCE, HOURLY_SINCE)]

        return Since(*map(begin_of, await self._file.read(marks)))

    async def days(self, before: datetime) -> list[datetime]:
        return [moment_of(unit) for (unit,) in await self._all(_DAYS, DAY, milliseconds(before))]

    async def sums(self, day: datetime) -> list[Sum]:
        start = milliseconds(day)
        return [
            Sum(unit=("day" if level == DAY else "hour"), start=moment_of(unit),
                **dict(zip(_FIELDS, fields, strict=True)))
            for level, unit, *fields in await self._all(_SUMS, start, start + DAY)
        ]  # fmt: skip

    async def _all(self, sql: str, *values: object) -> list[Any]:
        job: Callable[[Any], list[Any]] = lambda connection: connection.execute(sql, values).fetchall()  # noqa: E731
        return await self._file.read(job)
