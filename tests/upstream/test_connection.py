"""One connection to a model server: what is read from it, when it is kept, and when it is broken."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from llmgateway.domain.catalog import Deadlines, Target
from llmgateway.domain.errors import ClientGone, UpstreamFailed, UpstreamTimeout
from llmgateway.upstream import connection
from llmgateway.upstream.pool import Pool
from tests.lab.breaking import SMUGGLED, body, raw
from tests.lab.exchange import Exchange
from tests.lab.telling import Behaviour, ok
from tests.lab.waiting import eventually
from tests.upstream.calling import MIB, PATIENT, Calls, asked, question, sweeping


@pytest.fixture(scope="session", params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Transports differ; a connection has to do with those of either loop."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def failing_at(number: int, then: Behaviour) -> Behaviour:
    """Answers well, but the request of this number otherwise."""
    seen = 0

    async def behave(x: Exchange) -> None:
        nonlocal seen
        seen += 1
        await (then if seen == number else ok())(x)

    return behave


async def reset(x: Exchange) -> None:
    x.reset()


async def reason_of(call: Awaitable[object]) -> str:
    with pytest.raises(UpstreamFailed) as failed:
        await call
    return failed.value.reason


async def phase_of(call: Awaitable[object]) -> str:
    with pytest.raises(UpstreamTimeout) as late:
        await call
    return late.value.phase


# --- keeping connections


async def test_a_connection_is_used_again(calls: Calls) -> None:
    for _ in range(5):
        assert json.loads(await calls.whole("ok-3"))["usage"]["completion_tokens"] == 3
        assert b"[DONE]" in await calls.poured("ok-3")
    assert calls.upstream.accepted_connections == 1
    assert calls.in_flight == 0


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced(calls: Calls) -> None:
    """It is noticed only when the next request is on its way: RST, and nothing of an answer."""
    calls.upstream.script("m", failing_at(2, reset))
    for _ in range(3):
        assert await calls.whole("m")
    assert calls.upstream.accepted_connections == 2
    assert len(calls.upstream.calls) == 4


async def test_a_new_connection_that_breaks_is_not_replaced(calls: Calls) -> None:
    assert await reason_of(calls.whole("rst-before-headers")) == "reset"
    assert await reason_of(calls.whole("close-before-headers")) == "reset"
    assert len(calls.upstream.calls) == 2


async def test_a_kept_connection_is_replaced_once_only(calls: Calls) -> None:
    await calls.whole("ok")
    assert await reason_of(calls.whole("rst-before-headers")) == "reset"
    assert [call.model for call in calls.upstream.calls] == ["ok", "rst-before-headers", "rst-before-headers"]


async def test_an_answer_that_has_begun_is_not_asked_for_again(calls: Calls) -> None:
    async def half_a_head(x: Exchange) -> None:
        await x.send(b"HTTP/1.1 200 OK\r\nserver: lab\r\n")
        await asyncio.sleep(0.01)
        x.die()

    calls.upstream.script("m", failing_at(2, half_a_head))
    await calls.whole("m")
    assert await reason_of(calls.whole("m")) == "reset"
    assert len(calls.upstream.calls) == 2


async def test_half_a_status_line_is_the_beginning_of_an_answer(calls: Calls) -> None:
    async def half_a_line(x: Exchange) -> None:
        await x.send(b"HTTP/1.1 2")
        await asyncio.sleep(0.01)
        x.die()

    calls.upstream.script("m", failing_at(2, half_a_line))
    await calls.whole("m")
    assert await reason_of(calls.whole("m")) == "reset"
    assert len(calls.upstream.calls) == 2


async def test_bytes_that_nobody_asked_for_end_a_kept_connection(calls: Calls) -> None:
    """Many servers say 408 before they close an idle connection: it is no answer to the next request."""
    late = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"

    async def and_then_408(x: Exchange) -> None:
        await ok()(x)
        await asyncio.sleep(0.02)
        await x.send(late)
        x.die()

    calls.upstream.script("m", failing_at(1, and_then_408))
    assert await calls.whole("m")
    await eventually(lambda: calls.pool.connections == 0, "the connection is gone")
    assert await calls.whole("m")
    assert calls.upstream.accepted_connections == 2


async def test_a_connection_that_was_just_broken_is_not_handed_out(calls: Calls) -> None:
    """Between the breaking of an idle connection and its end there is a turn of the loop."""
    await calls.whole("ok")
    (idle,) = calls.pool._idle
    idle.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert await calls.whole("ok")
    assert calls.upstream.accepted_connections == 2


async def test_a_server_that_speaks_first_is_not_listened_to(calls: Calls) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"content-length: 2\r\n\r\n{}")
        await reader.read(1)
        writer.close()

    async with sweeping() as sweep, await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        pool = Pool(f"http://127.0.0.1:{port}", sweep, time.monotonic)
        taken = await pool.take(PATIENT)
        await eventually(lambda: not taken.is_open, "it is not trusted")
        assert await reason_of(asked(taken, b"GET / HTTP/1.1\r\n\r\n")) in ("protocol", "reset")


async def test_an_idle_connection_is_let_go(calls: Calls) -> None:
    await calls.whole("ok")
    (idle,) = calls.pool._idle
    idle.due = time.monotonic()
    await calls.upstream.closed(1)
    assert calls.pool.connections == 0


async def test_r_fault_14_a_connection_that_says_close_is_closed(calls: Calls) -> None:
    for _ in range(2):
        assert await calls.whole("connection-close")
    await calls.upstream.closed(2)
    assert calls.upstream.accepted_connections == 2


# --- framings


@pytest.mark.parametrize("model", ["ok", "http10", "connection-close", "interim-100"])
async def test_r_fault_11_every_framing_is_read_to_its_end(calls: Calls, model: str) -> None:
    assert json.loads(await calls.whole(model))["choices"]
    poured = await calls.poured(model)
    assert poured.endswith(b"data: [DONE]\n\n")
    assert poured == bytes(calls.upstream.calls[-1].sent)


@pytest.mark.parametrize("model", ["truncated-length", "reset-mid-chunk", "reset-after-1", "die-after-1"])
async def test_r_fault_11_a_body_that_is_cut_is_an_error(calls: Calls, model: str) -> None:
    assert await reason_of(calls.poured(model)) == "reset"
    assert await reason_of(calls.whole(model)) == "reset"
    assert calls.pool.connections == 0
    assert calls.in_flight == 0


async def test_a_reset_is_not_the_end_of_a_body(calls: Calls) -> None:
    """Only FIN ends a body without a length."""

    async def behave(x: Exchange) -> None:
        await x.head(framing="close", version="1.0")
        await x.piece(b'{"half":')
        await asyncio.sleep(0.02)
        x.reset()

    calls.upstream.script("m", behave)
    assert await reason_of(calls.whole("m")) == "reset"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_ends_with_its_head(calls: Calls, status: int) -> None:
    calls.upstream.script("m", raw(b"HTTP/1.1 %d Lab\r\n\r\n" % status, then_close=False))
    assert await calls.whole("m") == b""
    assert calls.pool.connections == 1


@pytest.mark.parametrize("in_one_segment", [True, False])
async def test_r_fault_14_trailers_are_dropped(calls: Calls, in_one_segment: bool) -> None:
    head = OK + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"
    late = b"0\r\ncontent-type: text/html\r\nx-late: 1\r\n\r\n"
    splits = () if in_one_segment else (len(head),)
    calls.upstream.script("m", raw(head + late, splits, then_close=False))
    for _ in range(2):
        reply = await calls.send("m")
        assert await reply.read(MIB) == b"{}"
        assert reply.headers == {b"content-type": b"application/json", b"transfer-encoding": b"chunked"}
        reply.close()
    assert calls.upstream.accepted_connections == 1


async def test_a_trailer_cannot_announce_a_length(calls: Calls) -> None:
    assert await reason_of(calls.whole("trailers")) == "protocol"


async def test_r_fault_14_interim_answers_leave_nothing_behind(calls: Calls) -> None:
    reply = await calls.send("interim-100")
    assert reply.status == 200
    assert b"link" not in reply.headers
    await reply.read(MIB)
    reply.close()


async def test_r_fault_14_a_redirect_is_not_followed(calls: Calls) -> None:
    reply = await calls.send("redirect")
    assert reply.status == 307
    assert await reply.read(MIB) == b""
    reply.close()
    assert len(calls.upstream.calls) == 1


# --- answers that are no HTTP, or two


@pytest.mark.parametrize(("name", "answer"), [
    ("length and chunks", OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunks and length", OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n"),
    ("two lengths", OK + b"content-length: 2\r\ncontent-length: 4\r\n\r\n{}{}"),
    ("list of lengths", OK + b"content-length: 2, 4\r\n\r\n{}{}"),
    ("signed length", OK + b"content-length: +2\r\n\r\n{}"),
    ("bad chunk size", OK + b"transfer-encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n"),
    ("negative chunk size", OK + b"transfer-encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n"),
    ("no HTTP", b"SSH-2.0-OpenSSH_9.9\r\n"),
    ("an upgrade", b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"),
    ("a NUL", OK + b"x-lab: a\x00b\r\ncontent-length: 2\r\n\r\n{}"),
])  # fmt: skip
async def test_s_prx_04_what_is_no_http_is_refused(calls: Calls, name: str, answer: bytes) -> None:
    calls.upstream.script("m", raw(answer))
    assert await reason_of(calls.whole("m")) == "protocol", name
    await eventually(lambda: calls.pool.connections == 0, "the connection is gone")


@pytest.mark.parametrize("coding", [b"gzip", b"identity"])
async def test_r_fault_11_another_coding_without_a_length_ends_in_doubt(calls: Calls, coding: bytes) -> None:
    """Whether a body in a coding that is not ours was whole cannot be known: it was cut."""
    calls.upstream.script("m", raw(OK + b"transfer-encoding: %b\r\n\r\n{}" % coding))
    with pytest.raises(UpstreamFailed):
        await calls.whole("m")


@pytest.mark.parametrize("second", [
    b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nset-cookie: a=b\r\ncontent-length: 16\r\n\r\n" + SMUGGLED,
    SMUGGLED,
])  # fmt: skip
@pytest.mark.parametrize("in_one_segment", [True, False])
async def test_s_prx_04_a_second_answer_is_nobodys(calls: Calls, second: bytes, in_one_segment: bool) -> None:
    first = OK + b"content-length: 2\r\n\r\n{}"
    script = raw(first + second, () if in_one_segment else (len(first),), then_close=False)
    calls.upstream.script("m", script)
    for _ in range(3):
        reply = await calls.send("m")
        assert await reply.read(MIB) == b"{}"
        assert reply.headers == {b"content-type": b"application/json", b"content-length": b"2"}
        reply.close()
        await eventually(
            lambda: calls.pool.connections == 0, "what came behind the answer ended the connection"
        )
    assert calls.upstream.accepted_connections == 3
    await calls.upstream.closed(3)


async def test_a_stream_with_a_second_answer_is_whole(calls: Calls) -> None:
    events = b"data: 1\n\ndata: [DONE]\n\n"
    first = OK + b"content-length: %d\r\n\r\n" % len(events) + events
    calls.upstream.script("m", raw(first + OK + b"content-length: 2\r\n\r\n{}", then_close=False))
    assert await calls.poured("m") == events
    await calls.upstream.closed(1)


# --- sizes


async def test_headers_have_a_limit(calls: Calls) -> None:
    for lines in ([b"x-long: " + b"a" * 70_000], [b"x-%d: %b" % (n, b"a" * 1000) for n in range(70)]):
        head = b"\r\n".join([OK.removesuffix(b"\r\n"), *lines, b"content-length: 2", b"", b"{}"])
        calls.upstream.script("m", raw(head))
        assert await reason_of(calls.whole("m")) == "protocol"


@pytest.mark.parametrize("beginning", [b"HTTP/1.1 200 ", OK + b"x-endless: "])
async def test_a_head_without_an_end_is_cut(calls: Calls, beginning: bytes) -> None:
    async def endless(x: Exchange) -> None:
        await x.send(beginning)
        for _ in range(64):
            await x.send(b"a" * 65_536)
            await asyncio.sleep(0)
        await x.hang()

    calls.upstream.script("m", endless)
    assert await reason_of(calls.whole("m", deadlines=Deadlines(first_byte=4))) == "protocol"
    await calls.upstream.ended(1)


async def test_a_long_answer_is_read_whole(calls: Calls) -> None:
    """More than what is held for a slow reader, less than what is read in one piece."""
    said = bytes(range(256)) * 4 * 900
    calls.upstream.script("m", body(said, range(0, len(said), 50_000), content_type="application/json"))
    for most in (MIB, len(said), len(said) - 1):
        reply = await calls.send("m", deadlines=Deadlines(idle=1))
        data = await reply.read(most)
        while piece := await reply.piece():
            data += piece
        assert data == said
        reply.close()
    assert calls.upstream.accepted_connections == 1


async def test_reading_stops_at_what_was_asked_for(calls: Calls) -> None:
    reply = await calls.send("flood", question(stream=True))
    assert 64 * 1024 < len(await reply.read(64 * 1024)) <= MIB
    reply.close()
    await calls.upstream.closed(1)


async def test_what_nobody_reads_is_left_at_the_server(calls: Calls) -> None:
    """After the head of an endless answer the reader is busy elsewhere."""
    reply = await calls.send("flood", question(stream=True))
    call = calls.upstream.calls[0]
    size = await standing_still(lambda: call.size)
    assert size < 64 * MIB
    assert reply._size < 4 * connection.HIGH_WATER
    while call.size <= size:
        assert await reply.piece()
    reply.close()


async def standing_still(size: Callable[[], int]) -> int:
    """The size, when it has not grown for a tenth of a second."""
    before = -1
    while (now := size()) != before:
        before = now
        await asyncio.sleep(0.1)
    return now


async def test_r_load_04_a_slow_sink_stops_the_server(calls: Calls) -> None:
    taken, gate = 0, asyncio.Event()

    def sink(data: bytes) -> Awaitable[None] | None:
        nonlocal taken
        taken += len(data)
        return None if gate.is_set() else gate.wait()  # type: ignore[return-value]

    reply = await calls.send("flood", question(stream=True))
    pouring = asyncio.ensure_future(reply.pour(sink))
    call = calls.upstream.calls[0]
    stood = await standing_still(lambda: call.size)
    before = taken
    await asyncio.sleep(0.05)
    assert taken == before
    gate.set()
    await eventually(lambda: call.size > stood and taken > before + MIB, "it pours again")
    pouring.cancel()
    await asyncio.gather(pouring, return_exceptions=True)
    reply.close()
    await calls.upstream.closed(1)


async def test_a_sink_gets_every_byte_in_order(calls: Calls) -> None:
    said = b"".join(b"data: %d\n\n" % n for n in range(20_000))
    calls.upstream.script("m", body(said, range(0, len(said), 7001)))
    pieces: list[bytes] = []

    def sink(data: bytes) -> Awaitable[None] | None:
        pieces.append(data)
        return asyncio.sleep(0) if len(pieces) % 3 == 0 else None

    reply = await calls.send("m", question(stream=True))
    await reply.pour(sink)
    reply.close()
    assert b"".join(pieces) == said
    assert calls.pool.connections == 1


async def test_an_error_of_the_sink_breaks_the_connection(calls: Calls) -> None:
    def sink(data: bytes) -> None:
        raise ClientGone("The client took no bytes.")

    reply = await calls.send("flood", question(stream=True))
    with pytest.raises(ClientGone):
        await reply.pour(sink)
    reply.close()
    await calls.upstream.closed(1)
    assert calls.pool.connections == 0


# --- giving back what is not clean


@pytest.mark.parametrize("ending", ["left while blocked", "left unread"])
async def test_a_connection_that_does_not_read_is_not_kept(calls: Calls, ending: str) -> None:
    """The whole answer is there, but reading has been stopped: kept like that, it would never hear again."""
    said = b"a" * (connection.HIGH_WATER + 50_000)
    calls.upstream.script("m", body(said, content_type="application/json"))
    reply = await calls.send("m")
    if ending == "left while blocked":
        pouring = asyncio.ensure_future(reply.pour(lambda _: asyncio.sleep(5)))
        await eventually(lambda: reply._blocked is not None, "the sink is slow")
        reply._transport.resume_reading()  # type: ignore[union-attr]  # what was already on its way
        await eventually(lambda: reply._complete, "all has arrived")
        reply._transport.pause_reading()  # type: ignore[union-attr]
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)
    else:
        await eventually(lambda: reply._complete or reply._size > connection.HIGH_WATER, "it has arrived")
    reply.close()
    assert await calls.whole("ok", deadlines=Deadlines(first_byte=1))
    assert calls.upstream.accepted_connections == 2


async def test_the_end_of_a_body_may_lag_behind(calls: Calls) -> None:
    async def lagging(x: Exchange) -> None:
        await x.head(content_type="text/event-stream")
        await x.done()
        await x.hold()
        await x.end()

    calls.upstream.script("m", lagging)
    reply = await calls.send("m", question(stream=True))
    pieces: list[bytes] = []

    def sink(data: bytes) -> None:
        pieces.append(data)
        reply.enough()

    await reply.pour(sink)
    reply.close()
    assert pieces == [b"data: [DONE]\n\n"]
    assert not calls.pool._idle
    calls.upstream.release("m")
    await eventually(lambda: len(calls.pool._idle) == 1, "it came back")
    assert await calls.whole("ok")
    assert calls.upstream.accepted_connections == 1


async def test_an_end_that_does_not_come_is_not_waited_for(calls: Calls) -> None:
    async def never_ending(x: Exchange) -> None:
        await x.head(content_type="text/event-stream")
        await x.done()
        await x.hang()

    calls.upstream.script("m", never_ending)
    reply = await calls.send("m", question(stream=True))
    await reply.pour(lambda _: reply.enough())
    reply.close()
    await calls.upstream.closed(1, connection.LINGER_SECONDS + 3)
    assert calls.pool.connections == 0


# --- deadlines


@pytest.mark.parametrize(("model", "deadlines", "phase"), [
    ("accept-and-hang", Deadlines(first_byte=0.05), "first_byte"),
    ("stall-after-3", Deadlines(idle=0.05), "idle"),
    ("ok-400x5ms", Deadlines(idle=1, total=0.1), "total"),
    ("accept-and-hang", Deadlines(total=0.05), "total"),
])  # fmt: skip
async def test_r_fault_02_05_a_phase_has_its_deadline(
    calls: Calls, model: str, deadlines: Deadlines, phase: str
) -> None:
    began = time.monotonic()
    assert await phase_of(calls.poured(model, deadlines)) == phase
    assert time.monotonic() - began < 1
    await calls.upstream.closed(1)
    assert (calls.pool.connections, calls.in_flight) == (0, 0)


async def test_r_fault_06_slow_but_alive_is_never_cut(calls: Calls) -> None:
    poured = await calls.poured("ok-20x30ms", Deadlines(idle=0.2))
    assert poured.endswith(b"data: [DONE]\n\n")


@contextlib.asynccontextmanager
async def deaf_server() -> AsyncIterator[Target]:
    """It accepts, and reads nothing."""
    connected: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        connected.append(writer)

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield Target(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", model="m")
        for writer in connected:
            writer.transport.abort()


async def test_sending_has_a_deadline(calls: Calls) -> None:
    async with deaf_server() as target:
        asked = question(body=b"a" * 32 * MIB)
        assert await phase_of(calls.client.send(target, asked, Deadlines(send=0.1))) == "send"


async def test_a_slow_client_is_not_the_servers_fault(calls: Calls) -> None:
    """While the sink is blocked the idle deadline waits, and then it begins anew."""
    gate = asyncio.Event()

    def sink(data: bytes) -> Awaitable[None] | None:
        return None if gate.is_set() else gate.wait()  # type: ignore[return-value]

    reply = await calls.send("hold-after-2", question(stream=True), Deadlines(idle=0.2))
    pouring = asyncio.ensure_future(reply.pour(sink))
    await asyncio.sleep(0.5)
    gate.set()
    await asyncio.sleep(0.1)
    assert not pouring.done()
    calls.upstream.release("hold-after-2")
    await pouring
    reply.close()
    assert calls.pool.connections == 1


async def test_a_client_that_is_slow_for_ever_ends_with_the_total(calls: Calls) -> None:
    reply = await calls.send("ok-3", question(stream=True), Deadlines(idle=0.05, total=0.3))
    pouring = asyncio.ensure_future(reply.pour(lambda _: asyncio.sleep(0.5)))
    assert await phase_of(pouring) == "total"
    reply.close()
