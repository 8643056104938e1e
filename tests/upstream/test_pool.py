"""The connections to one origin: how many there are, who gets the next, and how opening one can fail."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from ipaddress import ip_network
from typing import Any

import pytest
import trustme

from llmgateway.domain.catalog import Deadlines
from llmgateway.domain.errors import UpstreamFailed, UpstreamTimeout
from llmgateway.domain.sweep import Sweep, Timed
from llmgateway.upstream.connection import Connection
from llmgateway.upstream.peers import Peers, Trust
from llmgateway.upstream.pool import Pool
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually
from tests.upstream.calling import PATIENT, asked, sweeping

REQUEST = b"GET /ok/v1/models HTTP/1.1\r\nhost: lab\r\n\r\n"


@pytest.fixture
async def sweep() -> AsyncIterator[Sweep[Timed]]:
    async with sweeping() as found:
        yield found


@pytest.fixture
async def pool(upstream: ScriptedUpstream, sweep: Sweep[Timed]) -> AsyncIterator[Pool]:
    found = Pool(upstream.url, sweep, time.monotonic, most=2)
    yield found
    found.close()
    await eventually(lambda: found.connections == 0, "all are closed")


async def used(connection: Connection) -> Connection:
    """A connection on which a request was answered, not yet given back."""
    await asked(connection, REQUEST)
    await connection.read(1 << 20)
    return connection


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def waiting(pool: Pool, count: int, deadlines: Deadlines = PATIENT) -> list[asyncio.Task[Connection]]:
    return [asyncio.ensure_future(pool.take(deadlines)) for _ in range(count)]


async def test_the_last_one_given_back_is_taken_first(pool: Pool) -> None:
    """So that a pool which was busy once shrinks again."""
    first, second = await used(await pool.take(PATIENT)), await used(await pool.take(PATIENT))
    first.close()
    second.close()
    assert await pool.take(PATIENT) is second
    assert await pool.take(PATIENT) is first


async def test_there_are_never_more_than_the_cap(pool: Pool, upstream: ScriptedUpstream) -> None:
    async def call() -> None:
        (await used(await pool.take(PATIENT))).close()

    await asyncio.gather(*(call() for _ in range(50)))
    assert upstream.accepted_connections == 2
    assert pool.connections == 2


async def test_those_who_wait_are_served_in_their_order(pool: Pool) -> None:
    taken = [await used(await pool.take(PATIENT)) for _ in range(2)]
    first, second = waiting(pool, 2)
    await turns()
    taken[1].close()
    assert await first is taken[1]
    taken[0].close()
    assert await second is taken[0]


async def test_a_place_that_comes_free_goes_to_the_first_in_line(pool: Pool) -> None:
    """A newcomer in the same turn of the loop does not get it as well: the cap holds."""
    taken = [await used(await pool.take(PATIENT)) for _ in range(2)]
    (first,) = waiting(pool, 1)
    await turns()
    pool.forget(taken[0])
    (newcomer,) = waiting(pool, 1)
    assert (await first).is_open
    await turns()
    assert not newcomer.done()
    assert len(pool._open) == 2
    taken[1].close()
    assert await newcomer is taken[1]
    taken[0].fail(UpstreamFailed("It is over.", reason="test"))


async def test_a_place_comes_free_when_a_connection_breaks(pool: Pool) -> None:
    taken = [await used(await pool.take(PATIENT)) for _ in range(2)]
    (first,) = waiting(pool, 1)
    await turns()
    taken[0].fail(UpstreamFailed("It broke.", reason="test"))
    fresh = await first
    assert fresh not in taken
    assert pool.connections == 2


async def test_waiting_has_a_deadline(pool: Pool) -> None:
    taken = [await used(await pool.take(PATIENT)) for _ in range(2)]
    for late in waiting(pool, 3, Deadlines(pool=0.05)):
        with pytest.raises(UpstreamTimeout) as timeout:
            await late
        assert timeout.value.phase == "pool"
    assert not pool._waiting
    taken[0].close()
    assert await pool.take(PATIENT) is taken[0]


async def test_who_gives_up_in_the_moment_of_his_turn_passes_it_on(pool: Pool) -> None:
    for give in give_back, give_place:
        taken = [await used(await pool.take(PATIENT)) for _ in range(2)]
        first, second = waiting(pool, 2)
        await turns()
        give(taken[0])
        first.cancel()
        connection = await second
        assert connection.is_open
        await used(connection)
        connection.close()
        taken[1].close()
        assert first.cancelled()
        assert pool.connections == 2


def give_back(connection: Connection) -> None:
    connection.close()


def give_place(connection: Connection) -> None:
    connection.fail(UpstreamFailed("It broke.", reason="test"))


async def test_a_connection_that_breaks_on_its_way_is_not_given(pool: Pool) -> None:
    taken = [await used(await pool.take(PATIENT)) for _ in range(2)]
    (first,) = waiting(pool, 1)
    await turns()
    taken[0].close()
    taken[0].data_received(b"unasked")
    assert await first is not taken[0]


async def test_a_fresh_one_makes_room_for_itself(pool: Pool, upstream: ScriptedUpstream) -> None:
    for connection in [await used(await pool.take(PATIENT)) for _ in range(2)]:
        connection.close()
    fresh = await pool.take(PATIENT, fresh=True)
    assert fresh.used == 0
    assert pool.connections == 2
    assert upstream.accepted_connections == 3


@pytest.mark.parametrize("stage", range(8))
async def test_who_is_cancelled_at_any_moment_keeps_no_place(pool: Pool, stage: int) -> None:
    for _ in range(4):
        (task,) = waiting(pool, 1)
        await turns(stage)
        task.cancel()
        for connection in await asyncio.gather(task, return_exceptions=True):
            if isinstance(connection, Connection):
                connection.fail(UpstreamFailed("Nobody wants it.", reason="test"))
    await eventually(lambda: pool.connections == 0, "nothing is left")
    assert pool._free == 2


# --- opening one


async def reason_of(opening: Coroutine[Any, Any, Connection]) -> str:
    with pytest.raises(UpstreamFailed) as failed:
        await opening
    return failed.value.reason


async def test_r_fault_01_a_refused_connection_keeps_no_place(sweep: Sweep[Timed]) -> None:
    with socket.socket() as plug:
        plug.bind(("127.0.0.1", 0))
        pool = Pool(f"http://127.0.0.1:{plug.getsockname()[1]}", sweep, time.monotonic, most=2)
        for _ in range(5):
            assert await reason_of(pool.take(PATIENT)) == "connect"
    assert pool._free == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1"])
async def test_s_prx_12_an_address_that_is_not_allowed_gets_no_byte_whatever_its_name(
    sweep: Sweep[Timed], host: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trust = Trust(Peers([ip_network("127.0.0.2/32")]))
        pool = Pool(f"http://{host}:{trap.getsockname()[1]}", sweep, time.monotonic, trust=trust, most=1)
        for _ in range(3):
            assert await reason_of(pool.take(PATIENT)) == "address"
            called, _ = trap.accept()
            with called, suppress(ConnectionResetError):
                assert await asyncio.to_thread(called.recv, 1) == b""
    assert (pool._free, pool.connections) == (1, 0)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".invalid", "a..b"])
async def test_r_fault_01_a_name_that_is_none_cannot_be_reached(sweep: Sweep[Timed], host: str) -> None:
    pool = Pool(f"http://{host}:80", sweep, time.monotonic)
    with pytest.raises((UpstreamFailed, UpstreamTimeout)) as failed:
        await pool.take(Deadlines(connect=1))
    assert getattr(failed.value, "reason", "connect") == "connect"


async def test_connecting_has_a_deadline(sweep: Sweep[Timed]) -> None:
    """The queue of the listener is full: the kernel drops what comes more."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        pool = Pool(f"http://127.0.0.1:{address[1]}", sweep, time.monotonic)
        with pytest.raises(UpstreamTimeout) as timeout:
            await pool.take(Deadlines(connect=0.1))
        assert timeout.value.phase == "connect"
        for filler in fillers:
            filler.close()


# --- TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def secure_port(authority: trustme.CA) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            await reader.read(1)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_a_trusted_certificate_is_taken(
    sweep: Sweep[Timed], secure_port: int, authority: trustme.CA
) -> None:
    origin = f"https://localhost:{secure_port}"
    pool = Pool(origin, sweep, time.monotonic, trust=Trust(tls=trusting(authority)))
    connection = await pool.take(PATIENT)
    await asked(connection, REQUEST)
    assert await connection.read(10) == b"{}"
    connection.close()
    assert await pool.take(PATIENT) is connection
    pool.close()
    await eventually(lambda: pool.connections == 0, "it is closed")


@pytest.mark.parametrize(("host", "context"), [
    ("localhost", lambda authority: ssl.create_default_context()),
    ("127.0.0.1", trusting),
])  # fmt: skip
async def test_a_certificate_of_strangers_or_for_others_is_refused(
    sweep: Sweep[Timed],
    secure_port: int,
    authority: trustme.CA,
    host: str,
    context: Callable[[trustme.CA], ssl.SSLContext],
) -> None:
    pool = Pool(
        f"https://{host}:{secure_port}", sweep, time.monotonic, trust=Trust(tls=context(authority)), most=1
    )
    for _ in range(2):
        assert await reason_of(pool.take(PATIENT)) == "tls"
    assert (pool._free, pool.connections) == (1, 0)
