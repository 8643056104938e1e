"""The embedded truth: documents and the ledger in one SQLite file."""

import contextlib
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import chain
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from llmgateway.domain.call import Record
from llmgateway.domain.errors import Conflict, InvalidRequest
from llmgateway.domain.ports import Dimension, Document, Kind, Page, RecordQuery, UsageQuery, UsageRow
from llmgateway.stores.sqlite_file import DOES_NOT_FIT, UNFIT, Locked, SqliteFile
from llmgateway.stores.usage import (
    COLUMNS,
    SUMS,
    checked,
    in_order,
    milliseconds,
    to_the_millisecond,
    zone_of,
)

PATIENCE = 2.0  # seconds
SWITCH_SECONDS = 0.0001
BUCKET_MS = 15 * 60 * 1000  # every zone's offset, and so every local midnight, is a multiple of it
DATE = "$date"  # how JSON, which has none, holds a time
BATCHES: Final = (256, 128, 64, 32, 16, 8, 4, 2, 1)  # rows of one statement; each is kept compiled
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Not "OR IGNORE", which would drop a row that lacks something as well.
INSERTIONS: Final = {
    size: f"INSERT INTO records VALUES {', '.join([_ROW] * size)} ON CONFLICT (id) DO NOTHING"  # noqa: S608
    for size in BATCHES
}
_encode = msgspec.json.Encoder().encode


class SqliteStore:
    """`open_sqlite` makes it."""

    name = "sqlite"

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self.changed_elsewhere = file.changed_elsewhere

    def is_healthy(self) -> bool:
        return self._file.is_healthy

    async def ping(self) -> None:
        await self._change("DELETE FROM documents WHERE kind = ''")  # of none: is writing possible?

    # --- documents ---

    async def get(self, kind: Kind, id: str) -> Document | None:
        rows = await self._all("SELECT doc FROM documents WHERE kind = ? AND id = ?", kind, id)
        return _document(rows[0][0]) if rows else None

    async def insert(self, kind: Kind, document: Document) -> None:
        row = (kind, document["id"], document.get("revision", 0), _text(document))
        await self._change("INSERT INTO documents VALUES (?, ?, ?, ?)", *row)

    async def replace(self, kind: Kind, document: Document) -> None:
        revision = document["revision"]
        changed = await self._change(
            "UPDATE documents SET revision = ?, doc = ? WHERE kind = ? AND id = ? AND revision = ?",
            revision, _text(document), kind, document["id"], revision - 1,
        )  # fmt: skip
        if not changed:
            raise Conflict(f"'{document['id']}' has changed meanwhile or is gone.")

    async def delete(self, kind: Kind, id: str) -> bool:
        return bool(await self._change("DELETE FROM documents WHERE kind = ? AND id = ?", kind, id))

    async def find(
        self, kind: Kind, where: Mapping[str, str | None], *, limit: int, after: str | None = None,
        newest_first: bool = False,
    ) -> Page:  # fmt: skip
        clauses: list[str] = ["kind = ?"]
        values: list[str | None] = [kind]
        for name, value in where.items():
            if not name.isidentifier():
                raise ValueError(f"no document has a field {name!r}")
            clauses.append(f"json_extract(doc, '$.{name}') IS ?")
            values.append(value)
        if after is not None:
            clauses.append("id < ?" if newest_first else "id > ?")
            values.append(after)
        order = "DESC" if newest_first else "ASC"
        clause = " AND ".join(clauses)
        sql = f"SELECT id, doc FROM documents WHERE {clause} ORDER BY id {order} LIMIT ?"  # noqa: S608 - own words
        rows = await self._all(sql, *values, limit + 1)
        following = rows[limit - 1][0] if len(rows) > limit else None
        return Page([_document(doc) for _, doc in rows[:limit]], following)

    # --- the ledger ---

    async def append(self, records: Sequence[Record]) -> Sequence[str]:
        def store(connection: Connection) -> list[str]:
            try:
                _store(connection, [_row(record) for record in records])
            except UNFIT:  # nothing tells which one it was
                return [record.id for record in records if not _is_stored(connection, record)]
            return []

        return await self._file.write(store) if records else []

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        zone = zone_of(query.time_zone)
        clause, values = _matching(query.start, query.end, query.where)
        groups = [f"at / {BUCKET_MS}" if name == "day" else COLUMNS[name] for name in query.by]
        sums = ["count(*)", *(f"sum({name})" for name in (*SUMS, "cost"))]
        sql = f"SELECT {', '.join([*groups, *sums])} FROM records WHERE {clause}"  # noqa: S608 - own words
        if groups:
            sql += f" GROUP BY {', '.join(str(number + 1) for number in range(len(groups)))}"

        def add_up(connection: Connection) -> dict[Group, list[int]]:
            return _folded(connection.execute(sql, values), query.by, zone)

        totals = await self._file.read(add_up)
        return in_order([_usage_row(query.by, group, total) for group, total in totals.items()])

    async def records(self, query: RecordQuery) -> list[Document]:
        clause, values = _matching(query.start, query.end, query.where)
        if query.after is not None:
            clause += " AND id < ?"
            values.append(query.after)
        # The inner query can be answered from the index alone; only what is shown is read.
        chosen = f"SELECT id FROM records WHERE {clause} ORDER BY id DESC LIMIT ?"  # noqa: S608 - own words
        sql = f"SELECT doc FROM records WHERE id IN ({chosen}) ORDER BY id DESC"  # noqa: S608 - own words
        rows = await self._all(sql, *values, query.limit)
        return [_ledger_line(doc) for (doc,) in rows]

    async def known(self, ids: Sequence[str]) -> set[str]:
        asked = msgspec.json.encode(ids).decode()
        rows = await self._all("SELECT id FROM records WHERE id IN (SELECT value FROM json_each(?))", asked)
        return {row[0] for row in rows}

    # --- statements ---

    async def _all(self, sql: str, *values: object) -> list[Any]:
        return await self._file.read(lambda connection: connection.execute(sql, values).fetchall())

    async def _change(self, sql: str, *values: object) -> int:
        return await self._file.write(lambda connection: connection.execute(sql, values).rowcount)


@asynccontextmanager
async def open_sqlite(path: Path, patience: float = PATIENCE) -> AsyncIterator[SqliteStore]:
    """`patience` bounds every call, in seconds. Raises `StoreUnavailable` when the file cannot be used, but
    not when another process only holds its lock."""
    file = SqliteFile(path, patience)
    before = sys.getswitchinterval()
    # A busy event loop lets go of the interpreter's lock at each turn, for too short for a thread to wake up,
    # and each time the thread begins its wait anew: for seconds. So it must be able to insist within a turn.
    sys.setswitchinterval(min(before, SWITCH_SECONDS))
    try:
        with contextlib.suppress(Locked):
            await file.read(lambda connection: None)
        yield SqliteStore(file)
    finally:
        sys.setswitchinterval(before)
        await file.close()


# --- documents as text ---


def _text(document: Document) -> str:
    try:
        return _encode(_plain(document)).decode()
    except (UnicodeError, TypeError, OverflowError) as error:
        raise InvalidRequest(DOES_NOT_FIT) from error


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return {DATE: to_the_millisecond(value).isoformat()}
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    return [_plain(member) for member in value] if isinstance(value, list | tuple) else value


def _document(text: str) -> Document:
    document: Document = _revived(msgspec.json.decode(text))
    return document


def _revived(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {DATE}:
            return datetime.fromisoformat(value[DATE])
        return {name: _revived(member) for name, member in value.items()}
    return [_revived(member) for member in value] if isinstance(value, list) else value


# --- records as rows ---


def _row(record: Record) -> tuple[object, ...]:
    tokens = record.tokens
    return (
        record.id, milliseconds(record.at),
        record.user, record.key_id, record.project, record.model,
        tokens.prompt, tokens.completion, tokens.cached, tokens.reasoning,
        record.cost, _encode(record).decode(),
    )  # fmt: skip


def _store(connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
    """In few statements of many rows, since the driver gives up the interpreter's lock at each and has to
    wait for it: beside a busy event loop 200 single rows take 200 ms and three times the CPU, these 15 ms."""
    start = 0
    for size in BATCHES:
        while len(rows) - start >= size:
            batch = rows[start : start + size]
            connection.execute(INSERTIONS[size], list(chain.from_iterable(batch)))
            start += size


def _is_stored(connection: Connection, record: Record) -> bool:
    try:
        _store(connection, [_row(record)])
    except UNFIT:
        return False
    return True


def _ledger_line(text: str) -> Document:
    line: Document = msgspec.json.decode(text)
    for name in ("at", "ended_at"):
        if line[name] is not None:
            line[name] = to_the_millisecond(datetime.fromisoformat(line[name]))
    return {"id": line.pop("_id"), **line}


# --- sums ---


Group = tuple[str | None, ...]


def _matching(
    start: datetime | None, end: datetime | None, where: Mapping[str, str]
) -> tuple[str, list[object]]:
    """A condition, and the values for its places."""
    clauses, values = ["1"], list[object]()
    for clause, moment in (("at >= ?", start), ("at < ?", end)):
        if moment is not None:
            clauses.append(clause)
            values.append(milliseconds(moment))
    for name, value in checked(where).items():
        clauses.append(f"{name} = ?")
        values.append(value)
    return " AND ".join(clauses), values


def _folded(rows: Iterable[Any], by: Sequence[Dimension], zone: ZoneInfo) -> dict[Group, list[int]]:
    """Sums by group, with quarters of an hour added up to the days of `zone` that they lie in."""
    day = by.index("day") if "day" in by else None
    dates: dict[int, str] = {}
    totals: dict[Group, list[int]] = {}
    for row in rows:
        group, sums = list(row[: len(by)]), row[len(by) :]
        if day is not None:
            group[day] = dates.get(group[day]) or dates.setdefault(group[day], _date(group[day], zone))
        if not sums[0]:  # the only row of a sum over nothing
            continue
        total = totals.setdefault(tuple(group), [0] * len(sums))
        for place, amount in enumerate(sums):
            total[place] += amount
    return totals


def _date(bucket: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(bucket * BUCKET_MS // 1000, zone).date().isoformat()


def _usage_row(by: Sequence[Dimension], group: Group, total: Sequence[int]) -> UsageRow:
    requests, prompt, completion, cached, reasoning, cost = total
    return UsageRow(
        group=dict(zip(by, group, strict=True)), requests=requests,
        prompt=prompt, completion=completion, cached=cached, reasoning=reasoning, cost=cost,
    )  # fmt: skip
