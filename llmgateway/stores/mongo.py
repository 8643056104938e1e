"""The truth on MongoDB: a collection for each kind of document, and the ledger in `records`.

Only this module and its sums know the MongoDB driver. The server may be absent at the start and later; every
call is bounded in time, and while the server is away calls fail at once.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

import bson
import bson.errors
import msgspec
import pymongo
from bson import Int64
from pymongo import AsyncMongoClient, IndexModel, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
    WaitQueueTimeoutError,
)
from pymongo.read_concern import ReadConcern

from llmgateway.domain.call import Record
from llmgateway.domain.errors import Conflict, InvalidRequest, StoreUnavailable
from llmgateway.domain.ports import Document, Kind, Page, RecordQuery, SystemClock, UsageQuery, UsageRow
from llmgateway.domain.upkeep import Retention
from llmgateway.stores.alongside import alongside
from llmgateway.stores.breaker import Breaker, reason_of
from llmgateway.stores.mongo_archive import MongoArchive
from llmgateway.stores.mongo_owners import MongoOwners
from llmgateway.stores.mongo_sums import STEP_SECONDS, MongoSums
from llmgateway.stores.usage import checked, usage_rows

log = logging.getLogger(__name__)

POOL = 20
DATABASE = "gateway"  # where the URL names none
BACKGROUND = 2  # the probe, the indexes
INDEX_SECONDS, INDEX_PAUSE = 600.0, 30.0  # building one over a large ledger takes its time
LARGEST_DOCUMENT = 16 * 1024 * 1024

INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "records": [
        IndexModel([("at", 1)]),
        *(IndexModel([(field, 1), ("_id", -1)]) for field in ("user", "key_id", "project", "model")),
    ],
    "keys": [IndexModel([("user", 1), ("_id", 1)])],
    "users": [IndexModel([("state", 1), ("_id", 1)])],
    "sums": [
        IndexModel([("l", 1), ("t", 1)]),
        *(IndexModel([(field, 1), ("l", 1), ("t", 1)]) for field in ("user", "key_id", "project", "model")),
    ],
}

DUPLICATE = 11000
TOO_LARGE: Final = frozenset({10334, 17419})
FOR_GOOD: Final = TOO_LARGE | {2, 22, 52, 56, 121, 17280}  # the document's fault, at any time
NOT_LET_IN: Final = frozenset({13, 18, 8000})
DOES_NOT_FIT: Final = "This cannot be stored: it is too large or holds what JSON cannot."
UNFIT = (bson.errors.BSONError, OverflowError, UnicodeError)  # what encoding raises


class MongoStore:
    """`open_mongo` makes it."""

    name = "mongodb"

    def __init__(
        self, client: AsyncMongoClient[Document], timeout: float, now: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._timeout = timeout
        self._breaker = Breaker("MongoDB", log)
        self._background = asyncio.Semaphore(BACKGROUND)
        # Majority both ways: what is confirmed, and what is found to be stored, outlives its primary.
        self._database = client.get_default_database(
            DATABASE, write_concern=WriteConcern("majority"), read_concern=ReadConcern("majority")
        )
        self._records: AsyncCollection[Document] = self._database["records"]
        self._sums = MongoSums(self._database, self._asking, now)
        self._owners = MongoOwners(self._database, self._asking, self._sums)
        self.archive = MongoArchive(self._database, self._asking, self._sums)

    def is_healthy(self) -> bool:
        return self._breaker.is_proved

    async def ping(self) -> None:
        with self._asking():
            await self._look()

    # --- documents ---

    async def get(self, kind: Kind, id: str) -> Document | None:
        with self._asking():
            found = await self._database[kind].find_one({"_id": id})
        return None if found is None else _outside(found)

    async def insert(self, kind: Kind, document: Document) -> None:
        with self._asking():
            await self._database[kind].insert_one(_inside(document))

    async def insert_all(self, kind: Kind, documents: Sequence[Document]) -> None:
        with self._asking(STEP_SECONDS):
            try:
                await self._database[kind].insert_many([_inside(one) for one in documents])
            except BulkWriteError as error:
                _dead(error, documents)
                raise Conflict("An id is taken, or a document can never be stored.") from error

    async def replace(self, kind: Kind, document: Document) -> None:
        before = {"_id": document["id"], "revision": document["revision"] - 1}
        with self._asking():
            done = await self._database[kind].replace_one(before, _inside(document))
        if not done.matched_count:
            raise Conflict(f"'{document['id']}' has changed meanwhile or is gone.")

    async def delete(self, kind: Kind, id: str) -> bool:
        with self._asking():
            return bool((await self._database[kind].delete_one({"_id": id})).deleted_count)

    async def find(
        self, kind: Kind, where: Mapping[str, str | None], *, limit: int, after: str | None = None,
        newest_first: bool = False,
    ) -> Page:  # fmt: skip
        clauses: list[Document] = [{_field(name): {"$eq": value}} for name, value in where.items()]
        if after is not None:
            clauses.append({"_id": {"$lt" if newest_first else "$gt": after}})
        wanted = {"$and": clauses} if clauses else {}
        with self._asking():
            cursor = self._database[kind].find(wanted).sort("_id", -1 if newest_first else 1).limit(limit + 1)
            found = [_outside(document) for document in await cursor.to_list()]
        return Page(found[:limit], found[limit - 1]["id"] if len(found) > limit else None)

    # --- the ledger ---

    async def append(self, records: Sequence[Record]) -> Sequence[str]:
        dead = await self._store(records)
        await self._sums.mark(records)
        return dead

    async def _store(self, records: Sequence[Record]) -> Sequence[str]:
        documents: list[Document] = [msgspec.to_builtins(one, builtin_types=(datetime,)) for one in records]
        try:
            return await self._append(documents)
        except InvalidRequest:  # nothing tells which one it was
            unfit = {document["_id"] for document in documents if not _fits(document)}
        try:
            rest = await self._append([document for document in documents if document["_id"] not in unfit])
        except InvalidRequest as error:
            raise StoreUnavailable("MongoDB does not take a batch of records.") from error
        return [*unfit, *rest]

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        return usage_rows(query.by, await self._sums.answer(query))

    async def records(self, query: RecordQuery) -> list[Document]:
        wanted = _matching(query.start, query.end, query.where)
        if query.after is not None:
            wanted["_id"] = {"$lt": query.after}
        with self._asking():
            found = await self._records.find(wanted).sort("_id", -1).limit(query.limit).to_list()
        return [_outside(document) for document in found]

    async def known(self, ids: Sequence[str]) -> set[str]:
        with self._asking():
            found = await self._records.find({"_id": {"$in": list(ids)}}, {"_id": 1}).to_list()
        return {document["_id"] for document in found}

    async def lines(self, ids: Sequence[str]) -> list[Document]:
        with self._asking():
            found = await self._records.find({"_id": {"$in": list(ids)}}).sort("_id", 1).to_list()
        return [_outside(document) for document in found]

    async def twins(self, start: datetime, end: datetime) -> list[list[Document]]:
        """Those that are alike in what an index or a comparison is quick at, looked at whole."""
        alike = {name: f"${name}" for name in ("at", "user", "key_id", "model", "tokens", "cost")}
        wanted = {"at": {"$gte": start, "$lt": end}, "requests": {"$exists": False}}
        pipeline: list[Document] = [
            {"$match": wanted},
            {"$group": {"_id": alike, "ids": {"$push": "$_id"}, "count": {"$sum": 1}}},
            {"$match": {"count": {"$gt": 1}}},
        ]
        with self._asking(STEP_SECONDS):
            groups = await (await self._records.aggregate(pipeline, allowDiskUse=True)).to_list()
        found: dict[str, list[Document]] = {}
        for line in await self.lines([id for group in groups for id in group["ids"]]):
            found.setdefault(repr({**line, "id": None}), []).append(line)
        return [lines for lines in found.values() if len(lines) > 1]

    # --- sums: `mongo_sums.py` ---

    async def roll_up(self) -> int:
        return await self._sums.roll_up()

    async def rebuild(self) -> int:
        return await self._sums.rebuild()

    async def differing(self, start: datetime, end: datetime) -> list[datetime]:
        return await self._sums.differing(start, end)

    async def mend(self, hours: Sequence[datetime]) -> None:
        await self._sums.mend(hours)

    async def reassign(self, keys: Sequence[str], user: str) -> int:
        return await self._owners.reassign(keys, user)

    async def drop(self, kept: Retention, now: datetime) -> Mapping[str, int]:
        return await self._sums.drop(kept, now)

    # --- the server ---

    async def watch(self) -> None:
        await self._breaker.watch(self._probe)

    async def keep_indexed(self) -> NoReturn:
        """Creates the indexes whenever the server has come back, maybe empty. Nothing waits for them:
        they only make it faster."""
        while True:
            await self._breaker.closed()
            try:
                async with self._background:
                    await self._create_indexes()
            except PyMongoError as error:
                if self._breaker.is_closed:
                    log.warning("the indexes of MongoDB could not be created: %s", reason_of(error))
                    await asyncio.sleep(INDEX_PAUSE)
            else:
                await self._breaker.opened()

    async def settle(self) -> None:
        """Lets no more background work begin and waits for what is under way: the driver leaves a socket open
        when it is cancelled while it connects."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                for _ in range(BACKGROUND):
                    await self._background.acquire()

    async def _create_indexes(self) -> None:
        with pymongo.timeout(INDEX_SECONDS):
            for name, indexes in INDEXES.items():
                await self._database[name].create_indexes(list(indexes))

    async def _probe(self) -> None:
        try:
            async with self._background:
                with pymongo.timeout(self._timeout):
                    await self._look()
        except PyMongoError as error:
            raise StoreUnavailable("MongoDB does not answer.") from error

    async def _look(self) -> None:
        """Reads where calls read: a server that answers `ping` may have no primary, or not let us in."""
        await self._database["keys"].find_one({"_id": ""})

    async def _append(self, documents: list[Document]) -> list[str]:
        # CPU of this process, in batches of 200 with pymongo 4.20: insert_many 9 us a record, a bulk_write of
        # upserts with $setOnInsert 14 us. Both may be repeated; where all is stored before they cost 21, 11.
        if not documents:
            return []
        with self._asking():
            try:
                await self._records.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                return _dead(error, documents)
        return []

    @contextmanager
    def _asking(self, seconds: float | None = None) -> Iterator[None]:
        """Bounds an operation in time and turns the driver's errors into ours, for all of this module."""
        began = self._breaker.check()
        try:
            with pymongo.timeout(seconds or self._timeout):
                yield
            self._breaker.answered()
        except DuplicateKeyError as error:
            raise Conflict("The id is taken.") from error
        except UNFIT as error:
            raise InvalidRequest(DOES_NOT_FIT) from error
        except PyMongoError as error:
            if isinstance(error, OperationFailure) and error.code in TOO_LARGE:
                raise InvalidRequest(DOES_NOT_FIT) from error
            if _is_away(error):
                raise self._breaker.failed(error, began) from error
            self._breaker.answered()
            raise StoreUnavailable("MongoDB did not do what it was asked.", retry_after=1) from error


@asynccontextmanager
async def open_mongo(url: str, timeout: float) -> AsyncIterator[MongoStore]:  # noqa: ASYNC109 - later calls'
    """`timeout` bounds every call, in seconds. MongoDB may be absent, now and later. Raises ValueError for a
    URL that is not MongoDB's."""
    patience_ms = max(1, int(timeout * 1000))
    try:
        client: AsyncMongoClient[Document] = AsyncMongoClient(
            url, tz_aware=True, tzinfo=UTC, appname="llmgateway", maxPoolSize=POOL,
            serverSelectionTimeoutMS=patience_ms, waitQueueTimeoutMS=patience_ms,
            connectTimeoutMS=patience_ms, socketTimeoutMS=patience_ms,
        )  # fmt: skip
    except (PyMongoError, ValueError):  # whose words may hold a part of the password
        raise ValueError(
            "not a URL of MongoDB; it looks like mongodb://user:password@host:27017/gateway, "
            "with special characters percent-encoded"
        ) from None
    store = MongoStore(client, timeout, SystemClock.now)
    try:
        async with alongside(store.watch, store.keep_indexed):
            try:
                yield store
            finally:
                await store.settle()
    finally:
        with contextlib.suppress(TimeoutError, PyMongoError):
            async with asyncio.timeout(timeout):
                await client.close()


def _is_away(error: PyMongoError) -> bool:
    """Whether the server is to blame as a whole, not this operation or how many wait for a connection."""
    if isinstance(error, OperationFailure):
        return error.code in NOT_LET_IN
    return isinstance(error, ConnectionFailure) and not isinstance(error, WaitQueueTimeoutError)


def _dead(error: BulkWriteError, documents: Sequence[Document]) -> list[str]:
    """The ids of those that can never be stored; raises `error` when something else went wrong with any."""
    if error.details.get("writeConcernErrors"):
        raise error
    dead: list[str] = []
    for failure in error.details["writeErrors"]:
        code, is_by_id = failure["code"], failure.get("keyPattern", {"_id": 1}) == {"_id": 1}
        if code == DUPLICATE and is_by_id:  # stored before
            continue
        if code not in FOR_GOOD and code != DUPLICATE:  # a duplicate by an index that is not ours never fits
            raise error
        dead.append(documents[failure["index"]]["_id"])
    return dead


def _fits(document: Document) -> bool:
    try:
        return len(bson.encode(document)) <= LARGEST_DOCUMENT
    except UNFIT:
        return False


def _field(name: str) -> str:
    return "_id" if name == "id" else name


def _inside(document: Document) -> Document:
    return {_field(name): value for name, value in document.items()}


def _outside(stored: Document) -> Document:
    return {"id" if name == "_id" else name: _plain(value) for name, value in stored.items()}


def _plain(value: Any) -> Any:
    """The driver gives back large numbers as a class of its own, which no encoder knows."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if type(value) is Int64 else value


def _matching(start: datetime | None, end: datetime | None, where: Mapping[str, str]) -> Document:
    wanted: Document = {name: {"$eq": value} for name, value in checked(where).items()}
    if start is not None or end is not None:
        bounds = (("$gte", start), ("$lt", end))
        wanted["at"] = {name: moment for name, moment in bounds if moment is not None}
    return wanted
