"""The tasks beside the calls."""

from collections.abc import AsyncIterator

import pytest

from llmgateway.jobs.background import Background


@pytest.fixture
async def background() -> AsyncIterator[Background]:
    async with Background() as tasks:
        yield tasks
