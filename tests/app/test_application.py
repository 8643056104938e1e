import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from llmgateway.app import Llmgateway, create_app
from llmgateway.settings import Settings
from tests.lab.waiting import eventually_answers

CHAT = "/v1/chat/completions"
QUESTION = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}


@asynccontextmanager
async def client_of(app: Llmgateway) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


class Running:
    """An application in its lifespan, and a key for it."""

    def __init__(self, app: Llmgateway, client: httpx.AsyncClient, admin_key: str) -> None:
        self.app = app
        self.client = client
        self.operator = {"authorization": f"Bearer {admin_key}"}
        self.caller: dict[str, str] = {}

    async def make_key(self) -> None:
        made = await self.client.post(
            "/admin/keys", json={"user": "alice", "name": "n"}, headers=self.operator
        )
        assert made.status_code == 201, made.text
        self.caller = {"authorization": f"Bearer {made.json()['key']}"}

    async def ask(self, **more: Any) -> httpx.Response:
        return await self.client.post(CHAT, json={**QUESTION, **more}, headers=self.caller)


@pytest.fixture
async def running(settings: Settings) -> AsyncIterator[Running]:
    app = create_app(settings)
    assert settings.admin_key is not None
    async with app.router.lifespan_context(app), client_of(app) as client:
        one = Running(app, client, settings.admin_key.reveal())
        await one.make_key()
        yield one


async def test_the_built_in_model_answers(running: Running) -> None:
    answer = await running.ask()
    assert answer.json()["choices"][0]["message"]["content"] == "one two three"
    assert answer.headers["x-request-id"] == answer.headers["x-llmgateway-id"]
    streamed = await running.ask(stream=True)
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert "prompt_tokens" not in streamed.text


async def test_a_call_is_in_ledger_and_metrics(running: Running) -> None:
    sent = (await running.ask()).headers["x-llmgateway-id"]

    async def stored() -> Any:
        found = await running.client.get("/admin/requests", headers=running.operator)
        return found.json()["data"]

    (record,) = await eventually_answers(stored, "it is in the ledger")
    assert (record["id"], record["outcome"], record["tokens"]["prompt"]) == (sent, "completed", 3)
    page = (await running.client.get("/metrics")).text
    labels = f'model="echo",outcome="completed",route="{CHAT}",status="200"'
    assert f"llmgateway_requests_total{{{labels}}} 1.0" in page


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/v1/models/echo",
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/openapi.json",
        "/docs",
    ],
)
async def test_every_surface_is_there(running: Running, path: str) -> None:
    answer = await running.client.get(path, headers=running.caller)
    assert answer.status_code == 200
    assert answer.headers["x-request-id"]


async def test_operators_and_programs_have_credentials_of_their_own(running: Running) -> None:
    assert (await running.client.get("/admin/keys", headers=running.caller)).status_code == 401
    assert (await running.client.get("/v1/models", headers=running.operator)).status_code == 401


async def test_draining_is_not_ready_and_takes_nothing_new(running: Running) -> None:
    assert (await running.client.get("/health/ready")).status_code == 200
    await running.app.drain()
    ready = await running.client.get("/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
    assert (await running.client.get("/health/live")).status_code == 200
    refused = await running.ask()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")


async def test_a_hurry_ends_the_pause(settings: Settings) -> None:
    app = create_app(settings, drain_pause=60)
    async with app.router.lifespan_context(app), asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        draining = tasks.create_task(app.drain())
        await asyncio.sleep(0)
        assert not draining.done()
        app.hurry()


async def test_it_lives_again_on_what_it_left(settings: Settings) -> None:
    for _ in range(2):
        app = create_app(settings)
        async with app.router.lifespan_context(app), client_of(app) as client:
            assert (await client.get("/health/ready")).status_code == 200
