"""The official Node SDK, unmodified: one list of checks, run by Node itself against each deployment."""

import asyncio
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.deployment import Tenant
from tests.e2e.test_openai_python import embed
from tests.lab.breaking import body
from tests.lab.node import NODE
from tests.lab.payloads import CREATED, Said, compact
from tests.lab.processes import clean_environment

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent / "node"
SECONDS = 60.0


def run_checks(directory: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    shutil.copy(HERE / "checks.mjs", directory / "checks.mjs")
    done = subprocess.run(
        [NODE, "checks.mjs"],
        cwd=directory,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_s_in_13_every_check(tenant: Tenant, node_modules: Path) -> None:
    tenant.upstream.script("scripted-2", embed)
    tenant.upstream.script(
        "scripted-4", body(compact(tool_answer()).encode(), content_type="application/json")
    )
    tenant.upstream.script("scripted-5", body(b"".join(tool_stream())))
    narrow = await tenant.gateway.create_key(tenant.user, models=["ok-1"])
    environment = {
        "BASE_URL": tenant.gateway.base_url,
        "API_KEY": tenant.key.secret,
        "NARROW_KEY": narrow.secret,
    }
    found = await asyncio.to_thread(run_checks, node_modules, environment)
    assert [check for check in found if not check["ok"]] == []
    assert len(found) >= 19
    calls = Counter(call.model for call in tenant.calls)
    assert calls["status-429-retry-after-1~node"] == 2
    assert calls["flaky-2x503~node"] == 3
    records = await tenant.records(len(tenant.calls))
    assert {record["client"]["sdk"] for record in records} == {"js"}
    assert {call.request_id for call in tenant.calls} == {record["request_id"] for record in records}
    outcomes = Counter(record["outcome"] for record in records if record["status"] == 200)
    assert outcomes == {"completed": outcomes["completed"], "upstream_error": 1, "client_gone": 1}


def tool_answer() -> dict[str, Any]:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": CREATED,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
    }


def tool_stream() -> Sequence[bytes]:
    function = {"name": "weather", "arguments": '{"city":'}
    deltas: list[tuple[dict[str, Any], str | None]] = [
        (
            {
                "role": "assistant",
                "tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}],
            },
            None,
        ),
        ({"tool_calls": [{"index": 0, "function": {"arguments": '"Oulu"}'}}]}, None),
        ({}, "tool_calls"),
    ]
    chunks = [
        Said(
            {
                "id": "x",
                "object": "chat.completion.chunk",
                "created": CREATED,
                "model": "m",
                "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
            }
        ).encoded()
        for delta, reason in deltas
    ]
    return [*chunks, b"data: [DONE]\n\n"]
