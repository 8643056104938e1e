"""Places on Redis: the contract with two workers, workers that die, outages; it decides as the pure line."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from llmgateway.domain.admission import Places
from llmgateway.domain.fair import Line
from llmgateway.stores.alongside import alongside
from llmgateway.stores.limits.places_batch import PREFIX, Ask, OfModel, keys_of, line, packed, told
from llmgateway.stores.limits.redis_places import RedisPlaces, Times, open_places
from llmgateway.stores.redis import RedisState, Script, open_redis
from tests.lab.processes import Program, python
from tests.lab.servers import Valkey
from tests.lab.waiting import eventually, eventually_answers
from tests.stores.limits.places_contract import Crowd, PlacesContract, is_free, turn
from tests.stores.watching import lines_of, loop_lag

pytestmark = pytest.mark.service

LOG = "llmgateway.stores.limits.redis_places"
TIMEOUT = 0.3
UNHURRIED = 5.0  # where nothing happens to Redis, a busy machine is no reason to think so
PATIENCE = 0.7  # Redis is away for shorter here than it may be


@asynccontextmanager
async def worker(
    url: str, name: str, *, tick: float = 0.1, lease: float = 60.0, timeout: float = TIMEOUT
) -> AsyncIterator[RedisPlaces]:
    async with (
        open_redis(url, timeout) as state,
        open_places(state, name, workers=2, times=Times(tick, lease, timeout + PATIENCE - TIMEOUT)) as places,
    ):
        yield places


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator["Redis"]:
    async with Redis.from_url(redis_url) as client:
        yield client


class TestRedisPlaces(PlacesContract):
    @pytest.fixture
    async def fleet(self, redis_url: str, fresh_name: str) -> AsyncIterator[Sequence[Places]]:
        async with (
            worker(redis_url, f"{fresh_name}-1", timeout=UNHURRIED) as one,
            worker(redis_url, f"{fresh_name}-2", timeout=UNHURRIED) as two,
        ):
            yield [one, two]
            assert one.is_healthy()
            assert two.is_healthy()


async def count_of(raw: "Redis", part: str, model: str = "m") -> int:
    key = f"{PREFIX}{part}:{model}"
    counted: int = await (raw.hlen(key) if part in ("calls", "counters") else raw.zcard(key))
    return counted


@contextmanager
def process(
    url: str, name: str, folder: Path, *, most: int, calls: int, lease: float = 60
) -> Iterator[Program]:
    command = python("-m", "tests.stores.limits.places_worker", url, name, str(most), str(calls), str(lease))
    with Program(command, folder / name) as program:
        program.wait_until_ready(lambda: len(program.output().splitlines()) >= most)
        yield program


async def test_r_fault_49_a_dead_workers_places_and_calls_are_given_back(
    redis_url: str, raw: "Redis", tmp_path: Path
) -> None:
    async with worker(redis_url, "alive") as alive, Crowd([alive]) as crowd:
        with process(redis_url, "dead", tmp_path, most=2, calls=5) as dead:
            await eventually_answers(lambda: count_of(raw, "line"), "its other calls wait")
            await crowd.come(turn("a", most=2))
            dead.kill()
        assert crowd.order == []
        await alive.recover("dead")
        assert await crowd.next_in(0) == "a"
        assert await count_of(raw, "calls") == 1
        await alive.recover("dead")
        await alive.recover("never heard of")
        await crowd.come(turn("b", most=2))
        assert crowd.order == ["a", "b"]
        await crowd.drain()
        await is_free(alive, 2)


async def test_a_worker_of_which_nothing_is_heard_is_given_up(
    redis_url: str, raw: "Redis", tmp_path: Path
) -> None:
    """Frozen for longer than its lease; when it goes on, its calls are still in flight, and count again."""
    with process(redis_url, "frozen", tmp_path, most=2, calls=3, lease=0.5) as frozen:
        async with worker(redis_url, "alive", lease=0.5) as alive, Crowd([alive]) as crowd:
            await crowd.come(turn("a", most=2))
            with lines_of(LOG) as lines, frozen.frozen():
                assert await crowd.next_in(0) == "a"
                assert [line for line in lines if "nothing was heard of a worker for 0.5 s" in line] == lines
                assert len(lines) == 1
            await eventually_answers(lambda: count_of(raw, "line"), "it says what it has")
            assert await count_of(raw, "calls") == 4
            await crowd.come(turn("b", most=2))
            await crowd.leave("a")
            assert crowd.order == ["a"]  # two are in flight there
            frozen.kill()
            assert await crowd.next_in(1) == "b"


async def test_a_worker_that_closes_gives_its_places_back_at_once(redis_url: str) -> None:
    async with worker(redis_url, "stays") as stays, Crowd([stays]) as crowd:
        async with worker(redis_url, "goes") as goes:
            await goes.take(turn("g"))
            await crowd.come(turn("a"))
            assert crowd.order == []
        assert await crowd.next_in(0) == "a"


async def test_what_is_kept_is_bounded_and_belongs_to_one_slot(redis_url: str, raw: "Redis") -> None:
    async with worker(redis_url, "one") as places:
        for n in range(500):
            await places.take(turn(f"c{n}", f"user{n}", prompt=10))
            places.leave(f"c{n}", n % 20)
        await is_free(places, 1)
        assert await count_of(raw, "counters") < 150
        assert await count_of(raw, "calls") == 0
        names = {name.decode() async for name in raw.scan_iter("*")}
        assert {name.partition("}")[0] for name in names} == {"{lgw"}
        # All that names a user or a call goes by itself when nobody asks for an hour.
        assert names == {f"{PREFIX}{part}" for part in ("workers", "heard", "models", "counters:m", "meta:m")}
        assert 0 < await raw.ttl(f"{PREFIX}counters:m") <= 3600
        await places.take(turn("again"))
        assert await raw.ttl(f"{PREFIX}counters:m") == -1
        places.leave("again", 1)
    assert not await raw.exists(f"{PREFIX}workers", f"{PREFIX}heard", f"{PREFIX}models")


async def test_a_lost_message_costs_a_tick(redis_url: str) -> None:
    """Also for a worker that has new calls all the time."""
    async with worker(redis_url, "one") as one, open_redis(redis_url, TIMEOUT) as state:
        deaf = RedisPlaces(state, "deaf", 2, Times(tick=0.1))
        await one.take(turn("a", waiting=2))

        async def busy(crowd: Crowd, until: Callable[[], bool]) -> None:
            async with asyncio.timeout(5):
                while not until():
                    await crowd.settle(deaf)

        async with alongside(deaf.run), Crowd([deaf]) as crowd:
            for id in ("b", "c"):
                await crowd.come(turn(id, waiting=2))
            waits = asyncio.ensure_future(one.take(turn("e", "bob", waiting=2)))
            await busy(crowd, lambda: list(crowd.refused) == ["c"])
            one.leave("a", 1)
            await waits
            one.leave("e", 1)
            await busy(crowd, lambda: crowd.order == ["b"])
        await deaf.recover("deaf")


async def test_a_channel_that_was_cut_is_made_good(redis_url: str, raw: "Redis") -> None:
    async with worker(redis_url, "one", tick=30) as one, worker(redis_url, "two", tick=30) as two:
        await one.take(turn("a"))
        async with Crowd([two]) as crowd:
            await crowd.come(turn("b"))
            await raw.client_kill_filter(_type="pubsub")
            one.leave("a", 1)
            assert await crowd.next_in(0) == "b"


async def test_scripts_may_be_forgotten(redis_url: str, raw: "Redis") -> None:
    async with worker(redis_url, "one") as one:
        await one.take(turn("a"))
        await raw.script_flush()
        one.leave("a", 1)
        await one.take(turn("b"))
        assert one.is_healthy()


async def test_a_frozen_redis_is_done_without_and_taken_up_again(own_valkey: Valkey) -> None:
    """Two workers of four places, all taken: each goes on with two, and the sum is right in the end."""
    url = own_valkey.url()
    async with (
        worker(url, "one") as one,
        worker(url, "two") as two,
        Crowd([one]) as here,
        Crowd([two]) as there,
    ):
        for n in range(4):
            await here.come(turn(f"h{n}", most=4))
        for crowd, id in ((here, "h4"), (there, "t0"), (there, "t1"), (there, "t2")):
            await crowd.come(turn(id, most=4))
        await eventually(lambda: two._live == 2, "they know each other")
        with lines_of(LOG) as lines:
            async with loop_lag() as lag:
                own_valkey.freeze()
                await eventually(lambda: there.order == ["t0", "t1"], "its share is given")
                await eventually(lambda: not one.is_healthy(), "the other one has noticed, too")
                assert here.inside == {"h0", "h1", "h2", "h3"}
                for id in ("h0", "h1"):
                    await here.leave(id)
                assert here.order[-1] == "h3"
                await here.leave("h2")
                assert await here.next_in(4) == "h4"
                assert there.order == ["t0", "t1"]
                began = time.perf_counter()
                there.go("t0", 10)
                assert await there.next_in(2) == "t2"
                assert time.perf_counter() - began < 0.1
                own_valkey.thaw()
                await eventually(lambda: one.is_healthy() and two.is_healthy(), "Redis is back", 10)
            assert lag.longest < 0.25
        away = "places are given by each worker for itself, 1/2 of them: Redis is not available."
        assert sorted(lines) == [*["places are given by all workers together again"] * 2, away, away]
        await here.come(turn("late", most=4))
        assert here.order[-1] == "h4"  # four are inside: h3, h4, t1, t2
        await there.leave("t1")
        assert await here.next_in(5) == "late"
        await here.drain()
        await there.drain()
        await is_free(one, 4)


async def test_a_batch_that_was_held_up_changes_nothing_any_more(own_valkey: Valkey) -> None:
    """Frozen as a call asks, and thawed after it has given up: it holds nothing."""
    url = own_valkey.url()
    async with worker(url, "one") as one, Crowd([one]) as crowd:
        await crowd.come(turn("a", most=2))
        for n in range(3):
            own_valkey.freeze()
            asking = asyncio.ensure_future(one.take(turn(f"held up {n}", most=2)))
            await eventually(lambda: not one.is_healthy(), "it was given up")
            await asking  # from its own share
            one.leave(f"held up {n}", 10)
            own_valkey.thaw()
            await eventually(one.is_healthy, "Redis is back", 10)
        await crowd.leave("a")
        await is_free(one, 2)


@pytest.mark.parametrize("is_watched", [False, True])
async def test_a_redis_that_lost_everything_is_told_again(own_valkey: Valkey, is_watched: bool) -> None:
    """Who has calls in flight says so before anybody gets a place that is not free."""
    url = own_valkey.url()
    async with (
        worker(url, "one") as one,
        worker(url, "two") as two,
        Crowd([one]) as here,
        Crowd([two]) as there,
    ):
        for n in range(3):
            await here.come(turn(f"h{n}", most=3))
        await there.come(turn("t0", most=3))
        if is_watched:
            own_valkey.restart_empty()
        else:
            async with Redis.from_url(url) as raw:
                await raw.flushall()
        await there.come(turn("t1", most=3))
        await eventually(lambda: one.is_healthy() and two.is_healthy(), "Redis is back", 10)
        await here.leave("h0", 10)
        assert await there.next_in(0) == "t0"
        await here.leave("h1", 10)
        assert await there.next_in(1) == "t1"
        await here.drain()
        await there.drain()
        await is_free(two, 3)


async def test_a_redis_that_is_away_at_the_start(own_valkey: Valkey) -> None:
    own_valkey.stop()
    async with worker(own_valkey.url(), "one") as one, Crowd([one]) as crowd:
        await crowd.come(turn("a", most=2))  # one of two workers, as was said
        await crowd.come(turn("b", most=2))
        assert crowd.order == ["a"]
        assert not one.is_healthy()
        own_valkey.start()
        assert await crowd.next_in(1) == "b"
        assert one.is_healthy()


async def test_a_redis_that_refuses_is_done_without(own_valkey: Valkey) -> None:
    async with worker(own_valkey.url(), "one") as one, Redis.from_url(own_valkey.url()) as raw:
        await one.take(turn("a", most=2))
        await raw.set(f"{PREFIX}calls:m", "not a hash")
        one.leave("a", 1)
        with lines_of(LOG) as lines:
            await one.take(turn("b", most=2))
            await eventually(lambda: not one.is_healthy(), "it is noticed")
            await one.take(turn("c", most=4))
            assert len(lines) == 1
            await raw.delete(f"{PREFIX}calls:m")
            await eventually(one.is_healthy, "it is tried again")
        one.leave("b", 1)
        one.leave("c", 1)
        await is_free(one, 2)


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_storm_in_which_redis_comes_and_goes_loses_no_place(own_valkey: Valkey, seed: int) -> None:
    """Callers come, wait, are cancelled and leave, while Redis is frozen, emptied and started anew."""
    chance = random.Random(seed)
    url, most, is_over = own_valkey.url(), 4, False
    inside, most_inside, served = set[str](), 0, 0

    async def stream(places: Places, name: str) -> None:
        nonlocal most_inside, served
        n = 0
        while not is_over:
            n += 1
            id = f"{name}-{n}"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(chance.choice([0.001, 0.01, 0.1, 3])):
                    await places.take(turn(id, name, most=most))
                    inside.add(id)
                    most_inside = max(most_inside, len(inside))
                    await asyncio.sleep(chance.random() * 0.02)
                    served += 1
            inside.discard(id)
            places.leave(id, chance.randrange(100))

    async with worker(url, "one") as one, worker(url, "two") as two:
        async with asyncio.TaskGroup() as group:
            for n in range(16):
                group.create_task(stream([one, two][n % 2], f"user{n}"))
            for blow in chance.sample(["freeze", "empty", "freeze", "flush"], 4):
                await asyncio.sleep(0.3)
                if blow == "freeze":
                    own_valkey.freeze()
                    await asyncio.sleep(chance.choice([0.1, 0.5]))
                    own_valkey.thaw()
                elif blow == "empty":
                    own_valkey.restart_empty()
                else:
                    async with Redis.from_url(url) as raw:
                        await raw.flushall()
            await eventually(lambda: one.is_healthy() and two.is_healthy(), "Redis is back", 10)
            before = served
            await eventually(lambda: served > before + 20, "places are given")
            is_over = True
        assert most_inside <= 2 * most  # those of before an outage, and a share of each worker
        assert served > 100
        await is_free(one, most)
        async with Redis.from_url(url) as raw:
            await eventually_answers(lambda: is_zero(count_of(raw, "calls")), "nothing is left")


async def is_zero(count: Awaitable[int]) -> bool:
    return await count == 0


class Asker:
    """The script, asked directly by one worker."""

    def __init__(self, state: RedisState) -> None:
        self._state = state
        self._script = Script.named("places")
        self._number = 0

    async def __call__(
        self, most: int, *, whole: bool = False, **news: list[Any]
    ) -> tuple[set[str], set[str]]:
        self._number += 1
        model = OfModel(name="m", most=most, **news)
        ask = Ask(worker="w", number=self._number, models=[model], lease=60_000, patience=1, whole=whole)
        reply = await self._state.run(self._script, keys_of(["m"]), packed(ask), told)
        assert reply.status == "done"
        return set(reply.granted), set(reply.refused)


@pytest.mark.parametrize("seed", range(10))
async def test_the_script_decides_as_the_line_does(redis_url: str, seed: int) -> None:
    """The same calls in the same order: the same ones are let in, and refused."""
    chance = random.Random(seed)
    most, longest = chance.choice([1, 2, 5]), chance.choice([1, 4, 20])
    model, known = Line(), list[str]()

    def given() -> set[str]:
        ids = set()
        while (one := model.next(most)) is not None:
            ids.add(one.id)
        return ids

    async with open_redis(redis_url, 1) as state:
        script = Asker(state)
        await script(most, whole=True)
        for n in range(400):
            id, tokens = chance.choice([*known, "never"]), chance.randrange(200)
            do, refused = chance.choice(["take", "take", "take", "leave", "leave", "served"]), set[str]()
            if do == "take":
                user = f"user{min(chance.randrange(8), chance.randrange(8))}"
                asked = turn(f"c{n}", user, most=most, waiting=longest, prompt=chance.randrange(50),
                             weight=chance.choice([0.3, 1.0, 3.0]))  # fmt: skip
                known.append(asked.id)
                model.enter(asked)
                granted = given()
                if model.waiting > longest:
                    refused.add(model.refuse(asked).id)
                assert await script(most, takes=[line(asked, longest)]) == (granted, refused), n
            elif do == "leave":
                model.leave(id, tokens)
                assert await script(most, leaves=[(id, tokens)]) == (given(), set()), n
            else:
                model.served(id, tokens)
                assert await script(most, served=[(id, tokens)]) == (set(), set()), n
        assert model.running == most
