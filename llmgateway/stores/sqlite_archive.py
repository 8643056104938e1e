"""What the embedded ledger knows beside its records, for whoever moves it elsewhere."""

from datetime import datetime
from typing import Any, Final

from llmgateway.domain.moving import Since, Sum
from llmgateway.stores.rollups import DAY, FIRST, HOUR, begin_of
from llmgateway.stores.sqlite_file import SqliteFile
from llmgateway.stores.sqlite_sums import HOURLY_SINCE, NONE, RECORDS_SINCE, ROLLED, mark
from llmgateway.stores.usage import milliseconds, moment_of

_AMOUNTS: Final = ("requests", "prompt", "completion", "cached", "reasoning", "cost")
_FIELDS: Final = ("user", "key_id", "project", "model", *_AMOUNTS)
_NAMES: Final = f"user, key_id, nullif(project, {NONE}), model"
_ADDED: Final = ", ".join(f"sum({name})" for name in _AMOUNTS)
_GROUPED: Final = "GROUP BY 1, 2, 3, 4, 5, 6"
_KEPT: Final = "unit >= ?1 AND unit < ?2"
_TAIL: Final = "records INDEXED BY records_by_time WHERE at >= ?1 AND at < ?2 AND seq > ?3"  # in no sum yet
_SUMS: Final = f"""SELECT level, unit, {_NAMES}, {_ADDED} FROM (
  SELECT * FROM sums WHERE level IN ({HOUR}, {DAY}) AND {_KEPT}
  UNION ALL
  SELECT size.value, at / size.value * size.value, user, key_id, coalesce(project, {NONE}), model, {_ADDED}
  FROM json_each('[{HOUR}, {DAY}]') AS size CROSS JOIN {_TAIL} {_GROUPED}
) {_GROUPED}"""  # noqa: S608 - own words
_DAYS: Final = f"""SELECT unit FROM sums WHERE level = {DAY} AND {_KEPT}
UNION SELECT at / {DAY} * {DAY} FROM {_TAIL} ORDER BY 1"""  # noqa: S608 - own words


class SqliteArchive:
    """Implements `domain.moving.Archive`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def count(self) -> int:
        def count(connection: Any) -> int:
            return int(connection.execute("SELECT count(*) FROM records").fetchone()[0])

        return await self._file.read(count)

    async def since(self) -> Since:
        def marks(connection: Any) -> list[int]:
            return [mark(connection, name, FIRST) for name in (RECORDS_SINCE, HOURLY_SINCE)]

        return Since(*map(begin_of, await self._file.read(marks)))

    async def days(self, before: datetime) -> list[datetime]:
        return [moment_of(unit) for (unit,) in await self._between(_DAYS, FIRST, milliseconds(before))]

    async def sums(self, day: datetime) -> list[Sum]:
        start = milliseconds(day)
        return [
            Sum(
                unit="day" if level == DAY else "hour",
                start=moment_of(unit),
                **dict(zip(_FIELDS, fields, strict=True)),
            )
            for level, unit, *fields in await self._between(_SUMS, start, start + DAY)
        ]

    async def _between(self, sql: str, start: int, end: int) -> list[Any]:
        def ask(connection: Any) -> list[Any]:
            rows: list[Any] = connection.execute(sql, (start, end, mark(connection, ROLLED))).fetchall()
            return rows

        return await self._file.read(ask)
