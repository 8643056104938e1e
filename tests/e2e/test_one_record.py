"""A call is one record, whatever names others give it."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.e2e.deployment import CHAT, COMPLETIONS, Tenant
from tests.lab.exchange import Exchange
from tests.lab.payloads import answer
from tests.lab.telling import SSE, Behaviour, Plan, events, finish, streams, tell

pytestmark = pytest.mark.e2e

NAMES: dict[str, Callable[[int], str]] = {
    "constant": lambda number: "chatcmpl-1",
    "empty": lambda number: "",
    "sequential": str,
}
ENDPOINTS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "one two"}]},
    COMPLETIONS: {"prompt": "one two"},
    "/v1/embeddings": {"input": "one two"},
    "/v1/responses": {"input": "one two"},
}


def calling_itself(name: str) -> Behaviour:
    """A model server that gives its answers ids of its own."""

    async def behave(x: Exchange) -> None:
        plan = Plan(3)
        if not streams(x):
            body, tokens = answer(x.question, plan.chunks)
            x.call.completion_tokens += tokens
            return await x.json({**body, "id": name})
        await x.head(content_type=SSE)
        await tell(x, (replace(said, data={**said.data, "id": name}) for said in events(x, plan)))
        await finish(x, plan)
        return None

    return behave


@pytest.mark.parametrize("kind", NAMES)
async def test_r_acc_05_ids_of_the_upstream_name_nothing(tenant: Tenant, kind: str) -> None:
    """The same id from two models, in whole answers and in streams."""
    asked = 0
    for number, model in enumerate(("scripted-6", "scripted-7")):
        tenant.upstream.script(model, calling_itself(NAMES[kind](number)))
        for stream in (False, True):
            answers = await asyncio.gather(*(tenant.ask(model, stream=stream) for _ in range(3)))
            assert {found.status for found in answers} == {200}
            asked += len(answers)
    records = await tenant.records(asked)
    assert {record["tokens"]["completion"] for record in records} == {3}
    assert Counter(record["model"] for record in records) == {"scripted-6": 6, "scripted-7": 6}


@pytest.mark.parametrize("header", ["x-request-id", "idempotency-key"])
async def test_r_acc_06_names_of_the_caller_name_nothing(tenant: Tenant, header: str) -> None:
    """Who says the same name twice, at once, has called twice: nothing is merged, and both are answered."""
    calls = (tenant.ask("ok-3", headers={header: "the-same-1"}) for _ in range(2))
    assert [found.status for found in await asyncio.gather(*calls)] == [200, 200]
    records = await tenant.records(2)
    assert len({record["request_id"] for record in records}) == (1 if header == "x-request-id" else 2)
    assert len(tenant.calls) == 2


async def test_r_acc_17_every_endpoint_writes_one_record(tenant: Tenant) -> None:
    for path, body in ENDPOINTS.items():
        assert (await tenant.post(path, {"model": "ok-3", **body})).status == 200
    records = await tenant.records(len(ENDPOINTS))
    assert [record["endpoint"] for record in records] == list(ENDPOINTS)
