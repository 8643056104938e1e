"""The event loop that the gateway runs on, and a client on a scripted upstream."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.lab.upstream import ScriptedUpstream
from tests.upstream.calling import Calls, calling


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def calls(upstream: ScriptedUpstream) -> AsyncIterator[Calls]:
    async with calling(upstream) as found:
        yield found
