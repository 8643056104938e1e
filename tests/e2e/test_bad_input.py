"""Whatever comes in on a socket: never a 500, always OpenAI's shape, a stable code and a request id."""

import json
from typing import Any

import pytest

from tests.e2e.deployment import CHAT, Tenant
from tests.lab.client import Answer, Connection, Request, chat, post

pytestmark = pytest.mark.e2e

SHAPE = {"message", "type", "param", "code"}
MESSAGES = '"messages":[{"role":"user","content":"a"}]'


def check(answer: Answer, status: int, code: str | None = None) -> None:
    assert answer.status == status, answer.body
    error = answer.json["error"]
    assert set(error) == SHAPE
    assert isinstance(error["message"], str)
    assert code is None or error["code"] == code
    assert answer.header("content-type") == "application/json"
    assert answer.header("x-request-id")


async def send(tenant: Tenant, body: bytes, *, path: str = CHAT, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await tenant.gateway.ask(Request("POST", path, tenant.key.secret, body=body, headers=named))


async def is_well(tenant: Tenant) -> None:
    """The gateway still answers, on the same processes."""
    assert (await tenant.ask("ok-1")).status == 200


# --- bodies that are no JSON object, or not one only


@pytest.mark.parametrize("body", [
    b"", b"null", b"[]", b'"x"', b"1", b"{", b'{"model":"ok-1",}', b'{"model":"ok-1"} {"model":"ok-1"}',
    b'{"model":"ok-1"/* a */}', b'\xef\xbb\xbf{"model":"ok-1"}', b"\x00", b"\x1f\x8b\x08", b"%PDF-1.4",
])
async def test_what_is_no_json_object(tenant: Tenant, body: bytes) -> None:
    check(await send(tenant, body), 400)
    assert tenant.calls == []


@pytest.mark.parametrize("depth", [100, 1_000, 60_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["arrays", "objects"])
async def test_nesting(tenant: Tenant, depth: int, opening: str, closing: str) -> None:
    depth = depth if opening == "[" else depth // 2
    nested = opening * depth + "1" + closing * depth
    body = f'{{"model":"ok-1",{MESSAGES},"metadata":{nested}}}'.encode()
    pids = tenant.gateway.pids
    answer = await send(tenant, body)
    if depth <= 100:
        assert answer.status == 200
        assert tenant.calls[0].body == body
    else:
        check(answer, 413 if len(body) > 256 << 10 else 400)
        assert tenant.calls == []
    assert tenant.gateway.pids == pids


@pytest.mark.parametrize("twice", [
    '"model":"ok-1","model":"ok-3"', '"model":"ok-1","stream":false,"stream":true',
    '"model":"ok-1","max_tokens":1,"max_tokens":9', '"model":"ok-1","n":1,"n":2',
    '"model":"ok-1","metadata":{"a":{"b":1,"b":2}}', '"model":"ok-1","m\\u006fdel":"ok-3"',
])
async def test_a_name_that_stands_twice(tenant: Tenant, twice: str) -> None:
    check(await send(tenant, f"{{{twice},{MESSAGES}}}".encode()), 400)
    assert tenant.calls == []


@pytest.mark.parametrize("number", ["1e400", "-0", "-0.0", "0.1000000000000000055", "1" + "0" * 400, "1E5", "5e-324"])
async def test_numbers_pass_exactly_or_not_at_all(tenant: Tenant, number: str) -> None:
    body = f'{{"model":"ok-1",{MESSAGES},"seed":{number}}}'.encode()
    answer = await send(tenant, body)
    if answer.status == 200:
        assert tenant.calls[0].body == body
    else:
        check(answer, 400)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "01", "+1", ".5", "0x1"])
async def test_what_is_no_number(tenant: Tenant, number: str) -> None:
    check(await send(tenant, f'{{"model":"ok-1",{MESSAGES},"seed":{number}}}'.encode()), 400)
    assert tenant.calls == []


@pytest.mark.parametrize("text", [
    b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\\ud800", b"\\u0000", b"a\x00b",
])
@pytest.mark.parametrize("place", ["model", "content", "name"])
async def test_text_that_is_none(tenant: Tenant, text: bytes, place: str) -> None:
    parts = {"model": b"ok-1", "content": b"a", "name": b"x", place: text}
    body = b'{"model":"%(model)b","messages":[{"role":"user","content":"%(content)b"}],"user":"%(name)b"}'
    written = body.replace(b"%(model)b", parts["model"]).replace(b"%(content)b", parts["content"])
    written = written.replace(b"%(name)b", parts["name"])
    answer = await send(tenant, written)
    if answer.status == 200:
        assert tenant.calls[0].body == written
        assert place != "model"
    else:
        check(answer, 404 if answer.status == 404 else 400)
        assert tenant.calls == []


async def test_another_encoding(tenant: Tenant) -> None:
    check(await send(tenant, json.dumps(chat("ok-1")).encode("utf-16")), 400)
    wrong = await send(tenant, json.dumps(chat("ok-1")).encode(), content_type="application/json; charset=utf-16")
    check(wrong, 415, "unsupported_media_type")
    assert tenant.calls == []


# --- fields


@pytest.mark.parametrize(("field", "value"), [
    ("model", 1), ("model", None), ("model", ["ok-1"]), ("stream", "yes"), ("stream", 1), ("n", "5"), ("n", 1.5),
    ("n", True), ("n", -1), ("max_tokens", -1), ("max_tokens", "many"), ("max_tokens", 10**30),
    ("stream_options", []), ("stream_options", {"include_usage": "yes"}), ("messages", "hello"), ("messages", {}),
    ("tools", "all"), ("stop", 3), ("best_of", [1]),
])
async def test_wrong_types_name_the_field(tenant: Tenant, field: str, value: Any) -> None:
    answer = await tenant.post(CHAT, {**chat("ok-1"), field: value})
    check(answer, 400, "invalid_value")
    assert answer.json["error"]["param"].startswith(field)
    assert tenant.calls == []


@pytest.mark.parametrize("more", [
    {"n": 10**6}, {"n": 17}, {"best_of": 10**6}, {"tools": [{}] * 10_000}, {"stop": ["a"] * 5_000},
    {"messages": [{}] * 30_000},
])
async def test_what_would_be_too_much(tenant: Tenant, more: dict[str, Any]) -> None:
    check(await tenant.post(CHAT, {**chat("ok-1"), **more}), 400)
    assert tenant.calls == []


async def test_unknown_fields_pass_unchanged(tenant: Tenant) -> None:
    body = b'{ "model" : "ok-1", ' + MESSAGES.encode() + b', "x_vendor": {"b": [1.0, 1e3, "\\u00e4"], "a": null} }'
    assert (await send(tenant, body)).status == 200
    assert tenant.calls[0].body == body


# --- sizes and encodings of bodies


async def test_a_body_that_is_too_large(tenant: Tenant) -> None:
    check(await send(tenant, b" " * (300 << 10)), 413, "request_too_large")
    async with await tenant.gateway.connect() as connection:
        await connection.send(head_of(tenant, "content-length: 1073741824"))
        check(Answer(await connection.head(), await connection.body()), 413, "request_too_large")
    async with await tenant.gateway.connect() as connection:
        await connection.send(head_of(tenant, "transfer-encoding: chunked"))
        piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        await connection.send(piece * 5)
        check(Answer(await connection.head(), await connection.body()), 413, "request_too_large")
    await is_well(tenant)


def head_of(tenant: Tenant, *fields: str, target: str = CHAT, method: str = "POST") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "host: lab", f"authorization: Bearer {tenant.key.secret}",
             "content-type: application/json", *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@pytest.mark.parametrize("coding", ["gzip", "zstd", "br", "deflate", "gzip, gzip", "none-such"])
async def test_a_compressed_body(tenant: Tenant, coding: str) -> None:
    check(await send(tenant, b"\x1f\x8b", content_encoding=coding), 415, "unsupported_media_type")


@pytest.mark.parametrize(("kind", "status"), [
    ("application/json; charset=utf-8", 200), ("text/plain", 200), ("application/x-www-form-urlencoded", 200),
    ("multipart/form-data; boundary=x", 415), ("application/json; charset=latin-1", 415),
])
async def test_content_types(tenant: Tenant, kind: str, status: int) -> None:
    """JSON is taken under any name but a form's; the portal is stricter."""
    answer = await send(tenant, json.dumps(chat("ok-1")).encode(), content_type=kind)
    assert answer.status == status, answer.body


@pytest.mark.parametrize(("kind", "body"), [
    ("application/json", b"{}"), ("multipart/form-data", b"x"), ("multipart/form-data; boundary=", b"x"),
    ("multipart/form-data; boundary=x", b"--x"), ("multipart/form-data; boundary=x", b"--x--\r\n"),
    ("multipart/form-data; boundary=x", b'--x\r\ncontent-disposition: form-data; name="file"\r\n\r\na\r\n--x--\r\n'),
    ("multipart/form-data; boundary=" + "x" * 5000, b"x"),
])
async def test_forms_that_are_none(tenant: Tenant, kind: str, body: bytes) -> None:
    answer = await send(tenant, body, path="/v1/audio/transcriptions", content_type=kind)
    check(answer, answer.status)
    assert answer.status in (400, 415)
    assert tenant.calls == []


# --- addresses and methods


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", CHAT, 405), ("PUT", CHAT, 405), ("DELETE", "/v1/models", 405), ("POST", "/v1/models", 405),
    ("GET", "/v1/nothing", 404), ("POST", "/v1/files", 404), ("GET", "/nothing", 404), ("POST", "/v1", 404),
    ("OPTIONS", CHAT, 405), ("PATCH", "/v1/embeddings", 405), ("GET", "/v1/chat/../../admin/keys", 404),
    ("GET", "/health/nothing", 404),
])
async def test_unknown_addresses_and_methods(tenant: Tenant, method: str, path: str, status: int) -> None:
    check(await tenant.gateway.ask(Request(method, path, tenant.key.secret)), status)
    check(await tenant.gateway.ask(Request(method, path)), status)


@pytest.mark.parametrize("path", [CHAT + "/", "/v1/completions/", "/v1/embeddings/"])
async def test_a_slash_at_the_end_is_forgiven(tenant: Tenant, path: str) -> None:
    body = {**chat("ok-1"), "prompt": "a", "input": "a"}
    assert (await tenant.post(path, body)).status == 200


# --- HTTP itself

BROKEN = [
    b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"hello\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 0x5\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost : a\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n: x\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx: a\x00b\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\n" + b"".join(b"x-%d: a\r\n" % i for i in range(200)) + b"\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nhost: a\r\n\r\n",
]


@pytest.mark.parametrize("sent", BROKEN, ids=[str(number) for number in range(len(BROKEN))])
async def test_what_is_no_http(tenant: Tenant, sent: bytes) -> None:
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


async def test_pipelined_requests_of_two_keys(tenant: Tenant) -> None:
    other = await tenant.gateway.create_key(tenant.user, models=["ok-1"])
    requests = [post(CHAT, chat("ok-3"), secret, x_request_id=f"pipe-{number}") for number, secret in enumerate(
        (tenant.key.secret, other.secret, tenant.key.secret, "wrong", other.secret))]
    async with await tenant.gateway.connect() as connection:
        await connection.send(b"".join(request.encoded("lab") for request in requests))
        answers = [Answer(await connection.head(), await connection.body()) for _ in requests]
    assert [answer.status for answer in answers] == [200, 403, 200, 401, 403]
    assert [answer.header("x-request-id") for answer in answers] == [f"pipe-{number}" for number in range(5)]


# --- headers, both ways


async def test_headers_that_reach_the_upstream(tenant: Tenant) -> None:
    sent = {
        "cookie": "session=secret", "x-api-key": "sk-mine", "api-key": "sk-mine", "x-goog-api-key": "sk-mine",
        "openai-organization": "org-1", "openai-project": "p", "anthropic-version": "1", "x-forwarded-for": "1.2.3.4",
        "forwarded": "for=1.2.3.4", "x-real-ip": "1.2.3.4", "x_forwarded_user": "root", "te": "trailers",
        "proxy-authorization": "Basic a", "x-stainless-lang": "python", "idempotency-key": "k", "x-foo": "bar",
        "connection": "close, x-foo, authorization, x-request-id", "keep-alive": "timeout=1", "accept-encoding": "gzip",
        "x-request-id": "mine-1", "referer": "http://evil", "x-litellm-api-base": "http://evil",
    }
    answer = await tenant.ask("echo-headers", headers=sent)
    assert answer.status == 200
    seen = dict(answer.json["echo"]["headers"])
    assert set(seen) <= {"host", "accept", "accept-encoding", "user-agent", "content-type", "content-length",
                         "x-request-id", "traceparent", "authorization"}
    assert seen["x-request-id"] == answer.header("x-request-id") == "mine-1"
    assert seen["accept-encoding"] == "identity"
    assert tenant.key.secret not in str(answer.json["echo"])


@pytest.mark.parametrize("request_id", ["a b", "", "x" * 129, "\u00e4", "a\tb"])
async def test_a_request_id_that_cannot_be_one(tenant: Tenant, request_id: str) -> None:
    answer = await tenant.ask("ok-1", headers={"x-request-id": request_id})
    ours = answer.header("x-request-id")
    assert ours == answer.header("x-llmgateway-id") == tenant.calls[0].request_id
    assert ours != request_id


async def test_headers_that_reach_the_caller(tenant: Tenant) -> None:
    async def chatty(x: Any) -> None:
        headers = [("set-cookie", "a=b"), ("server", "lab"), ("location", "http://evil"), ("via", "lab"),
                   ("alt-svc", 'h3=":443"'), ("www-authenticate", "Basic"), ("strict-transport-security", "max-age=1"),
                   ("access-control-allow-origin", "*"), ("x-litellm-key", "sk"), ("x-request-id", "theirs"),
                   ("connection", "x-request-id"), ("openai-processing-ms", "5"), ("content-disposition", "inline")]
        await x.json({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}, headers=headers)

    tenant.upstream.script("scripted-0", chatty)
    answer = await tenant.ask("scripted-0")
    assert answer.status == 200
    assert {name for name, _ in answer.head.fields} == {
        "content-type", "content-length", "content-disposition", "openai-processing-ms", "x-request-id",
        "x-llmgateway-id", "date"} & {name for name, _ in answer.head.fields} | {
        "content-type", "content-length", "content-disposition", "openai-processing-ms", "x-request-id",
        "x-llmgateway-id"}
    assert answer.header("x-request-id") != "theirs"


async def test_error_texts_of_the_upstream_cannot_make_headers(tenant: Tenant) -> None:
    async def rude(x: Any) -> None:
        said = {"message": "a\r\nset-cookie: x", "type": "t\r\n", "param": "p\u2028", "code": "c\r\nx: y"}
        await x.json({"error": said}, 400, headers=[("retry-after", "1\u00a01")])

    tenant.upstream.script("scripted-0", rude)
    answer = await tenant.ask("scripted-0")
    check(answer, 400)
    assert answer.header("set-cookie") is None


# --- names of models

NAMES = [
    "../../admin", "..%2f..%2fadmin", "%2e%2e/", "a/../../x", "//evil.example", "http://evil.example", "@evil.example",
    "ok-1?x=", "ok-1#", "ok-1\\b", "ok-1;b", "", ".", "..", "ok-1/", "/ok-1", "x" * 4096, "\uff0e\uff0e/", "ok-1\x00",
    "ok 1", " ok-1", "ok-1 ", "\u202eok-1", "OK-1", "ok-1\r\nhost: evil", "ok-1%00", "\u00f8k-1",
]


@pytest.mark.parametrize("name", NAMES, ids=[str(number) for number in range(len(NAMES))])
async def test_a_models_name_is_looked_up_and_nothing_else(tenant: Tenant, name: str) -> None:
    probes = len(tenant.upstream.probes)
    for path, body in ((CHAT, chat(name)), ("/v1/embeddings", {"model": name, "input": "a"}),
                       ("/extras/tokenize/count", {"model": name, "input": "a"})):
        answer = await tenant.post(path, body)
        check(answer, 404, "model_not_found")
        assert answer.json["error"]["param"] == "model"
    form = f'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\n{name}\r\n--x--\r\n'.encode()
    answer = await send(tenant, form, path="/v1/audio/transcriptions", content_type="multipart/form-data; boundary=x")
    assert answer.status in (400, 404)
    assert tenant.calls == []
    assert len(tenant.upstream.probes) == probes


@pytest.mark.parametrize("path", [
    "/v1/models/../../admin", "/v1/models/%2e%2e%2f%2e%2e%2fadmin", "/v1/models/http:%2f%2fevil", "/v1/models//evil",
    "/v1/models/a%00", "/v1/models/%ff", "/v1/models/a%0d%0ax", "/v1/models/" + "x" * 4096,
])
async def test_a_models_name_in_the_path(tenant: Tenant, path: str) -> None:
    check(await tenant.gateway.get(path, tenant.key.secret), 404)
    assert tenant.calls == []


@pytest.mark.parametrize("field", [
    "api_base", "base_url", "api_key", "custom_llm_provider", "extra_headers", "mock_response", "metadata", "deployment",
    "x-portkey-custom-host", "fallbacks", "model_list",
])
async def test_no_field_changes_the_route(tenant: Tenant, field: str) -> None:
    trap = f"http://127.0.0.1:{tenant.upstream.port}/ok-3/v1"
    value = {"authorization": "Bearer x", "url": trap} if field in ("extra_headers", "metadata") else trap
    answer = await tenant.post(CHAT, {**chat("ok-1"), field: value})
    if answer.status != 200:
        check(answer, 400)
    assert [call.model for call in tenant.calls] == ["ok-1"] * (answer.status == 200)
    assert all(call.header("authorization") is None for call in tenant.calls)


# --- before anybody is known


@pytest.mark.parametrize("body", [b"", b"{", b" " * 1000])
async def test_without_a_key_nothing_is_read(tenant: Tenant, body: bytes) -> None:
    check(await tenant.gateway.ask(Request("POST", CHAT, body=body)), 401, "invalid_api_key")
    check(await tenant.gateway.ask(Request("GET", "/v1/models")), 401, "invalid_api_key")


async def test_a_slow_head_and_a_slow_body_harm_nobody(tenant: Tenant) -> None:
    connections: list[Connection] = []
    for part in (b"POST /v1/chat", head_of(tenant, "content-length: 10") + b"{"):
        for _ in range(20):
            connection = await tenant.gateway.connect()
            await connection.send(part)
            connections.append(connection)
    await is_well(tenant)
    for connection in connections:
        connection.reset()
    await is_well(tenant)
