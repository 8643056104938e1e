"""Two gateways for all tests that can share one: what runs on a laptop, and a fleet on real stores."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from tests.e2e.deployment import CONFIG, Deployment, Kind, Tenant, environment_of
from tests.lab.gateway import Gateway
from tests.lab.node import installed
from tests.lab.processes import ROOT
from tests.lab.servers import Mongod, Valkey
from tests.lab.upstream import ScriptedUpstream

USERS = itertools.count(1)


def gateway_of(
    kind: Kind, request: pytest.FixtureRequest, environment: dict[str, str], config: str
) -> Gateway:
    """A gateway of this kind; the stores are started only when a fleet is asked for."""
    if kind == "embedded":
        return Gateway.embedded(environment, config=config)
    valkey: Valkey = request.getfixturevalue("valkey")
    mongod: Mongod = request.getfixturevalue("mongod")
    return Gateway.fleet(environment, redis_url=valkey.url(0), mongo_url=mongod.url("e2e"), config=config)


@pytest.fixture(scope="session", params=["embedded", "fleet"])
async def deployment(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Deployment]:
    async with (
        ScriptedUpstream() as upstream,
        gateway_of(request.param, request, environment_of(upstream), CONFIG) as gateway,
    ):
        yield Deployment(request.param, gateway, upstream)


@pytest.fixture
async def tenant(deployment: Deployment) -> Tenant:
    key = await deployment.gateway.create_key(f"user-{next(USERS)}")
    return Tenant(deployment, key)


@pytest.fixture
async def client(tenant: Tenant) -> AsyncIterator[AsyncOpenAI]:
    """The SDK with the test's own key; it tries nothing twice."""
    key, base_url = tenant.key.secret, tenant.gateway.base_url
    async with AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as made:
        yield made


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The directory in which a script can import `openai`."""
    return installed(ROOT / "tests/e2e/node")
