import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest

from llmgateway.app import Llmgateway, create_app
from llmgateway.app.memory import DATABASE, open_memory
from llmgateway.app.services import JOURNAL, Services, samples_of, troubles
from llmgateway.settings import Settings
from llmgateway.stores.survey import left_behind
from tests.lab.waiting import eventually, eventually_answers
from tests.stores.samples import NOON, record

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


def settle(services: Services, count: int) -> set[str]:
    chance = random.Random(count)
    made = [record(chance, NOON + timedelta(seconds=n), outcome=None) for n in range(count)]
    for one in made:
        services.journal.reserve(one)
        one.outcome = "completed"
        services.journal.settle(one)
    return {one.id for one in made}


async def stored(settings: Settings, ids: set[str]) -> set[str]:
    async with open_memory(settings) as memory:
        return await memory.store.known(sorted(ids))


async def test_r_acc_19_a_graceful_stop_ships_what_waits(settings: Settings) -> None:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        assert app._services is not None
        ids = settle(app._services, 10_000)
    assert await stored(settings, ids) == ids
    assert list((settings.data_dir / JOURNAL).iterdir()) == []


async def test_r_acc_20_a_stop_without_the_store_leaves_it_to_the_next_start(settings: Settings) -> None:
    """Another process holds the database's lock; a second signal ends the wait for it."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        assert app._services is not None
        services = app._services
        other = sqlite3.connect(settings.data_dir / DATABASE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        ids = settle(services, 10_000)
        samples = {one.family: one.values for one in samples_of(services) if not one.labels}
        assert samples["usage_spool_records"] == [10_000]
        assert samples["usage_spool_oldest_seconds"][0] > 60
        assert troubles(services) == ["journal"]
        await services.shipper.ship()

        async def hurry() -> None:
            await eventually(lambda: app._is_drained, "it has drained")
            app.hurry()

        hurried = asyncio.ensure_future(hurry())
    await hurried
    assert left_behind(settings.data_dir / JOURNAL)
    other.close()
    assert await stored(settings, ids) == set()
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        pass
    assert not left_behind(settings.data_dir / JOURNAL)
    assert await stored(settings, ids) == ids


async def test_health_tells_of_jobs_that_cannot_work(running: Running) -> None:
    assert running.app._services is not None
    progress = running.app._services.periodic.timetable.progress
    await eventually(lambda: progress["roll_up"].succeeded_at, "sums are rolled up")
    assert (await running.client.get("/health")).json()["degraded"] == []
    progress["roll_up"].is_failing = True
    health = (await running.client.get("/health")).json()
    assert (health["status"], health["degraded"]) == ("degraded", ["job roll_up"])
    page = (await running.client.get("/metrics")).text
    for name in ("job_last_success_timestamp_seconds", "job_duration_seconds"):
        assert f'llmgateway_{name}{{job="roll_up"}}' in page
    assert "llmgateway_leader 1.0" in page
    assert "llmgateway_usage_spool_oldest_seconds 0.0" in page
