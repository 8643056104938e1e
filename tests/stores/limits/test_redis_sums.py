"""Sums of days and months on Redis, read whole and put right, whatever stands there."""

import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from llmgateway.domain.admission import Counted, Used
from llmgateway.stores.limits.limiter_turn import USE
from llmgateway.stores.limits.redis_limiter import RedisLimiter, open_redis_limiter
from llmgateway.stores.limits.redis_sums import BATCH
from llmgateway.stores.redis import open_redis
from tests.lab.waiting import eventually_answers
from tests.stores.limits.limiter_contract import TODAY, TOMORROW, SetLedger, claim, limited

pytestmark = pytest.mark.service


@pytest.fixture
def ledger() -> SetLedger:
    return SetLedger()


@pytest.fixture
async def limiter(redis_url: str, ledger: SetLedger) -> AsyncIterator[RedisLimiter]:
    async with (
        open_redis(redis_url, 2) as redis,
        open_redis_limiter(redis, ledger.load, worker="w1") as limiter,
    ):
        yield limiter


async def test_what_is_reserved_is_left_out(limiter: RedisLimiter, ledger: SetLedger) -> None:
    ledger.used = {"alice": Used(10, 100, 5)}
    alice = limited(tokens_per_day=10**6, cost_per_month=10**6)
    bob = limited("project", "bob:s", tokens_per_day=10**6)
    await limiter.reserve(claim("1", alice, bob, tokens=70, cost=7))
    await limiter.reserve(claim("2", alice, tokens=50, cost=1, period=TOMORROW))
    look = await limiter.sums.look(TODAY)
    assert look.sums == {("user", "alice"): Counted(10, 100, 5), ("project", "bob:s"): Counted(0)}
    assert (look.silent, look.epoch != "") == (0, True)
    await limiter.sums.add(TODAY, {("user", "alice"): (-10, 5, 1), ("user", "nobody"): (1, 1, 1)})
    limiter.settle("1", 1, 1)
    used = {one.name: one.used for one in await limiter.standings((alice,), TODAY)}
    assert used == {"tokens_per_day": 1, "cost_per_month": 8}
    assert (await limiter.sums.look(TODAY)).sums["user", "alice"] == Counted(1, 106, 7)


async def test_sums_that_began_without_the_ledger_are_left_to_it(
    limiter: RedisLimiter, ledger: SetLedger
) -> None:
    ledger.is_down = True
    await limiter.reserve(claim("1", limited(tokens_per_day=100)))
    assert (await limiter.sums.look(TODAY)).sums == {("user", "alice"): Counted()}


async def test_many_scopes_and_what_cannot_be_read(limiter: RedisLimiter, redis_url: str) -> None:
    for n in range(BATCH + 3):
        await limiter.reserve(claim(f"{n}", limited("key", f"k{n}", tokens_per_day=9), tokens=1))
    async with Redis.from_url(redis_url) as raw:
        await raw.set(f"{USE}user:broken", b"\xc1garbage")
        await raw.set(f"{USE}user:odd", b"\x94\x01\x02\x03\x04")
    sums = (await limiter.sums.look(TODAY)).sums
    assert len(sums) == BATCH + 5
    assert (sums["user", "broken"], sums["user", "odd"]) == (Counted(), Counted())
    assert {counted for (kind, _), counted in sums.items() if kind == "key"} == {Counted(0)}


async def test_news_that_come_late_do_not_make_more_seem_shipped_than_is(
    limiter: RedisLimiter, redis_url: str
) -> None:
    """A record waits since before Redis stood still; what was said of it meanwhile is read only now."""

    async def has_told() -> bool:
        return (await limiter.sums.look(TODAY)).shipped_to > 0

    await eventually_answers(has_told, "it says that all is in the ledger")
    async with Redis.from_url(redis_url) as raw:
        ended, (seconds, micros) = time.monotonic(), await raw.time()
        limiter.behind = lambda: time.monotonic() - ended
        for _ in range(3):
            await raw.client_pause(400)
            told = (await limiter.sums.look(TODAY)).shipped_to
            assert told <= seconds * 1000 + micros // 1000 + 1
