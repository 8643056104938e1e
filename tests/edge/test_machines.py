from collections.abc import Mapping
from typing import Any, Literal

import httpx
import pytest
from starlette.applications import Starlette

from llmgateway.domain.secret import Secret
from llmgateway.edge.machines import Condition, Exposition, Machines
from llmgateway.edge.middleware import HANDLERS

KEY = "operators-credential-0123456789abcdef"


async def ask(
    path: str,
    *,
    unready: str | None = None,
    degraded: tuple[str, ...] = (),
    metrics_for: Literal["open", "admin", "off"] = "open",
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    machines = Machines(
        condition=lambda: Condition(version="1.2", config_version=3, unready=unready, degraded=degraded),
        metrics=lambda accept: Exposition(accept.encode() or b"page", "text/plain; version=0.0.4"),
        metrics_for=metrics_for,
        admin_key=Secret(KEY),
    )
    app = Starlette(routes=machines.routes(), exception_handlers=HANDLERS)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        return await client.get(path, headers=headers)


@pytest.mark.parametrize("unready", [None, "draining"])
async def test_it_is_alive_whatever_happens(unready: str | None) -> None:
    assert (await ask("/health/live", unready=unready, degraded=("mongodb", "redis"))).status_code == 200


@pytest.mark.parametrize(
    ("how", "status", "word"),
    [
        ({}, 200, "ready"),
        ({"degraded": ("redis",)}, 200, "ready"),
        ({"unready": "draining"}, 503, "draining"),
        ({"unready": "starting"}, 503, "starting"),
    ],
)
async def test_it_is_ready_unless_it_says_why_not(how: Any, status: int, word: str) -> None:
    answer = await ask("/health/ready", **how)
    assert (answer.status_code, answer.json()["status"]) == (status, word)


async def test_s_prx_20_health_tells_both_with_versions_and_no_more() -> None:
    answer = await ask("/health", degraded=("redis",))
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "degraded",
        "live": True,
        "ready": True,
        "degraded": ["redis"],
        "version": "1.2",
        "config_version": 3,
    }
    assert (await ask("/health", unready="draining")).status_code == 503


@pytest.mark.parametrize(
    ("metrics_for", "headers", "status"),
    [
        ("open", {}, 200),
        ("admin", {}, 401),
        ("admin", {"authorization": f"Bearer {KEY}x"}, 401),
        ("admin", {"authorization": f"Bearer {KEY}"}, 200),
        ("admin", {"adminkey": KEY}, 200),
        ("off", {"adminkey": KEY}, 404),
    ],
)
async def test_s_prx_20_who_may_read_the_metrics(
    metrics_for: Any, headers: dict[str, str], status: int
) -> None:
    assert (await ask("/metrics", metrics_for=metrics_for, headers=headers)).status_code == status


async def test_the_page_follows_what_is_accepted() -> None:
    wanted = "application/openmetrics-text"
    assert (await ask("/metrics", headers={"accept": wanted})).text == wanted
