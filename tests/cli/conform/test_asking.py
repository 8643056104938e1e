"""What sockets do is told as what came in the place of an answer."""

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import pytest

from llmgateway.cli.conform import asking
from llmgateway.cli.conform.asking import Answer, Deployment
from llmgateway.cli.conform.endings import Broken, Failed, Skipped
from llmgateway.domain.secret import Secret
from tests.lab.processes import free_port

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
Say = Callable[[asyncio.StreamWriter], Awaitable[None]]


def deployment_at(port: int, timeout: float = 5) -> Deployment:
    base = urlsplit(f"http://127.0.0.1:{port}/v1")
    return Deployment(base, Secret("the-key"), model=None, timeout=timeout)


@contextlib.asynccontextmanager
async def saying(say: bytes | Say) -> AsyncIterator[int]:
    """A server that says this, whatever it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            if isinstance(say, bytes):
                writer.write(say)
            else:
                await say(writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def asked(say: bytes | Say, timeout: float = 5) -> Answer:
    async with saying(say) as port:
        return await asyncio.to_thread(deployment_at(port, timeout).get, "/models")


async def test_an_answer_is_kept_as_it_came() -> None:
    async def in_pieces(writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b'X-Twice: 1\r\nX-Twice: 2\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{"a\r\n')
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b'4\r\n":1}\r\n0\r\n\r\n')

    answer = await asked(in_pieces)
    assert answer.body == b'{"a":1}'
    assert [value for name, value in answer.headers if name == "x-twice"] == ["1", "2"]
    assert answer.media_type == "application/json"
    assert not answer.is_cut
    (first, _), *_, (last, _) = answer.pieces
    assert last - first >= 0.04


@pytest.mark.parametrize(
    "framing",
    [b"content-length: 10\r\n\r\nabc", b"transfer-encoding: chunked\r\n\r\n5\r\nabc",
     b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"],
)  # fmt: skip
async def test_a_cut_is_seen_in_every_framing(framing: bytes) -> None:
    answer = await asked(OK + framing)
    assert answer.is_cut
    assert answer.body == b"abc"


@pytest.mark.parametrize(
    ("said", "expected", "came"),
    [
        (b"", "HTTP/1.1", "RemoteDisconnected"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "HTTP/1.1", "BadStatusLine"),
    ],
)
async def test_what_is_no_answer_is_told(said: bytes, expected: str, came: str) -> None:
    with pytest.raises(Broken) as broken:
        await asked(said)
    assert broken.value.expected == expected
    assert came in broken.value.came


@pytest.mark.parametrize(("name", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_what_is_compressed_is_read(name: str, encode: Callable[[bytes], bytes]) -> None:
    body = encode(b'{"a":1}')
    head = OK + b"content-encoding: %s\r\ncontent-length: %d\r\n\r\n" % (name.encode(), len(body))
    answer = await asked(head + body)
    assert answer.body == b'{"a":1}'
    assert answer.header("content-encoding") == name


async def test_what_is_not_compressed_as_it_says_is_no_answer() -> None:
    with pytest.raises(Broken, match="compressed as it says"):
        await asked(OK + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc")


async def test_nobody_there_is_told() -> None:
    with pytest.raises(Broken, match="an answer") as broken:
        await asyncio.to_thread(deployment_at(free_port()).get, "/models")
    assert broken.value.came == "Connection refused"


async def test_the_time_is_that_of_the_whole_answer() -> None:
    async def drips(writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"content-length: 1000\r\n\r\n")
        for _ in range(1000):
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.02)

    with pytest.raises(Broken) as broken:
        await asked(drips, timeout=0.2)
    assert broken.value.came == "none within 0.2 s"


async def test_an_answer_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MOST", 1000)
    with pytest.raises(Failed, match="at most 1000 bytes"):
        await asked(OK + b"content-length: 2000\r\n\r\n" + b"x" * 2000)


def test_what_failed_once_fails_again_without_being_asked() -> None:
    deployment = deployment_at(1)
    count = 0

    def make() -> str:
        nonlocal count
        count += 1
        raise Skipped("no")

    for _ in range(2):
        with pytest.raises(Skipped):
            deployment.once("it", make)
    assert count == 1


def test_the_key_is_taken_out_of_what_is_told() -> None:
    assert deployment_at(1).without_key("you said the-key, which") == "you said ***, which"
