"""A rollout as it happens: SIGTERM to gunicorn's master while two hundred people read."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.deployment import CHAT
from tests.lab.client import Connection, chat, data_of, post, split_events
from tests.lab.gateway import Gateway, serving
from tests.lab.oracle import books_agree, outcomes
from tests.lab.processes import absent, family_of, state_of
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually, eventually_answers

pytestmark = pytest.mark.e2e

STREAMS = 200
PAUSE = 1.0  # seconds between "not ready" and refusing new work
TIMEOUT = 6  # seconds after which gunicorn takes a silent worker for dead
MODEL = "hold-after-2"
HALVES = ("hold-after-2~ends", "hold-after-2~lasts")
DRAIN = 1.5  # seconds
APART = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child"]


def fleet(upstream: ScriptedUpstream, redis_url: str, mongo_url: str, workers: int = 2) -> Gateway:
    environment = serving(upstream.url, MODEL, GUNICORN_CMD_ARGS=f"--timeout={TIMEOUT}")
    config = f"drain_pause: {PAUSE}\ndrain: 30\n"
    return Gateway.fleet(
        environment, redis_url=redis_url, mongo_url=mongo_url, config=config, workers=workers
    )


async def opened(gateway: Gateway, key: str, model: str = MODEL) -> Connection:
    """A stream that stands after two events."""
    connection = await gateway.connect()
    await connection.send(post(CHAT, chat(model, stream=True), key))
    assert (await connection.head()).status == 200
    assert len(data_of(await connection.events(2))) == 2
    return connection


async def unready(gateway: Gateway) -> bool:
    return (await gateway.get("/health/ready")).status == 503


async def is_refused(gateway: Gateway, key: str) -> bool:
    """Whether a new call is turned away, by an answer or because nobody listens any more; one that is taken
    is given up, since the model holds it."""
    try:
        async with await gateway.connect() as connection:
            await connection.send(post(CHAT, chat(MODEL, stream=True), key))
            return (await connection.head()).status != 200
    except (OSError, EOFError):
        return True


async def outlast(seconds: float) -> None:
    """Until so much time has gone by: longer than gunicorn's patience."""
    until = time.monotonic() + seconds
    await eventually(lambda: time.monotonic() > until, "time goes by", seconds + 1)


@pytest.mark.alone
async def test_r_fault_45_two_hundred_streams_outlive_sigterm(
    upstream: ScriptedUpstream, redis_url: str, mongo_url: str
) -> None:
    """Longer than gunicorn's timeout, which must not take a draining worker for a dead one."""
    async with fleet(upstream, redis_url, mongo_url) as gateway:
        key = (await gateway.create_key("alice")).secret
        streams = await asyncio.gather(*(opened(gateway, key) for _ in range(STREAMS)))
        workers, asked_at = gateway.workers, time.monotonic()
        ending = asyncio.ensure_future(gateway.stop(60))
        await eventually_answers(lambda: unready(gateway), "it says that it is not ready")
        assert not await is_refused(gateway, key), "load balancers have not noticed yet"
        assert time.monotonic() - asked_at < PAUSE
        await eventually_answers(lambda: is_refused(gateway, key), "nothing new is taken", PAUSE + 5)
        await outlast(TIMEOUT + 1)
        assert set(gateway.workers) == set(workers), gateway.output()
        assert all(state_of(pid) != "Z" for pid in workers), gateway.output()
        upstream.release(MODEL)
        bodies = await asyncio.gather(*(stream.body() for stream in streams))
        assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
        assert await ending == 0, gateway.output()
        await gateway.start()
        records = await gateway.ledger(STREAMS + 1)
        told = Counter((record["outcome"], record["tokens"]["completion"]) for record in records)
        assert told.pop(("completed", 4)) == STREAMS
        assert {outcome for outcome, _ in told} == {"client_gone"}, "what was only asked to see"


@pytest.mark.parametrize("kind", ["serve", "gunicorn"])
async def test_r_fault_45_46_of_two_hundred_streams_half_end_in_time_and_half_are_cut(
    request: pytest.FixtureRequest, upstream: ScriptedUpstream, kind: str
) -> None:
    """Nothing is left behind for the next start: all that was said is settled and shipped."""
    environment, config = serving(upstream.url, *HALVES), f"drain_pause: 0\ndrain: {DRAIN}\n"
    if kind == "serve":
        gateway = Gateway.embedded(environment, config=config)
    else:
        redis_url, mongo_url = request.getfixturevalue("redis_url"), request.getfixturevalue("mongo_url")
        gateway = Gateway.fleet(environment, redis_url=redis_url, mongo_url=mongo_url, config=config)
    async with gateway:
        key = (await gateway.create_key("alice")).secret
        ends, lasts = await asyncio.gather(
            *(asyncio.gather(*(opened(gateway, key, model) for _ in range(STREAMS // 2))) for model in HALVES)
        )
        ending = asyncio.ensure_future(gateway.stop(60))
        await eventually_answers(lambda: is_refused(gateway, key), "nothing new is taken", 5)
        upstream.release(HALVES[0])
        for body in await asyncio.gather(*(stream.body() for stream in ends)):
            assert body.endswith(b"data: [DONE]\n\n")
        for body in await asyncio.gather(*(stream.body() for stream in lasts)):
            (error,) = data_of(split_events(body))
            assert error["error"]["code"] == "shutting_down"
        assert await ending == 0, "calls that are cut are settled: the stop has done what it promises"
        left = [path.name for path in (gateway.data / "journal").glob("*/*.journal")]
        assert left == [], "all was shipped"
        await gateway.start()
        records = await gateway.ledger(STREAMS)
        told = Counter((record["outcome"], record["tokens"]["completion"]) for record in records)
        assert (told["completed", 4], told["shutdown", 2]) == (STREAMS // 2, STREAMS // 2)


async def test_r_fault_46_who_is_killed_before_its_drain_is_over_says_so(
    upstream: ScriptedUpstream, redis_url: str, mongo_url: str
) -> None:
    """Its calls are not settled: whoever watches should know. The next start does it."""
    environment = serving(upstream.url, MODEL, GUNICORN_CMD_ARGS="--graceful-timeout=1")
    async with Gateway.fleet(
        environment, redis_url=redis_url, mongo_url=mongo_url, workers=1, config="drain_pause: 0\ndrain: 30\n"
    ) as gateway:
        stream = await opened(gateway, (await gateway.create_key("alice")).secret)
        assert await gateway.stop() == 1
        stream.close()
        await gateway.start()
        assert [record["outcome"] for record in await gateway.ledger(1)] == ["recovered"]
        assert await gateway.stop() == 0


async def test_r_acc_20_records_that_wait_for_the_store_are_told_by_the_exit_code(
    upstream: ScriptedUpstream,
) -> None:
    """Another process holds the database's lock; a second signal ends the wait for it."""
    async with Gateway.embedded(serving(upstream.url, "ok-2")) as gateway:
        key = (await gateway.create_key("alice")).secret
        other = sqlite3.connect(gateway.data / "llmgateway.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert (await gateway.ask(post(CHAT, chat("ok-2"), key))).status == 200
        ending = asyncio.ensure_future(gateway.stop())
        await eventually(lambda: "draining" in gateway.output(), "it drains")
        os.kill(gateway.pid, signal.SIGINT)
        assert await ending == 1
        other.close()
        await gateway.start()
        assert [record["outcome"] for record in await gateway.ledger(1)] == ["completed"]
        assert await gateway.stop() == 0


async def test_r_fault_47_sigterm_to_process_1_ends_the_tree(
    upstream: ScriptedUpstream, redis_url: str, mongo_url: str
) -> None:
    """As in a container, where what starts first has no default actions for signals."""
    if shutil.which("unshare") is None or subprocess.run([*APART, "true"], check=False).returncode:
        absent("unshare with user namespaces", "apt-get install util-linux")
    async with fleet(upstream, redis_url, mongo_url) as gateway:
        await gateway.kill()
        gateway.program.argv[:0] = APART
        await gateway.start()
        (first,) = family_of(gateway.pid)[1:]
        tree = family_of(first)
        assert len(tree) == 3
        key = (await gateway.create_key("alice")).secret
        stream = await opened(gateway, key)
        os.kill(first, signal.SIGTERM)
        await eventually_answers(lambda: is_refused(gateway, key), "nothing new is taken", PAUSE + 5)
        await outlast(TIMEOUT + 1)
        upstream.release(MODEL)
        assert (await stream.body()).endswith(b"data: [DONE]\n\n")
        assert await asyncio.to_thread(gateway.program.wait) == 0
        assert [pid for pid in tree if os.path.exists(f"/proc/{pid}")] == []  # noqa: PTH110 - no path, a question to the kernel


async def test_workers_drain_when_gunicorn_itself_has_died(
    upstream: ScriptedUpstream, redis_url: str, mongo_url: str
) -> None:
    """Else they would go on for ever, and nothing could be started in their place."""
    async with fleet(upstream, redis_url, mongo_url) as gateway:
        key, workers = (await gateway.create_key("alice")).secret, gateway.workers
        streams = await asyncio.gather(*(opened(gateway, key) for _ in range(8)))
        os.kill(gateway.pid, signal.SIGKILL)
        await eventually_answers(lambda: is_refused(gateway, key), "nothing new is taken", PAUSE + 5)
        upstream.release(MODEL)
        bodies = await asyncio.gather(*(stream.body() for stream in streams))
        assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
        gone = "the workers have gone"
        await eventually(lambda: not [one for one in workers if Path(f"/proc/{one}").exists()], gone, 15)
        await gateway.kill()
        await gateway.start()
        told = outcomes(await books_agree(gateway, upstream))
        assert told["completed"] >= len(streams)
        assert set(told) <= {"completed", "client_gone"}, "the latter were only asked to see"


async def test_a_worker_that_drains_alone_is_not_taken_for_dead(
    upstream: ScriptedUpstream, redis_url: str, mongo_url: str
) -> None:
    """It ends when its streams do, later than gunicorn's patience; then another takes its place."""
    async with fleet(upstream, redis_url, mongo_url, workers=1) as gateway:
        key, (worker,) = (await gateway.create_key("alice")).secret, gateway.workers
        streams = await asyncio.gather(*(opened(gateway, key) for _ in range(8)))
        os.kill(worker, signal.SIGTERM)
        await outlast(TIMEOUT + 2)
        assert state_of(worker) != "Z"
        upstream.release(MODEL)
        bodies = await asyncio.gather(*(stream.body() for stream in streams))
        assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
        await eventually(lambda: worker not in gateway.workers, "it has gone", 15)
        await eventually_answers(gateway.is_ready, "another has taken its place", 15)
        assert set(outcomes(await books_agree(gateway, upstream))) == {"completed"}
        assert "WORKER TIMEOUT" not in gateway.output()
