"""One SQLite file, used through one connection in a thread of its own: nothing blocks the event loop.

A single connection also makes SQLite's data version tell of other processes only. The driver's errors end
here.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from typing_extensions import override

from llmgateway.domain.errors import Conflict, InvalidRequest, StoreUnavailable
from llmgateway.stores.breaker import Health, reason_of

log = logging.getLogger("llmgateway.stores.sqlite")

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

LOCK_WAIT_MS = 5  # at most, in the thread, where others wait behind; then the job queues again
LOCK_PAUSE = 0.02  # seconds
OPCODES_BETWEEN_LOOKS = 1_000_000  # some ten milliseconds of a long query
STATEMENTS = 64  # kept compiled

# Each step takes a file one version up.
STEPS: Final = (
    """
CREATE TABLE documents (
  kind TEXT NOT NULL, id TEXT NOT NULL, revision INTEGER NOT NULL, doc TEXT NOT NULL,
  PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE records (
  id TEXT PRIMARY KEY, at INTEGER NOT NULL,
  user TEXT NOT NULL, key_id TEXT NOT NULL, project TEXT, model TEXT NOT NULL,
  prompt INTEGER NOT NULL, completion INTEGER NOT NULL, cached INTEGER NOT NULL, reasoning INTEGER NOT NULL,
  cost INTEGER NOT NULL, doc TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX records_by_time ON records
  (at, user, key_id, project, model, prompt, completion, cached, reasoning, cost);
""",  # the index holds all that sums need, so they never touch the documents
    """
CREATE TABLE shelves (
  shelf TEXT NOT NULL, id TEXT NOT NULL, value BLOB NOT NULL, until INTEGER NOT NULL, owner TEXT,
  PRIMARY KEY (shelf, id)
) WITHOUT ROWID;
CREATE INDEX shelves_by_owner ON shelves (shelf, owner) WHERE owner IS NOT NULL;
CREATE INDEX shelves_by_end ON shelves (until)
""",
    """
CREATE TABLE numbered (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, at INTEGER NOT NULL,
  user TEXT NOT NULL, key_id TEXT NOT NULL, project TEXT, model TEXT NOT NULL,
  prompt INTEGER NOT NULL, completion INTEGER NOT NULL, cached INTEGER NOT NULL, reasoning INTEGER NOT NULL,
  cost INTEGER NOT NULL, requests INTEGER NOT NULL DEFAULT 1, doc TEXT NOT NULL
);
INSERT INTO numbered
  (id, at, user, key_id, project, model, prompt, completion, cached, reasoning, cost, doc)
  SELECT id, at, user, key_id, project, model, prompt, completion, cached, reasoning, cost, doc FROM records
  ORDER BY id;
DROP TABLE records;
ALTER TABLE numbered RENAME TO records;
CREATE INDEX records_by_time ON records (at, user, key_id, project, model);
CREATE TABLE sums (
  level INTEGER NOT NULL, unit INTEGER NOT NULL,
  user TEXT NOT NULL, key_id TEXT NOT NULL, project TEXT NOT NULL, model TEXT NOT NULL,
  requests INTEGER NOT NULL, prompt INTEGER NOT NULL, completion INTEGER NOT NULL, cached INTEGER NOT NULL,
  reasoning INTEGER NOT NULL, cost INTEGER NOT NULL,
  PRIMARY KEY (level, unit, user, key_id, project, model)
) WITHOUT ROWID;
CREATE INDEX sums_by_user ON sums (user, level, unit);
CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID
""",  # records have numbers in the order in which they came; sums hold them up to one of these
)
VERSION: Final = len(STEPS)

WHAT_IS_WRONG: Final = {
    sqlite3.SQLITE_BUSY: "is locked by another process",
    sqlite3.SQLITE_LOCKED: "is locked by another process",
    sqlite3.SQLITE_READONLY: "is read-only",
    sqlite3.SQLITE_PERM: "may not be opened",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_FULL: "has no room left on its disk",
    sqlite3.SQLITE_IOERR: "cannot be read or written",
    sqlite3.SQLITE_CORRUPT: "is damaged",
    sqlite3.SQLITE_NOTADB: "is not a SQLite database",
    sqlite3.SQLITE_INTERRUPT: "did not answer in time",
}
LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
# What values raise that cannot be stored.
UNFIT = (sqlite3.IntegrityError, sqlite3.DataError, OverflowError, ValueError, TypeError)
START_IT: Final = "start the gateway on it once, and stop it"
DOES_NOT_FIT: Final = "This cannot be stored: it is too large or holds what JSON cannot."


class Locked(StoreUnavailable):
    """Another process holds the lock: worth another try until the caller's time is over."""


class SqliteFile:
    """`patience` bounds every call, in seconds."""

    def __init__(self, path: Path, patience: float) -> None:
        self._path = path
        self._patience = patience
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._until = 0.0
        self._version = 0
        self._was_opened = self._was_reopened = False
        # Apart: a read-only file or another's lock stops writers only, and a read must not report it as over.
        self._reading = Health(f"the database {path}", log)
        self._writing = Health(f"writing to the database {path}", log)

    @property
    def is_healthy(self) -> bool:
        return self._reading.is_good and self._writing.is_good

    async def read(self, job: Job[T]) -> T:
        return await self._call(job, self._reading)

    async def write(self, job: Job[T]) -> T:
        """`job` in one transaction, on disk when this returns."""
        return await self._call(lambda connection: _transacted(connection, job), self._writing)

    async def changed_elsewhere(self) -> bool:
        """Whether another process has written since the last question."""
        return await self._call(self._look_for_change, self._reading)

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):  # of a thread that hangs in a system call
            async with asyncio.timeout(self._patience * 2):
                await loop.run_in_executor(self._thread, self._drop)
        self._thread.shutdown(wait=False)

    async def _call(self, job: Job[T], health: Health) -> T:
        deadline = time.monotonic() + self._patience
        try:
            async with asyncio.timeout(self._patience * 1.2):  # the thread itself gives up a little earlier
                return await self._call_until(deadline, job, health)
        except TimeoutError:
            health.bad("it hangs")
            raise _unavailable(sqlite3.SQLITE_INTERRUPT) from None

    async def _call_until(self, deadline: float, job: Job[T], health: Health) -> T:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await loop.run_in_executor(self._thread, self._run, job, deadline, health)
            except Locked as error:
                await asyncio.sleep(LOCK_PAUSE)
                if time.monotonic() >= deadline:
                    health.bad(reason_of(error))
                    raise

    # --- in the thread ---

    def _run(self, job: Job[T], deadline: float, health: Health) -> T:
        if time.monotonic() >= deadline:
            raise _unavailable(sqlite3.SQLITE_INTERRUPT)
        self._until = deadline
        try:
            result = job(self._current())
        except sqlite3.IntegrityError as error:
            raise Conflict("The id is taken.") from error
        except UNFIT as error:
            raise InvalidRequest(DOES_NOT_FIT) from error
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error, health) from error
        health.good()
        return result

    def _failed(self, error: sqlite3.Error | OSError, health: Health) -> StoreUnavailable:
        cannot_open = isinstance(error, OSError)
        code = sqlite3.SQLITE_CANTOPEN if cannot_open else getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in LOCKED:
            return Locked(_message(code), retry_after=1)
        if code != sqlite3.SQLITE_INTERRUPT:
            health.bad(reason_of(error))
            self._drop()  # the next call opens the file anew: what was wrong may have been put right
        return _unavailable(code)

    def _current(self) -> sqlite3.Connection:
        if self._connection is not None and self._inode != _inode_of(self._path):
            self._drop()  # somebody has put another file in its place
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        _make_private(self._path)
        connection = sqlite3.connect(
            self._path, timeout=LOCK_WAIT_MS / 1000, isolation_level=None, cached_statements=STATEMENTS
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            _prepare(connection)
            self._version = _data_version(connection)
        except BaseException:
            connection.close()
            raise
        connection.set_progress_handler(self._is_late, OPCODES_BETWEEN_LOOKS)
        self._inode = _inode_of(self._path)
        self._was_reopened = self._was_opened
        self._was_opened = True
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _is_late(self) -> bool:
        return time.monotonic() > self._until

    def _look_for_change(self, connection: sqlite3.Connection) -> bool:
        version = _data_version(connection)
        is_changed = version != self._version or self._was_reopened
        self._version, self._was_reopened = version, False
        return is_changed


class SealedFile(SqliteFile):
    """A file that is read as it lies there: nothing in it or beside it is made or changed, so it may be on a
    disk that is read-only. Nobody is kept from writing to it meanwhile; `is_as_found` tells."""

    def __init__(self, path: Path, patience: float) -> None:
        super().__init__(path, patience)
        self._found = _look_of(path)

    def is_as_found(self) -> bool:
        return self._found == _look_of(self._path)

    @override
    def _open(self) -> sqlite3.Connection:
        if any(path.exists() and path.stat().st_size for path in _companions(self._path)):
            raise StoreUnavailable(f"The embedded database was left in the midst of a write; {START_IT}.")
        where = f"{self._path.absolute().as_uri()}?immutable=1"
        connection = sqlite3.connect(where, uri=True, isolation_level=None, cached_statements=STATEMENTS)
        try:
            _demand_version(connection)
        except BaseException:
            connection.close()
            raise
        connection.set_progress_handler(self._is_late, OPCODES_BETWEEN_LOOKS)
        self._inode = _inode_of(self._path)
        return connection


def _demand_version(connection: sqlite3.Connection) -> None:
    found = _schema_version(connection)
    if found != VERSION:
        by = (
            f"an older version of llmgateway; {START_IT}"
            if found < VERSION
            else "a newer version of llmgateway"
        )
        raise StoreUnavailable(f"The embedded database was last used by {by}.")


def _companions(path: Path) -> list[Path]:
    """What holds writes that are not in the file: WAL, and the journal of other modes."""
    return [path.with_name(path.name + end) for end in ("-wal", "-journal")]


def _look_of(path: Path) -> list[tuple[int, int, int]]:
    """What is another when somebody has written."""
    files = [one for one in (path, *_companions(path)) if one.exists()]
    return [(found.st_ino, found.st_size, found.st_mtime_ns) for found in (one.stat() for one in files)]


def _make_private(path: Path) -> None:
    """Creates what is not there, for the owner's eyes only. The file's companions get its mode: while it was
    read-only they were made so too, and would keep it so."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    mode = path.stat().st_mode & 0o600
    for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if file.stat().st_mode & 0o777 != mode:
                file.chmod(mode)


def _prepare(connection: sqlite3.Connection) -> None:
    """Creates the tables that are missing, in a transaction: a server and a command may open a new file in
    the same moment."""
    if _schema_version(connection) == VERSION:
        return

    def create(connection: sqlite3.Connection) -> None:
        found = _schema_version(connection)
        if found > VERSION:
            raise StoreUnavailable("The embedded database was made by a newer version of llmgateway.")
        for step in STEPS[found:]:
            for statement in step.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")

    _transacted(connection, create)


def _transacted(connection: sqlite3.Connection, job: Job[T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = job(connection)
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back by itself after the worst
            connection.execute("ROLLBACK")
        raise
    return result


def _schema_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _data_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _inode_of(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1


def _message(code: int) -> str:
    return f"The embedded database {WHAT_IS_WRONG.get(code, 'failed')}."


def _unavailable(code: int) -> StoreUnavailable:
    return StoreUnavailable(_message(code), retry_after=1)
