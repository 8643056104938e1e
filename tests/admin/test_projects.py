"""Projects over the operators' API: their life, members, budget and keys."""

from datetime import timedelta

import httpx
import pytest

from llmgateway.domain.errors import NotAuthenticated
from tests.admin.test_routes import error, new_key
from tests.control.desk import Desk

LAB = "/admin/projects/lab"


@pytest.fixture
async def lab(client: httpx.AsyncClient) -> httpx.AsyncClient:
    await client.post("/admin/users", json={"id": "alice"})
    await client.post("/admin/projects", json={"id": "lab"})
    return client


async def test_a_projects_life(client: httpx.AsyncClient, desk: Desk) -> None:
    await client.post("/admin/users", json={"id": "alice"})
    asked = {
        "id": "lab", "name": "The lab", "responsible": "alice", "expires_at": "2027-01-01T00:00:00+02:00",
        "limits": {"cost_per_month": 5},
    }  # fmt: skip
    made = await client.post("/admin/projects", json=asked)
    assert made.status_code == 201
    given = {"created_at": "2026-11-20T12:00:00Z", "expires_at": "2026-12-31T22:00:00Z", "state": "active"}
    assert made.json() == asked | given
    assert (await client.get(LAB)).json() == made.json()
    assert error(await client.post("/admin/projects", json={"id": "lab"})) == (409, "conflict", "id")
    changes = {"name": "Lab", "responsible": None, "expires_at": None, "limits": None}
    changed = await client.patch(LAB, json=changes)
    assert changed.json() == {**made.json(), **changes, "limits": {}}
    ended = (await client.post(f"{LAB}/end")).json()
    assert (ended["state"], ended["expires_at"]) == ("ended", "2026-11-20T12:00:00Z")
    desk.clock.move(timedelta(hours=1))
    assert (await client.post(f"{LAB}/end")).json() == ended
    assert (await client.delete(LAB)).json() == {"id": "lab", "deleted": True}
    for call in (client.get(LAB), client.delete(LAB), client.patch(LAB, json={}), client.post(f"{LAB}/end"),
                 client.get(f"{LAB}/members"), client.get(f"{LAB}/keys")):  # fmt: skip
        assert error(await call)[:2] == (404, "not_found")
    actions = [
        line["action"] for line in (await client.get("/admin/audit?target=lab&result=ok")).json()["data"]
    ]
    assert actions == ["projects.delete", "projects.change", "projects.change", "projects.create"]
    assert (await client.get("/admin/audit?target=project/lab&result=ok")).json()["data"][1][
        "action"
    ] == "limits.change"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({}, "id"),
        ({"id": "a/members"}, "id"),
        ({"id": "a" * 101}, "id"),
        ({"id": "a", "responsible": "nobody"}, "responsible"),
        ({"id": "a", "members": []}, "members"),
        ({"id": "a", "expires_at": "soon"}, "expires_at"),
        ({"id": "a", "expires_at": "9999-12-31T23:59:59-12:00"}, "expires_at"),
        ({"id": "a", "limits": {"tokens_per_day": -1}}, "limits"),
        ({"id": "a", "limits": {"tokens_per_day": 2**60}}, "limits.tokens_per_day"),
    ],
)
async def test_what_is_no_project_makes_none(
    client: httpx.AsyncClient, asked: dict[str, object], param: str
) -> None:
    assert error(await client.post("/admin/projects", json=asked)) == (400, "invalid_value", param)
    assert (await client.get("/admin/projects")).json() == {"data": [], "next": None}


async def test_they_are_listed_a_page_at_a_time(lab: httpx.AsyncClient) -> None:
    await lab.post("/admin/projects", json={"id": "org/a b", "limits": {"tokens_per_day": 9}})
    first = (await lab.get("/admin/projects?limit=1")).json()
    assert ([one["id"] for one in first["data"]], first["next"]) == (["lab"], "lab")
    second = (await lab.get("/admin/projects?limit=1&after=lab")).json()
    assert [(one["id"], one["limits"]) for one in second["data"]] == [("org/a b", {"tokens_per_day": 9})]
    assert second["next"] is None
    assert (await lab.get("/admin/projects/org/a%20b")).json()["name"] == "org/a b"
    assert (await lab.get("/admin/limits/project/org/a%20b")).json()["source"] == "admin"


async def test_members_come_and_go(lab: httpx.AsyncClient) -> None:
    added = await lab.post(f"{LAB}/members", json={"user": "alice"})
    assert (added.status_code, added.json()["project"]) == (200, "lab")
    await lab.post(f"{LAB}/keys", json={"name": "ci"})
    assert [user["id"] for user in (await lab.get(f"{LAB}/members")).json()["data"]] == ["alice"]
    assert error(await lab.delete(LAB))[:2] == (409, "conflict")
    assert (await lab.delete(f"{LAB}/members?user=alice")).json()["project"] is None
    assert (await lab.get(f"{LAB}/members")).json() == {"data": [], "next": None}
    assert error(await lab.delete(f"{LAB}/members?user=alice"))[0] == 404
    assert error(await lab.post(f"{LAB}/members", json={"user": "nobody"}))[0] == 404
    assert error(await lab.post(f"{LAB}/members", json={})) == (400, "invalid_value", "user")
    assert error(await lab.delete(f"{LAB}/members")) == (400, "invalid_value", "user")


async def test_its_keys_are_its_own_and_its_members_and_end_with_it(
    lab: httpx.AsyncClient, desk: Desk
) -> None:
    own = await lab.post(f"{LAB}/keys", json={"name": "ci", "limits": {"tokens_per_day": 9}})
    assert (own.status_code, own.json()["user"]) == (201, "service:lab")
    of_alice = await new_key(lab, project="lab")
    await new_key(lab)
    ids = sorted((own.json()["id"], of_alice["id"]))
    first = (await lab.get(f"{LAB}/keys?limit=1")).json()
    rest = (await lab.get(f"{LAB}/keys?after={first['next']}")).json()
    assert [key["id"] for key in first["data"] + rest["data"]] == ids
    await lab.delete(f"/admin/keys/{of_alice['id']}")
    active = (await lab.get(f"{LAB}/keys?state=active")).json()["data"]
    assert [key["id"] for key in active] == [own.json()["id"]]
    assert (await desk.call(own.json()["key"])).user == "service:lab"
    await lab.post(f"{LAB}/end")
    with pytest.raises(NotAuthenticated):
        await desk.call(own.json()["key"])
    assert error(await lab.post(f"{LAB}/keys", json={"name": "late"}))[:2] == (409, "conflict")
