"""The operators' API over a real store, inside the envelope that it lives in."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from llmgateway.admin.gate import Gate
from llmgateway.admin.operations import Desk as OperatorsDesk
from llmgateway.admin.routes import routes
from llmgateway.domain.ids import Ids
from llmgateway.domain.limits import Scope, Standing
from llmgateway.domain.live import OpenCall
from llmgateway.domain.secret import Secret
from llmgateway.edge.middleware import HANDLERS, Envelope
from llmgateway.jobs.background import Background
from llmgateway.jobs.happenings import Happenings
from llmgateway.upstream.health import Replicas
from tests.control.desk import Desk, open_desk

ADMIN_KEY = "operators-credential-0123456789abcdef"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(tmp_path) as opened:
        yield opened


async def standings(scopes: Sequence[Scope]) -> Sequence[Standing]:
    """One of ten is used of every limit, for the next half a minute."""
    return [
        Standing(scope, "requests_per_minute", limit, limit // 10, 30.0)
        for scope in scopes
        if (limit := scope.limits.requests_per_minute) is not None
    ]


async def nobody_calls() -> Sequence[OpenCall]:
    return ()


@pytest.fixture
async def happenings(desk: Desk) -> AsyncIterator[Happenings]:
    made = Happenings(nobody_calls, desk.store, desk.store, desk.clock)
    async with Background() as background:
        background.keep(made.run)
        yield made


@pytest.fixture
def app(desk: Desk, happenings: Happenings) -> Envelope:
    at_hand = OperatorsDesk(
        control=desk.control,
        erasure=desk.erasure,
        clock=desk.clock,
        replicas=Replicas(desk.clock.monotonic).seen,
        config=lambda: {"settings": {"ADMIN_KEY": "***"}},
        standings=standings,
        happenings=happenings,
    )
    inner = Starlette(routes=routes(at_hand, Gate(Secret(ADMIN_KEY))), exception_handlers=HANDLERS)
    return Envelope(inner, lambda: Ids()(desk.clock.now()))


@pytest.fixture
async def client(app: Envelope) -> AsyncIterator[httpx.AsyncClient]:
    """Brings the operators' credential."""
    transport = httpx.ASGITransport(app)
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as opened:
        yield opened
