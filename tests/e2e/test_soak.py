"""What takes minutes: many streams, readers that stop, churn, stores that are slow for long. `make soak`."""

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.bench.cases import Aim, compile_tools, load, start_upstream
from tests.bench.machine import Cores, make_bed
from tests.e2e.deployment import CHAT
from tests.lab.chaos import ChaosProxy, Toxics
from tests.lab.client import Connection, Request, chat, post
from tests.lab.gateway import Gateway, serving
from tests.lab.oracle import books_agree
from tests.lab.quiescence import baseline_of, descriptors_of, returns_to_idle
from tests.lab.servers import Mongod, Valkey
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually_answers

pytestmark = [pytest.mark.e2e, pytest.mark.soak]

Figure = Callable[[str], None]
MIX = ("ok-5", "ok-20x5ms", "no-usage", "die-after-7", "status-503", "rst-before-headers", "ok-100x20ms")
MODELS = ("ok-600x100ms", "ok-6x10000ms", "flood", "ok-1", "ok-1x50ms", "accept-and-hang", *MIX)
STREAMS = 1000
LARGE_WORDS = 370_000  # 5 MB
IDLE_STREAMS = 3000
STALL, LATE = 0.1, 0.1  # seconds
EACH_STREAM = 64 * 1024  # bytes
STOPPED, MEBIBYTE = 300, 1 << 20
POOLED = 45  # seconds in which connections to tokenisers that nobody uses are given up
MIXED_SECONDS, MIXED_RATE, WARM_SECONDS = 300, 50, 90
GROWTH = 4 << 20  # bytes, from when all is warm to the end
CHURN_SECONDS, CHURN_RATE = 60, 200
SLOW_SECONDS = 60
TICK = 0.01


@pytest.fixture
async def gateway(upstream: ScriptedUpstream) -> AsyncIterator[Gateway]:
    async with Gateway.embedded(serving(upstream.url, *MODELS), config="drain_pause: 0\n") as running:
        key = (await running.create_key()).secret
        assert (await running.ask(post(CHAT, chat("ok-1"), key))).status == 200
        yield running


async def key_of(gateway: Gateway) -> str:
    return (await gateway.create_key()).secret


def memory_of(pid: int) -> int:
    """Proportional set size, in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


async def opened(gateway: Gateway, key: str, model: str, receive_buffer: int | None = None) -> Connection:
    connection = await gateway.connect(receive_buffer)
    await connection.send(post(CHAT, chat(model, stream=True), key))
    assert (await connection.head(60)).status == 200
    return connection


async def in_groups(make: Callable[[], Awaitable[Connection]], count: int) -> list[Connection]:
    """So many connections, a few at once: the client is slower than the gateway."""
    found: list[Connection] = []
    while len(found) < count:
        found += await asyncio.gather(*(make() for _ in range(min(50, count - len(found)))))
    return found


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
async def test_r_load_02_14_a_thousand_streams_for_a_minute(figure: Figure) -> None:
    """Ten events a second each, from a model server to a client in C, so that what is late is late here. One
    more client asks for plain answers all the while, and a body of megabytes comes in between: nobody waits
    longer than a stall of the event loop may last."""
    await asyncio.to_thread(compile_tools)
    with make_bed(Cores(None, None)) as bed:
        start_upstream(bed)
        settings = serving(f"http://127.0.0.1:{bed.upstream_port}", "mock", LLMGATEWAY_LOG_LEVEL="warning")
        async with Gateway.embedded(settings, config="drain_pause: 0\n") as gateway:
            key, idle = await key_of(gateway), await baseline_of(gateway)
            aim = Aim(gateway.port, key)
            asking = asyncio.ensure_future(asyncio.to_thread(load, bed, aim, "-c 1 -d 60 -t 90"))
            streaming = asyncio.ensure_future(
                asyncio.to_thread(load, bed, aim, f"-c {STREAMS} -n {STREAMS} -s 600 -w 100 -r 5000 -t 110")
            )
            await asyncio.sleep(20)  # all are open, and go on for as long again
            large = chat("mock", "one two three " * LARGE_WORDS)
            assert (await gateway.ask(post(CHAT, large, key))).status == 200
            plain, streams = await asyncio.gather(asking, streaming)
            await returns_to_idle(gateway, idle, spare=STREAMS + 10)
            asked = plain["requests"] + streams["requests"] + 1

            async def is_booked() -> bool:
                rows = (await gateway.admin("GET", "/usage")).json["data"]
                return bool(sum(row["requests"] for row in rows) == asked)

            await eventually_answers(is_booked, f"{asked} calls are in the ledger", 60)
    late, stall = streams["delay_p99_us"] / 1e6, plain["latency_max_us"] / 1e6
    figure(f"{STREAMS} streams whole; an event late by p99 {late * 1000:.1f} ms; the longest of "
           f"{plain['requests']} plain answers beside them {stall * 1000:.0f} ms")  # fmt: skip
    assert (streams["requests"], streams["chunks"]) == (STREAMS, 600 * STREAMS)
    assert [one[what] for one in (plain, streams) for what in ("errors", "cut")] == [0] * 4
    assert late < LATE
    assert stall < STALL


async def test_r_load_03_thousands_of_idle_streams(
    gateway: Gateway, upstream: ScriptedUpstream, figure: Figure
) -> None:
    key = await key_of(gateway)
    idle, before = await baseline_of(gateway), memory_of(gateway.pid)
    descriptors = descriptors_of(gateway.pid)
    streams = await in_groups(lambda: opened(gateway, key, "ok-6x10000ms"), IDLE_STREAMS)
    each = (memory_of(gateway.pid) - before) / IDLE_STREAMS
    held = descriptors_of(gateway.pid) - descriptors
    bodies = await asyncio.gather(*(connection.body(300) for connection in streams))
    assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
    figure(f"{IDLE_STREAMS} streams: {each / 1024:.1f} KiB and {held / IDLE_STREAMS:.2f} descriptors each")
    assert each <= EACH_STREAM
    assert held <= 2 * IDLE_STREAMS + 20
    for connection in streams:
        connection.close()
    await returns_to_idle(gateway, idle, spare=IDLE_STREAMS + 10)
    await books_agree(gateway, upstream, 60)


async def test_r_load_04_readers_that_stop(
    gateway: Gateway, upstream: ScriptedUpstream, figure: Figure
) -> None:
    """The upstream floods, nobody reads: memory stays bounded, and others are served as ever."""
    key = await key_of(gateway)
    idle, before = await baseline_of(gateway), memory_of(gateway.pid)

    async def stopped() -> Connection:
        connection = await opened(gateway, key, "flood", 4096)
        connection.stop_reading()
        return connection

    streams = await in_groups(stopped, STOPPED)
    said = -1

    async def is_full() -> bool:
        """Every buffer on the way: then the upstream, which is this very process, waits."""
        nonlocal said
        before_now, said = said, sum(call.size for call in upstream.calls)
        await asyncio.sleep(1)
        return said == before_now

    await eventually_answers(is_full, "nothing goes on", 120)
    most = memory_of(gateway.pid) - before
    took: list[float] = []
    until = time.monotonic() + 15
    while time.monotonic() < until:
        began = time.perf_counter()
        assert (await gateway.ask(post(CHAT, chat("ok-1"), key))).status == 200
        took.append(time.perf_counter() - began)
        most = max(most, memory_of(gateway.pid) - before)
        await asyncio.sleep(0.1)
    settled = sorted(took)
    half, worst = settled[len(settled) // 2] * 1000, settled[-1] * 1000
    figure(f"{STOPPED} readers that stopped: at most {most / STOPPED / 1024:.0f} KiB each; "
           f"others within {worst:.0f} ms, half of them {half:.1f} ms")  # fmt: skip
    assert most <= STOPPED * MEBIBYTE  # buffers, and the words said so far: they may have to be counted
    assert settled[-1] < 1
    for connection in streams:
        connection.reset()
    await returns_to_idle(gateway, idle, spare=20, seconds=POOLED)


async def test_r_load_05_more_calls_than_there_may_be(upstream: ScriptedUpstream, figure: Figure) -> None:
    """Two thousand at once for five hundred places, none of which may wait."""
    config = """
drain_pause: 0
models:
  - id: full
    max_in_flight: 500
    max_waiting: 0
    targets: [{url: "${LLM_DEFAULT_URL}/hold-after-1/v1"}]
"""
    async with Gateway.embedded(serving(upstream.url, "ok-1"), config=config) as gateway:
        key = await key_of(gateway)
        question = post(CHAT, chat("full", stream=True), key)
        held = await in_groups(lambda: opened(gateway, key, "full"), 500)
        took: list[float] = []
        usual: list[float] = []  # what an empty answer takes on this machine, asked for in the same way

        async def refused() -> None:
            async with await gateway.connect() as connection:
                began = time.perf_counter()
                answer = await connection.ask(question)
                took.append(time.perf_counter() - began)
                assert answer.status == 503
                assert answer.header("retry-after") is not None

        async def empty() -> None:
            async with await gateway.connect() as connection:
                began = time.perf_counter()
                await connection.ask(Request("GET", "/health/live"))
                usual.append(time.perf_counter() - began)

        for _ in range(75):
            await asyncio.gather(*(refused() for _ in range(20)))
            await asyncio.gather(*(empty() for _ in range(20)))
        upstream.release("hold-after-1")
        bodies = await asyncio.gather(*(connection.body(60) for connection in held))
        assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
        for connection in held:
            connection.close()
        p99, machine = (sorted(all_of)[int(len(all_of) * 0.99)] for all_of in (took, usual))
        figure(f"500 served, 1,500 refused, p99 {p99 * 1000:.0f} ms for twenty at once, "
               f"of an empty answer {machine * 1000:.0f} ms")  # fmt: skip
        assert p99 < 0.05
        assert len(upstream.calls) == 500
        await books_agree(gateway, upstream)


@pytest.mark.parametrize("model", ["ok-1x50ms", "accept-and-hang"])
async def test_r_load_08_09_callers_that_reset_before_the_answer(
    gateway: Gateway, upstream: ScriptedUpstream, figure: Figure, model: str
) -> None:
    """Two hundred a second for a minute; afterwards a hundred calls pass at once."""
    key, chance = await key_of(gateway), random.Random(1)
    idle = await baseline_of(gateway)
    began, count = time.monotonic(), 0

    async def churn() -> None:
        connection = await gateway.connect()
        await connection.send(post(CHAT, chat(model, stream=chance.random() < 0.5), key))
        await asyncio.sleep(chance.random() * 0.01)
        connection.reset()

    while time.monotonic() < began + CHURN_SECONDS:
        await asyncio.gather(*(churn() for _ in range(CHURN_RATE // 20)))
        count += CHURN_RATE // 20
        await asyncio.sleep(max(0, began + count / CHURN_RATE - time.monotonic()))
    answers = await asyncio.gather(*(gateway.ask(post(CHAT, chat("ok-1"), key)) for _ in range(100)))
    assert [answer.status for answer in answers] == [200] * 100
    figure(f"{count} resets, then 100 of 100 calls served")
    await returns_to_idle(gateway, idle, spare=110)
    await books_agree(gateway, upstream, 60)


async def test_r_fault_22_24_a_redis_of_random_slowness(
    upstream: ScriptedUpstream, own_valkey: Valkey, own_mongod: Mongod, figure: Figure
) -> None:
    """50 to 500 ms, with a timeout of 300: nobody hears 401 or 500, or waits for longer than two timeouts."""
    chance = random.Random(7)
    config = "drain_pause: 0\nstores: {redis_timeout: 0.3}\nlimits: {default: {requests_per_minute: 99999}}\n"
    async with ChaosProxy(own_valkey.port) as redis:
        fleet = Gateway.fleet(
            serving(upstream.url, "ok-1"), redis_url=f"redis://127.0.0.1:{redis.port}/0",
            mongo_url=own_mongod.url("slow"), config=config,
        )  # fmt: skip
        async with fleet:
            users = {f"user-{n}": await key_of_user(fleet, f"user-{n}") for n in range(20)}
            until = time.monotonic() + SLOW_SECONDS
            took: list[float] = []

            async def caller(user: str) -> None:
                while time.monotonic() < until:
                    began = time.perf_counter()
                    answer = await fleet.ask(post(CHAT, chat("ok-1"), users[user], x_request_id=f"{user}.1"))
                    took.append(time.perf_counter() - began)
                    assert answer.status == 200, answer.body

            callers = [asyncio.ensure_future(caller(user)) for user in users]
            while time.monotonic() < until:
                redis.toxics = Toxics(latency=chance.uniform(0.025, 0.25))
                await asyncio.sleep(0.2)
            redis.toxics = Toxics()
            await asyncio.gather(*callers)
            p99 = sorted(took)[int(len(took) * 0.99)]
            turns = fleet.output().count("Redis is not available")
            figure(f"{len(took)} calls, none refused, p99 {p99 * 1000:.0f} ms, breakers opened {turns} times")
            assert p99 < 1
            for record in await fleet.records():
                assert record["request_id"] == f"{record['user']}.1", "nobody is taken for another"


async def key_of_user(gateway: Gateway, user: str) -> str:
    return (await gateway.create_key(user)).secret


async def test_r_fault_25_a_redis_that_loses_its_last_second(
    upstream: ScriptedUpstream, own_valkey: Valkey, own_mongod: Mongod, figure: Figure
) -> None:
    """Killed amid calls, it comes back empty: a few calls too many at most, and a ledger that is exact."""
    config = "drain_pause: 0\nstores: {redis_timeout: 0.3}\nlimits: {default: {tokens_per_day: 8000}}\n"
    fleet = Gateway.fleet(
        serving(upstream.url, "ok-1"), redis_url=own_valkey.url(), mongo_url=own_mongod.url("lost"),
        config=config,
    )  # fmt: skip
    async with fleet:
        question = post(CHAT, chat("ok-1", max_tokens=1), await key_of_user(fleet, "alice"))
        served = refused = 0

        async def caller() -> None:
            nonlocal served, refused
            async with await fleet.connect() as connection:
                while refused < 200:
                    status = (await connection.ask(question)).status
                    assert status in (200, 429)
                    served, refused = served + (status == 200), refused + (status == 429)
                    await asyncio.sleep(0.002)

        callers = [asyncio.ensure_future(caller()) for _ in range(8)]
        for _ in range(3):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(own_valkey.kill)
            await asyncio.to_thread(own_valkey.start)
        await asyncio.gather(*callers)
        records = await books_agree(fleet, upstream, 30)
        figure(f"limit of 2,000 calls: {served} served, {len(records)} in the ledger")
        assert len(records) == served == len(upstream.calls)
        assert 1500 <= served <= 3000


async def test_r_load_07_minutes_of_everything(
    gateway: Gateway, upstream: ScriptedUpstream, figure: Figure
) -> None:
    """Answers, errors, retries and hang-ups, fifty a second: memory, descriptors and what is open stay flat.
    Four hours are for before a release."""
    key, chance = await key_of(gateway), random.Random(3)
    idle = await baseline_of(gateway)

    async def one() -> None:
        connection = await gateway.connect()
        try:
            is_stream = chance.random() < 0.6
            await connection.send(post(CHAT, chat(chance.choice(MIX), stream=is_stream), key))
            await connection.head()
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.1)
                connection.reset()
            else:
                await connection.body()
        except (OSError, EOFError):
            pass
        finally:
            connection.close()

    began, count, running, warm = time.monotonic(), 0, set[asyncio.Task[None]](), 0
    while (gone := time.monotonic() - began) < MIXED_SECONDS:
        while count < gone * MIXED_RATE:
            running.add(task := asyncio.ensure_future(one()))
            task.add_done_callback(running.discard)
            count += 1
        if not warm and gone > WARM_SECONDS:
            warm = memory_of(gateway.pid)
        await asyncio.sleep(TICK)
    await asyncio.gather(*running)
    growth = memory_of(gateway.pid) - warm
    figure(f"{count} calls in {MIXED_SECONDS} s: {growth / MEBIBYTE:+.1f} MiB since second {WARM_SECONDS}")
    assert growth <= GROWTH
    await returns_to_idle(gateway, idle, spare=30)
    await books_agree(gateway, upstream, 60)
