"""What happens now, for operators who follow it: open calls, calls that ended, lines of the audit log.

It is looked for once a second in each process, for all who follow there, and only while somebody does. Calls
end in any order, and their records' ids are of their beginnings. So two things tell of an end: a record among
the newest, and a call that was open at one look and is not at the next, whose record is asked for by its id.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal, NoReturn

from msgspec import Struct

from llmgateway.domain.errors import GatewayError, Overloaded
from llmgateway.domain.live import OpenCall
from llmgateway.domain.ports import Clock, Document, Documents, RecordQuery
from llmgateway.domain.upkeep import Upkeep

log = logging.getLogger(__name__)

PERIOD = 1.0  # seconds between two looks
WINDOW = timedelta(seconds=30)  # how old the newest records are that every look reads
REMEMBERED = 90.0  # seconds that an ended call is known to have been told of
AWAITED = 120.0  # seconds that the record of a call that is not open any more may take to come
MOST = 500  # records, and lines, of one look
MOST_SINCE = 1000  # records, and lines, that who comes back is told of
BACK = timedelta(hours=1)  # how long before its end a call may have begun that who comes back is told of
BUFFER = 1000  # that wait for a follower who reads slowly
MOST_FOLLOWERS = 100  # of one process
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_LINE = "0"  # before the first line of the audit log

Kind = Literal["open", "call", "audit", "skipped"]
OpenCalls = Callable[[], Awaitable[Sequence[OpenCall]]]


class Happening(Struct, frozen=True):
    """`value` is all open calls, a record, a line, or how many of the last two were left out: None where
    nobody knows."""

    kind: Kind
    value: Any


class Mark(Struct, frozen=True):
    """How far somebody has followed: the end of the last call in milliseconds, its id, and the last line of
    the audit log; that is empty where nobody knows."""

    ended: int
    call: str = ""
    line: str = ""


class Follower:
    """One who follows. What is not fetched is left out, the oldest first; of open calls only the latest look
    counts."""

    def __init__(self) -> None:
        self._waiting: deque[Happening] = deque()
        self._left_out = 0
        self._open: Sequence[OpenCall] | None = None
        self._shown: Sequence[OpenCall] | None = None
        self._woken = asyncio.Event()
        self.line = ""
        self.over = asyncio.Event()
        self.has_looked = asyncio.Event()

    def tell(self, happening: Happening) -> None:
        if len(self._waiting) >= BUFFER:
            self._waiting.popleft()
            self._left_out += 1
        self._waiting.append(happening)
        self._woken.set()

    def show(self, calls: Sequence[OpenCall]) -> None:
        if calls != self._shown:
            self._open = calls
            self._woken.set()

    def end(self) -> None:
        self.over.set()
        self.has_looked.set()
        self._woken.set()

    @property
    def is_over(self) -> bool:
        return self.over.is_set()

    async def next(self, seconds: float) -> list[Happening]:
        """All that is there, once something is; nothing when the time, or everything, is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return []
        self._woken.clear()
        found = [Happening("skipped", self._left_out)] if self._left_out else []
        found += self._waiting
        if self._open is not None:
            found.append(Happening("open", self._open))
            self._shown, self._open = self._open, None
        self._waiting.clear()
        self._left_out = 0
        return found


class Ended:
    """Which calls have ended since the moment `began`."""

    def __init__(self, ledger: Upkeep, clock: Clock, began: datetime) -> None:
        self._ledger = ledger
        self._clock = clock
        self._began = began
        self._open: frozenset[str] = frozenset()
        self._awaited: dict[str, float] = {}
        self._seen: dict[str, float] = {}
        self._is_first = True

    async def look(self, calls: Sequence[OpenCall]) -> list[Document]:
        """New records, in the order of their ends."""
        now = self._clock.monotonic()
        self._note(calls, now)
        asked = list(islice(self._awaited, MOST))
        start = self._clock.now() - WINDOW
        recent = await self._ledger.records(RecordQuery(start=start, limit=MOST))
        late = await self._ledger.lines(asked) if asked else []
        found = {
            record["id"]: record
            for record in (*recent, *late)
            if record["id"] not in self._seen and "adjusts" not in record
        }
        if self._is_first:
            self._is_first = False
            for record in recent:
                if record["ended_at"] < self._began:
                    found.pop(record["id"], None)
                    self._seen[record["id"]] = now
        self._seen |= dict.fromkeys(found, now)
        self._forget(asked, now)
        return sorted(found.values(), key=place_of)

    def _note(self, calls: Sequence[OpenCall], now: float) -> None:
        """A call that waits for its turn may never be accepted; then it leaves no record."""
        is_open = frozenset(call.id for call in calls if call.state == "open")
        for id in self._open - is_open - self._seen.keys():
            self._awaited[id] = now
        for id in is_open & self._awaited.keys():
            del self._awaited[id]
        self._open = is_open

    def _forget(self, asked: Sequence[str], now: float) -> None:
        """What was asked for in vain is asked for again after all others, for a while."""
        for id in asked:
            since = self._awaited.pop(id)
            if id not in self._seen and now - since < AWAITED:
                self._awaited[id] = since
        while self._seen and now - self._seen[oldest := next(iter(self._seen))] > REMEMBERED:
            del self._seen[oldest]


class Happenings:
    """`open_calls` are those of all processes."""

    def __init__(self, open_calls: OpenCalls, ledger: Upkeep, documents: Documents, clock: Clock) -> None:
        self._open_calls = open_calls
        self._ledger = ledger
        self._documents = documents
        self._clock = clock
        self._followers: set[Follower] = set()
        self._somebody = asyncio.Event()
        self._line = ""
        self._is_over = False

    @contextmanager
    def follow(self) -> Iterator[Follower]:
        """Raises `Overloaded` where too many follow already."""
        if len(self._followers) >= MOST_FOLLOWERS:
            raise Overloaded("Too many follow what happens already; please try again later.", retry_after=30)
        follower = Follower()
        self._followers.add(follower)
        self._somebody.set()
        if self._is_over:
            follower.end()
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def end(self) -> None:
        """For all who follow, and who come later."""
        self._is_over = True
        for follower in self._followers:
            follower.end()

    async def since(self, mark: Mark) -> list[Happening]:
        """What has happened after it, as far as it is not too long ago."""
        start = moment_of(mark.ended) - BACK
        records = await self._ledger.records(RecordQuery(start=start, limit=MOST_SINCE))
        calls = [one for one in records if place_of(one) > (mark.ended, mark.call) and "adjusts" not in one]
        found = [Happening("call", record) for record in sorted(calls, key=place_of)]
        is_whole = len(records) < MOST_SINCE
        if mark.line:
            page = await self._documents.find("audit", {}, limit=MOST_SINCE, after=mark.line)
            found += [Happening("audit", line) for line in page.data]
            is_whole = is_whole and page.next is None
        return found if is_whole else [Happening("skipped", None), *found]

    async def run(self) -> NoReturn:
        """For ever."""
        while True:
            await self._somebody.wait()
            self._line = ""
            ended = Ended(self._ledger, self._clock, self._clock.now())
            while self._followers:
                try:
                    await self._look(ended)
                except GatewayError as error:
                    log.debug("what happens is not known", extra={"fields": {"error": error.code}})
                await asyncio.sleep(PERIOD)
            self._somebody.clear()

    async def _look(self, ended: Ended) -> None:
        """What was found is told at once: the store may be away for what comes after it."""
        calls = await self._open_calls()
        records = await ended.look(calls)
        self._tell("call", records)
        self._tell("audit", await self._lines())
        for follower in self._followers:
            if len(records) >= MOST:
                follower.tell(Happening("skipped", None))
            if not follower.has_looked.is_set():
                follower.line = self._line
                follower.has_looked.set()
            follower.show(calls)

    def _tell(self, kind: Kind, documents: Sequence[Document]) -> None:
        for follower in self._followers:
            for document in documents:
                follower.tell(Happening(kind, document))

    async def _lines(self) -> list[Document]:
        """Those that came since the look before; at the first look there was none."""
        if self._line:
            page = await self._documents.find("audit", {}, limit=MOST, after=self._line)
        else:
            page = await self._documents.find("audit", {}, limit=1, newest_first=True)
        is_first, self._line = not self._line, page.data[-1]["id"] if page.data else self._line or NO_LINE
        return [] if is_first else page.data


def place_of(record: Document) -> tuple[int, str]:
    """Among ended calls."""
    return milliseconds_of(record["ended_at"]), record["id"]


def milliseconds_of(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def moment_of(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)
