"""Behaviours of a model server that breaks HTTP, or says what nobody asked for."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.lab.exchange import Exchange
from tests.lab.payloads import Said, answer, chunks, compact
from tests.lab.telling import SSE, Behaviour, Plan, events, finish, streams, tell, told

MEBIBYTE = 1 << 20
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": MEBIBYTE, "GiB": 1 << 30}
BETWEEN_PARTS = 0.001  # seconds: parts shall arrive as separate reads, not as one
BOMB = 512 * MEBIBYTE
SMUGGLED = b'{"smuggled":"1"}'
SECOND_RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 16\r\n\r\n" + SMUGGLED
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"
PAGE = b"<!doctype html><title>Sign in</title><form>password</form>"
METADATA = "http://169.254.169.254/latest/meta-data/"


async def reset_before_head(x: Exchange) -> None:
    x.reset()


async def close_before_head(x: Exchange) -> None:
    x.die()


async def hang_before_head(x: Exchange) -> None:
    await x.hang()


async def reset_mid_chunk(x: Exchange) -> None:
    """A chunk announces more bytes than come before the RST."""
    await x.head(content_type=SSE)
    await tell(x, chunks(x.question, 1))
    await x.send(b'ff\r\ndata: {"id":"half a chu')
    x.reset()


async def truncated_length(x: Exchange) -> None:
    """Fewer bytes than the length that the head announced."""
    body = json.dumps(answer(x.question, 5)[0]).encode()
    await x.head(framing="length", headers=[("content-length", str(len(body) + 100))])
    await x.piece(body)
    x.die()


async def close_delimited(x: Exchange) -> None:
    """HTTP/1.0: no length, no chunks; the body ends with the connection."""
    plan = Plan()
    if streams(x):
        await x.head(content_type=SSE, framing="close", version="1.0")
        await tell(x, events(x, plan))
        await finish(x, plan)
    else:
        body, tokens = answer(x.question, plan.chunks)
        x.call.completion_tokens += tokens
        await x.head(framing="close", version="1.0")
        await x.piece(compact(body).encode())
        await x.end()
    x.die()


async def connection_close(x: Exchange) -> None:
    """A regular answer that says the connection will be closed, and is."""
    if streams(x):
        stream = b"".join(said.encoded() for said in events(x, Plan())) + b"data: [DONE]\n\n"
        await x.whole(stream, content_type=SSE, headers=[("connection", "close")])
    else:
        await x.json(answer(x.question, 5)[0], headers=[("connection", "close")])
    x.die()


async def two_responses(x: Exchange) -> None:
    """A second, unasked response right behind the first: smuggling if the connection is used again."""
    await told(Plan())(x)
    await x.send(SECOND_RESPONSE)


async def length_and_chunked(x: Exchange) -> None:
    """Both framings at once."""
    body = compact(answer(x.question, 5)[0]).encode()
    await x.head(headers=[("content-length", "5")])
    await x.piece(body)
    await x.end()


async def interim_first(x: Exchange) -> None:
    """100 and 103 before the answer."""
    await x.send(INTERIM)
    await told(Plan())(x)


async def trailers(x: Exchange) -> None:
    """Fields behind the last chunk."""
    plan, extra = Plan(), [("x-trailer", "late"), ("content-length", "3")]
    await x.head(content_type=SSE if streams(x) else "application/json", headers=[("trailer", "x-trailer")])
    if streams(x):
        await tell(x, events(x, plan))
        await x.done()
    else:
        await x.piece(compact(answer(x.question, plan.chunks)[0]).encode())
    await x.end(extra)


async def redirect(x: Exchange) -> None:
    await x.whole(b"", 307, headers=[("location", METADATA)])


async def page(x: Exchange) -> None:
    await x.whole(PAGE, content_type="text/html; charset=utf-8")


async def json_to_stream(x: Exchange) -> None:
    """JSON, whatever was asked for."""
    body, tokens = answer(x.question, 5)
    x.call.completion_tokens += tokens
    await x.json(body)


async def stream_to_json(x: Exchange) -> None:
    """A stream, whatever was asked for."""
    plan = Plan()
    await x.head(content_type=SSE)
    await tell(x, events(x, plan))
    await finish(x, plan)


async def zipped(x: Exchange) -> None:
    """Compressed, though nobody asked for it."""
    headers = [("content-encoding", "gzip")]
    if not streams(x):
        return await x.whole(gzip.compress(compact(answer(x.question, 5)[0]).encode()), headers=headers)
    packer = zlib.compressobj(wbits=31)
    await x.head(content_type=SSE, headers=headers)
    for said in events(x, Plan()):
        x.call.completion_tokens += said.tokens
        await x.piece(packer.compress(said.encoded()) + packer.flush(zlib.Z_SYNC_FLUSH))
    await x.piece(packer.compress(b"data: [DONE]\n\n") + packer.flush())
    await x.end()
    return None


async def zip_bomb(x: Exchange) -> None:
    """Half a gibibyte of spaces in half a mebibyte of gzip."""
    kind = SSE if streams(x) else "application/json"
    await x.head(content_type=kind, headers=[("content-encoding", "gzip")])
    for packed in _bomb(BOMB):
        await x.piece(packed)
    await x.end()


def _bomb(size: int) -> Iterator[bytes]:
    packer, block = zlib.compressobj(9, wbits=31), b" " * MEBIBYTE
    for _ in range(size // MEBIBYTE):
        if packed := packer.compress(block):
            yield packed
    yield packer.flush()


def big_event(number: str, unit: str) -> Behaviour:
    """One event whose text has this size, between two of the usual size."""
    size = int(number) * UNITS[unit]

    async def behave(x: Exchange) -> None:
        first, second, *rest = events(x, Plan(2))
        await x.head(content_type=SSE)
        await x.say(first)
        second.data["choices"][0]["delta"]["content"] = "x" * size
        await tell(x, [second, *rest])
        await x.done()
        await x.end()

    return behave


async def endless_event(x: Exchange) -> None:
    """An event without an end."""
    await x.head(content_type=SSE)
    await x.piece(b'data: {"id":"')
    while True:
        await x.piece(b"x" * 65_536)
        await asyncio.sleep(0)


async def flood(x: Exchange) -> None:
    """Chunks without end, as fast as the reader takes them."""
    story = list(chunks(x.question, 2))
    await x.head(content_type=SSE)
    await x.say(story[0])
    while True:
        for _ in range(100):
            await x.say(Said(story[1].data, 1))
        await asyncio.sleep(0)


def raw(data: bytes, splits: Sequence[int] = (), *, then_close: bool = True) -> Behaviour:
    """Exactly these bytes on the socket, split at the given offsets."""

    async def behave(x: Exchange) -> None:
        for part in split_at(data, splits):
            await x.send(part)
            await asyncio.sleep(BETWEEN_PARTS)
        x.call.ending = "finished"
        if then_close:
            x.die()

    return behave


def body(data: bytes, splits: Sequence[int] = (), *, content_type: str = SSE) -> Behaviour:
    """A chunked 200 with exactly this body, one HTTP chunk for each part between the given offsets."""

    async def behave(x: Exchange) -> None:
        await x.head(content_type=content_type)
        for part in split_at(data, splits):
            await x.piece(part)
            await asyncio.sleep(BETWEEN_PARTS)
        await x.end()

    return behave


def split_at(data: bytes, splits: Sequence[int]) -> list[bytes]:
    return [data[a:b] for a, b in pairwise([0, *sorted(splits), len(data)]) if a < b]
