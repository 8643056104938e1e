"""Fixtures for every test: the event loop's kind, real servers, the scripted upstream, and fresh names."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from tests.lab.servers import Mongod, Valkey
from tests.lab.upstream import ScriptedUpstream

NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Says what was measured: it stands in the table at the end of `make soak`."""
    return lambda text: request.node.user_properties.append(("figure", text))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One table of what was measured."""
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.stats.get(kind, [])]
    calls = [one for one in reports if one.when == "call" and one.user_properties]
    if calls:
        terminalreporter.section("figures")
    for one in calls:
        name, said = one.nodeid.partition("::")[2], dict(one.user_properties)["figure"]
        terminalreporter.line(f"{one.outcome:6} {one.duration:5.0f} s  {name}: {said}")


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """One server for the whole run: thaw what you freeze, and stop or flush only an `own_valkey`."""
    with Valkey() as server:
        yield server


@pytest.fixture(scope="session")
def mongod() -> Iterator[Mongod]:
    """One server for the whole run: thaw what you freeze, and stop only an `own_mongod`."""
    with Mongod() as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


@pytest.fixture
def own_mongod() -> Iterator[Mongod]:
    with Mongod() as server:
        yield server


@pytest.fixture
def fresh_name() -> str:
    """A name that no other test of this run has."""
    return f"lab_{next(NUMBERS)}"


@pytest.fixture
def key_prefix(fresh_name: str) -> str:
    return f"{fresh_name}:"


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """A numbered database of its own; publish and subscribe know no databases."""
    return valkey.url(next(NUMBERS))


@pytest.fixture
def mongo_url(mongod: Mongod, fresh_name: str) -> Iterator[str]:
    """A database of its own, gone afterwards."""
    yield mongod.url(fresh_name)
    with MongoClient[dict[str, Any]](mongod.url()) as client:
        client.drop_database(fresh_name)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server
