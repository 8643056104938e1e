"""The embedded truth: documents and the ledger in one SQLite file."""

import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from llmgateway.domain.errors import Conflict, InvalidRequest
from llmgateway.domain.ports import Document, Kind, Page
from llmgateway.stores.sqlite_archive import SqliteArchive
from llmgateway.stores.sqlite_file import DOES_NOT_FIT, Locked, SealedFile, SqliteFile
from llmgateway.stores.sqlite_ledger import SqliteLedger
from llmgateway.stores.usage import to_the_millisecond

PATIENCE = 2.0  # seconds
LONG = 60.0  # seconds, where nobody waits for an answer
SWITCH_SECONDS = 0.0001
DATE = "$date"  # how JSON, which has none, holds a time
_encode = msgspec.json.Encoder().encode


class SqliteStore(SqliteLedger):
    """`open_sqlite` makes it."""

    name = "sqlite"

    def __init__(self, file: SqliteFile) -> None:
        super().__init__(file)
        self.changed_elsewhere = file.changed_elsewhere
        self.archive = SqliteArchive(file)

    def is_healthy(self) -> bool:
        return self.file.is_healthy

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

    # --- statements ---

    async def _change(self, sql: str, *values: object) -> int:
        return await self.file.write(lambda connection: connection.execute(sql, values).rowcount)


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


class SealedStore(SqliteStore):
    """`open_sealed` makes it."""

    def __init__(self, file: SealedFile) -> None:
        super().__init__(file)
        self.is_as_found = file.is_as_found


@asynccontextmanager
async def open_sealed(path: Path) -> AsyncIterator[SealedStore]:
    """A file that no gateway uses, read without a trace. Raises `StoreUnavailable` when that cannot be."""
    file = SealedFile(path, LONG)
    try:
        await file.read(lambda connection: None)
        yield SealedStore(file)
    finally:
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
