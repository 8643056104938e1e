"""Limits of a minute hold whatever becomes of Redis: no worker lets in more than what is left and its own."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest
from redis.asyncio import Redis

from llmgateway.domain.limits import Limits, Scope
from llmgateway.stores.limits.grants import Spending
from llmgateway.stores.limits.limiter_turn import CHANNEL, RECENT, TELLINGS, UNTOLD, key_of
from llmgateway.stores.limits.redis_limiter import RedisLimiter, open_redis_limiter
from llmgateway.stores.redis import open_redis
from tests.lab.chaos import ChaosProxy, Toxics
from tests.lab.servers import Valkey
from tests.lab.waiting import eventually, eventually_answers
from tests.stores.limits.limiter_contract import SetLedger, admits, claim

pytestmark = pytest.mark.service

LIMIT = 30
NAMES = ("w1", "w2", "w3", "w4")
GIVEN = {
    "nothing": (0, 0, 0, 0), "to one": (20, 0, 0, 0), "to one all": (30, 0, 0, 0), "even": (5, 5, 5, 5),
    "uneven": (1, 0, 3, 12), "the rest to another": (20, 0, 0, 5), "one each": (1, 1, 1, 1),
    "little by little": (7, 7, 7, 8),
}  # fmt: skip


def scope(name: str, limit: int = LIMIT) -> Scope:
    return Scope("user", name, Limits(requests_per_minute=limit, tokens_per_minute=limit * 12))


class Flood:
    """What these users were let through; each asks of all workers, again and again."""

    def __init__(self, fleet: Sequence[RedisLimiter], limit: int = LIMIT) -> None:
        self.fleet = fleet
        self.limit = limit
        self.taken = dict.fromkeys(GIVEN, 0)
        self._count = 0

    async def ask(self, name: str, at: int) -> None:
        self._count += 1
        one = claim(f"{name}-{self._count}", scope(name, self.limit), tokens=10)
        limiter = self.fleet[at]
        if await admits(limiter, one):
            self.taken[name] += 1
            limiter.settle(one.id, 10, 0)

    async def give(self) -> None:
        """One after the other, in turns, as much as the table says."""
        for name, counts in GIVEN.items():
            for n in range(max(counts)):
                for at, count in enumerate(counts):
                    if n < count:
                        await self.ask(name, at)

    async def once(self) -> None:
        """All at once, and more than there is."""
        asked = [(name, at) for name in GIVEN for _ in range(10) for at in range(len(self.fleet))]
        await asyncio.gather(*(self.ask(*one) for one in asked))

    def check(self) -> None:
        assert {name: count for name, count in self.taken.items() if count > self.limit} == {}


@asynccontextmanager
async def opened(*urls: str) -> AsyncIterator[list[RedisLimiter]]:
    async with AsyncExitStack() as stack:
        fleet = []
        for name, url in zip(NAMES, urls, strict=True):
            redis = await stack.enter_async_context(open_redis(url, 0.4))
            fleet.append(
                await stack.enter_async_context(open_redis_limiter(redis, SetLedger().load, worker=name))
            )
        await eventually(lambda: {one.live_workers for one in fleet} == {len(NAMES)}, "all know of all")
        yield fleet


async def back(fleet: Sequence[RedisLimiter]) -> None:
    def is_well() -> bool:
        return all(one.is_healthy() and one.is_gathered and not one.backlog for one in fleet)

    await eventually(is_well, "Redis is back", 10)


@pytest.mark.parametrize("how", ["killed", "frozen", "restarted empty", "flushed"])
async def test_r_fault_20_21_23_nobody_gets_more_than_the_limit_of_a_minute(
    own_valkey: Valkey, how: str
) -> None:
    async with opened(*[own_valkey.url()] * 4) as fleet:
        flood = Flood(fleet)
        await flood.give()
        if how == "flushed":
            async with Redis.from_url(own_valkey.url()) as raw:
                await raw.flushall()
        else:
            {"killed": own_valkey.kill, "frozen": own_valkey.freeze,
             "restarted empty": own_valkey.restart_empty}[how]()  # fmt: skip
        await flood.once()
        flood.check()
        if how == "killed":
            own_valkey.start()
        elif how == "frozen":
            own_valkey.thaw()
        await flood.once()
        flood.check()
        await back(fleet)
        await flood.once()
        flood.check()
        least = LIMIT - 8 if how == "frozen" else LIMIT  # what was asked as it froze was taken for nobody
        assert min(flood.taken.values()) >= least, "and nobody gets less when it is back"


async def test_a_limit_smaller_than_the_number_of_workers(own_valkey: Valkey) -> None:
    """Whoever has been let in once is not let in again; one call of each worker may be too much."""
    async with opened(*[own_valkey.url()] * 4) as fleet:
        flood = Flood(fleet, limit=3)
        await flood.give()
        own_valkey.kill()
        await flood.once()
        asked = {name for name, counts in GIVEN.items() if any(counts)}
        assert max(flood.taken[name] for name in asked) == 3
        assert flood.taken["nothing"] == len(fleet)
        own_valkey.start()


async def test_who_is_cut_off_has_its_share_and_the_others_have_the_rest(redis_url: str) -> None:
    url, _, database = redis_url.rpartition("/")
    async with ChaosProxy(int(url.rpartition(":")[2])) as cable:
        behind = f"redis://127.0.0.1:{cable.port}/{database}"
        async with opened(behind, *[redis_url] * 3) as fleet:
            flood = Flood(fleet)
            await flood.give()
            cable.toxics = Toxics(blackhole=True)
            await eventually(lambda: not fleet[0].is_healthy(), "one is cut off", 5)
            await asyncio.sleep(RECENT / 1000 + 0.5)
            for _ in range(2):
                await flood.once()
                flood.check()
            assert flood.taken["nothing"] == LIMIT
            cable.toxics = Toxics()
            cable.reset_all()
            await back(fleet)
            await flood.once()
            flood.check()
            assert set(flood.taken.values()) == {LIMIT}


async def test_who_begins_late_hears_what_was_told(redis_url: str) -> None:
    async with opened(*[redis_url] * 4) as fleet, Redis.from_url(redis_url) as raw:
        await Flood(fleet).give()
        assert await raw.zcard(TELLINGS) > 0
        async with (
            open_redis(redis_url, 1) as redis,
            open_redis_limiter(redis, SetLedger().load, worker="w5") as late,
        ):
            known = late.tellings
            await eventually(lambda: known.shares.of(("user", "to one all")), "it has heard")
            heard = known.shares.of(("user", "to one all"))
            assert heard is not None
            assert heard.requests >= LIMIT // 4


async def test_what_is_told_before_all_have_told_is_too_little(own_valkey: Valkey) -> None:
    """A worker that subscribes anew, while the others still tell a new Redis what they let in."""
    pack, alice, marker = msgspec.msgpack.encode, key_of("user:alice"), key_of("user:marker")
    async with (
        open_redis(own_valkey.url(), 1) as redis,
        open_redis_limiter(redis, SetLedger().load, worker="w1") as limiter,
        Redis.from_url(own_valkey.url()) as raw,
    ):
        shares, known = limiter.tellings.shares, Spending(-1, 7, 70, int(time.monotonic() * 1000))
        shares.heard(alice, known)
        await raw.hset(UNTOLD, "#", "4")
        await raw.zadd(TELLINGS, {pack([("user:alice", 1, 1, 10)]): 0})
        await raw.client_kill_filter(_type="pubsub")

        async def has_subscribed_anew() -> bool:
            await raw.publish(CHANNEL, pack([("user:marker", 1, 1, 1)]))
            return shares.of(marker) is not None

        await eventually_answers(has_subscribed_anew, "it hears again", 5)
        assert shares.of(alice) == known
