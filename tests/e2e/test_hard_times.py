"""What happens to the gateway's own process: it is stopped, it has no descriptors left, its disk fails."""

import asyncio
import resource
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.deployment import CHAT
from tests.lab.client import Connection, chat, data_of, post
from tests.lab.gateway import Gateway, serving
from tests.lab.oracle import books_agree, outcomes
from tests.lab.processes import Program, absent
from tests.lab.quiescence import baseline_of, returns_to_idle
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually, eventually_answers

pytestmark = pytest.mark.e2e

IDLE = 0.5  # seconds that a model may be silent
CONFIG = f"""
drain_pause: 0
models:
  - id: stalls
    deadlines: {{idle: {IDLE}}}
    targets: [{{url: "${{LLM_DEFAULT_URL}}/stall-after-3/v1"}}]
"""
STREAMS = 5
SPARE = 6  # descriptors above what is open
FAILING = "inject=fdatasync:error=EIO:when=1..4"  # of each thread's syncs, the journal's and the database's
BUSY = 0.5  # of a second of CPU time, in two seconds without descriptors


@pytest.fixture
async def gateway(upstream: ScriptedUpstream) -> AsyncIterator[Gateway]:
    async with Gateway.embedded(serving(upstream.url, "ok-3", "hold-after-2"), config=CONFIG) as running:
        yield running


async def streaming(gateway: Gateway, key: str, model: str, first: int) -> Connection:
    connection = await gateway.connect()
    await connection.send(post(CHAT, chat(model, stream=True), key))
    assert (await connection.head()).status == 200
    assert len(data_of(await connection.events(first))) == first
    return connection


async def test_r_fault_51_deadlines_fire_when_a_machine_wakes_up(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """Stopped amid streams for longer than a model may be silent: no stream is left behind."""
    key = (await gateway.create_key()).secret
    assert (await gateway.ask(post(CHAT, chat("ok-3"), key))).status == 200
    idle = await baseline_of(gateway)
    silent = [await streaming(gateway, key, "stalls", 3) for _ in range(STREAMS)]
    speaking = [await streaming(gateway, key, "hold-after-2", 2) for _ in range(STREAMS)]
    gateway.program.freeze()
    upstream.release("hold-after-2")
    await asyncio.sleep(3 * IDLE)
    gateway.program.thaw()
    woken = time.monotonic()
    for connection in silent:
        assert data_of([await connection.event()])[-1]["error"]["code"] == "upstream_timeout"
    assert time.monotonic() - woken < IDLE + 1
    for connection in speaking:
        assert (await connection.body()).endswith(b"data: [DONE]\n\n"), "what came meanwhile is not lost"
    for connection in (*silent, *speaking):
        connection.close()
    await returns_to_idle(gateway, idle, spare=STREAMS + 3)  # as many stay in the pool, and a few
    assert outcomes(await books_agree(gateway, upstream)) == {"timeout": STREAMS, "completed": STREAMS + 1}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def test_r_fault_52_without_descriptors_streams_live_and_nothing_spins(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """One line of the log says so, and when it is over all is as before."""
    key = (await gateway.create_key()).secret
    assert (await gateway.ask(post(CHAT, chat("ok-3"), key))).status == 200
    idle = await baseline_of(gateway)
    streams = [await streaming(gateway, key, "hold-after-2", 2) for _ in range(STREAMS)]
    usual = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
    held = sum(1 for _ in Path(f"/proc/{gateway.pid}/fd").iterdir())
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (held + SPARE, usual[1]))
    try:
        knocking = [await gateway.connect() for _ in range(40)]
        before = cpu_seconds(gateway.pid)
        await asyncio.sleep(2)
        assert cpu_seconds(gateway.pid) - before < BUSY
        upstream.release("hold-after-2")
        for connection in streams:
            assert (await connection.body()).endswith(b"data: [DONE]\n\n")
    finally:
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, usual)
    for connection in (*knocking, *streams):
        connection.close()

    async def serves() -> bool:
        return (await gateway.ask(post(CHAT, chat("ok-3"), key))).status == 200

    await eventually_answers(serves, "it takes calls again", 10)
    await returns_to_idle(gateway, idle, spare=STREAMS + 3)  # as many stay in the pool, and a few
    assert outcomes(await books_agree(gateway, upstream)) == {"completed": STREAMS + 2}
    assert gateway.output().count("file descriptors nearly used up") == 1


def is_traced(pid: int) -> bool:
    """All of its threads."""
    told = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return all("TracerPid:\t0" not in status for status in told)


async def test_r_fault_41_a_disk_that_cannot_sync_costs_nothing(
    gateway: Gateway, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """EIO from the kernel, as from a failing device; then the process is killed, before anybody can try
    again. It is told, and every call is in the ledger after the next start."""
    if shutil.which("strace") is None:
        absent("strace", "apt-get install strace")
    question = post(CHAT, chat("ok-3"), (await gateway.create_key()).secret)
    assert (await gateway.ask(question)).status == 200
    argv = ["strace", "-f", "-p", str(gateway.pid), "-e", "trace=fdatasync", "-e", FAILING]
    with Program(argv, tmp_path / "strace") as strace:
        await eventually(lambda: not strace.is_running or is_traced(gateway.pid), "strace holds it", 10)
        if not strace.is_running:
            pytest.skip(f"no process may trace another here: {strace.output()}")
        for _ in range(30):
            assert (await gateway.ask(question)).status == 200

        async def has_failed() -> bool:
            return await gateway.metric("llmgateway_journal_failures_total") >= 1

        await eventually_answers(has_failed, "a sync has failed", 10)
        for _ in range(30):
            assert (await gateway.ask(question)).status == 200
        assert "journal: sync failed" in gateway.output()
        await gateway.kill()
    await gateway.start()
    assert len(await books_agree(gateway, upstream)) == 61
