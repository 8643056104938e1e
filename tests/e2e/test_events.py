"""`GET /admin/stream` over sockets: one who follows one worker hears of all of them, and holds up no stop."""

import json
import time
from typing import Any

import pytest

from tests.e2e.deployment import CHAT, Tenant
from tests.lab.client import Connection, Request, chat, post, streaming
from tests.lab.gateway import ADMIN_KEY, QUICK_STOP, Gateway

pytestmark = pytest.mark.e2e

FOLLOW = Request("GET", "/admin/stream", ADMIN_KEY)
CALLS = 6  # on connections of their own: in a fleet both workers get some


def read(event: bytes) -> tuple[str, str, Any]:
    """Kind, id, data."""
    fields = dict(line.partition(": ")[::2] for line in event.decode().splitlines())
    return fields.get("event", ""), fields.get("id", ""), json.loads(fields.get("data", "null"))


async def until(connection: Connection, kind: str, count: int, **where: Any) -> list[tuple[str, Any]]:
    """Ids and data of the next so many events of this kind whose data say that; others go by."""
    found: list[tuple[str, Any]] = []
    while len(found) < count:
        name, id, data = read(await connection.event())
        if name == kind and all(data.get(field) == value for field, value in where.items()):
            found.append((id, data))
    return found


async def test_calls_and_changes_of_all_workers_are_told(tenant: Tenant) -> None:
    gateway, key = tenant.gateway, tenant.key
    async with streaming(gateway.url, FOLLOW) as follower:
        head = await follower.head()
        assert head.status == 200
        assert head.header("content-type") == "text/event-stream; charset=utf-8"
        await until(follower, "open", 1)
        for _ in range(CALLS):
            assert (await gateway.ask(post(CHAT, chat("ok-3"), key.secret))).status == 200
        calls = await until(follower, "call", CALLS, key_id=key.id)
        records = await gateway.ledger(CALLS, key=key.id)
        assert sorted(data["id"] for _, data in calls) == [record["id"] for record in records]
        assert {one["id"]: one for one in records} == {data["id"]: data for _, data in calls}
        issued = await gateway.create_key(key.document["user"], "told of")
        ((last, _),) = await until(follower, "audit", 1, action="keys.create", target=issued.id)
    assert (await gateway.ask(post(CHAT, chat("ok-3"), key.secret))).status == 200
    await gateway.ledger(CALLS + 1, key=key.id)
    back = Request("GET", "/admin/stream", ADMIN_KEY, headers={"last-event-id": last})
    async with streaming(gateway.url, back) as follower:
        await follower.head()
        ((_, missed),) = await until(follower, "call", 1, key_id=key.id)
    assert missed["id"] not in {data["id"] for _, data in calls}


async def test_what_is_open_is_shown_and_never_what_it_says(tenant: Tenant) -> None:
    gateway, key, model = tenant.gateway, tenant.key, "hold-after-1"
    asked = post(CHAT, chat(model, "a secret plan", stream=True), key.secret)
    async with streaming(gateway.url, asked) as call, streaming(gateway.url, FOLLOW) as follower:
        await call.head()
        await follower.head()
        while True:
            ((_, now),) = await until(follower, "open", 1)
            if mine := [one for one in now["calls"] if one["key"] == key.id]:
                break
        assert mine[0]["model"] == model
        assert "plan" not in json.dumps(now)


async def test_it_ends_with_the_gateway_and_at_once() -> None:
    async with Gateway.embedded(config=QUICK_STOP) as gateway, streaming(gateway.url, FOLLOW) as follower:
        await follower.head()
        await until(follower, "open", 1)
        began = time.monotonic()
        assert await gateway.stop() == 0
        assert time.monotonic() - began < 4
        await follower.body()  # raises where it was cut
