"""HTTP that is broken or meant to harm: requests, headers both ways, and names that want to be addresses."""

import socket
from typing import Any

import pytest

from tests.e2e.deployment import CHAT, Tenant
from tests.e2e.refusals import check, send
from tests.lab.client import Answer, Request, chat, post

pytestmark = pytest.mark.e2e


# --- addresses and methods


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("PUT", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/files", 404),
        ("GET", "/nothing", 404),
        ("POST", "/v1", 404),
        ("OPTIONS", CHAT, 405),
        ("PATCH", "/v1/embeddings", 405),
        ("GET", "/v1/chat/../../admin/keys", 404),
        ("GET", "/health/nothing", 404),
    ],
)
async def test_s_in_14_s_prx_19_unknown_addresses_and_methods(
    tenant: Tenant, method: str, path: str, status: int
) -> None:
    check(await tenant.gateway.ask(Request(method, path, tenant.key.secret)), status)
    check(await tenant.gateway.ask(Request(method, path)), status)


@pytest.mark.parametrize("path", [CHAT + "/", "/v1/completions/", "/v1/embeddings/"])
async def test_a_slash_at_the_end_is_forgiven(tenant: Tenant, path: str) -> None:
    body = {**chat("ok-1"), "prompt": "a", "input": "a"}
    assert (await tenant.post(path, body)).status == 200


# --- HTTP itself

POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n"
BROKEN = [
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"GET\r\n\r\n",
    b"hello\r\n\r\n",
    POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\n",
    POST + b"content-length: +5\r\n\r\n",
    POST + b"content-length: 0x5\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost : a\r\n\r\n",
    POST + b": x\r\n\r\n",
    POST + b"x: a\x00b\r\n\r\n",
    POST + b"x: a\r\n b\r\n\r\n",
    POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    POST + b"transfer-encoding: xchunked\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\n" + b"".join(b"x-%d: a\r\n" % i for i in range(200)) + b"\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nhost: a\r\n\r\n",
]


@pytest.mark.parametrize("sent", BROKEN, ids=[str(number) for number in range(len(BROKEN))])
async def test_s_prx_01_19_what_is_no_http(tenant: Tenant, sent: bytes) -> None:
    """Refused with 400 at most, and the connection is closed: nothing behind it is read as a request."""
    smuggled = b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx-request-id: smuggled\r\n\r\n"
    async with await tenant.gateway.connect() as connection:
        await connection.send(sent + smuggled)
        try:
            answer = Answer(await connection.head(), await connection.body())
        except (EOFError, ConnectionError):
            return
        assert 400 <= answer.status < 500
        check(answer, answer.status)
        assert answer.header("x-request-id") != "smuggled"
        assert await connection.is_closed_by_server() or answer.status == 404
    assert tenant.calls == []


async def test_s_prx_03_pipelined_requests_of_two_keys(tenant: Tenant) -> None:
    other = await tenant.gateway.create_key(tenant.user, models=["ok-1"])
    requests = [
        post(CHAT, chat("ok-3"), secret, x_request_id=f"pipe-{number}")
        for number, secret in enumerate(
            (tenant.key.secret, other.secret, tenant.key.secret, "wrong", other.secret)
        )
    ]
    async with await tenant.gateway.connect() as connection:
        await connection.send(b"".join(request.encoded("lab") for request in requests))
        answers = [Answer(await connection.head(), await connection.body()) for _ in requests]
    assert [answer.status for answer in answers] == [200, 403, 200, 401, 403]
    assert [answer.header("x-request-id") for answer in answers] == [f"pipe-{number}" for number in range(5)]


# --- headers, both ways


async def test_s_prx_06_07_08_headers_that_reach_the_upstream(tenant: Tenant) -> None:
    sent = {
        "cookie": "session=secret",
        "x-api-key": "sk-mine",
        "api-key": "sk-mine",
        "x-goog-api-key": "sk-mine",
        "openai-organization": "org-1",
        "openai-project": "p",
        "anthropic-version": "1",
        "x-forwarded-for": "1.2.3.4",
        "forwarded": "for=1.2.3.4",
        "x-real-ip": "1.2.3.4",
        "x_forwarded_user": "root",
        "te": "trailers",
        "proxy-authorization": "Basic a",
        "x-stainless-lang": "python",
        "idempotency-key": "k",
        "x-foo": "bar",
        "connection": "close, x-foo, authorization, x-request-id",
        "keep-alive": "timeout=1",
        "accept-encoding": "gzip",
        "x-request-id": "mine-1",
        "referer": "http://evil",
        "x-litellm-api-base": "http://evil",
    }
    answer = await tenant.ask("echo-headers", headers=sent)
    assert answer.status == 200
    seen = dict(answer.json["echo"]["headers"])
    assert set(seen) <= {
        "host",
        "accept",
        "accept-encoding",
        "user-agent",
        "content-type",
        "content-length",
        "x-request-id",
        "traceparent",
        "authorization",
    }
    assert seen["x-request-id"] == answer.header("x-request-id") == "mine-1"
    assert seen["accept-encoding"] == "identity"
    assert tenant.key.secret not in str(answer.json["echo"])


@pytest.mark.parametrize("request_id", ["a b", "", "x" * 129, "\u00e4", "a\tb"])
async def test_s_prx_05_a_request_id_that_cannot_be_one(tenant: Tenant, request_id: str) -> None:
    answer = await tenant.ask("ok-1", headers={"x-request-id": request_id})
    ours = answer.header("x-request-id")
    assert ours == answer.header("x-llmgateway-id") == tenant.calls[0].request_id
    assert ours != request_id


async def test_s_prx_06_09_headers_that_reach_the_caller(tenant: Tenant) -> None:
    async def chatty(x: Any) -> None:
        headers = [
            ("set-cookie", "a=b"),
            ("server", "lab"),
            ("location", "http://evil"),
            ("via", "lab"),
            ("alt-svc", 'h3=":443"'),
            ("www-authenticate", "Basic"),
            ("strict-transport-security", "max-age=1"),
            ("access-control-allow-origin", "*"),
            ("x-litellm-key", "sk"),
            ("x-request-id", "theirs"),
            ("connection", "x-request-id"),
            ("openai-processing-ms", "5"),
            ("content-disposition", "inline"),
        ]
        await x.json({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}, headers=headers)

    tenant.upstream.script("scripted-0", chatty)
    answer = await tenant.ask("scripted-0")
    assert answer.status == 200
    kept = {"content-type", "content-length", "content-disposition", "openai-processing-ms"}
    assert {name for name, _ in answer.head.fields} == kept | {"date", "x-request-id", "x-llmgateway-id"}
    assert answer.header("x-request-id") != "theirs"


async def test_s_prx_05_error_texts_of_the_upstream_cannot_make_headers(tenant: Tenant) -> None:
    async def rude(x: Any) -> None:
        said = {"message": "a\r\nset-cookie: x", "type": "t\r\n", "param": "p\u2028", "code": "c\r\nx: y"}
        await x.json({"error": said}, 400, headers=[("retry-after", "1\u00a01")])

    tenant.upstream.script("scripted-0", rude)
    answer = await tenant.ask("scripted-0")
    check(answer, 400)
    assert answer.header("set-cookie") is None


# --- names of models

NAMES = [
    "../../admin",
    "..%2f..%2fadmin",
    "%2e%2e/",
    "a/../../x",
    "//evil.example",
    "http://evil.example",
    "@evil.example",
    "ok-1?x=",
    "ok-1#",
    "ok-1\\b",
    "ok-1;b",
    "",
    ".",
    "..",
    "ok-1/",
    "/ok-1",
    "x" * 4096,
    "\uff0e\uff0e/",
    "ok-1\x00",
    "ok 1",
    " ok-1",
    "ok-1 ",
    "\u202eok-1",
    "OK-1",
    "ok-1\r\nhost: evil",
    "ok-1%00",
    "\u00f8k-1",
]


@pytest.mark.parametrize("name", NAMES, ids=[str(number) for number in range(len(NAMES))])
async def test_s_prx_10_a_models_name_is_looked_up_and_nothing_else(tenant: Tenant, name: str) -> None:
    counts = len(tenant.upstream.counts)
    for path, body in (
        (CHAT, chat(name)),
        ("/v1/embeddings", {"model": name, "input": "a"}),
        ("/extras/tokenize/count", {"model": name, "input": "a"}),
    ):
        answer = await tenant.post(path, body)
        check(answer, 404, "model_not_found")
        assert answer.json["error"]["param"] == "model"
    form = f'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\n{name}\r\n--x--\r\n'.encode()
    answer = await send(
        tenant, form, path="/v1/audio/transcriptions", content_type="multipart/form-data; boundary=x"
    )
    assert answer.status in (400, 404)
    assert tenant.calls == []
    assert len(tenant.upstream.counts) == counts


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/../../admin",
        "/v1/models/%2e%2e%2f%2e%2e%2fadmin",
        "/v1/models/http:%2f%2fevil",
        "/v1/models//evil",
        "/v1/models/a%00",
        "/v1/models/%ff",
        "/v1/models/a%0d%0ax",
        "/v1/models/" + "x" * 4096,
    ],
)
async def test_s_prx_10_a_models_name_in_the_path(tenant: Tenant, path: str) -> None:
    check(await tenant.gateway.get(path, tenant.key.secret), 404)
    assert tenant.calls == []


@pytest.mark.parametrize(
    "field",
    [
        "api_base",
        "base_url",
        "api_key",
        "custom_llm_provider",
        "extra_headers",
        "mock_response",
        "metadata",
        "deployment",
        "x-portkey-custom-host",
        "fallbacks",
        "model_list",
    ],
)
async def test_s_prx_11_no_field_changes_the_route(tenant: Tenant, field: str) -> None:
    trap = f"http://127.0.0.1:{tenant.upstream.port}/ok-3/v1"
    value = {"authorization": "Bearer x", "url": trap} if field in ("extra_headers", "metadata") else trap
    answer = await tenant.post(CHAT, {**chat("ok-1"), field: value})
    if answer.status != 200:
        check(answer, 400)
    assert [call.model for call in tenant.calls] == ["ok-1"] * (answer.status == 200)
    assert all(call.header("authorization") is None for call in tenant.calls)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url"])
async def test_s_prx_13_addresses_in_messages_are_for_the_model(tenant: Tenant, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.setblocking(False)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/x.png"
        part = {"type": kind, kind: {"url": url, "file_url": url, "data": url}}
        answer = await tenant.post(CHAT, {"model": "ok-1", "messages": [{"role": "user", "content": [part]}]})
        assert answer.status == 200
        with pytest.raises(BlockingIOError):
            trap.accept()
    assert url.encode() in tenant.calls[0].body
