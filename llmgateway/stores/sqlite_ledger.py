"""The embedded ledger: records as rows, and the sums beside them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from sqlite3 import Connection
from typing import Any, Final, TypeVar

import msgspec

from llmgateway.domain.call import Record
from llmgateway.domain.ports import Document, RecordQuery, UsageQuery, UsageRow
from llmgateway.domain.upkeep import Adjustment, Retention
from llmgateway.stores import sqlite_sums as sums
from llmgateway.stores.rollups import DAY, HOUR, Span, units
from llmgateway.stores.sqlite_file import UNFIT, SqliteFile
from llmgateway.stores.usage import checked, milliseconds, moment_of, to_the_millisecond, usage_rows, zone_of

BATCHES: Final = (256, 128, 64, 32, 16, 8, 4, 2, 1)  # rows of one statement; each is kept compiled
_COLUMNS = "id, at, user, key_id, project, model, prompt, completion, cached, reasoning, cost, doc"
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Not "OR IGNORE", which would drop a row that lacks something as well.
INSERTIONS: Final = {
    size: f"INSERT INTO records ({_COLUMNS}) VALUES {', '.join([_ROW] * size)} ON CONFLICT (id) DO NOTHING"  # noqa: S608
    for size in BATCHES
}
_WITH_REQUESTS = (
    f"INSERT INTO records ({_COLUMNS}, requests) VALUES {_ROW[:-1]}, ?) ON CONFLICT (id) DO NOTHING"  # noqa: S608
)
_AMONG = "id IN (SELECT value FROM json_each(?))"
_TWINS = """SELECT doc FROM records JOIN (
  SELECT at, user, key_id, model, prompt, completion, cost FROM records
  WHERE at >= ? AND at < ? AND requests = 1 GROUP BY 1, 2, 3, 4, 5, 6, 7 HAVING count(*) > 1
) USING (at, user, key_id, model, prompt, completion, cost) WHERE requests = 1 ORDER BY id"""
T = TypeVar("T")
_encode = msgspec.json.Encoder().encode


class SqliteLedger:
    """Implements `domain.upkeep.Upkeep`."""

    def __init__(self, file: SqliteFile) -> None:
        self.file = file
        self._tally = sums.Tally()  # of the file's thread; another takes its place when a transaction failed

    async def append(self, records: Sequence[Record]) -> Sequence[str]:
        def store(connection: Connection) -> list[str]:
            tally, before, changes = self._tally, sums.newest(connection), connection.total_changes
            try:
                rows = _store(connection, records)
            except UNFIT:  # nothing tells which one it was
                tally.end = None
                return [record.id for record in records if not _is_stored(connection, record)]
            if connection.total_changes - changes == len(records) == len(rows):
                tally.add(rows, before, sums.newest(connection))
            else:
                tally.end = None
            return []

        return await self._write(store) if records else []

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        zone_of(query.time_zone), checked(query.where)
        totals = await self.file.read(partial(sums.answer, query=query))
        return usage_rows(query.by, totals)

    async def records(self, query: RecordQuery) -> list[Document]:
        """In the order of times, which is that of ids; the index has all that is filtered by, so only what is
        shown is read."""
        clause, values = _matching(query)
        if query.after is not None:
            rows = await self._all("SELECT at FROM records WHERE id = ?", query.after)
            clause += " AND at <= ? AND (at, id) < (?, ?)" if rows else " AND id < ?"
            values += [rows[0][0], rows[0][0], query.after] if rows else [query.after]
        sql = f"SELECT doc FROM records WHERE {clause} ORDER BY at DESC, id DESC LIMIT ?"  # noqa: S608 - own words
        return [_ledger_line(doc) for (doc,) in await self._all(sql, *values, query.limit)]

    async def known(self, ids: Sequence[str]) -> set[str]:
        rows = await self._all(f"SELECT id FROM records WHERE {_AMONG}", _listed(ids))  # noqa: S608
        return {row[0] for row in rows}

    async def lines(self, ids: Sequence[str]) -> list[Document]:
        rows = await self._all(f"SELECT doc FROM records WHERE {_AMONG} ORDER BY id", _listed(ids))  # noqa: S608
        return [_ledger_line(doc) for (doc,) in rows]

    async def twins(self, start: datetime, end: datetime) -> list[list[Document]]:
        known = await self.file.read(sums.bounds)
        asked = (milliseconds(start), milliseconds(end))
        found: dict[bytes, list[Document]] = {}
        for first, last in _shared(asked, known, HOUR):
            for (doc,) in await self._all(_TWINS, first, last):
                line = _ledger_line(doc)
                said = msgspec.json.encode({**line, "id": None})
                found.setdefault(said, []).append(line)
        return [lines for lines in found.values() if len(lines) > 1]

    # --- sums ---

    async def roll_up(self) -> int:
        def step(connection: Connection) -> int:
            rolled = sums.mark(connection, sums.ROLLED)
            last = sums.roll_up(connection, self._tally)
            self._tally = sums.Tally(last)
            return last - rolled

        return await self._until_none(step)

    async def rebuild(self) -> int:
        await self.roll_up()
        span = await self.file.read(sums.bounds)
        hours = [] if span is None else units([span], HOUR)
        await self._mend(hours)
        return len(hours)

    async def differing(self, start: datetime, end: datetime) -> list[datetime]:
        known = await self.file.read(sums.bounds)
        asked = (milliseconds(start), milliseconds(end))
        found: list[datetime] = []
        for first, last in _shared(asked, known, DAY):
            hours = await self.file.read(partial(sums.differing_hours, start=first, end=last))
            found += [moment_of(hour) for hour in hours]
        return found

    async def mend(self, hours: Sequence[datetime]) -> None:
        known = await self.file.read(sums.bounds)
        if known is not None:
            asked = {milliseconds(hour) // HOUR * HOUR for hour in hours}
            await self._mend([hour for hour in sorted(asked) if known[0] <= hour < known[1]])

    async def reassign(self, keys: Sequence[str], user: str) -> int:
        listed = _listed(keys)

        def step(connection: Connection) -> int:
            self._tally = sums.Tally()
            day = next(iter(sums.days_of_others(connection, listed, user)), None)
            return 0 if day is None else sums.reassign_day(connection, day, listed, user)

        await self.roll_up()
        return await self._until_none(step)

    async def drop(self, kept: Retention, now: datetime) -> Mapping[str, int]:
        await self.roll_up()
        return {
            "records": await self._drop_records(_before(now, kept.records)),
            "hourly": await self._drop_sums(HOUR, _before(now, kept.hourly)),
            "daily": await self._drop_sums(DAY, _before(now, kept.daily)),
        }

    async def _mend(self, hours: Sequence[int]) -> None:
        for hour in hours:
            await self.file.write(partial(sums.mend_hour, hour=hour))
        for day in sorted({hour // DAY * DAY for hour in hours}):
            await self.file.write(partial(sums.mend_day, day=day))

    async def _drop_records(self, before: int | None) -> int:
        if before is None:
            return 0
        await self.file.write(partial(sums.begin_drop, name=sums.RECORDS_SINCE, before=before))
        return await self._until_none(partial(sums.drop_records, before=before))

    async def _drop_sums(self, level: int, before: int | None) -> int:
        if before is None:
            return 0
        if level == HOUR:
            await self.file.write(partial(sums.begin_drop, name=sums.HOURLY_SINCE, before=before))
        return await self._until_none(partial(sums.drop_sums, level=level, before=before))

    async def _write(self, job: Callable[[Connection], T]) -> T:
        try:
            return await self.file.write(job)
        except BaseException:
            self._tally = sums.Tally()  # it may have what the file has not
            raise

    async def _until_none(self, step: Callable[[Connection], int]) -> int:
        count = 0
        while done := await self._write(step):
            count += done
        return count

    async def _all(self, sql: str, *values: object) -> list[Any]:
        return await self.file.read(lambda connection: connection.execute(sql, values).fetchall())


# --- records as rows ---


def _row(record: Record) -> tuple[object, ...]:
    tokens = record.tokens
    return (
        record.id, milliseconds(record.at),
        record.user, record.key_id, record.project, record.model,
        tokens.prompt, tokens.completion, tokens.cached, tokens.reasoning,
        record.cost, _encode(record).decode(),
    )  # fmt: skip


def _store(connection: Connection, records: Sequence[Record]) -> list[tuple[object, ...]]:
    """In few statements of many rows, since the driver gives up the interpreter's lock at each and has to
    wait for it: beside a busy event loop 200 single rows take 200 ms and three times the CPU, these 15 ms."""
    rows = [_row(record) for record in records if type(record) is Record]
    start = 0
    for size in BATCHES:
        while len(rows) - start >= size:
            batch = rows[start : start + size]
            connection.execute(INSERTIONS[size], list(chain.from_iterable(batch)))
            start += size
    if len(rows) < len(records):
        for record in records:
            if isinstance(record, Adjustment):
                connection.execute(_WITH_REQUESTS, (*_row(record), record.requests))
    return rows


def _is_stored(connection: Connection, record: Record) -> bool:
    try:
        _store(connection, [record])
    except UNFIT:
        return False
    return True


def _ledger_line(text: str) -> Document:
    line: Document = msgspec.json.decode(text)
    for name in ("at", "ended_at"):
        if line[name] is not None:
            line[name] = to_the_millisecond(datetime.fromisoformat(line[name]))
    return {"id": line.pop("_id"), **line}


def _listed(ids: Sequence[str]) -> str:
    return msgspec.json.encode(ids).decode()


def _matching(query: RecordQuery) -> tuple[str, list[object]]:
    """A condition, and the values for its places."""
    clauses, values = ["1"], list[object]()
    for clause, moment in (("at >= ?", query.start), ("at < ?", query.end)):
        if moment is not None:
            clauses.append(clause)
            values.append(milliseconds(moment))
    for name, value in checked(query.where).items():
        clauses.append(f"{name} = ?")
        values.append(value)
    return " AND ".join(clauses), values


def _shared(asked: Span, known: Span | None, size: int) -> list[Span]:
    """Whole units of what is asked and known."""
    if known is None:
        return []
    start, end = max(asked[0], known[0]), min(asked[1], known[1])
    return [(unit, unit + size) for unit in units([(start, end)], size)] if start < end else []


def _before(now: datetime, days: int | None) -> int | None:
    """The day of UTC that is the first to be kept."""
    return None if days is None else milliseconds(now.astimezone(UTC) - timedelta(days=days)) // DAY * DAY
