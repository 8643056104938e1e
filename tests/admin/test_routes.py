"""The operators' API, driven as operators drive it."""

import csv
import io
import random
from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest

from llmgateway.admin.routes import ROUTES
from llmgateway.domain.errors import NotAuthenticated
from tests.control.desk import Desk
from tests.stores.samples import NOON, moments, record

MODEL = {"id": "org/new", "targets": [{"url": "http://10.0.0.9:8000/v1", "credential": "upstream-secret"}]}
INVENTORY = {
    ("POST", "/admin/keys"),
    ("GET", "/admin/keys"),
    ("GET", "/admin/keys/{id}"),
    ("PATCH", "/admin/keys/{id}"),
    ("DELETE", "/admin/keys/{id}"),
    ("POST", "/admin/keys/{id}/rotate"),
    ("POST", "/admin/users"),
    ("GET", "/admin/users"),
    ("GET", "/admin/users/{id:path}"),
    ("PATCH", "/admin/users/{id:path}"),
    ("POST", "/admin/users/{id:path}/forget"),
    ("POST", "/admin/models"),
    ("GET", "/admin/models"),
    ("GET", "/admin/models/{id:path}"),
    ("PATCH", "/admin/models/{id:path}"),
    ("DELETE", "/admin/models/{id:path}"),
    ("POST", "/admin/projects"),
    ("GET", "/admin/projects"),
    ("GET", "/admin/projects/{id:path}"),
    ("PATCH", "/admin/projects/{id:path}"),
    ("DELETE", "/admin/projects/{id:path}"),
    ("POST", "/admin/projects/{id:path}/end"),
    ("GET", "/admin/projects/{id:path}/members"),
    ("POST", "/admin/projects/{id:path}/members"),
    ("DELETE", "/admin/projects/{id:path}/members"),
    ("GET", "/admin/projects/{id:path}/keys"),
    ("POST", "/admin/projects/{id:path}/keys"),
    ("POST", "/admin/announcements"),
    ("GET", "/admin/announcements"),
    ("GET", "/admin/announcements/{id}"),
    ("PATCH", "/admin/announcements/{id}"),
    ("DELETE", "/admin/announcements/{id}"),
    ("POST", "/admin/announcements/{id}/end"),
    ("GET", "/admin/limits"),
    ("GET", "/admin/limits/{scope}"),
    ("PUT", "/admin/limits/{scope}"),
    ("DELETE", "/admin/limits/{scope}"),
    ("GET", "/admin/limits/{scope}/{id:path}"),
    ("PUT", "/admin/limits/{scope}/{id:path}"),
    ("DELETE", "/admin/limits/{scope}/{id:path}"),
    ("GET", "/admin/usage"),
    ("GET", "/admin/requests"),
    ("GET", "/admin/audit"),
    ("GET", "/admin/providers"),
    ("GET", "/admin/config"),
    ("GET", "/admin/stream"),
}


def error(answer: httpx.Response) -> tuple[int, str, str | None]:
    told = answer.json()["error"]
    assert set(told) == {"message", "type", "param", "code"}
    return answer.status_code, told["code"], told["param"]


async def new_key(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/admin/keys", json={"user": "alice", "name": "laptop", **fields})
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def test_the_table_holds_what_is_expected() -> None:
    assert {(operation.method, operation.path) for operation in ROUTES} == INVENTORY


async def test_a_keys_life(client: httpx.AsyncClient, desk: Desk) -> None:
    created = await new_key(client, models=["default"], limits={"tokens_per_day": 5}, project="p")
    token = created.pop("key")
    path = f"/admin/keys/{created['id']}"
    assert created["prefix"] == f"lgw_{created['id']}"
    assert token.startswith(created["prefix"] + "_")
    assert token.endswith(created["hint"])
    assert (await client.get(path)).json() == {**created, "last_used_at": None}
    assert (await desk.call(token)).models == frozenset({"qwen3-32b"})

    changed = await client.patch(
        path, json={"name": "new", "models": None, "expires_at": "2027-01-01T00:00:00+02:00"}
    )
    assert changed.status_code == 200
    assert changed.json() == {
        **created,
        "name": "new",
        "models": None,
        "expires_at": "2026-12-31T22:00:00Z",
    }
    assert (await client.patch(path, json={"state": "suspended"})).json()["state"] == "suspended"
    with pytest.raises(NotAuthenticated):
        await desk.call(token)
    await client.patch(path, json={"state": "active"})

    rotated = (await client.post(f"{path}/rotate")).json()
    assert rotated["previous_until"] == "2026-11-21T12:00:00Z"
    for secret in (token, rotated["key"]):
        await desk.call(secret)
    desk.clock.move(timedelta(days=1))
    with pytest.raises(NotAuthenticated):
        await desk.call(token)
    at_once = (await client.post(f"{path}/rotate", json={"overlap_seconds": 0})).json()
    assert at_once["previous_until"] is None
    with pytest.raises(NotAuthenticated):
        await desk.call(rotated["key"])

    revoked = await client.delete(path)
    assert (revoked.status_code, revoked.json()["state"]) == (200, "revoked")
    with pytest.raises(NotAuthenticated):
        await desk.call(at_once["key"])
    assert error(await client.patch(path, json={"state": "active"}))[:2] == (409, "conflict")
    assert error(await client.post(f"{path}/rotate"))[0] == 409
    assert (await client.delete(path)).status_code == 200


async def test_s_key_15_the_key_is_shown_once(client: httpx.AsyncClient) -> None:
    created = await new_key(client)
    secret = created["key"].split("_")[2]
    seen = [
        await client.get(path) for path in ("/admin/keys", f"/admin/keys/{created['id']}", "/admin/audit")
    ]
    assert all(secret not in answer.text and "digest" not in answer.text for answer in seen)


@pytest.mark.parametrize(
    "field", ["id", "digest", "hint", "created_at", "state", "revision", "previous", "roles", "key"]
)
async def test_s_key_09_no_key_with_fields_not_ours_to_give(client: httpx.AsyncClient, field: str) -> None:
    answer = await client.post("/admin/keys", json={"user": "alice", "name": "k", field: "x"})
    assert error(answer) == (400, "invalid_value", field)
    assert (await client.get("/admin/keys")).json() == {"data": [], "next": None}


@pytest.mark.parametrize(
    "field", ["id", "user", "digest", "hint", "project", "created_at", "revision", "previous_until"]
)
async def test_no_field_of_a_key_is_changed_that_may_not_be(client: httpx.AsyncClient, field: str) -> None:
    created = await new_key(client)
    answer = await client.patch(f"/admin/keys/{created['id']}", json={"name": "new", field: None})
    assert error(answer) == (400, "invalid_value", field)
    assert (await client.get(f"/admin/keys/{created['id']}")).json()["name"] == "laptop"


@pytest.mark.parametrize("field", ["id", "created_at", "revision", "password"])
async def test_s_key_09_no_field_of_a_user_that_may_not_be(client: httpx.AsyncClient, field: str) -> None:
    await client.post("/admin/users", json={"id": "alice"})
    answer = await client.patch("/admin/users/alice", json={field: "x"})
    assert error(answer) == (400, "invalid_value", field)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"name": "k"}, (400, "invalid_value", "user")),
        ({"user": "a", "name": 5}, (400, "invalid_value", "name")),
        ({"user": "a", "name": "k", "models": ["x"]}, (400, "model_not_found", "models")),
        ({"user": "a", "name": "k", "models": "x"}, (400, "invalid_value", "models")),
        ({"user": "a", "name": "k", "models": [1]}, (400, "invalid_value", "models[0]")),
        ({"user": "a", "name": "k", "limits": {"tokens": 1}}, (400, "invalid_value", "limits.tokens")),
        ({"user": "a", "name": "k", "limits": {"tokens_per_day": -1}}, (400, "invalid_value", "limits")),
        (
            {"user": "a", "name": "k", "limits": {"tokens_per_day": "1"}},
            (400, "invalid_value", "limits.tokens_per_day"),
        ),
        ({"user": "a", "name": "k", "expires_at": "tomorrow"}, (400, "invalid_value", "expires_at")),
        (
            {"user": "a", "name": "k", "expires_at": "2020-01-01T00:00:00Z"},
            (400, "invalid_value", "expires_at"),
        ),
    ],
)
async def test_what_a_key_cannot_be(
    client: httpx.AsyncClient, body: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    assert error(await client.post("/admin/keys", json=body)) == expected


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "invalid_json"),
        (b'"x"', 400, "invalid_json"),
        (b"\xff", 400, "invalid_json"),
        (b'{"name": NaN}', 400, "invalid_json"),
        (b'{"name": "a", "name": "b"}', 400, "invalid_json"),
        (b'{"name": "\\ud800"}', 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b'{"user": "a", "name": "' + b"x" * 2**20 + b'"}', 413, "request_too_large"),
        (b"", 400, "invalid_value"),
    ],
)
async def test_bodies_that_are_none(client: httpx.AsyncClient, body: bytes, status: int, code: str) -> None:
    assert error(await client.post("/admin/keys", content=body))[:2] == (status, code)


@pytest.mark.parametrize(
    "header", [{"content-encoding": "gzip"}, {"content-type": "multipart/form-data; boundary=x"}]
)
async def test_bodies_of_the_wrong_kind(client: httpx.AsyncClient, header: dict[str, str]) -> None:
    assert error(await client.post("/admin/keys", content=b"{}", headers=header))[0] == 415


async def test_lists_are_paged(client: httpx.AsyncClient) -> None:
    made = {(await new_key(client, user=user))["id"] for user in ("alice", "bob", "alice", "alice", "alice")}
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = (await client.get("/admin/keys", params={"limit": "2", **after})).json()
        assert len(page["data"]) <= 2
        seen += [key["id"] for key in page["data"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == sorted(made)
    of_bob = (await client.get("/admin/keys?user=bob&state=active")).json()["data"]
    assert [key["user"] for key in of_bob] == ["bob"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("state=gone", "state"),
        ("usr=alice", "usr"),
    ],
)
async def test_queries_that_are_refused(client: httpx.AsyncClient, query: str, param: str) -> None:
    answer = await client.get(f"/admin/keys?{query}")
    assert error(answer) == (400, "invalid_value", param)
    assert "did you mean 'user'" in answer.text or param != "usr"


async def test_users(client: httpx.AsyncClient) -> None:
    body = {"id": "https://idp!alice/1", "name": "Alice", "email": "a@example.org", "roles": ["admin"]}
    created = await client.post("/admin/users", json=body)
    assert created.status_code == 201
    path = "/admin/users/https%3A%2F%2Fidp!alice%2F1"
    assert (await client.get(path)).json() == created.json()
    assert created.json() == {
        **body,
        "project": None,
        "limits": {},
        "state": "active",
        "models": None,
        "provider": None,
        "signed_in_at": None,
        "by_hand": [],
        "lapsed": None,
        "created_at": "2026-11-20T12:00:00Z",
    }
    assert error(await client.post("/admin/users", json=body)) == (409, "conflict", "id")
    assert (await client.patch(path, json={"limits": {"requests_per_minute": 1}})).json()["limits"] == {
        "requests_per_minute": 1
    }
    assert error(await client.patch(path, json={"roles": ["root"]})) == (400, "invalid_value", "roles[0]")
    assert (await client.patch(path, json={"state": "suspended"})).json()["state"] == "suspended"
    answer = await client.post("/admin/keys", json={"user": body["id"], "name": "k"})
    assert error(answer) == (409, "conflict", "user")
    assert [user["id"] for user in (await client.get("/admin/users?state=suspended")).json()["data"]] == [
        body["id"]
    ]
    assert (await client.get("/admin/users?lapsed=denied")).json()["data"] == []
    assert error(await client.get("/admin/users?lapsed=gone")) == (400, "invalid_value", "lapsed")
    assert error(await client.get("/admin/users/nobody")) == (404, "not_found", None)


async def test_models(client: httpx.AsyncClient) -> None:
    created = await client.post("/admin/models", json=MODEL)
    assert (created.status_code, created.json()["source"]) == (201, "admin")
    assert created.json()["targets"][0]["credential"] == "***"
    listed = (await client.get("/admin/models")).json()
    assert [(one["id"], one["source"]) for one in listed["data"]] == [
        ("org/embed", "settings"),
        ("org/new", "admin"),
        ("qwen3-32b", "settings"),
    ]
    await new_key(client, models=["org/new"])  # known at once
    assert (await client.patch("/admin/models/org/new", json={"context": 5})).json()["context"] == 5
    assert error(await client.patch("/admin/models/org/new", json={"contxt": 5})) == (
        400,
        "invalid_value",
        "contxt",
    )
    assert error(await client.patch("/admin/models/qwen3-32b", json={"context": 5}))[0] == 409
    assert error(await client.delete("/admin/models/qwen3-32b"))[0] == 409
    assert (await client.delete("/admin/models/org/new")).json() == {"id": "org/new", "deleted": True}
    assert error(await client.get("/admin/models/org/new"))[0] == 404


async def test_usage_as_csv_is_usage_as_json(client: httpx.AsyncClient, desk: Desk) -> None:
    chance = random.Random(5)
    made = [record(chance, at) for at in moments(chance, 400, NOON, NOON + timedelta(days=3))]
    await desk.store.append(made)
    query = "by=user,day&by=model&tz=Europe/Helsinki&from=2026-03-28T12:00:00%2B00:00"
    rows = (await client.get(f"/admin/usage?{query}")).json()["data"]
    table = await client.get(f"/admin/usage?{query}&format=csv")
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    flat = [
        {
            **{name: row[name] for name in ("user", "day", "model")},
            **{
                name: str(count)
                for name, count in (
                    {"requests": row["requests"]} | row["tokens"] | {"cost": row["cost"]}
                ).items()
            },
        }
        for row in rows
    ]
    assert list(csv.DictReader(io.StringIO(table.text))) == flat
    assert sum(row["requests"] for row in rows) == 400
    assert sum(row["cost"] for row in rows) == sum(one.cost for one in made)
    assert error(await client.get("/admin/usage?by=colour")) == (400, "invalid_value", "by")
    assert error(await client.get("/admin/usage?format=xml")) == (400, "invalid_value", "format")


async def test_requests_are_the_records(client: httpx.AsyncClient, desk: Desk) -> None:
    chance = random.Random(6)
    made = [record(chance, at) for at in moments(chance, 25, NOON, NOON + timedelta(hours=3))]
    await desk.store.append(made)
    seen: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = (await client.get("/admin/requests", params={"limit": "10", **after})).json()
        seen += page["data"]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    by_id = {one.id: one for one in made}
    assert [one["id"] for one in seen] == sorted(by_id, reverse=True)
    plain = msgspec.to_builtins(by_id[seen[0]["id"]])
    assert seen[0]["tokens"] == plain["tokens"]
    assert seen[0]["cost"] == plain["cost"]
    assert seen[0]["at"].endswith("Z")


async def test_the_last_use_of_a_key(client: httpx.AsyncClient, desk: Desk) -> None:
    created = await new_key(client)
    at = desk.clock.now() + timedelta(minutes=1)
    await desk.store.append([record(random.Random(1), at, key_id=created["id"])])
    assert (await client.get(f"/admin/keys/{created['id']}")).json()["last_used_at"] == "2026-11-20T12:01:00Z"


async def test_audit_lines(client: httpx.AsyncClient, desk: Desk) -> None:
    created = await new_key(client)
    await client.delete(f"/admin/keys/{created['id']}", headers={"x-request-id": "mine-1"})
    page = (await client.get("/admin/audit?limit=2")).json()
    assert [line["action"] for line in page["data"]] == ["keys.revoke", "keys.create"]
    assert (page["data"][0]["request_id"], page["data"][0]["who"]) == ("mine-1", "operator")
    assert page["data"][0]["source"].startswith("admin ")
    rest = (await client.get("/admin/audit", params={"after": page["next"]})).json()
    assert [line["action"] for line in rest["data"]] == ["users.create"]
    of_key = (await client.get(f"/admin/audit?target={created['id']}&action=keys.create")).json()["data"]
    assert [line["action"] for line in of_key] == ["keys.create"]
    assert (await desk.control.audit.verify()).bad is None


async def test_providers_and_config(client: httpx.AsyncClient) -> None:
    (replica,) = (await client.get("/admin/providers")).json()["data"]
    assert replica == {
        "address": "http://10.0.0.7:8000/v1",
        "replica": "10.0.0.7:8000",
        "providers": ["openai"],
        "models": ["org/embed", "qwen3-32b"],
        "in_flight": 0,
        "state": "up",
        "ejected_until": None,
    }
    assert (await client.get("/admin/providers?limit=1")).json() == {"data": [replica], "next": None}
    assert (await client.get(f"/admin/providers?after={replica['address']}")).json()["data"] == []
    assert (await client.get("/admin/config")).json() == {"settings": {"ADMIN_KEY": "***"}}


async def test_every_answer_is_nobodys_to_keep(client: httpx.AsyncClient) -> None:
    for answer in (
        await client.get("/admin/keys"),
        await client.get("/admin/nothing"),
        await client.get("/admin/keys/x"),
    ):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-request-id"]
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_methods_and_addresses_that_are_not_there(client: httpx.AsyncClient) -> None:
    refused = await client.put("/admin/keys", json={})
    assert error(refused)[:2] == (405, "method_not_allowed")
    assert refused.headers["allow"] == "GET, POST"
    assert error(await client.get("/admin/nothing"))[0] == 404
    assert (await client.get("/admin/keys/")).status_code == 200
    assert (await client.head("/admin/keys")).status_code == 200


async def test_limits_are_put_shown_and_taken_away(client: httpx.AsyncClient) -> None:
    put = await client.put("/admin/limits/user/idp/alice", json={"requests_per_minute": 100})
    assert put.status_code == 200
    assert put.json() == {
        "scope": "user", "id": "idp/alice", "limits": {"requests_per_minute": 100},
        "effective": {"requests_per_minute": 100}, "source": "admin",
        "standings": [{"name": "requests_per_minute", "limit": 100, "used": 10, "left": 90,
                       "reset_seconds": 30.0, "resets_at": "2026-11-20T12:00:30Z"}],
    }  # fmt: skip
    assert (await client.get("/admin/limits/user/idp/alice")).json() == put.json()
    await client.put("/admin/limits/default", json={"tokens_per_day": 5})
    listed = (await client.get("/admin/limits")).json()
    names = [(one["scope"], one["id"]) for one in listed["data"]]
    assert names == [("default", "default"), ("user", "idp/alice")]
    gone = (await client.delete("/admin/limits/user/idp/alice")).json()
    assert (gone["limits"], gone["effective"]) == ({}, {"tokens_per_day": 5})
    assert (await client.delete("/admin/limits/default/default")).json()["source"] is None


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("team/x", {}, 400), ("user/a", {"tokens": 1}, 400), ("user/a", {"tokens_per_day": "1"}, 400),
     ("user/a", {"tokens_per_day": -1}, 400), ("key/nobody", {}, 404), ("default/x", {}, 404)],
)  # fmt: skip
async def test_limits_that_cannot_be(client: httpx.AsyncClient, path: str, body: object, status: int) -> None:
    assert (await client.put(f"/admin/limits/{path}", json=body)).status_code == status


async def test_an_account_is_ended(client: httpx.AsyncClient, desk: Desk) -> None:
    for user in ("alice", "faculty/ann"):
        token = (await new_key(client, user=user))["key"]
        answer = await client.post(f"/admin/users/{user}/forget")
        assert (answer.status_code, answer.json()) == (200, {"id": user, "forgotten": True})
        assert (await client.get(f"/admin/users/{user}")).status_code == 404
        with pytest.raises(NotAuthenticated):
            await desk.call(token)
        assert (await client.post(f"/admin/users/{user}/forget")).status_code == 404
    gone = (await client.get("/admin/users?state=gone")).json()["data"]
    assert [(one["name"], one["email"], one["id"][:5]) for one in gone] == [(None, None, "gone:")] * 2
    refused = await client.patch(f"/admin/users/{gone[0]['id']}", json={"state": "active"})
    assert refused.status_code == 409
    assert (await client.post("/admin/users", json={"id": "a/forget"})).status_code == 400
    await client.post("/admin/users", json={"id": "ann", "roles": ["admin"]})
    last = await client.post("/admin/users/ann/forget")
    assert (last.status_code, last.json()["error"]["code"]) == (409, "last_admin")
