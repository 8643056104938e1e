"""Whatever stands in a body: never a 500, always OpenAI's shape, a stable code and a request id."""

import json
from typing import Any

import pytest

from tests.e2e.deployment import CHAT, Tenant
from tests.e2e.refusals import check, head_of, is_well, send
from tests.lab.client import Answer, Connection, Request, chat

pytestmark = pytest.mark.e2e

MESSAGES = '"messages":[{"role":"user","content":"a"}]'


# --- bodies that are no JSON object, or not one only


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"1",
        b"{",
        b'{"model":"ok-1",}',
        b'{"model":"ok-1"} {"model":"ok-1"}',
        b'{"model":"ok-1"/* a */}',
        b'\xef\xbb\xbf{"model":"ok-1"}',
        b"\x00",
        b"\x1f\x8b\x08",
        b"%PDF-1.4",
    ],
)
async def test_s_in_01_what_is_no_json_object(tenant: Tenant, body: bytes) -> None:
    check(await send(tenant, body), 400)
    assert tenant.calls == []


@pytest.mark.parametrize("depth", [100, 1_000, 60_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["arrays", "objects"])
async def test_s_in_02_nesting(tenant: Tenant, depth: int, opening: str, closing: str) -> None:
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


@pytest.mark.parametrize(
    "twice",
    [
        '"model":"ok-1","model":"ok-3"',
        '"model":"ok-1","stream":false,"stream":true',
        '"model":"ok-1","max_tokens":1,"max_tokens":9',
        '"model":"ok-1","n":1,"n":2',
        '"model":"ok-1","metadata":{"a":{"b":1,"b":2}}',
        '"model":"ok-1","m\\u006fdel":"ok-3"',
    ],
)
async def test_s_in_03_a_name_that_stands_twice(tenant: Tenant, twice: str) -> None:
    check(await send(tenant, f"{{{twice},{MESSAGES}}}".encode()), 400)
    assert tenant.calls == []


@pytest.mark.parametrize(
    "number", ["1e400", "-0", "-0.0", "0.1000000000000000055", "1" + "0" * 400, "1E5", "5e-324"]
)
async def test_s_in_04_numbers_pass_exactly_or_not_at_all(tenant: Tenant, number: str) -> None:
    body = f'{{"model":"ok-1",{MESSAGES},"seed":{number}}}'.encode()
    answer = await send(tenant, body)
    if answer.status == 200:
        assert tenant.calls[0].body == body
    else:
        check(answer, 400)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "01", "+1", ".5", "0x1"])
async def test_s_in_04_what_is_no_number(tenant: Tenant, number: str) -> None:
    check(await send(tenant, f'{{"model":"ok-1",{MESSAGES},"seed":{number}}}'.encode()), 400)
    assert tenant.calls == []


@pytest.mark.parametrize(
    "text",
    [b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\\ud800", b"\\u0000", b"a\x00b"],
)
@pytest.mark.parametrize("place", ["model", "content", "name"])
async def test_s_in_05_text_that_is_none(tenant: Tenant, text: bytes, place: str) -> None:
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


async def test_s_in_05_another_encoding(tenant: Tenant) -> None:
    check(await send(tenant, json.dumps(chat("ok-1")).encode("utf-16")), 400)
    wrong = await send(
        tenant, json.dumps(chat("ok-1")).encode(), content_type="application/json; charset=utf-16"
    )
    check(wrong, 415, "unsupported_media_type")
    assert tenant.calls == []


# --- fields


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 1),
        ("model", None),
        ("model", ["ok-1"]),
        ("stream", "yes"),
        ("stream", 1),
        ("n", "5"),
        ("n", 1.5),
        ("n", True),
        ("n", -1),
        ("max_tokens", -1),
        ("max_tokens", "many"),
        ("max_tokens", 10**30),
        ("stream_options", []),
        ("stream_options", {"include_usage": "yes"}),
        ("messages", "hello"),
        ("messages", {}),
        ("tools", "all"),
        ("stop", 3),
        ("best_of", [1]),
    ],
)
async def test_s_in_06_wrong_types_name_the_field(tenant: Tenant, field: str, value: Any) -> None:
    answer = await tenant.post(CHAT, {**chat("ok-1"), field: value})
    check(answer, 400, "invalid_value")
    assert answer.json["error"]["param"].startswith(field)
    assert tenant.calls == []


@pytest.mark.parametrize(
    "more",
    [
        {"n": 10**6},
        {"n": 17},
        {"best_of": 10**6},
        {"tools": [{}] * 10_000},
        {"stop": ["a"] * 5_000},
        {"messages": [{}] * 30_000},
    ],
)
async def test_s_in_07_what_would_be_too_much(tenant: Tenant, more: dict[str, Any]) -> None:
    check(await tenant.post(CHAT, {**chat("ok-1"), **more}), 400)
    assert tenant.calls == []


async def test_s_in_06_unknown_fields_pass_unchanged(tenant: Tenant) -> None:
    body = (
        b'{ "model" : "ok-1", '
        + MESSAGES.encode()
        + b', "x_vendor": {"b": [1.0, 1e3, "\\u00e4"], "a": null} }'
    )
    assert (await send(tenant, body)).status == 200
    assert tenant.calls[0].body == body


# --- sizes and encodings of bodies


async def test_r_load_13_s_in_08_a_body_that_is_too_large(tenant: Tenant) -> None:
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


@pytest.mark.parametrize("coding", ["gzip", "zstd", "br", "deflate", "gzip, gzip", "none-such"])
async def test_s_in_09_a_compressed_body(tenant: Tenant, coding: str) -> None:
    check(await send(tenant, b"\x1f\x8b", content_encoding=coding), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json; charset=utf-8", 200),
        ("text/plain", 200),
        ("application/x-www-form-urlencoded", 200),
        ("multipart/form-data; boundary=x", 415),
        ("application/json; charset=latin-1", 415),
    ],
)
async def test_s_in_10_content_types(tenant: Tenant, kind: str, status: int) -> None:
    """JSON is taken under any name but a form's; the portal is stricter."""
    answer = await send(tenant, json.dumps(chat("ok-1")).encode(), content_type=kind)
    assert answer.status == status, answer.body


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=x", b"--x"),
        ("multipart/form-data; boundary=x", b"--x--\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\ncontent-disposition: form-data; name="file"\r\n\r\na\r\n--x--\r\n',
        ),
        ("multipart/form-data; boundary=" + "x" * 5000, b"x"),
    ],
)
async def test_s_in_10_forms_that_are_none(tenant: Tenant, kind: str, body: bytes) -> None:
    answer = await send(tenant, body, path="/v1/audio/transcriptions", content_type=kind)
    check(answer, answer.status)
    assert answer.status in (400, 415)
    assert tenant.calls == []


# --- before anybody is known


@pytest.mark.parametrize("body", [b"", b"{", b" " * 1000])
async def test_s_in_14_without_a_key_nothing_is_read(tenant: Tenant, body: bytes) -> None:
    check(await tenant.gateway.ask(Request("POST", CHAT, body=body)), 401, "invalid_api_key")
    check(await tenant.gateway.ask(Request("GET", "/v1/models")), 401, "invalid_api_key")


async def test_r_load_12_a_slow_head_and_a_slow_body_harm_nobody(tenant: Tenant) -> None:
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
