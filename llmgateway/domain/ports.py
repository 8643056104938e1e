"""The ports: what the gateway needs of the world, as small Protocols. `app/` chooses who implements them.

Every method that waits may raise `StoreUnavailable` (stores) or an `UpstreamError` (upstream); nothing else
of a driver's passes a port.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from msgspec import Struct

from llmgateway.domain.call import Ask, ClientInfo, Record, Tokens
from llmgateway.domain.catalog import Deadlines, Target
from llmgateway.domain.errors import GatewayError, UpstreamError
from llmgateway.domain.limits import Standing


class Clock(Protocol):
    """`monotonic` measures, in seconds; `now` dates, in UTC."""

    def monotonic(self) -> float: ...

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's clock: the only place that reads the time of day."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def now() -> datetime:
        return datetime.now(UTC)


# --- memory: documents -------------------------------------------------------------------------------------

Kind = Literal["keys", "users", "models", "limits", "projects", "audit", "accounts", "jobs", "announcements",
               "acceptances", "comebacks"]  # fmt: skip
Document = dict[str, Any]
"""JSON-like, with aware UTC datetimes; `id` names it, `revision` counts its changes from 0."""


class Page(Struct, frozen=True):
    """One page of a list; `next` is the cursor of the page after it, None on the last."""

    data: list[Document]
    next: str | None


class Documents(Protocol):
    """Small collections that are changed one document at a time: keys, users, models, limits, audit lines."""

    async def get(self, kind: Kind, id: str) -> Document | None: ...

    async def insert(self, kind: Kind, document: Document) -> None:
        """Raises `Conflict` when the id is taken."""

    async def replace(self, kind: Kind, document: Document) -> None:
        """Stores `document` over the one with its id whose revision is `document["revision"] - 1`; raises
        `Conflict` when that has changed meanwhile or is gone."""

    async def delete(self, kind: Kind, id: str) -> bool: ...

    async def find(
        self,
        kind: Kind,
        where: Mapping[str, str | None],
        *,
        limit: int,
        after: str | None = None,
        newest_first: bool = False,
    ) -> Page:
        """Documents whose top-level string fields equal `where`, ordered by id (byte order), beginning after
        the id `after`."""


# --- memory: the ledger ------------------------------------------------------------------------------------

Dimension = Literal["user", "model", "key", "project", "day"]


class UsageQuery(Struct, frozen=True, kw_only=True):
    """Sums over records accepted in [start, end); `day` is the calendar day in `time_zone`. Filters are
    equalities on the record's fields `user`, `key_id`, `model`, `project`."""

    start: datetime | None = None
    end: datetime | None = None
    by: tuple[Dimension, ...] = ()
    time_zone: str = "UTC"
    where: Mapping[str, str] = {}


class UsageRow(Struct, frozen=True, kw_only=True):
    """`group` holds the dimensions asked for, in their order; a missing project is None."""

    group: dict[str, str | None]
    requests: int
    prompt: int
    completion: int
    cached: int
    reasoning: int
    cost: int


class RecordQuery(Struct, frozen=True, kw_only=True):
    """Single records, newest first (by id, which is time-ordered), older than the id `after`."""

    start: datetime | None = None
    end: datetime | None = None
    where: Mapping[str, str] = {}
    limit: int = 100
    after: str | None = None


class Ledger(Protocol):
    """The permanent, append-only store of closed records."""

    async def append(self, records: Sequence[Record]) -> Sequence[str]:
        """Stores each record whose id is not there yet, durably, in any order; a record stored before is a
        success. Returns the ids that can never be stored (for the dead-letter file); raises
        `StoreUnavailable` when none of the rest is known to be stored."""

    async def usage(self, query: UsageQuery) -> list[UsageRow]: ...

    async def records(self, query: RecordQuery) -> list[Document]:
        """Records as documents with `id` for `_id`."""

    async def known(self, ids: Sequence[str]) -> set[str]:
        """Those of `ids` that are stored."""


class Store(Documents, Ledger, Protocol):
    """The truth: one embedded file or one database."""

    name: str

    async def ping(self) -> None:
        """Returns when the store answers."""

    def is_healthy(self) -> bool:
        """What the last call found, without asking."""


# --- memory: shared state ----------------------------------------------------------------------------------

Topic = Literal["keys", "models", "limits", "users"]


class Change(Struct, frozen=True):
    """Something changed elsewhere: `id` None means anything under `topic`, so forget all of it."""

    topic: Topic | Literal["*"]
    id: str | None = None


class State(Protocol):
    """What the fleet shares and can lose: a cache of key documents, and the word that something changed."""

    name: str

    async def cached_key(self, id: str) -> Document | None: ...

    async def cache_key(self, document: Document, seconds: float) -> None: ...

    async def announce(self, change: Change) -> None:
        """Drops what is cached of it and tells every process, this one too. Raises `StoreUnavailable` where
        it cannot now, and does it as soon as it can."""

    @property
    def untold(self) -> int:
        """How many announcements wait until they can be made."""

    def changes(self) -> AsyncIterator[Change]:
        """Every change from now on, for ever; `Change("*")` after a gap, when some may have been missed."""

    async def ping(self) -> None: ...

    def is_healthy(self) -> bool: ...


class Shelf(Protocol):
    """Small values with a life, shared by all processes: sessions, logins under way, what was seen before.
    Each is named by its shelf and an id, and gone when its `seconds` are over; a restart loses none."""

    async def put(
        self, shelf: str, id: str, value: bytes, seconds: float, *, owner: str | None = None
    ) -> None:
        """Over what is there. With an `owner` it is found by `owned`, too."""

    async def get(self, shelf: str, id: str) -> bytes | None: ...

    async def take(self, shelf: str, id: str) -> bytes | None:
        """Gives the value to one caller only: for all others it is gone."""

    async def add(self, shelf: str, id: str, value: bytes, seconds: float) -> bool:
        """Of all callers one puts its value there and is told True, as long as that lives."""

    async def delete(self, shelf: str, id: str) -> bool:
        """Whether it was there."""

    async def touch(self, shelf: str, id: str, seconds: float, value: bytes | None = None) -> bool:
        """Begins its life anew, with another value where one is given; what is gone stays gone."""

    async def count(self, shelf: str, id: str, seconds: float) -> int:
        """One more, and how many that makes in the `seconds` since the first."""

    async def owned(self, shelf: str, owner: str) -> dict[str, bytes]:
        """What was put for an owner and is still there, by id."""


# --- the journal -------------------------------------------------------------------------------------------


class Journal(Protocol):
    """The write-ahead log of records. Each method is one synchronous append: no await can split it."""

    def reserve(self, record: Record) -> None:
        """Opens a record. Raises `LedgerUnavailable` when it cannot be written: then nothing may go
        upstream."""

    def progress(self, records: Iterable[Record]) -> None:
        """How far open records have come: what recovery settles them with."""

    def settle(self, record: Record) -> None:
        """Closes a record. Never raises: what the disk refuses is kept and shipped from memory."""


# --- towards models ----------------------------------------------------------------------------------------

Sink = Callable[[bytes], Awaitable[None] | None]
"""Takes bytes at once; returns what must be awaited before more may come, None when it may come."""


class Reply(Protocol):
    """An upstream's answer whose head has arrived. Header names are lower case."""

    status: int
    headers: dict[bytes, bytes]

    async def read(self, most: int) -> bytes:
        """The whole body, or the first piece of more than `most` bytes; b"" when all has been read."""

    async def piece(self) -> bytes:
        """What has arrived, as soon as there is something; b"" at the end of the body."""

    async def pour(self, sink: Sink) -> None:
        """Gives every piece to `sink` as it arrives, inside the socket's callback; returns at the end of the
        body. A `GatewayError` of the sink closes the connection and is raised here."""

    def enough(self) -> None:
        """All that matters was seen: `pour` returns, and the rest of the body is not waited for."""

    def fail(self, error: GatewayError) -> None:
        """Breaks the connection; whoever waits on it gets `error`."""

    def close(self) -> None:
        """Gives the connection back when the body was read to its end and it is clean, else closes it. At
        once."""


class UpstreamRequest(Struct, frozen=True):
    """What goes to a target: the path is joined to the target's base URL. Without a `request_id` none is
    sent: some servers take UUIDs only. `trace` holds the header lines of a trace that goes on there."""

    method: str
    path: str
    content_type: bytes
    body: bytes
    request_id: str
    trace: bytes = b""


class Upstream(Protocol):
    """The sockets towards models."""

    def order(self, targets: Sequence[Target]) -> Sequence[Target]:
        """The same targets, the one that should be asked first in front."""

    async def send(self, target: Target, request: UpstreamRequest, deadlines: Deadlines) -> Reply:
        """Returns when the head of the answer is there. Raises `UpstreamFailed` or `UpstreamTimeout`."""


# --- dialects ----------------------------------------------------------------------------------------------


class Evidence(Protocol):
    """What an answer has said so far: of its usage, and in words. `said` is the size of the words in
    characters."""

    @property
    def tokens(self) -> Tokens | None: ...

    @property
    def said(self) -> int: ...

    def text(self) -> str: ...

    @property
    def pulse(self) -> bytes:
        """What may be said to the caller while the upstream says nothing; b"" where nothing may."""


class Translation(Evidence, Protocol):
    """Reads a stream of a provider while it passes, and gives what goes on to the caller.

    `error` is set when the provider reported one inside the stream; nothing after it is passed on. `is_done`:
    the provider said its last word.
    """

    error: UpstreamError | None
    is_done: bool

    def feed(self, data: bytes) -> bytes:
        """Whole events for the caller, in OpenAI's form; the last word is kept back for `last`."""

    def end(self) -> bytes:
        """What is still to be passed on when the body has ended. Raises `UpstreamFailed` when it ended too
        early."""

    @property
    def last(self) -> bytes:
        """The last word of a complete stream, b"" where the endpoint has none."""


class Dialect(Protocol):
    """How a provider is spoken to. Pure: no I/O, no state."""

    def request(
        self, ask: Ask, target: Target, request_id: str, *, asks_usage: bool = True
    ) -> UpstreamRequest:
        """`asks_usage`: for a stream that the caller did not ask to count, too."""

    def refuses_usage(self, status: int, body: bytes) -> bool:
        """Whether a refusal may be about what was asked for only to count the stream."""

    def stream(self, ask: Ask, target: Target) -> Translation: ...

    def answer(self, body: bytes) -> Evidence:
        """What a whole answer says."""

    def refusal(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> UpstreamError:
        """What an answer with an error status means to the caller."""


# --- towards the caller ------------------------------------------------------------------------------------


class Caller(Protocol):
    """The program at the other end of an HTTP request. `id` is ours, `request_id` the caller's if it brought
    a valid one, else ours. `arrived` is a time of the monotonic clock. `started`: an answer has begun, its
    status is spent. `standings` are the call's limits, for the answer to tell; `trace` is what the model
    server is told of the trace that the call belongs to."""

    id: str
    request_id: str
    token: bytes
    info: ClientInfo
    at: datetime
    arrived: float
    started: bool
    standings: Sequence[Standing]
    trace: bytes
    writes: int

    async def ask(self) -> Ask:
        """Reads and checks the body. Raises `InvalidRequest`, `ClientGone`."""

    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Sets the head of the answer; it goes out with the first piece of the body."""

    def write(self, data: bytes) -> Awaitable[None] | None:
        """Sends a piece at once; where the caller reads too slowly, returns what must be awaited before the
        next."""

    async def finish(self, data: bytes) -> None:
        """Sends the last piece and ends the answer."""

    async def gone(self) -> None:
        """Returns when the caller has hung up."""
