"""The breaker: fails at once while a server is away, and lets only its probe find out whether it is back."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.stores.alongside import alongside
from llmgateway.stores.breaker import LONGEST_REASON, Breaker, reason_of
from tests.lab.waiting import eventually
from tests.stores.watching import lines_of

LOG = "llmgateway.stores.lab"


class Server:
    """Answers probes or not, and counts them; at most one may be under way."""

    def __init__(self) -> None:
        self.is_there = True
        self.probes = self.at_once = self.most_at_once = 0

    async def probe(self) -> None:
        self.probes += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if not self.is_there:
            raise StoreUnavailable("no") from ConnectionError("refused")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def breaker(server: Server) -> AsyncIterator[Breaker]:
    breaker = Breaker("The lab", logging.getLogger(LOG), first=0.01, longest=0.02)
    async with alongside(lambda: breaker.watch(server.probe)):
        yield breaker


async def test_it_probes_once_at_the_start(breaker: Breaker, server: Server) -> None:
    await eventually(lambda: breaker.is_proved, "the server was probed")
    assert server.probes == 1
    breaker.check()


async def test_absence_at_the_start_is_noticed_unasked(server: Server) -> None:
    server.is_there = False
    breaker = Breaker("The lab", logging.getLogger(LOG), first=0.01, longest=0.02)
    assert not breaker.is_proved, "nobody has asked yet"
    with lines_of(LOG) as lines:
        async with alongside(lambda: breaker.watch(server.probe)):
            await eventually(lambda: server.probes > 5, "the server was probed again and again")
            assert not breaker.is_closed
            server.is_there = True
            await asyncio.wait_for(breaker.closed(), 1)
    assert server.most_at_once == 1
    assert lines[0] == "The lab is not available: ConnectionError: refused"
    assert len(lines) == 2


async def test_a_failure_opens_it_until_a_probe_succeeds(breaker: Breaker, server: Server) -> None:
    await eventually(lambda: server.probes == 1, "the first probe is over")
    server.is_there = False
    began = breaker.check()
    with lines_of(LOG) as lines:
        assert isinstance(breaker.failed(TimeoutError(), began), StoreUnavailable)
        for _ in range(1000):
            with pytest.raises(StoreUnavailable, match="The lab is not available"):
                breaker.check()
            breaker.failed(TimeoutError(), began)
        server.is_there = True
        await asyncio.wait_for(breaker.closed(), 1)
        breaker.check()
    assert lines[0] == "The lab is not available: TimeoutError"
    assert len(lines) == 2


async def test_a_call_that_began_before_a_recovery_opens_nothing(breaker: Breaker, server: Server) -> None:
    await eventually(lambda: server.probes == 1, "the first probe is over")
    began = breaker.check()
    breaker.failed(TimeoutError(), began)
    await asyncio.wait_for(breaker.closed(), 1)
    assert isinstance(breaker.failed(TimeoutError(), began), StoreUnavailable)
    assert breaker.is_closed


def test_a_reason_fits_on_a_line() -> None:
    assert reason_of(TimeoutError()) == "TimeoutError"
    assert reason_of(OSError("no\n  route")) == "OSError: no route"
    assert len(reason_of(OSError("x" * 10_000))) < LONGEST_REASON + 20
