"""What the scripted upstream breaks, it breaks as its table says, and its ledger tells that it was broken."""

import asyncio
import gzip
import zlib
from typing import Any

import pytest

from tests.lab import breaking
from tests.lab.client import data_of, streaming
from tests.lab.questions import USAGE, ask, asking, stream_of, texts
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually


async def raises_when_read(
    upstream: ScriptedUpstream, model: str, **more: Any
) -> tuple[list[bytes], Exception]:
    """The events that came before the answer broke, and how it broke."""
    events: list[bytes] = []
    async with streaming(upstream.url, asking(model, **more)) as connection:
        try:
            await connection.head()
            while event := await connection.event(seconds=2):
                events.append(event)
        except (OSError, EOFError) as broken:
            return events, broken
    raise AssertionError("the answer did not break")


# --- failures


@pytest.mark.parametrize(
    ("model", "events", "error"),
    [
        ("die-after-7", 7, asyncio.IncompleteReadError),
        ("reset-after-2", 2, ConnectionResetError),
        ("reset-mid-chunk", 1, ConnectionResetError),
        ("rst-before-headers", 0, ConnectionResetError),
        ("close-before-headers", 0, asyncio.IncompleteReadError),
        ("truncated-length", 0, asyncio.IncompleteReadError),
    ],
)
async def test_broken_streams(
    upstream: ScriptedUpstream, model: str, events: int, error: type[Exception]
) -> None:
    seen, broken = await raises_when_read(upstream, model, stream=True)
    assert isinstance(broken, error), broken
    assert len([event for event in seen if event.endswith(b"\n\n")]) >= events
    assert upstream.calls[0].ending == "broken"
    if model.startswith("die"):
        assert upstream.calls[0].completion_tokens == 7


async def test_a_whole_answer_breaks_too(upstream: ScriptedUpstream) -> None:
    _, broken = await raises_when_read(upstream, "die-after-3")
    assert isinstance(broken, asyncio.IncompleteReadError)


@pytest.mark.parametrize("model", ["stall-after-3", "accept-and-hang"])
async def test_silence_lasts_until_the_client_goes(upstream: ScriptedUpstream, model: str) -> None:
    async with streaming(upstream.url, asking(model, stream=True)) as connection:
        if model == "stall-after-3":
            await connection.head()
            assert len(await connection.events(3)) == 3
        await upstream.seen(1)
        assert not await connection.is_closed_by_server(seconds=0.05)
        call = upstream.calls[0]
        assert call.ending == "open"
    assert [call.ending for call in await upstream.ended(1)] == ["peer_gone"]
    await upstream.closed(1)
    assert upstream.open_connections == 0


async def test_rst_from_the_client_is_noticed(upstream: ScriptedUpstream) -> None:
    async with streaming(upstream.url, asking("stall-after-1", stream=True)) as connection:
        await connection.head()
        await connection.event()
        connection.reset()
    assert (await upstream.ended(1))[0].ending == "peer_gone"


async def test_a_held_stream_goes_on_when_released(upstream: ScriptedUpstream) -> None:
    async with streaming(upstream.url, asking("hold-after-3", stream=True)) as connection:
        await connection.head()
        await connection.events(3)
        await upstream.held(1)
        upstream.release("hold-after-3")
        assert texts(data_of(await connection.events(2))) == [" w3", " w4"]
    await upstream.ended(1)


async def test_statuses_and_their_advice(upstream: ScriptedUpstream) -> None:
    assert (await ask(upstream, "status-503")).status == 503
    limited = await ask(upstream, "status-429-retry-after-30", stream=True)
    assert (limited.status, limited.header("retry-after")) == (429, "30")
    assert (await ask(upstream, "status-500-html")).header("content-type") == "text/html"


async def test_a_flaky_model_recovers(upstream: ScriptedUpstream) -> None:
    assert [(await ask(upstream, "flaky-2x503")).status for _ in range(3)] == [503, 503, 200]
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await ask(upstream, "flaky-1")
    assert (await ask(upstream, "flaky-1")).status == 200


async def test_error_events(upstream: ScriptedUpstream) -> None:
    assert "error" in (await stream_of(upstream, "error-event-first"))[0]
    events = await stream_of(upstream, "error-event-after-3")
    assert (len(events), "error" in events[3]) == (4, True)


# --- the wrong thing


async def test_wrong_types(upstream: ScriptedUpstream) -> None:
    assert (await ask(upstream, "html-200")).header("content-type") == "text/html; charset=utf-8"
    assert (await ask(upstream, "json-to-stream", stream=True)).json["object"] == "chat.completion"
    assert (await ask(upstream, "sse-to-json")).body.endswith(b"data: [DONE]\n\n")


async def test_gzip_unasked(upstream: ScriptedUpstream) -> None:
    whole, stream = await ask(upstream, "gzip"), await ask(upstream, "gzip", stream=True)
    assert whole.header("content-encoding") == "gzip"
    assert b"w0 w1" in gzip.decompress(whole.body)
    assert zlib.decompress(stream.body, 31).endswith(b"data: [DONE]\n\n")


async def test_a_bomb_is_small_on_the_wire(upstream: ScriptedUpstream) -> None:
    answer = await ask(upstream, "gzip-bomb")
    assert len(answer.body) < 1 << 20
    unpacked = zlib.decompressobj(31).decompress(answer.body, 1 << 24)
    assert len(unpacked) == 1 << 24


async def test_requests_can_be_echoed_and_refused(upstream: ScriptedUpstream) -> None:
    echoed = (await ask(upstream, "echo-headers")).json["echo"]
    assert ["x-request-id", "lab-1"] in echoed["headers"]
    assert (await ask(upstream, "reject-stream-options", stream=True, **USAGE)).status == 400
    assert (await ask(upstream, "reject-stream-options", stream=True)).status == 200


# --- unusual HTTP


async def raw_answer(upstream: ScriptedUpstream, model: str, **more: Any) -> bytes:
    """All that comes on the socket until it has been silent for a moment or is closed."""
    async with streaming(upstream.url, asking(model, **more)) as connection:
        data = b""
        try:
            async with asyncio.timeout(0.2):
                while piece := await connection.reader.read(65_536):
                    data += piece
        except TimeoutError:
            pass
        return data


@pytest.mark.parametrize("stream", [False, True])
async def test_unusual_http(upstream: ScriptedUpstream, stream: bool) -> None:
    old = await raw_answer(upstream, "http10", stream=stream)
    assert old.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"content-length" not in old
    assert b"connection: close" in await raw_answer(upstream, "connection-close", stream=stream)
    assert (await raw_answer(upstream, "interim-100", stream=stream)).startswith(breaking.INTERIM)
    assert b"\r\nx-trailer: late\r\n" in await raw_answer(upstream, "trailers", stream=stream)
    assert (await raw_answer(upstream, "two-responses", stream=stream)).count(b"HTTP/1.1 200 OK") == 2
    assert b"content-length: 5\r\n" in await raw_answer(upstream, "cl-and-te", stream=stream)
    assert b"location: http://169.254" in await raw_answer(upstream, "redirect", stream=stream)
    assert upstream.calls[0].ending == "finished"


async def test_bytes_as_given(upstream: ScriptedUpstream) -> None:
    payload = 'data: {"é":"😀"}\r\n\r\ndata: [DONE]\r\n\r\n'.encode()
    upstream.script("emoji", breaking.body(payload, splits=range(1, len(payload))))
    upstream.script("raw", breaking.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", splits=[3, 20]))
    async with streaming(upstream.url, asking("emoji")) as connection:
        await connection.head()
        pieces = [await connection.piece() for _ in payload]
        assert all(len(piece) == 1 for piece in pieces)
        assert b"".join(pieces) == payload
    assert (await ask(upstream, "raw")).body == b"ok"


# --- size


async def test_big_events(upstream: ScriptedUpstream) -> None:
    events = (await ask(upstream, "big-event-1MiB", stream=True)).events
    assert len(events[1]) > 1 << 20


@pytest.mark.parametrize("model", ["flood", "endless-event"])
async def test_floods_heed_back_pressure(upstream: ScriptedUpstream, model: str) -> None:
    async with streaming(upstream.url, asking(model, stream=True), receive_buffer=4096) as connection:
        await connection.head()
        connection.stop_reading()
        sizes = [-1]

        def has_stopped() -> bool:
            sizes.append(upstream.calls[0].size)
            return len(sizes) > 5 and len(set(sizes[-5:])) == 1

        await eventually(has_stopped, "the upstream waits for its reader")
        assert upstream.calls[0].size < 64 << 20
    assert (await upstream.ended(1))[0].ending == "peer_gone"
