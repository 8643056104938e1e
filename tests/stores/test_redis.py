"""Redis: the conformance suite, outages, cancelled callers, replies that are not ours."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pytest
from redis.asyncio import Redis

from llmgateway.control.changes import announce
from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.ports import Change
from llmgateway.stores.redis import CHANGES, KEYS, RedisState, open_redis
from tests.lab.chaos import CLEAN, ChaosProxy, Toxics
from tests.lab.servers import Valkey
from tests.lab.waiting import eventually, eventually_answers
from tests.stores.contract import StateContract, key, soon
from tests.stores.watching import lines_of, loop_lag, seconds_to_fail, works

pytestmark = pytest.mark.service

LOG = "llmgateway.stores.redis"
HOLD = 0.3
PATIENCE = 0.4


class TestRedis(StateContract):
    @pytest.fixture
    async def state(self, redis_url: str) -> AsyncIterator[RedisState]:
        async with open_redis(redis_url, 1, hold=HOLD) as state:
            yield state

    @pytest.fixture
    async def other_state(self, redis_url: str) -> AsyncIterator[RedisState]:
        async with open_redis(redis_url, 1, hold=HOLD) as state:
            yield state


@pytest.fixture
async def state(redis_url: str) -> AsyncIterator[RedisState]:
    async with open_redis(redis_url, 1, hold=HOLD) as state:
        yield state


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator["Redis"]:
    async with Redis.from_url(redis_url) as client:
        yield client


async def caches(state: RedisState) -> bool:
    return await works(state.cache_key(key(), 30)) and await works(state.cached_key("k1"))


async def connections_of(raw: "Redis") -> int:
    return len([one for one in await raw.client_list() if one["name"] == "llmgateway"])


async def test_three_hundred_callers_at_once_share_few_connections(state: RedisState, raw: "Redis") -> None:
    before = await connections_of(raw)
    await asyncio.gather(*(state.cache_key(key(f"k{n}"), 30) for n in range(300)))
    found = await asyncio.gather(*(state.cached_key(f"k{n}") for n in range(300)))
    assert [one and one["id"] for one in found] == [f"k{n}" for n in range(300)]
    assert await connections_of(raw) - before <= 4


async def test_r_fault_24_cancelled_callers_shift_no_reply(state: RedisState) -> None:
    """Look-ups cancelled in every stage of their way: each one that is left gets its own document."""
    chance = random.Random(2624)
    await asyncio.gather(*(state.cache_key(key(f"k{n}"), 60) for n in range(200)))
    wrong, answered, cancelled = [], 0, 0
    for _ in range(40):
        asked = {f"k{n}": asyncio.ensure_future(state.cached_key(f"k{n}")) for n in range(200)}
        for call in chance.sample(list(asked.values()), 100):
            if chance.random() < 0.2:
                await asyncio.sleep(0)
            if chance.random() < 0.02:
                await asyncio.sleep(0.0005)
            call.cancel()
        await asyncio.wait(asked.values())
        for id, call in asked.items():
            if call.cancelled():
                cancelled += 1
                continue
            answered += 1
            wrong += [id] if (call.result() or {}).get("id") != id else []
    assert not wrong
    assert answered > 1000
    assert cancelled > 100  # how many are overtaken by their answers is the machine's business
    assert state.is_healthy()


@pytest.mark.parametrize(
    "stored", [b"\xc1 garbage", msgspec.msgpack.encode(key("another")), msgspec.msgpack.encode([1])]
)
async def test_a_foreign_document_is_never_given_out(state: RedisState, raw: "Redis", stored: bytes) -> None:
    await raw.set(KEYS + "k1", stored)
    with lines_of(LOG) as lines, pytest.raises(StoreUnavailable):
        await state.cached_key("k1")
    assert len(lines) == 1
    assert "belongs to another question" in lines[0]
    assert await state.cached_key("k1") is None  # and it does not stay
    assert state.is_healthy()


async def test_a_word_that_cannot_be_read_means_anything(state: RedisState, raw: "Redis") -> None:
    async with aclosing(state.changes()) as feed:
        await anext(feed)
        await raw.publish(CHANGES, b'{"topic": "tomorrow"}')
        assert await soon(anext(feed)) == Change("*")


async def test_a_feed_that_was_cut_is_taken_up_again_and_says_so(state: RedisState, raw: "Redis") -> None:
    async with aclosing(state.changes()) as feed:
        await anext(feed)
        await raw.client_kill_filter(_type="pubsub")
        assert await soon(anext(feed)) == Change("*")
        await state.announce(Change("users", "alice"))
        assert await soon(anext(feed)) == Change("users", "alice")
    assert state.is_healthy()


async def test_a_feed_outlives_silence(own_valkey: Valkey) -> None:
    """On a server of its own: feeds know no databases, and others are not silent."""
    async with open_redis(own_valkey.url(), 0.1) as state, aclosing(state.changes()) as feed:
        await anext(feed)
        nothing = asyncio.ensure_future(anext(feed))
        await asyncio.wait([nothing], timeout=0.5)
        await state.announce(Change("models"))
        assert await soon(nothing) == Change("models")


async def test_a_server_that_is_absent_at_the_start_may_come_later(own_valkey: Valkey) -> None:
    own_valkey.stop()
    with lines_of(LOG) as lines:
        async with open_redis(own_valkey.url(), PATIENCE) as state:
            await seconds_to_fail(state.ping())
            assert not state.is_healthy()
            own_valkey.start()
            await eventually(state.is_healthy, "it has noticed, though nobody asked")
            assert await caches(state)
    assert lines[0].startswith("Redis is not available")
    assert lines[1].startswith("Redis is available again")
    assert len(lines) == 2


async def test_r_fault_20_a_stopped_server_costs_little_and_is_taken_up_again(own_valkey: Valkey) -> None:
    async with open_redis(own_valkey.url(), PATIENCE) as state, aclosing(state.changes()) as feed:
        assert await anext(feed) == Change("*")
        assert await caches(state)
        with lines_of(LOG) as lines:
            own_valkey.stop()
            assert await seconds_to_fail(state.ping()) < PATIENCE
            took = [await seconds_to_fail(state.cached_key("k1")) for _ in range(1000)]
            assert max(took) < 0.005
            gap = asyncio.ensure_future(anext(feed))
            own_valkey.start()

            async def works_again() -> bool:
                return await caches(state)

            await eventually_answers(works_again, "calls succeed again")
            assert await soon(gap, 3) == Change("*")
            await state.announce(Change("keys", "k1"))
            assert await soon(anext(feed)) == Change("keys", "k1")
        assert len(lines) == 2


async def test_s_key_05_what_could_not_be_announced_is_when_the_server_is_back(own_valkey: Valkey) -> None:
    """Of all that were to be: the cached record of a key that is revoked goes, and everybody hears of it."""
    async with ChaosProxy(own_valkey.port) as proxy:
        cut = own_valkey.url().replace(f":{own_valkey.port}", f":{proxy.port}")
        async with open_redis(own_valkey.url(), PATIENCE) as other, open_redis(cut, PATIENCE) as state:
            assert await caches(state)
            async with aclosing(other.changes()) as feed:
                await soon(anext(feed))
                proxy.toxics = Toxics(refuse=True)
                proxy.reset_all()
                await announce(state, [Change("users", "alice"), Change("keys", "k1")])
                assert state.untold == 2
                assert await other.cached_key("k1") == key()
                proxy.toxics = CLEAN
                assert [await soon(anext(feed), 5) for _ in range(2)] == [
                    Change("users", "alice"), Change("keys", "k1"),
                ]  # fmt: skip
                assert await other.cached_key("k1") is None
                await eventually(lambda: state.untold == 0, "all is told")


async def test_r_fault_21_a_frozen_server_delays_callers_once(own_valkey: Valkey) -> None:
    async with (
        open_redis(own_valkey.url(), PATIENCE) as state,
        aclosing(state.changes()) as feed,
        loop_lag() as lag,
    ):
        await anext(feed)
        assert await caches(state)
        gap = asyncio.ensure_future(anext(feed))
        with lines_of(LOG) as lines:
            own_valkey.freeze()
            try:
                took = await asyncio.gather(*(seconds_to_fail(state.cached_key(f"k{n}")) for n in range(300)))
                assert max(took) < PATIENCE * 1.5
                began = time.perf_counter()
                while time.perf_counter() - began < 1.5:  # several probes long
                    assert await seconds_to_fail(state.cached_key("k1")) < 0.02
                    await asyncio.sleep(0.005)
            finally:
                own_valkey.thaw()
            await eventually(state.is_healthy, "it has noticed that the server is back")
            assert await state.cached_key("k1") == key()
            assert await soon(gap, 3) == Change("*")
        assert len(lines) == 2
        assert lag.longest < 0.1


async def test_r_fault_23_a_server_that_forgot_everything_is_only_empty(own_valkey: Valkey) -> None:
    async with open_redis(own_valkey.url(), PATIENCE, hold=HOLD) as state:
        assert await caches(state)
        own_valkey.restart_empty()

        async def works_again() -> bool:
            return await works(state.ping())

        await eventually_answers(works_again, "calls succeed again")
        assert await state.cached_key("k1") is None
        assert await caches(state)


async def test_a_full_server_refuses_but_is_not_away(own_valkey: Valkey) -> None:
    async with open_redis(own_valkey.url(), PATIENCE) as state, Redis.from_url(own_valkey.url()) as raw:
        assert await caches(state)
        await raw.config_set("maxmemory", "1")
        with pytest.raises(StoreUnavailable, match="did not do"):
            await state.cache_key(key("k2"), 30)
        assert await state.cached_key("k1") == key()
        assert state.is_healthy()
        await raw.config_set("maxmemory", "0")
        await state.cache_key(key("k2"), 30)


async def test_wrong_credentials_are_a_server_that_is_away(redis_url: str) -> None:
    with lines_of(LOG) as lines:
        async with open_redis(redis_url.replace("redis://", "redis://:s3cret@"), PATIENCE) as state:
            with pytest.raises(StoreUnavailable):
                await state.ping()
            assert not state.is_healthy()
    assert len(lines) == 1
    assert "AuthenticationError" in lines[0]
    assert "s3cret" not in lines[0]


async def test_what_is_no_url_stops_the_start() -> None:
    with pytest.raises(ValueError, match="redis://"):
        async with open_redis("http://localhost", PATIENCE):
            raise AssertionError


async def test_closing_does_not_wait_for_a_frozen_server(own_valkey: Valkey) -> None:
    began = time.perf_counter()
    async with open_redis(own_valkey.url(), 30) as state:
        await state.ping()
        own_valkey.freeze()
        waiting = asyncio.ensure_future(state.cached_key("k1"))
        await asyncio.sleep(0.05)
    with pytest.raises(StoreUnavailable):
        await waiting
    own_valkey.thaw()
    assert time.perf_counter() - began < 5
