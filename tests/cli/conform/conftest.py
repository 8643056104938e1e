"""A gateway, and what stands before it and does something wrong, as `llmgateway conform` finds them."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest

from llmgateway.cli import main
from tests.lab.gateway import Gateway
from tests.lab.ingress import Fault, Ingress

# `plain` is the built-in model under a name that is not asked to be slow.
CONFIG = """
drain_pause: 0
keepalive: 0.2
models: [{id: plain, targets: [{provider: echo, model: echo}]}]
"""

Found = Mapping[str, tuple[str, str]]
Suffer = Callable[..., Awaitable[Found]]


def behind_each(faults: Sequence[tuple[str, str, Fault, str]]) -> pytest.MarkDecorator:
    """A check, what it is to find, the ingress's fault, and words that it tells."""
    names = [f"{check} {told}" for check, _, _, told in faults]
    return pytest.mark.parametrize(("check", "result", "fault", "told"), faults, ids=names)


@pytest.fixture(scope="session")
async def conforming(anyio_backend: str) -> AsyncIterator[tuple[Gateway, str]]:
    """With a key that has a limit, so that answers tell of it."""
    async with Gateway.embedded(config=CONFIG) as gateway:
        key = await gateway.create_key("conform", limits={"requests_per_minute": 100_000})
        yield gateway, key.secret


@pytest.fixture
def conform(conforming: tuple[Gateway, str], capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The exit code and what is printed, with whatever is given besides the key."""

    async def conform_(*words: str) -> tuple[int, str]:
        given = ["conform", "--key", conforming[1], "--timeout", "10", *words]
        code = await asyncio.to_thread(main, given)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return conform_


@pytest.fixture
def suffer(conforming: tuple[Gateway, str], conform: Callable[..., Any]) -> Suffer:
    """What each of the checks finds behind an ingress with this fault."""

    async def suffer_(only: str, fault: Fault | None, *words: str, most: int | None = None) -> Found:
        async with Ingress(conforming[0].url, fault, most=most) as ingress:
            named = () if "--model" in words else ("--model", "plain")
            _, said = await conform("--base-url", ingress.base_url, "--only", only, "--json", *named, *words)
        return {row["check"]: (row["result"], row["told"]) for row in json.loads(said)["data"]}

    return suffer_
