"""The conformance suite on Redis, for several workers, and what happens when it is away, slow or empty."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from redis.asyncio import Redis

from llmgateway.domain.admission import Used
from llmgateway.domain.errors import OverLimit, StoreUnavailable
from llmgateway.stores.limits.limiter_turn import EPOCH, HELD, USE, WORKERS
from llmgateway.stores.limits.redis_limiter import RedisLimiter, open_redis_limiter
from llmgateway.stores.redis import open_redis
from tests.doubles import SetClock
from tests.lab.servers import Valkey
from tests.lab.waiting import eventually, eventually_answers
from tests.stores.limits.limiter_contract import (
    TODAY,
    LimiterContract,
    Pass,
    SetLedger,
    admits,
    claim,
    limited,
    refused,
    spent_by,
    used,
    used_of,
)
from tests.stores.watching import lines_of

pytestmark = pytest.mark.service

LOG = "llmgateway.stores.limits.redis_limiter"
PATIENCE = 0.4
UNHURRIED = 5.0  # where nothing happens to Redis, a busy machine is no reason to think so
FOR_EVER = 10**9


@asynccontextmanager
async def opened(
    url: str, names: Sequence[str], ledger: SetLedger, clock: SetClock | None = None, window: float = 60,
    patience: float = UNHURRIED,
) -> AsyncIterator[list[RedisLimiter]]:  # fmt: skip
    """A limiter for each worker; with a clock, Redis's time is that one's."""
    async with AsyncExitStack() as stack:
        fleet = []
        for name in names:
            redis = await stack.enter_async_context(open_redis(url, patience))
            limiter = open_redis_limiter(redis, ledger.load, worker=name, clock=clock, window=window)
            fleet.append(await stack.enter_async_context(limiter))
            if clock is not None:
                fleet[-1].turns.now = milliseconds(clock)
                fleet[-1].turns.recent = fleet[-1].turns.gap = (
                    FOR_EVER  # nobody falls silent by a clock that jumps
                )
        yield fleet


def milliseconds(clock: SetClock) -> int:
    return int(clock.now().timestamp() * 1000)


class TestRedisLimiter(LimiterContract):
    @pytest.fixture
    def wait(self, clock: SetClock, fleet: Sequence[RedisLimiter]) -> Pass:
        def wait(seconds: float) -> None:
            clock.pass_seconds(seconds)
            for one in fleet:
                one.turns.now = milliseconds(clock)

        return wait

    @pytest.fixture
    async def fleet(
        self, redis_url: str, clock: SetClock, ledger: SetLedger
    ) -> AsyncIterator[Sequence[RedisLimiter]]:
        async with opened(redis_url, ["w1", "w2", "w3", "w4"], ledger, clock) as fleet:
            yield fleet


@pytest.fixture
def ledger() -> SetLedger:
    return SetLedger()


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator["Redis"]:
    async with Redis.from_url(redis_url) as client:
        yield client


async def told(*fleet: RedisLimiter) -> None:
    await eventually(lambda: not any(one.backlog for one in fleet), "Redis knows everything")


async def test_a_minute_in_real_time(redis_url: str, ledger: SetLedger) -> None:
    """No matter when asked, in no half second more than ten."""
    alice, asked, answered = limited(requests_per_minute=10), [], []
    async with opened(redis_url, ["w1", "w2"], ledger, window=0.5) as fleet:
        for n in range(90):
            before = time.monotonic()
            if await admits(fleet[n % 2], claim(f"{n}", alice)):
                asked.append(before)
                answered.append(time.monotonic())
            await asyncio.sleep(0.01)
    assert len(asked) >= 15
    assert all(later - first > 0.498 for first, later in zip(asked, answered[10:], strict=False))


async def test_one_script_for_what_is_claimed_at_once(
    redis_url: str, ledger: SetLedger, raw: "Redis"
) -> None:
    scopes = [limited("user", f"u{n}", requests_per_minute=9, tokens_per_day=99) for n in range(30)]
    async with opened(redis_url, ["w1"], ledger) as (limiter,):
        await asyncio.gather(*(limiter.reserve(claim(f"a{n}", one)) for n, one in enumerate(scopes)))
        before = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
        for n in range(30):
            limiter.settle(f"a{n}", 5, 5)
        await asyncio.gather(*(limiter.reserve(claim(f"b{n}", one)) for n, one in enumerate(scopes)))
        after = (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert after - before <= 2


async def test_r_acc_10_recovery_settles_what_a_dead_worker_held(
    redis_url: str, ledger: SetLedger, raw: "Redis"
) -> None:
    model = limited("model", "m", concurrent_requests=300, tokens_per_day=10**6, cost_per_month=10**6)
    async with opened(redis_url, ["w1", "w2"], ledger) as (dead, alive):
        for n in range(250):
            await dead.reserve(claim(f"d{n}", model, tokens=1000, cost=10))
        await alive.reserve(claim("a", model, tokens=1, cost=1))
        for _ in range(2):
            await alive.recover("w1", spent_by({"d0": (700, 7), "d1": (0, 0), "unknown": (9, 9)}))
            assert await used(alive, model) == {
                ("m", "concurrent_requests"): 1, ("m", "tokens_per_day"): 701, ("m", "cost_per_month"): 8
            }  # fmt: skip
        assert not await raw.exists(HELD + "w1")
        assert await raw.zrange(WORKERS, 0, -1) == [b"w2"]
        with pytest.raises(ValueError, match="lives"):
            await alive.recover("w2", spent_by({}))


async def test_r_acc_10_a_worker_that_died_with_thousands_of_calls_is_settled_to_the_last(
    redis_url: str, ledger: SetLedger, raw: "Redis"
) -> None:
    """One look into a large hash may find nothing though there is something: it has been emptied from the
    front."""
    model, count = limited("model", "m", concurrent_requests=10_000, tokens_per_day=10**9), 9000
    async with opened(redis_url, ["w1", "w2"], ledger) as (dead, alive):
        await asyncio.gather(*(dead.reserve(claim(f"d{n}", model, tokens=1000)) for n in range(count)))
        await alive.recover("w1", spent_by({f"d{n}": (1, 0) for n in range(count)}))
        assert await used(alive, model) == {
            ("m", "concurrent_requests"): 0, ("m", "tokens_per_day"): count
        }  # fmt: skip
        assert not await raw.exists(HELD + "w1")


async def test_r_acc_10_what_nobody_can_tell_of_now_stays_reserved(redis_url: str, ledger: SetLedger) -> None:
    alice = limited(tokens_per_day=10**6)
    async with opened(redis_url, ["w1", "w2"], ledger) as (dead, alive):
        for id in ("1", "2"):
            await dead.reserve(claim(id, alice, tokens=100))

        async def knows_one(ids: Sequence[str]) -> dict[str, tuple[int, int]]:
            return {"1": (7, 0)} if "1" in ids else {}

        with pytest.raises(StoreUnavailable):
            await alive.recover("w1", knows_one)
        assert await used(alive, alice) == {("alice", "tokens_per_day"): 107}
        await alive.recover("w1", spent_by({}))
        assert await used(alive, alice) == {("alice", "tokens_per_day"): 7}


async def test_r_acc_10_places_of_a_worker_that_nobody_recovers_are_given_back(
    redis_url: str, ledger: SetLedger
) -> None:
    """After a quarter of an hour without a sign of life; what it had reserved stays, for a late recovery."""
    clock, model = SetClock(), limited("model", "m", concurrent_requests=2, tokens_per_day=1000)

    def wait(seconds: float) -> None:
        clock.pass_seconds(seconds)
        for one in (dead, alive):
            one.turns.now = milliseconds(clock)

    async with opened(redis_url, ["w1", "w2"], ledger, clock) as (dead, alive):
        await dead.reserve(claim("1", model, tokens=100))
        await dead.reserve(claim("2", model, tokens=100))
        clock.seconds -= 10_000  # the dead worker's next sign of life is far away
        wait(14 * 60)
        assert not await admits(alive, claim("3", model, tokens=1))
        wait(61)
        assert await admits(alive, claim("3", model, tokens=1))
        await alive.recover("w1", spent_by({"1": (30, 0)}))
        assert await used(alive, model) == {
            ("m", "concurrent_requests"): 1, ("m", "tokens_per_day"): 31
        }  # fmt: skip


async def test_r_fault_23_scripts_are_forgotten(redis_url: str, ledger: SetLedger, raw: "Redis") -> None:
    alice = limited(requests_per_minute=2)
    async with opened(redis_url, ["w1"], ledger) as (limiter,):
        assert await admits(limiter, claim("1", alice))
        await raw.script_flush()
        assert await admits(limiter, claim("2", alice))
        assert not await admits(limiter, claim("3", alice))
        assert limiter.is_healthy()


@pytest.mark.parametrize("how", ["flushed", "restarted"])
async def test_r_fault_23_counts_begin_anew_with_the_ledgers_sums(
    own_valkey: Valkey, ledger: SetLedger, how: str
) -> None:
    alice = limited(tokens_per_day=1000, concurrent_requests=5, requests_per_minute=50)
    ledger.used = {"alice": Used(100)}
    async with opened(own_valkey.url(), ["w1", "w2"], ledger, patience=PATIENCE) as (one, other):
        for limiter, id in ((one, "a"), (one, "b"), (other, "c")):
            await limiter.reserve(claim(id, alice, tokens=200))
        one.settle("a", 150, 0)
        await told(one)
        ledger.used = {"alice": Used(250)}  # with what has ended
        if how == "flushed":
            async with Redis.from_url(own_valkey.url()) as raw:
                await raw.flushall()
        else:
            own_valkey.restart_empty()
            await eventually(lambda: one.is_healthy() and other.is_healthy(), "Redis is back", 10)
        assert await admits(one, claim("d", alice, tokens=100))

        async def is_all_counted() -> bool:
            now = await used(other, alice)
            return now["alice", "tokens_per_day"] == 750 and now["alice", "concurrent_requests"] == 3

        await eventually_answers(is_all_counted, "what is open is counted again", 10)
        assert not await admits(other, claim("e", alice, tokens=251))
        for limiter, id in ((one, "b"), (other, "c"), (one, "d")):
            limiter.settle(id, 50, 0)
        await told(one, other)
        after = await used(one, alice)
        assert (after["alice", "tokens_per_day"], after["alice", "concurrent_requests"]) == (400, 0)


async def test_r_fault_20_down_each_worker_counts_its_share(own_valkey: Valkey, ledger: SetLedger) -> None:
    """Never off, never all refused; what was let in meanwhile is counted in Redis afterwards."""
    alice = limited(requests_per_minute=20, tokens_per_day=1000, concurrent_requests=8)
    ledger.used = {"alice": Used(200)}
    async with opened(own_valkey.url(), ["w1", "w2"], ledger, patience=PATIENCE) as fleet:
        one, other = fleet
        await one.reserve(claim("before", alice, tokens=200))
        await other.reserve(claim("there", alice, tokens=200))
        await used(one, alice)
        own_valkey.kill()
        with lines_of("llmgateway.stores.redis") as lines:
            taken = [[await admits(limiter, claim(f"{n}-{limiter.turns.worker}", alice, tokens=50))
                      for n in range(20)] for limiter in fleet]  # fmt: skip
            assert [sum(one) for one in taken] == [3, 3]  # places: 4 each, of which one is taken
            assert not any(limiter.is_healthy() for limiter in fleet)
            assert len([line for line in lines if "not available" in line]) == 2
        error = await refused(one, claim("more", alice, tokens=50))
        assert "8 of 8 used" in error.message
        assert "shared out among its workers" in error.message
        for limiter in fleet:
            limiter.settle("before", 10, 0)
            limiter.settle("there", 10, 0)
            limiter.settle(f"0-{limiter.turns.worker}", 40, 0)
            limiter.settle(f"0-{limiter.turns.worker}", 90, 0)
        own_valkey.start()
        await eventually(lambda: all(limiter.is_healthy() for limiter in fleet), "Redis is back", 10)
        await told(*fleet)


async def test_r_fault_20_what_was_let_in_alone_is_counted_when_redis_is_back(
    own_valkey: Valkey, ledger: SetLedger
) -> None:
    alice = limited(tokens_per_day=10_000, concurrent_requests=9)
    async with opened(own_valkey.url(), ["w1", "w2"], ledger, patience=PATIENCE) as (one, other):
        await one.reserve(claim("before", alice, tokens=1000))
        await used(other, alice)
        own_valkey.freeze()
        assert await admits(one, claim("ended", alice, tokens=1000))
        assert await admits(one, claim("open", alice, tokens=1000))
        one.settle("ended", 300, 0)
        one.settle("before", 200, 0)
        own_valkey.thaw()
        await told(one)
        assert await used(other, alice) == {
            ("alice", "tokens_per_day"): 1500, ("alice", "concurrent_requests"): 1
        }  # fmt: skip
        one.settle("open", 500, 0)
        await told(one)
        assert await used(other, alice) == {
            ("alice", "tokens_per_day"): 1000, ("alice", "concurrent_requests"): 0
        }  # fmt: skip


@pytest.mark.alone
async def test_r_fault_21_frozen_the_first_waits_for_the_timeout_the_next_do_not(
    own_valkey: Valkey, ledger: SetLedger
) -> None:
    alice = limited(requests_per_minute=1000, concurrent_requests=1000)
    async with opened(own_valkey.url(), ["w1"], ledger, patience=PATIENCE) as (limiter,):
        await limiter.reserve(claim("warm", alice))
        own_valkey.freeze()

        async def seconds(id: str) -> float:
            before = time.perf_counter()
            await limiter.reserve(claim(id, alice))
            return time.perf_counter() - before

        assert max(await asyncio.gather(*(seconds(f"a{n}") for n in range(50)))) < PATIENCE + 0.25
        assert sorted([await seconds(f"b{n}") for n in range(50)])[45] < 0.005
        own_valkey.thaw()
        await told(limiter)
        await eventually(limiter.is_healthy, "it is healthy again")
        assert (await used(limiter, alice))["alice", "concurrent_requests"] == 101
        for id in ["warm", *(f"{c}{n}" for c in "ab" for n in range(50))]:
            limiter.settle(id, 0, 0)
        assert (await used(limiter, alice))["alice", "concurrent_requests"] == 0


async def test_what_is_refused_or_given_up_while_redis_hangs_holds_nothing_afterwards(
    own_valkey: Valkey, ledger: SetLedger
) -> None:
    alice = limited(concurrent_requests=1, tokens_per_minute=100)
    bob = limited("user", "bob", concurrent_requests=10)
    async with opened(own_valkey.url(), ["w1"], ledger, patience=PATIENCE) as (limiter,):
        await used(limiter, alice, bob)
        own_valkey.freeze()
        given_up = asyncio.ensure_future(limiter.reserve(claim("given-up", bob)))
        asked = [asyncio.ensure_future(admits(limiter, claim(f"{n}", alice, tokens=60))) for n in range(2)]
        await asyncio.sleep(PATIENCE / 4)
        given_up.cancel()
        assert sum(await asyncio.gather(*asked)) == 1
        own_valkey.thaw()
        await told(limiter)
        for n in range(2):
            limiter.settle(f"{n}", 0, 0)
        after = await used(limiter, alice, bob)
        assert (after["alice", "concurrent_requests"], after["bob", "concurrent_requests"]) == (0, 0)


async def test_redis_absent_at_the_start(own_valkey: Valkey, ledger: SetLedger) -> None:
    own_valkey.kill()
    alice = limited(tokens_per_day=1000, requests_per_minute=2)
    ledger.used = {"alice": Used(400)}
    async with opened(own_valkey.url(), ["w1"], ledger, patience=PATIENCE) as (limiter,):
        assert used_of(await limiter.reserve(claim("1", alice, tokens=500)))["alice", "tokens_per_day"] == 900
        with pytest.raises(OverLimit):
            await limiter.reserve(claim("2", alice, tokens=500))
        with pytest.raises(StoreUnavailable):
            await limiter.recover("dead", spent_by({}))
        own_valkey.start()
        await eventually(limiter.is_healthy, "Redis is there", 10)
        await told(limiter)
        assert (await used(limiter, alice))["alice", "tokens_per_day"] == 900


async def test_a_request_larger_than_a_share_passes_when_the_share_is_unused(
    own_valkey: Valkey, ledger: SetLedger
) -> None:
    alice = limited(tokens_per_minute=1000)
    async with opened(own_valkey.url(), ["w1", "w2", "w3", "w4"], ledger, patience=PATIENCE) as fleet:
        for limiter in fleet:
            await used(limiter, alice)
        await eventually_answers(lambda: lives(fleet[0], 4), "all workers are known")
        own_valkey.kill()
        assert await admits(fleet[0], claim("1", alice, tokens=900))
        error = await refused(fleet[0], claim("2", alice, tokens=100))
        assert error.should_retry is None
        assert error.retry_after == pytest.approx(60, abs=0.01)
        assert (await refused(fleet[0], claim("3", alice, tokens=1001))).should_retry is False
        own_valkey.start()


async def lives(limiter: RedisLimiter, count: int) -> bool:
    await limiter.standings((limited(requests_per_minute=1),), TODAY)
    return limiter.live_workers == count


async def test_a_redis_that_refuses_is_as_good_as_none(
    redis_url: str, ledger: SetLedger, raw: "Redis"
) -> None:
    """Say it is full, or a replica: it answers, so the breaker stays closed."""
    alice = limited(requests_per_minute=2)
    async with opened(redis_url, ["w1"], ledger) as (limiter,):
        with lines_of(LOG) as lines:
            assert await admits(limiter, claim("1", alice))
            await raw.delete(WORKERS)
            await raw.set(WORKERS, b"not a sorted set")
            assert [await admits(limiter, claim(f"{n}", alice)) for n in (2, 3)] == [True, False]
            assert not limiter.is_healthy()
            await raw.delete(WORKERS)
            await eventually(limiter.is_healthy, "Redis counts again")
            await told(limiter)
            assert [line.split(":")[0].split(" after")[0] for line in lines] == [
                "Counting limits on Redis is not available", "Counting limits on Redis is available again"
            ]  # fmt: skip


async def test_the_backlog_is_bounded_and_what_was_held_is_given_back(
    own_valkey: Valkey, ledger: SetLedger
) -> None:
    alice = limited(tokens_per_day=1000, concurrent_requests=50)
    async with opened(own_valkey.url(), ["w1"], ledger, patience=PATIENCE) as (limiter,):
        await limiter.reserve(claim("before", alice, tokens=10))
        limiter.most_changes = 3
        own_valkey.kill()
        await limiter.reserve(claim("sent", alice, tokens=10))
        with lines_of(LOG) as lines:
            for n in range(9):
                await limiter.reserve(claim(f"{n}", alice, tokens=10))
                limiter.settle(f"{n}", 5, 0)
        assert limiter.backlog == 3
        assert ["for long" in line for line in lines] == [True]
        limiter.settle("before", 5, 0)
        limiter.settle("sent", 5, 0)
        own_valkey.start()
        await eventually(limiter.is_healthy, "Redis is there", 10)
        await told(limiter)
        assert (await used(limiter, alice))["alice", "concurrent_requests"] == 0


async def test_a_lost_epoch_alone_loses_nothing(redis_url: str, ledger: SetLedger, raw: "Redis") -> None:
    alice = limited(tokens_per_day=1000, concurrent_requests=5)
    async with opened(redis_url, ["w1"], ledger) as (limiter,):
        for id in "abc":
            await limiter.reserve(claim(id, alice, tokens=100))
        await raw.delete(EPOCH)
        limiter.settle("a", 10, 0)
        await told(limiter)
        assert await used(limiter, alice) == {
            ("alice", "tokens_per_day"): 210, ("alice", "concurrent_requests"): 2
        }  # fmt: skip


async def test_after_its_end_nobody_waits_for_redis(redis_url: str, ledger: SetLedger) -> None:
    async with opened(redis_url, ["w1"], ledger) as (limiter,):
        pass
    assert await admits(limiter, claim("late", limited(requests_per_minute=1)))
    assert not limiter.is_healthy()


async def test_what_cannot_be_read_is_begun_anew(redis_url: str, ledger: SetLedger, raw: "Redis") -> None:
    async with opened(redis_url, ["w1"], ledger) as (limiter,):
        await raw.set(f"{USE}user:alice", b"\xc1garbage")
        assert await admits(limiter, claim("1", limited(requests_per_minute=1)))
        assert not await admits(limiter, claim("2", limited(requests_per_minute=1)))


async def test_a_claim_of_which_no_word_can_be_sent_does_not_end_counting_on_redis(
    redis_url: str, ledger: SetLedger, raw: "Redis"
) -> None:
    """Whoever asked with it is counted alone, and what cannot be told of it is given up."""
    broken, alice = limited("user", "\ud800", requests_per_minute=5), limited(requests_per_minute=2)
    async with opened(redis_url, ["w1"], ledger) as (limiter,):
        with lines_of(LOG) as lines, lines_of("llmgateway.stores.alongside") as broken_off:
            assert await admits(limiter, claim("1", broken))
            await eventually(lambda: not limiter.backlog, "what cannot be told is given up", 10)
            await eventually(limiter.is_healthy, "it counts on Redis again")
        assert [await admits(limiter, claim(f"a{n}", alice)) for n in range(3)] == [True, True, False]
        assert (await raw.exists(f"{USE}user:alice"), limiter.live_workers) == (1, 1)
    assert len(broken_off) == len([line for line in lines if "dropped" in line]) == 1, "each is told once"


async def test_what_was_held_and_cannot_be_read_does_not_end_counting_on_redis(
    redis_url: str, ledger: SetLedger, raw: "Redis"
) -> None:
    alice = limited(tokens_per_day=100)
    async with opened(redis_url, ["w1"], ledger) as (limiter,):
        await limiter.reserve(claim("1", alice, tokens=10))
        await raw.hset(HELD + "w1", "1", b"\xc1garbage")
        limiter.settle("1", 5, 0)
        await told(limiter)
        assert await used(limiter, alice) == {("alice", "tokens_per_day"): 10}
        assert limiter.is_healthy()


async def test_a_worker_that_leaves_is_not_counted(redis_url: str, ledger: SetLedger, raw: "Redis") -> None:
    alice = limited(concurrent_requests=1)
    async with opened(redis_url, ["w1"], ledger) as (limiter,):
        await limiter.reserve(claim("1", alice))
        assert await raw.zcard(WORKERS) == 1
        limiter.settle("1", 0, 0)  # told on leaving
    assert await raw.zcard(WORKERS) == 0
    async with opened(redis_url, ["w2"], ledger) as (limiter,):
        assert await used(limiter, alice) == {("alice", "concurrent_requests"): 0}


async def test_r_fault_24_cancelled_callers_on_a_slow_way_shift_nothing(
    own_valkey: Valkey, ledger: SetLedger
) -> None:
    """Every answer is its own caller's, whoever else gives up, also while the server stutters."""
    chance = random.Random(24)
    scopes = [limited("user", f"u{n}", concurrent_requests=n + 1, requests_per_minute=1000 + n)
              for n in range(60)]  # fmt: skip
    async with opened(own_valkey.url(), ["w1"], ledger, patience=PATIENCE) as (limiter,):
        for turn in range(15):
            calls = {n: asyncio.ensure_future(limiter.reserve(claim(f"{turn}-{n}", one)))
                     for n, one in enumerate(scopes)}  # fmt: skip
            own_valkey.freeze()
            await asyncio.sleep(0.002)
            for n in chance.sample(range(60), 30):
                calls[n].cancel()
                if n % 10 == 0:
                    await asyncio.sleep(0)
            own_valkey.thaw()
            await asyncio.wait(calls.values())
            for n, call in calls.items():
                if not call.cancelled():
                    assert [(one.scope.id, one.limit) for one in call.result()] == [(f"u{n}", 1000 + n)]
                    limiter.settle(f"{turn}-{n}", 0, 0)
        await told(limiter)
        standings = await limiter.standings(scopes, TODAY)
        assert {one.used for one in standings if one.name == "concurrent_requests"} == {0}
