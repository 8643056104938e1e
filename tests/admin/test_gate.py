"""Who is let in, and that nobody else learns anything."""

import re
from ipaddress import ip_network

import httpx
import pytest
from starlette.requests import Request

from llmgateway.admin.gate import Gate
from llmgateway.admin.routes import ROUTES
from llmgateway.domain.errors import NotAuthenticated
from llmgateway.domain.secret import Secret
from llmgateway.portal.address import Addresses
from tests.admin.conftest import ADMIN_KEY
from tests.control.desk import Desk
from tests.portal.asking import request_of

WRONG = [
    [],
    [("authorization", "")],
    [("authorization", "Bearer ")],
    [("authorization", ADMIN_KEY)],
    [("authorization", f"Basic {ADMIN_KEY}")],
    [("authorization", f"Bearer {ADMIN_KEY}x")],
    [("authorization", f"Bearer {ADMIN_KEY[:-1]}")],
    [("authorization", f"Bearer  {ADMIN_KEY}")],
    [("authorization", f"Bearer {ADMIN_KEY}"), ("authorization", f"Bearer {ADMIN_KEY}")],
    [("adminkey", "wrong"), ("authorization", f"Bearer {ADMIN_KEY}")],
    [("adminkey", ADMIN_KEY), ("adminkey", ADMIN_KEY)],
    [("x-api-key", ADMIN_KEY)],
    [("cookie", f"AdminKey={ADMIN_KEY}")],
]
PLACES = sorted({re.sub(r"\{\w+(:\w+)?\}", "x", operation.path) for operation in ROUTES})
NOWHERE = [
    "/admin",
    "/admin/",
    "/admin/nothing",
    "/admin/keys/x/y",
    "/admin/./keys",
    "/admin/limits/default/x",
]


@pytest.mark.parametrize("headers", WRONG)
async def test_every_wrong_credential_gets_the_same_answer(
    client: httpx.AsyncClient, headers: list[tuple[str, str]]
) -> None:
    client.headers.pop("authorization")
    answer = await client.get("/admin/keys", headers=headers)
    plain = await client.get("/admin/keys")
    assert answer.status_code == 401
    assert answer.content == plain.content
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", [*PLACES, *NOWHERE])
async def test_without_a_credential_every_address_looks_alike(client: httpx.AsyncClient, path: str) -> None:
    client.headers.pop("authorization")
    answers = [
        await client.request(method, path, content=b"{not json", params={"unknown": "1"})
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert (await client.head(path)).status_code == 401


async def test_s_prx_07_the_audit_log_names_the_address_behind_trusted_proxies() -> None:
    source = Addresses([ip_network("10.0.0.0/8")]).of
    gate = Gate(Secret(ADMIN_KEY), source=source)

    async def seen(peer: str) -> str:
        fields = [("authorization", f"Bearer {ADMIN_KEY}"), ("x-forwarded-for", "203.0.113.1")]
        return (await gate(request_of(*fields, address=peer))).source

    assert await seen("10.0.0.1") == "admin 203.0.113.1"
    assert await seen("198.51.100.7") == "admin 198.51.100.7"


async def test_s_key_11_a_programs_key_is_no_operators(client: httpx.AsyncClient, desk: Desk) -> None:
    key = (await client.post("/admin/keys", json={"user": "alice", "name": "k"})).json()["key"]
    answer = await client.get("/admin/keys", headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"AdminKey": ADMIN_KEY},
        {"Authorization": f"bearer {ADMIN_KEY}"},
        {"authorization": "Basic x", "adminkey": ADMIN_KEY},
    ],
)
async def test_either_header_opens(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    client.headers.pop("authorization")
    assert (await client.get("/admin/keys", headers=headers)).status_code == 200


def asking(headers: dict[str, str]) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request(
        {"type": "http", "headers": raw, "client": ("10.0.0.1", 5), "state": {"request_id": "req-1"}}
    )


async def test_a_session_opens_where_there_is_no_credential() -> None:
    async def session(request: Request) -> str | None:
        return request.cookies.get("user")

    gate = Gate(Secret(ADMIN_KEY), session)
    actor = await gate(asking({"cookie": "user=ann"}))
    assert (actor.who, actor.source, actor.request_id) == ("user ann", "admin 10.0.0.1", "req-1")
    assert (await gate(asking({"adminkey": ADMIN_KEY}))).who == "operator"
    for headers in ({}, {"cookie": "user=ann", "adminkey": "wrong"}):
        with pytest.raises(NotAuthenticated):
            await gate(asking(headers))
