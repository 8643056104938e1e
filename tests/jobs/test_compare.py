"""Sums of limits against the ledger: what has drifted is put right, and what only looks so is let be."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from llmgateway.control.used import used_by, used_by_all
from llmgateway.domain.admission import Limiter, ScopeKey, Used
from llmgateway.domain.call import Record, Tokens
from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.limits import Claim, Limits, Scope
from llmgateway.domain.periods import Calendar
from llmgateway.domain.ports import SystemClock
from llmgateway.jobs.compare import Comparison
from llmgateway.stores.limits.limiter_turn import RECENT, WORKERS
from llmgateway.stores.limits.memory_limiter import MemoryLimiter
from llmgateway.stores.limits.redis_limiter import RedisLimiter, open_redis_limiter
from llmgateway.stores.redis import open_redis
from llmgateway.stores.sqlite import SqliteStore, open_sqlite
from tests.lab.waiting import eventually, eventually_answers
from tests.stores.samples import record

CLOCK = SystemClock()
CALENDAR = Calendar("UTC")
DAILY = Limits(tokens_per_day=10**9, tokens_per_month=10**9, cost_per_month=10**9)


class Books:
    """Calls of these limiters, and the ledger that they go to."""

    def __init__(self, store: SqliteStore, fleet: Sequence[Limiter]) -> None:
        self.store = store
        self.fleet = fleet
        self.period = CALENDAR.period_of(CLOCK.now())
        used = used_by_all(store, lambda model: (model, f"{model}-too"))
        pause = 0.02 if isinstance(fleet[0], MemoryLimiter) else 0.4  # with a sign of life of every worker
        self.comparison = Comparison(fleet[0].sums, used, lambda: CALENDAR, CLOCK, pause=pause)
        self._chance = random.Random(1)

    def scopes(self, user: str, limits: Limits = DAILY) -> tuple[Scope, ...]:
        return Scope("user", user, limits), Scope("model", "m", limits)

    async def begin(self, id: str, user: str, tokens: int = 100, limits: Limits = DAILY, at: int = 0) -> None:
        claim = Claim(id, self.scopes(user, limits), tokens, tokens, self.period)
        await self.fleet[at].reserve(claim)

    async def end(self, id: str, user: str, tokens: int = 40, at: int = 0) -> None:
        """Told, and in the ledger under another name of the model."""
        self.fleet[at].settle(id, tokens, tokens)
        await self.stored(id, user, tokens)

    async def stored(self, id: str, user: str, tokens: int) -> None:
        await self.store.append([self.line(id, user, tokens)])

    def line(self, id: str, user: str, tokens: int) -> Record:
        made = record(self._chance, CLOCK.now(), outcome="completed")
        return msgspec.structs.replace(
            made, id=id, user=user, model="m-too", tokens=Tokens(tokens, 0), cost=tokens
        )

    async def told(self) -> None:
        """Redis knows all."""
        await eventually(lambda: not any(getattr(one, "backlog", 0) for one in self.fleet), "all is told")

    async def counted(self, user: str) -> list[int]:
        return [one.used for one in await self.fleet[0].standings(self.scopes(user), self.period)]

    async def heals(self, count: int) -> None:
        """What is too high is put right when a worker has said since that its journal is in the ledger."""
        await self.told()
        before = self.comparison.healed

        async def all_are() -> bool:
            await self.comparison.work()
            return self.comparison.healed - before >= count

        await eventually_answers(all_are, f"{count} sums are put right", 5)
        assert (self.comparison.healed - before, await self.healed()) == (count, 0)

    async def healed(self) -> int:
        await self.told()
        return (await self.comparison.work())["healed"]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.service)])
async def books(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Books]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_sqlite(tmp_path / "gateway.db", 5))
        load = used_by(store, lambda model: (model, f"{model}-too"))
        if request.param == "memory":
            yield Books(store, [MemoryLimiter(load)] * 2)
            return
        fleet = []
        for name in ("w1", "w2"):
            redis = await stack.enter_async_context(open_redis(request.getfixturevalue("redis_url"), 2))
            fleet.append(await stack.enter_async_context(open_redis_limiter(redis, load, worker=name)))
        yield Books(store, fleet)


async def test_what_has_drifted_is_put_right_either_way_and_once(books: Books) -> None:
    for n, user in enumerate(["alice", "bob", "carol"]):
        await books.begin(f"{n}", user)
        await books.end(f"{n}", user)
    await books.begin("open", "alice", tokens=1000)
    assert await books.healed() == 0
    await books.fleet[0].sums.add(books.period, {
        ("user", "alice"): (7, 8, 9), ("user", "bob"): (-30, -20, -10), ("model", "m"): (1, 0, 0)
    })  # fmt: skip
    await books.heals(3)
    assert await books.counted("alice") == [1040, 1040, 1040, 1120, 1120, 1120]
    assert await books.counted("bob") == [40, 40, 40, 1120, 1120, 1120]
    assert await books.healed() == 0
    await books.end("open", "alice", 500)
    assert await books.healed() == 0
    assert (await books.counted("alice"))[0] == 540


async def test_a_limit_that_comes_while_calls_are_open_gets_to_know_of_them(books: Books) -> None:
    await books.begin("before", "alice", limits=Limits(requests_per_minute=9))
    await books.begin("after", "alice")
    await books.end("before", "alice", 300)
    await books.end("after", "alice", 20)
    await books.told()
    assert (await books.counted("alice"))[0] == 20
    await books.heals(2)
    assert (await books.counted("alice"))[0] == 320


async def test_what_waits_in_a_journal_is_no_drift(books: Books) -> None:
    for one in books.fleet:
        one.behind = lambda: 60.0
    await books.begin("1", "alice")
    books.fleet[0].settle("1", 40, 40)
    await books.told()
    if isinstance(books.fleet[0], RedisLimiter):
        await is_told_how_far_behind(books.fleet)
    assert await books.healed() == 0
    assert (await books.counted("alice"))[0] == 40
    await books.stored("1", "alice", 40)
    assert await books.healed() == 0


async def is_told_how_far_behind(fleet: Sequence[Limiter]) -> None:
    period = CALENDAR.period_of(CLOCK.now())
    while (look := await fleet[0].sums.look(period)).shipped_to > look.at - 50_000:
        await asyncio.sleep(0.05)


async def test_busy_sums_are_never_made_wrong(books: Books) -> None:
    """Records come to the ledger some milliseconds after they were counted, as the shipper brings them."""
    chance, waiting, oldest = random.Random(2), list[Record](), list[float]()
    for one in books.fleet:
        one.behind = lambda: CLOCK.monotonic() - oldest[0] if oldest else 0.0

    async def call(n: int) -> None:
        user, at, tokens = f"u{n % 3}", n % 2, chance.randrange(200)
        await asyncio.sleep(chance.random())
        await books.begin(f"{n}", user, at=at)
        await asyncio.sleep(chance.random() / 20)
        waiting.append(books.line(f"{n}", user, tokens))
        oldest.append(CLOCK.monotonic())
        books.fleet[at].settle(f"{n}", tokens, tokens)

    async def ship() -> None:
        while True:
            batch, waiting[:] = waiting[:], []
            await books.store.append(batch)
            del oldest[: len(batch)]
            await asyncio.sleep(0.005)

    shipping = asyncio.ensure_future(ship())
    calls = asyncio.gather(*(call(n) for n in range(400)))
    while not calls.done():
        await books.comparison.work()
    assert books.comparison.healed == 0
    await eventually(lambda: not oldest, "all is in the ledger")
    assert await books.healed() == 0
    shipping.cancel()


@pytest.mark.service
async def test_a_worker_of_which_nothing_is_heard_may_know_more(redis_url: str, tmp_path: Path) -> None:
    async with (
        open_sqlite(tmp_path / "gateway.db", 5) as store,
        open_redis(redis_url, 2) as redis,
        Redis.from_url(redis_url) as raw,
        open_redis_limiter(redis, used_by(store, lambda model: (model,)), worker="w1") as limiter,
    ):
        books = Books(store, [limiter])
        await books.begin("1", "alice")
        await books.end("1", "alice")
        await books.told()
        await books.stored("2", "alice", 60)
        now = int(datetime.now(UTC).timestamp() * 1000)
        await raw.zadd(WORKERS, {"silent": now - RECENT - 1000})
        assert await books.healed() == 0
        await raw.zrem(WORKERS, "silent")
        assert await books.healed() == 2
        assert (await books.counted("alice"))[0] == 100


async def test_while_a_store_is_away_there_is_nothing_to_compare(tmp_path: Path) -> None:
    async def away(*_: object) -> dict[ScopeKey, Used]:
        raise StoreUnavailable("The ledger is away.")

    async with open_sqlite(tmp_path / "gateway.db", 5) as store:
        limiter = MemoryLimiter(used_by(store, lambda model: (model,)))
        comparison = Comparison(limiter.sums, away, lambda: CALENDAR, CLOCK, pause=0)
        assert await comparison.work() == {"healed": 0}
