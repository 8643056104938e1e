"""The books of two workers without anything around them: journal, limiter on Redis, ledger; a worker may die
at any moment, and beside them stands what must be true."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from llmgateway.control.used import used_by
from llmgateway.domain.call import Record, Tokens
from llmgateway.domain.errors import OverLimit, StoreUnavailable
from llmgateway.domain.ids import Ids
from llmgateway.domain.limits import Claim, Limits, Scope
from llmgateway.domain.periods import Calendar
from llmgateway.domain.ports import RecordQuery, SystemClock
from llmgateway.jobs.ship import Recovery, Shipper
from llmgateway.stores.journal import FileJournal
from llmgateway.stores.limits.limiter_turn import Turns
from llmgateway.stores.limits.redis_limiter import RedisLimiter
from llmgateway.stores.limits.standings import units
from llmgateway.stores.redis import open_redis
from llmgateway.stores.sqlite import SqliteStore, open_sqlite
from tests.lab.reservations import nothing_is_reserved
from tests.lab.waiting import eventually

MOST = 10_000  # tokens a day
SEGMENT = 16 * 1024
FOR_EVER, SOON = 10**9, 10  # ms
ALICE = Scope("user", "alice", Limits(tokens_per_day=MOST))
CLOCK = SystemClock()


@dataclass
class Call:
    """`record` is None until the call was accepted. `spent` is what a ledger must say in the end."""

    id: str
    worker: str
    claimed: int
    record: Record | None = None
    spent: int = 0
    is_open: bool = True
    is_lost: bool = False  # its worker is dead, and nobody has taken over

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the most that may be counted of it now: who died may not have told all."""
        if not self.is_lost:
            return (self.claimed, self.claimed) if self.is_open else (self.spent, self.spent)
        return min(self.claimed, self.spent), max(self.claimed, self.spent)


class Worker:
    """Dies without a word unless it is told to leave. Its connections live in a task of their own."""

    def __init__(self, name: str, books: "Books") -> None:
        self.name = name
        self._books = books
        self._ready, self._ends = asyncio.Event(), asyncio.Event()
        self._leaves = False
        self._task = asyncio.ensure_future(self._live())

    async def ready(self) -> None:
        await self._ready.wait()

    async def die(self) -> None:
        self._ends.set()
        await self._task

    async def leave(self) -> None:
        self._leaves = True
        await self.die()

    async def _live(self) -> None:
        books = self._books
        self.journal = FileJournal(books.root / "journal", worker=self.name, segment_bytes=SEGMENT)
        async with open_redis(books.redis_url, 5) as redis:
            load = used_by(books.store, lambda model: [model])
            turns = Turns(redis, self.name, 60)
            turns.gap, turns.patience = FOR_EVER, SOON  # time stands still between steps
            self.limiter = RedisLimiter(turns, load, CLOCK, units)
            self.shipper = Shipper(self.journal, books.append)
            self.recovery = Recovery(
                self.journal, self.journal, CLOCK, lines=books.store.lines, heirs=[self.limiter.recover]
            )
            work = [asyncio.ensure_future(one) for one in (self.limiter.lane(), self.limiter.beat())]
            self.journal.__enter__()
            self._ready.set()
            await self._ends.wait()
            for one in work:
                one.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            if self._leaves:
                await self.limiter.close()
        if self._leaves:
            self.journal.__exit__()
        else:
            self._abandon()

    def _abandon(self) -> None:
        """As the kernel does it for a process that was killed."""
        journal = self.journal
        journal._stopping.set()
        journal._dirty.set()
        journal._syncer.join()
        for segment in (*journal._adopted, *journal._segments, *([journal._spare] if journal._spare else [])):
            segment.close()
        for _, fd in journal._locks:
            os.close(fd)


class Books:
    """`open_books` makes them. What `append` is told decides how the store takes the next batch."""

    def __init__(self, root: Path, redis_url: str, store: SqliteStore) -> None:
        self.root = root
        self.redis_url = redis_url
        self.store = store
        self.workers: dict[str, Worker] = {}
        self.calls: dict[str, Call] = {}
        self.refused = 0
        self.is_away = self.loses_answer = False
        self._ids = Ids()
        self._born = 0
        self._period = Calendar("UTC").period_of(CLOCK.now())

    async def begin(self) -> str:
        self._born += 1
        name = f"w{self._born}"
        worker = self.workers[name] = Worker(name, self)
        await worker.ready()
        return name

    async def append(self, records: Sequence[Record]) -> Sequence[str]:
        if self.is_away:
            raise StoreUnavailable("away")
        refused = await self.store.append(records)
        if self.loses_answer:
            self.loses_answer = False
            raise StoreUnavailable("the answer was lost")
        return refused

    # --- what happens

    async def ask(self, worker: str, tokens: int) -> Call | None:
        """Admitted exactly as far as there is room; None when it was refused."""
        least = sum(call.bounds[0] for call in self.calls.values())
        most = sum(call.bounds[1] for call in self.calls.values())
        call = Call(self._ids(CLOCK.now()), worker, tokens)
        await self._told()
        try:
            await self.workers[worker].limiter.reserve(Claim(call.id, (ALICE,), tokens, 0, self._period))
        except OverLimit:
            assert most + tokens > MOST, f"refused with {most} used of {MOST}"
            self.refused += 1
            return None
        assert least + tokens <= MOST, f"let in with {least} used of {MOST}"
        self.calls[call.id] = call
        return call

    def accept(self, call: Call) -> None:
        now = CLOCK.now()
        call.record = Record(
            id=call.id, request_id=call.id, at=now, key_id="key", user="alice", model="m", price_id="free",
            endpoint="/v1/chat/completions", tokens=Tokens(1), usage_source="estimated",
        )  # fmt: skip
        self.workers[call.worker].journal.reserve(call.record)
        call.spent = 1

    def progress(self, call: Call, tokens: int) -> None:
        assert call.record is not None
        call.record.tokens = Tokens(1, tokens)
        self.workers[call.worker].journal.progress([call.record])
        call.spent = 1 + tokens

    def settle(self, call: Call, tokens: int) -> None:
        """The truth, which may be more than was reserved; or nothing, where it was never accepted."""
        worker = self.workers[call.worker]
        call.is_open = False
        if call.record is not None:
            call.record.outcome, call.record.tokens, call.spent = "completed", Tokens(1, tokens), 1 + tokens
            call.record.ended_at = CLOCK.now()
            worker.journal.settle(call.record)
        for _ in range(2):  # whoever says it twice says it once
            worker.limiter.settle(call.id, call.spent, 0)

    async def kill(self, worker: str) -> None:
        await self.workers.pop(worker).die()
        for call in self.calls.values():
            if call.worker == worker:
                call.is_lost = True

    async def take_over(self, worker: str) -> None:
        await self.workers[worker].recovery.look()
        for call in self.calls.values():
            if call.is_lost:
                call.is_lost = call.is_open = False

    async def flush(self) -> None:
        """Redis forgets everything, when the ledger knows what it is to begin with again. Every worker gets
        to say what it holds: what one held that dies before that is missing in the sums until their end. And
        somebody asks before that has ended, else it is in the ledger, too, when the sums begin."""
        redis = Redis.from_url(self.redis_url)
        await redis.flushdb()
        await redis.aclose()
        for worker in self.workers.values():
            await worker.limiter.standings([ALICE], self._period)
        fleet = [worker.limiter for worker in self.workers.values()]
        await eventually(lambda: all(one.is_gathered for one in fleet), "all is said")
        for limiter in fleet:
            await limiter.standings([ALICE], self._period)

    # --- what must be true

    async def agree(self) -> None:
        """When nothing is open any more: one line each, the tokens as they were settled, and Redis's sums."""
        lines = await self.store.records(RecordQuery(limit=1000))
        stored = {line["id"]: line["tokens"]["prompt"] + line["tokens"]["completion"] for line in lines}
        assert len(lines) == len(stored)
        accepted = {call.id: call.spent for call in self.calls.values() if call.record is not None}
        assert stored == accepted
        await self._told()
        await nothing_is_reserved(self.redis_url)
        for worker in self.workers.values():
            (standing,) = await worker.limiter.standings([ALICE], self._period)
            assert standing.used == sum(accepted.values())

    async def _told(self) -> None:
        await eventually(lambda: not any(one.limiter.backlog for one in self.workers.values()), "all is told")


@asynccontextmanager
async def open_books(root: Path, redis_url: str) -> AsyncIterator[Books]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_sqlite(root / "gateway.db", 5))
        books = Books(root, redis_url, store)
        await books.flush()
        try:
            yield books
        finally:
            for worker in list(books.workers.values()):
                await worker.leave()
