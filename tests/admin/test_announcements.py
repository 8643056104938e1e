"""Announcements over the operators' API."""

from datetime import timedelta

import httpx
import pytest

from tests.admin.test_routes import error
from tests.control.desk import Desk

ALL = "/admin/announcements"


async def test_an_announcements_life(client: httpx.AsyncClient, desk: Desk) -> None:
    asked = {"text": "Maintenance", "level": "warning", "starts_at": "2026-11-20T14:00:00Z", "ends_at": None}
    made = await client.post(ALL, json=asked)
    assert made.status_code == 201
    id = made.json()["id"]
    assert made.json() == {**asked, "id": id, "created_at": "2026-11-20T12:00:00Z", "state": "planned"}
    path = f"{ALL}/{id}"
    assert (await client.get(path)).json() == made.json()
    assert error(await client.post(f"{path}/end"))[:2] == (409, "conflict")
    desk.clock.move(timedelta(hours=3))
    assert (await client.patch(path, json={"level": "critical"})).json()["state"] == "shown"
    assert error(await client.patch(path, json={"ends_at": "2026-11-20T13:00:00Z"}))[2] == "ends_at"
    ended = (await client.post(f"{path}/end")).json()
    assert (ended["state"], ended["ends_at"]) == ("over", "2026-11-20T15:00:00Z")
    desk.clock.move(timedelta(hours=1))
    assert (await client.post(f"{path}/end")).json() == ended
    assert (await client.delete(path)).json() == {"id": id, "deleted": True}
    for call in (client.get(path), client.delete(path), client.post(f"{path}/end")):
        assert error(await call)[:2] == (404, "not_found")
    actions = [
        line["action"] for line in (await client.get(f"/admin/audit?target={id}&result=ok")).json()["data"]
    ]
    assert actions == [f"announcements.{what}" for what in ("delete", "change", "change", "create")]


async def test_they_are_listed_newest_first_a_page_at_a_time(client: httpx.AsyncClient, desk: Desk) -> None:
    for text in ("first", "second", "third"):
        await client.post(ALL, json={"text": text})
        desk.clock.move(timedelta(seconds=1))
    page = (await client.get(f"{ALL}?limit=2")).json()
    rest = (await client.get(f"{ALL}?after={page['next']}")).json()
    assert [one["text"] for one in page["data"] + rest["data"]] == ["third", "second", "first"]
    assert rest["next"] is None


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({}, "text"),
        ({"text": " "}, "text"),
        ({"text": "a", "level": "loud"}, "level"),
        ({"text": "a", "ends_at": "2020-01-01T00:00:00Z"}, "ends_at"),
        ({"text": "a", "id": "b"}, "id"),
    ],
)
async def test_what_is_none_makes_none(client: httpx.AsyncClient, asked: dict[str, str], param: str) -> None:
    assert error(await client.post(ALL, json=asked)) == (400, "invalid_value", param)
    assert (await client.get(ALL)).json() == {"data": [], "next": None}
