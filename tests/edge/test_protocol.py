"""HTTP/1.1 towards clients, over real sockets: one meaning for every request, or none."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from llmgateway.edge.asgi import Receive, Scope, Send, begin
from llmgateway.edge.exchange import HIGH_WATER
from llmgateway.edge.protocol import MAX_HEAD, MAX_HEADERS, MAX_UNREAD, ClientConnection
from tests.edge.serving import Application, Headers, Impatient, answer, said, serving
from tests.lab.client import Connection, Request
from tests.lab.waiting import eventually

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"\r\n0\r\n\r\n"


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
def application() -> Application:
    return Application()


@pytest.fixture(scope="module")
async def address(application: Application) -> AsyncIterator[str]:
    async with serving(application, ClientConnection) as found:
        yield found


@pytest.fixture(scope="module")
async def impatient_address(application: Application) -> AsyncIterator[str]:
    async with serving(application, Impatient) as found:
        yield found


@pytest.fixture
def app(application: Application) -> Application:
    application.forget()
    return application


@pytest.fixture
async def client(address: str) -> AsyncIterator[Connection]:
    async with await Connection.open(address) as connection:
        yield connection


@pytest.fixture
async def hurried(impatient_address: str) -> AsyncIterator[Connection]:
    """A client of the server with short deadlines."""
    async with await Connection.open(impatient_address) as connection:
        yield connection


def assert_refused(answered: bytes, status: int = 400) -> None:
    """One whole answer in OpenAI's shape, and nothing after it."""
    head, _, body = answered.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in lines
    assert b"content-length: %d" % len(body) in lines
    error = json.loads(body)["error"]
    assert error["type"] == "invalid_request_error"
    assert set(error) == {"message", "type", "param", "code"}


# --- smuggling (S-prx-01)

AMBIGUOUS = {
    "length, then chunks": POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "chunks, then length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "the same length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": POST + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": POST + b"Content-Length: -5\r\n\r\nhello",
    "a length in hex": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "a length and more": POST + b"Content-Length: 5 5\r\n\r\nhello",
    "an empty length": POST + b"Content-Length: \r\n\r\nhello",
    "a length beyond 64 bits": POST + b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "another coding last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n5\r\nhello" + END,
    "another coding only": POST + b"Transfer-Encoding: identity\r\n\r\nhello",
    "a coding like chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n5\r\nhello" + END,
    "chunked in quotes": POST + b'Transfer-Encoding: "chunked"\r\n\r\n5\r\nhello' + END,
    "a vertical tab": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n5\r\nhello" + END,
    "two codings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
    "two codings the other way": POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello" + END,
    "chunked in two fields": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a coding that is not ours": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello" + END,
    "an empty coding": POST + b"Transfer-Encoding: \r\n\r\nhello",
    "a space before the colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "a folded field": POST + b"X-A: b\r\n c\r\n\r\n",
    "a folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n5\r\nhello" + END,
    "a field without a name": POST + b": nobody\r\n\r\n",
    "a field without a colon": POST + b"nothing\r\n\r\n",
    "a space before the first field": b"GET /echo HTTP/1.1\r\n Host: x\r\n\r\n",
    "a NUL in a value": POST + b"X-A: b\x00c\r\n\r\n",
    "a NUL in a name": POST + b"X\x00A: b\r\n\r\n",
    "a line feed in place of a line end": b"POST /echo HTTP/1.1\nHost: x\n\n",
    "a line feed after one field": POST + b"X-A: b\nContent-Length: 5\r\n\r\nhello",
    "a bare carriage return": POST + b"X-A: b\rContent-Length: 5\r\n\r\nhello",
    "a head that ends with a line feed": POST + b"Content-Length: 5\r\n\nhello",
    "a target with a space": b"GET /echo /b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target with a NUL": b"GET /echo\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target beyond ASCII": "GET /ächo HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "no version": b"GET /echo\r\n\r\n",
    "two hosts": b"GET /echo HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "the same host twice, for an old client": b"GET /echo HTTP/1.0\r\nHost: x\r\nhost: x\r\n\r\n",
    "no host": b"GET /echo HTTP/1.1\r\n\r\n",
    "a version that is none": b"GET /echo HTTP/1.1.1\r\nHost: x\r\n\r\n",
    "a version to come": b"GET /echo HTTP/3.0\r\nHost: x\r\n\r\n",
    "a method in lower case": b"get /echo HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "an upgrade": b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "an upgrade with a body": POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
    "a signed chunk": CHUNKED + b"+5\r\nhello" + END,
    "a negative chunk": CHUNKED + b"-5\r\nhello" + END,
    "a chunk in 0x": CHUNKED + b"0x5\r\nhello" + END,
    "a space before a chunk's size": CHUNKED + b" 5\r\nhello" + END,
    "a chunk without a size": CHUNKED + b"\r\nhello" + END,
    "a chunk of no number": CHUNKED + b"five\r\nhello" + END,
    "a chunk beyond 64 bits": CHUNKED + b"10000000000000005\r\nhello" + END,
    "a chunk that is longer than it says": CHUNKED + b"3\r\nhello" + END,
    "a chunk that ends with a line feed": CHUNKED + b"5\nhello\n0\n\n",
    "a bare carriage return in a chunk's extension": CHUNKED + b"5;a\rb\r\nhello" + END,
    "a length behind the body": CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 30\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", AMBIGUOUS)
@pytest.mark.parametrize("in_pieces", [False, True])
async def test_s_prx_01_what_two_servers_could_read_differently_is_refused(
    app: Application, client: Connection, name: str, in_pieces: bool
) -> None:
    request = AMBIGUOUS[name] + SMUGGLED
    if in_pieces:
        for at in range(0, len(request), 7):
            client.writer.write(request[at : at + 7])
            await asyncio.sleep(0)
    else:
        await client.send(request)
    assert_refused(await said(client))
    assert app.whole == []
    assert [scope["path"] for scope in app.begun] in ([], ["/echo"])


@pytest.mark.parametrize("request_bytes", [
    POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello" + END,
    POST + b"TRANSFER-ENCODING: Chunked\r\n\r\n5\r\nhello" + END,
    POST + b"Transfer-Encoding:\tchunked \r\n\r\n5\r\nhello" + END,
    POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;name=value\r\nllo" + END,
    POST + b"Transfer-Encoding: chunked\r\n\r\n0005\r\nhello\r\n0\r\nX-Late: 1\r\n\r\n",
    POST + b"Content-Length:5\r\n\r\nhello",
    POST + b"Content-Length: \t 5 \t\r\n\r\nhello",
    b"\r\n\r\n" + POST + b"Content-Length: 005\r\n\r\nhello",
])  # fmt: skip
async def test_what_has_one_meaning_is_taken(
    app: Application, client: Connection, request_bytes: bytes
) -> None:
    await client.send(request_bytes + SMUGGLED)
    assert (await client.head()).status == 200
    assert await client.body() == b"POST /echo hello"
    assert (await client.head()).status == 200
    assert await client.body() == b"GET /smuggled "
    assert [scope["path"] for scope, _ in app.whole] == ["/echo", "/smuggled"]


async def test_s_prx_01_a_trailer_is_no_header(app: Application, client: Connection) -> None:
    """It could name another caller, after whoever stands in front of us has checked the head."""
    late = b"0\r\nAuthorization: Bearer other\r\nX-Real-Ip: 1.2.3.4\r\n\r\n"
    await client.send(CHUNKED + b"5\r\nhello\r\n" + late)
    assert (await client.head()).status == 200
    ((scope, body),) = app.whole
    assert body == b"hello"
    assert scope["headers"] == [(b"host", b"x"), (b"transfer-encoding", b"chunked")]


# --- requests


async def test_a_request_as_the_application_sees_it(app: Application, client: Connection) -> None:
    await client.send(
        b"POST /v1/a%20b/%C3%A9?c=%20d&e HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nx-one: \xe4\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )
    assert (await client.head()).status == 200
    ((scope, body),) = app.whole
    assert (scope["type"], scope["method"], scope["scheme"]) == ("http", "POST", "http")
    assert (scope["http_version"], scope["root_path"], body) == ("1.1", "", b"{}")
    assert (scope["path"], scope["raw_path"]) == ("/v1/a b/é", b"/v1/a%20b/%C3%A9")
    assert scope["query_string"] == b"c=%20d&e"
    assert scope["headers"] == [
        (b"host", b"x"), (b"x-one", b"1"), (b"x-one", b"\xe4"), (b"content-length", b"2")
    ]  # fmt: skip
    assert scope["client"][0] == "127.0.0.1"
    assert scope["server"][1] == int(client.host.partition(":")[2])


@pytest.mark.parametrize(("target", "path", "query"), [
    (b"http://elsewhere.example/v1/models?a=b", "/v1/models", b"a=b"),
    (b"http://elsewhere.example", "/", b""),
    (b"https://user:word@elsewhere.example:8443/a/../b", "/a/../b", b""),
    (b"//elsewhere.example/v1", "//elsewhere.example/v1", b""),
    (b"/a?", "/a", b""),
])  # fmt: skip
async def test_s_prx_19_an_absolute_target_is_its_path(
    app: Application, client: Connection, target: bytes, path: str, query: bytes
) -> None:
    await client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
    assert (await client.head()).status == 200
    (scope,) = app.begun
    assert (scope["path"], scope["query_string"]) == (path, query)


@pytest.mark.parametrize("method", ["TRACE", "PUT", "OPTIONS", "PATCH", "DELETE"])
async def test_s_prx_19_other_methods_are_the_applications_to_refuse(
    app: Application, client: Connection, method: str
) -> None:
    assert (await client.ask(Request(method, "/echo"))).body == f"{method} /echo ".encode()


async def test_a_body_comes_as_it_arrives(app: Application, client: Connection) -> None:
    pieces: list[bytes] = []

    async def behave(scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            pieces.append(message["body"])
            more = message["more_body"]
        await answer(send, b"done")

    app.behaviours["/p"] = behave
    await client.send(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nab")
    await eventually(lambda: pieces, "the first piece is there")
    await client.send(b"cd")
    await eventually(lambda: len(pieces) > 1, "the second piece is there")
    await client.send(b"ef")
    assert (await client.head()).status == 200
    assert b"".join(pieces) == b"abcdef"


async def test_r_load_13_a_large_body_waits_at_the_client(app: Application, client: Connection) -> None:
    gate = asyncio.Event()

    async def behave(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await app.echo(scope, receive, send)

    app.behaviours["/p"] = behave
    size = 64 * 1024 * 1024
    client.writer.write(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
    client.writer.write(bytes(size))
    await asyncio.sleep(0.1)
    assert client.writer.transport.get_write_buffer_size() > size // 2
    gate.set()
    assert (await client.head()).status == 200
    ((_, body),) = app.whole
    assert len(body) == size


async def test_who_expects_100_gets_it_when_the_body_is_wanted(app: Application, client: Connection) -> None:
    await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(b"hello")
    assert (await client.head()).status == 200
    assert await client.body() == b"POST /echo hello"


async def test_who_expects_100_may_be_refused_at_once(app: Application, client: Connection) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no", 401)

    app.behaviours["/no"] = refuse
    await client.send(b"POST /no HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert (await client.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 401 ")


# --- pipelining


async def test_s_prx_03_pipelined_requests_are_answered_in_their_order(
    app: Application, client: Connection
) -> None:
    """The first takes longest; each gets its own key back."""

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05)
        await answer(send, dict(scope["headers"])[b"authorization"])

    app.behaviours = {"/slow": slow}
    await client.send(b"".join(
        b"POST /%b HTTP/1.1\r\nHost: x\r\nAuthorization: key-%d\r\nContent-Length: 1\r\n\r\n%d"
        % (b"slow" if n % 3 == 0 else b"fast", n, n) for n in range(9)
    ))  # fmt: skip
    for n in range(9):
        assert (await client.head()).status == 200
        assert await client.body() == (b"key-%d" % n if n % 3 == 0 else b"POST /fast %d" % n)
    assert len(app.begun) == 9


async def test_a_flood_of_pipelined_requests_waits(app: Application, client: Connection) -> None:
    gate = asyncio.Event()

    async def behave(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await answer(send, b"ok")

    app.behaviours["/p"] = behave
    client.writer.write(b"GET /p HTTP/1.1\r\nHost: x\r\n\r\n" * 500_000)
    await asyncio.sleep(0.2)
    assert len(app.begun) == 1
    assert client.writer.transport.get_write_buffer_size() > 5_000_000
    gate.set()
    for _ in range(100):
        assert (await client.head()).status == 200
        assert await client.body() == b"ok"
    client.reset()
    size = 0
    while size != (size := len(app.begun)):
        await asyncio.sleep(0.02)


async def test_what_is_wrong_behind_a_request_does_not_spoil_its_answer(
    app: Application, client: Connection
) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05)
        await app.echo(scope, receive, send)

    app.behaviours["/slow"] = slow
    await client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + SMUGGLED + b"no HTTP\r\n\r\n")
    assert (await client.head()).status == 200
    assert await client.body() == b"GET /slow "
    assert await client.is_closed_by_server()
    assert [scope["path"] for scope in app.begun] == ["/slow"]


# --- answers


async def test_an_answer_without_a_length_is_chunked(app: Application, client: Connection) -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b")]})
        for piece in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    app.behaviours["/s"] = stream
    for _ in range(2):
        await client.send(b"GET /s HTTP/1.1\r\nHost: x\r\n\r\n")
        raw = await client.reader.readuntil(b"0\r\n\r\n")
        assert raw == (b"HTTP/1.1 200 OK\r\nx-a: b\r\ntransfer-encoding: chunked\r\n\r\n"
                       b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")  # fmt: skip


async def test_http_1_0_knows_no_chunks(app: Application, client: Connection) -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    app.behaviours["/s"] = stream
    await client.send(b"GET /s HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert await said(client) == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\ndata: 1\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize(("request_line", "status"), [
    (b"HEAD /b HTTP/1.1", 200), (b"GET /b HTTP/1.1", 204), (b"GET /b HTTP/1.1", 304),
])  # fmt: skip
@pytest.mark.parametrize("headers", [[(b"content-length", b"5")], []])
async def test_some_answers_have_no_body(
    app: Application, client: Connection, request_line: bytes, status: int, headers: Headers
) -> None:
    """Bytes of it would be the beginning of the next answer."""

    async def behave(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"hello", status, headers)

    app.behaviours["/b"] = behave
    await client.send(request_line + b"\r\nHost: x\r\n\r\n" + SMUGGLED)
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"chunked" not in head
    assert (b"content-length: 5" in head) == bool(headers)
    assert (await client.head()).status == 200
    assert await client.body() == b"GET /smuggled "


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_connection_ends_when_the_client_says_so(
    app: Application, client: Connection, version: bytes
) -> None:
    await client.send(b"GET /echo HTTP/%b\r\nHost: x\r\nConnection: close\r\n\r\n" % version)
    raw = await said(client)
    assert raw.count(b"connection: close\r\n") == 1
    assert raw.endswith(b"\r\n\r\nGET /echo ")


@pytest.mark.parametrize("field", [
    (b"x-a", b"b\r\nx-smuggled: 1"), (b"x-a", b"b\nx-smuggled: 1"), (b"x-a", b"b\rx-smuggled: 1"),
    (b"x-a\r\nx-b", b"c"),
])  # fmt: skip
async def test_a_header_cannot_hold_another(
    app: Application, client: Connection, field: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async def behave(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"", headers=[field])

    app.behaviours["/b"] = behave
    await client.send(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await client.is_closed_by_server()
    assert "an application failed" in caplog.text


@pytest.mark.parametrize(("length", "arrives"), [(b"3", b"hel"), (b"9", b"hello")])
async def test_an_answer_of_another_length_ends_the_connection(
    app: Application, client: Connection, length: bytes, arrives: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def behave(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"hello", headers=[(b"content-length", length)])

    app.behaviours["/b"] = behave
    await client.send(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n" + SMUGGLED)
    assert (await said(client)).endswith(b"\r\n\r\n" + arrives)
    assert "not the one announced" in caplog.text


@pytest.mark.parametrize("begins", [False, True])
async def test_an_application_that_fails_does_not_look_whole(
    app: Application, client: Connection, begins: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def behave(scope: Scope, receive: Receive, send: Send) -> None:
        if begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            await asyncio.sleep(0.01)
        raise LookupError("lab")

    app.behaviours["/b"] = behave
    await client.send(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n")
    if begins:
        assert (await client.head()).status == 200
        assert await client.piece() == b"half"
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await (client.piece() if begins else client.head())
    assert "an application failed" in caplog.text


async def test_what_comes_after_the_end_is_nobodys(app: Application, client: Connection) -> None:
    async def behave(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"hello")
        await send({"type": "http.response.body", "body": b"and more"})

    app.behaviours["/b"] = behave
    await client.send(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n" + SMUGGLED)
    for expected in (b"hello", b"GET /smuggled "):
        assert (await client.head()).status == 200
        assert await client.body() == expected


async def test_r_load_04_a_slow_reader_stops_the_application(app: Application, address: str) -> None:
    sent = 0

    async def behave(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while sent < 40_000_000:
            await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
            sent += 10_000
        await send({"type": "http.response.body"})

    app.behaviours["/flood"] = behave
    async with await Connection.open(address, receive_buffer=4096) as slow:
        await slow.send(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.05)
        assert 0 < sent < 20_000_000
        slow.go_on_reading()
        assert (await slow.head()).status == 200
        assert len(await slow.body()) == 40_000_000


async def test_writing_inside_a_callback_waits_only_when_it_must(app: Application, address: str) -> None:
    """What `begin` gives back is the rest of a write that is waiting for the client."""
    waited: list[bool] = []

    async def behave(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            rest = begin(send({"type": "http.response.body", "body": bytes(10_000), "more_body": True}))
            waited.append(rest is not None)
            if rest is not None:
                await rest
            await asyncio.sleep(0)
        await send({"type": "http.response.body"})

    app.behaviours["/flood"] = behave
    async with await Connection.open(address, receive_buffer=4096) as slow:
        await slow.send(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: True in waited, "it waits")
        assert waited[0] is False
        assert (await slow.head()).status == 200
        assert len(await slow.body()) == 10_000_000


# --- hanging up


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_the_application_is_told_that_the_client_has_gone(
    app: Application, client: Connection, how: str
) -> None:
    async def behave(scope: Scope, receive: Receive, send: Send) -> None:
        await app.body(scope, receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b"two"})
        app.left.append("told")

    app.behaviours["/w"] = behave
    await client.send(b"POST /w HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    assert (await client.head()).status == 200
    getattr(client, how)()
    await eventually(lambda: app.left == ["told"], "it is told")


async def test_a_client_that_goes_before_its_body_is_whole(app: Application, client: Connection) -> None:
    await client.send(POST + b"Content-Length: 100\r\n\r\nhalf")
    await eventually(lambda: app.begun, "it has begun")
    client.close()
    await eventually(lambda: app.left == ["/echo"], "the application is told")
    assert app.whole == []


async def test_after_the_answer_there_is_nothing_to_receive(app: Application, client: Connection) -> None:
    async def behave(scope: Scope, receive: Receive, send: Send) -> None:
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await waiting
        waiting = asyncio.ensure_future(receive())
        await answer(send, b"ok")
        app.left.append((await waiting)["type"])

    app.behaviours["/b"] = behave
    assert (await client.ask(Request("GET", "/b"))).body == b"ok"
    await eventually(lambda: app.left == ["http.disconnect"], "it is told")


# --- limits


def request_of(size: int) -> bytes:
    """A request whose target, names and values have this many bytes."""
    return b"GET /echo HTTP/1.1\r\nHost: x\r\nX-Long: %b\r\n\r\n" % (b"a" * (size - len(b"/echoHostxX-Long")))


async def test_a_head_has_a_limit(app: Application, client: Connection) -> None:
    await client.send(request_of(MAX_HEAD))
    assert (await client.head()).status == 200
    assert await client.body() == b"GET /echo "
    await client.send(request_of(MAX_HEAD + 1))
    assert_refused(await said(client), 431)
    assert len(app.begun) == 1


@pytest.mark.parametrize("beginning", [
    b"GET /", b"GET /echo HTTP/1.1\r\nX", b"GET /echo HTTP/1.1\r\nX-Endless: ",
    b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\nGET /", CHUNKED + b"0\r\nX-Late: ",
])  # fmt: skip
async def test_a_line_without_an_end_is_cut(app: Application, client: Connection, beginning: bytes) -> None:
    """Also where the parser says nothing before it has all of it."""
    saying = asyncio.ensure_future(said(client))
    client.writer.write(beginning)
    for _ in range(100):
        client.writer.write(b"a" * 10_000)
        await asyncio.sleep(0)
    answered = await saying
    assert b"HTTP/1.1 431 " in answered or answered.startswith(b"HTTP/1.1 200 OK")
    assert len(app.whole) <= 1


@pytest.mark.parametrize(("count", "status"), [(MAX_HEADERS, 200), (MAX_HEADERS + 1, 431)])
async def test_headers_are_counted(app: Application, client: Connection, count: int, status: int) -> None:
    await client.send(b"GET /echo HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * (count - 1) + b"\r\n")
    assert (await client.head()).status == status


async def early(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without reading the body."""
    await answer(send, b"early", 401)


async def too_large(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"large", 413, [(b"content-length", b"5"), (b"connection", b"close")])


async def test_a_body_that_nobody_read_is_dropped(app: Application, client: Connection) -> None:
    app.behaviours["/early"] = early
    head = b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    await client.send(head)
    assert (await client.head()).status == 401
    assert await client.body() == b"early"
    await client.send(bytes(1_000_000) + SMUGGLED)
    assert (await client.head()).status == 200
    assert await client.body() == b"GET /smuggled "


@pytest.mark.parametrize("behaviour", [early, too_large])
async def test_a_body_that_nobody_reads_has_a_limit(
    app: Application, client: Connection, behaviour: Any
) -> None:
    app.behaviours["/b"] = behaviour
    await client.send(b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
    await client.head()
    await client.body()
    with suppress(ConnectionError):
        for _ in range(2 * MAX_UNREAD // 65_536 + 1000):
            await client.send(bytes(65_536))
            await asyncio.sleep(0)
        pytest.fail("it took it all")


async def test_a_refusal_reaches_a_client_that_is_still_sending(app: Application, client: Connection) -> None:
    """Closed at once, the kernel would send RST, and the client would not see why."""
    app.behaviours["/b"] = too_large
    size = 4_000_000
    await client.send(b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
    await client.send(bytes(size))
    await asyncio.sleep(0.05)
    raw = await said(client)
    assert raw.startswith(b"HTTP/1.1 413 ")
    assert raw.endswith(b"large")
    assert raw.count(b"connection: close") == 1


async def test_after_the_last_answer_nothing_is_read(app: Application, client: Connection) -> None:
    app.behaviours["/b"] = too_large
    await client.send(b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
    await client.head()
    await client.body()
    await client.send(b"hello" + SMUGGLED)
    assert await client.is_closed_by_server()
    assert [scope["path"] for scope in app.begun] == ["/b"]


# --- deadlines


async def test_r_load_12_a_client_that_says_nothing_is_let_go(app: Application, hurried: Connection) -> None:
    assert_refused(await said(hurried, 2), 408)


async def dripped(connection: Connection, data: bytes) -> bytes:
    """A byte now and then, until the server has had enough; what it said."""
    saying = asyncio.ensure_future(said(connection, 3))
    for n in range(len(data)):
        if saying.done():
            break
        connection.writer.write(data[n : n + 1])
        await asyncio.sleep(0.05)
    return await saying


@pytest.mark.parametrize("beginning", [b"", b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_r_load_12_a_head_that_drips_is_cut(
    app: Application, hurried: Connection, beginning: bytes
) -> None:
    """Each byte comes within the deadline, the head does not."""
    await hurried.send(beginning)
    answered = await dripped(hurried, b"GET /slow HTTP/1.1\r\nX: " + b"a" * 50)
    assert_refused(answered[answered.find(b"HTTP/1.1 408") :], 408)
    assert "/slow" not in [scope["path"] for scope in app.begun]


async def test_r_load_12_a_body_that_drips_is_cut(app: Application, hurried: Connection) -> None:
    await hurried.send(POST + b"Content-Length: 1000\r\n\r\n")
    assert_refused(await dripped(hurried, b"a" * 50), 408)
    assert app.left == ["/echo"]


async def test_a_body_that_comes_on_is_not_cut(app: Application, hurried: Connection) -> None:
    await hurried.send(POST + b"Content-Length: 5000\r\n\r\n")
    for _ in range(10):
        await hurried.send(b"a" * 500)
        await asyncio.sleep(0.08)
    assert (await hurried.head()).status == 200


async def test_an_unread_body_that_does_not_come_is_not_waited_for(
    app: Application, hurried: Connection
) -> None:
    app.behaviours["/b"] = early
    await hurried.send(b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhello")
    assert (await hurried.head()).status == 401
    assert await hurried.body() == b"early"
    async with asyncio.timeout(2):
        await hurried.reader.read(-1)
    assert hurried.reader.at_eof()


async def test_an_idle_connection_is_closed(app: Application, hurried: Connection) -> None:
    for _ in range(2):
        assert (await hurried.ask(Request("GET", "/echo"))).status == 200
        await asyncio.sleep(0.15)
    assert await said(hurried, 2) == b""


async def test_a_busy_connection_is_not_idle(app: Application, hurried: Connection) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.6)
        await answer(send, b"late")

    app.behaviours["/slow"] = slow
    assert (await hurried.ask(Request("GET", "/slow"))).body == b"late"


async def test_a_last_answer_that_is_not_taken_in_is_not_kept(
    app: Application, impatient_address: str
) -> None:
    """The call is over; only its bytes are left, at a client that does not read."""
    left = asyncio.Event()

    async def behave(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, bytes(20_000_000))
        left.set()

    app.behaviours["/b"] = behave
    async with await Connection.open(impatient_address, receive_buffer=4096) as slow:
        await slow.send(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n")
        await left.wait()
        slow.stop_reading()
        await asyncio.sleep(0.6)
        slow.go_on_reading()
        assert (await slow.head()).status == 200
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await slow.body()


def test_bodies_wait_in_small_pieces() -> None:
    assert HIGH_WATER <= 64 * 1024


async def test_the_servers_end_is_told_to_busy_connections(app: Application) -> None:
    """An idle one is closed at once; a busy one says so with its answer, and then closes."""
    gate = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await answer(send, b"ok")

    app.behaviours["/slow"] = slow
    async with serving(app, ClientConnection) as address:
        idle, busy = await Connection.open(address), await Connection.open(address)
        assert (await idle.ask(Request("GET", "/echo"))).status == 200
        await busy.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: len(app.begun) == 2, "it is busy")
        asyncio.get_running_loop().call_later(0.3, gate.set)
    assert await idle.is_closed_by_server()
    idle.close()
    busy.close()
