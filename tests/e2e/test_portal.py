"""The portal on both ways to run: sessions are known to every worker, and gone from every worker at once."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.e2e.command import run
from tests.e2e.deployment import Deployment
from tests.lab.client import Request, chat
from tests.lab.gateway import ADMIN_KEY
from tests.lab.waiting import eventually_answers

pytestmark = pytest.mark.e2e

NAMES = itertools.count(1)
SAME = {"sec-fetch-site": "same-origin", "connection": "close"}  # each request may reach another worker
MANY = 12
PASSWORD = "correct horse canary"


@pytest.fixture
async def client(deployment: Deployment) -> AsyncIterator[httpx.AsyncClient]:
    """Signed in as somebody new."""
    async with httpx.AsyncClient(base_url=deployment.gateway.url, headers=SAME) as client:
        fields = {"login": f"person-{next(NAMES)}-{deployment.kind}", "password": PASSWORD}
        answer = await client.post("/portal/sign-up", data=fields)
        assert answer.status_code == 303, answer.text
        yield client


async def statuses(client: httpx.AsyncClient, path: str = "/portal") -> set[int]:
    return {answer.status_code for answer in await asyncio.gather(*(client.get(path) for _ in range(MANY)))}


async def test_s_ses_06_every_worker_knows_a_session(client: httpx.AsyncClient) -> None:
    assert await statuses(client) == {200}
    assert await statuses(client, "/portal/account") == {200}


async def test_s_ses_03_a_session_that_is_ended_is_gone_everywhere(client: httpx.AsyncClient) -> None:
    copied = dict(client.cookies)
    token = (await client.get("/portal")).text.partition('name="csrf-token" content="')[2].partition('"')[0]
    assert (await client.post("/portal/sign-out", data={"token": token})).status_code == 303
    client.cookies.update(copied)
    assert await statuses(client) == {303}


async def test_s_ses_03_who_is_suspended_is_out_everywhere(
    client: httpx.AsyncClient, deployment: Deployment
) -> None:
    export = (await client.get("/portal/account/export.json")).json()
    path = f"/users/{export['user']['id']}"
    assert (await deployment.gateway.admin("PATCH", path, {"state": "suspended"})).status == 200
    assert await statuses(client) == {303}


async def test_the_live_page_shows_calls_of_every_worker(
    client: httpx.AsyncClient, deployment: Deployment
) -> None:
    user = (await client.get("/portal/account/export.json")).json()["user"]["id"]
    await deployment.gateway.admin("PATCH", f"/users/{user}", {"roles": ["user", "operator"]})
    key = await deployment.gateway.create_key(user, "live")
    async with AsyncExitStack() as stack:
        for _ in range(6):  # on both workers, most likely
            program = await stack.enter_async_context(await deployment.gateway.connect())
            asked = chat("hold-after-1", stream=True)
            await program.send(Request("POST", "/v1/chat/completions", key.secret, json=asked))
            await program.events(1)

        async def all_are_there() -> bool:
            return (await client.get("/portal/operators/live")).text.count('<th scope="row"><a') == 6

        await eventually_answers(all_are_there, "every worker tells of its calls", 15)


async def test_the_operators_api_takes_the_session_of_an_administrator_only(
    client: httpx.AsyncClient, deployment: Deployment
) -> None:
    user = (await client.get("/portal/account/export.json")).json()["user"]
    if "admin" in user["roles"]:
        await deployment.gateway.admin("PATCH", f"/users/{user['id']}", {"roles": ["user"]})
    assert await statuses(client, "/admin/users") == {401}
    await deployment.gateway.admin("PATCH", f"/users/{user['id']}", {"roles": ["user", "admin"]})
    assert await statuses(client, "/admin/users") == {200}
    assert (await client.get("/admin/config")).text.count(ADMIN_KEY) == 0


async def test_a_refusal_is_shown_to_its_people(client: httpx.AsyncClient, deployment: Deployment) -> None:
    user = (await client.get("/portal/account/export.json")).json()["user"]["id"]
    key = await deployment.gateway.create_key(user, "refused", limits={"requests_per_minute": 0})
    asked = Request("POST", "/v1/chat/completions", key.secret, json=chat("ok-1"))
    assert (await deployment.gateway.ask(asked)).status == 429
    unknown = Request("POST", "/v1/chat/completions", key.secret, json=chat("no-such-model"))
    assert (await deployment.gateway.ask(unknown)).status == 404

    async def both_are_there() -> bool:
        page = (await client.get("/portal")).text
        return "See Models for the names" in page and "Wait until the limit" in page

    await eventually_answers(both_are_there, "the overview shows what was refused", 15)


async def test_a_password_that_a_command_makes_signs_in_at_every_worker(
    deployment: Deployment, client: httpx.AsyncClient
) -> None:
    """Beside the running gateway; whoever was signed in is out."""
    me = (await client.get("/portal/account/export.json")).json()["user"]["id"]
    ran = await asyncio.to_thread(run, deployment.gateway, "users", "password", me, "--json")
    assert ran.returncode == 0, ran.stderr
    made = json.loads(ran.stdout)
    assert (made["id"], made["is_new"], made["sessions_ended"]) == (me, False, 1)
    assert await statuses(client) == {303}
    for password, status in ((PASSWORD, 401), (made["password"], 303)):
        fields = {"login": me, "password": password}
        assert (await client.post("/portal/sign-in", data=fields)).status_code == status
    assert await statuses(client) == {200}
