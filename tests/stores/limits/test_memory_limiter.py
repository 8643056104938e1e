"""The conformance suite on the limiter of one process, and what is its own."""

from collections.abc import Sequence

import pytest

from llmgateway.domain.admission import Limiter
from llmgateway.stores.limits.memory_limiter import MemoryLimiter
from tests.doubles import SetClock
from tests.stores.limits.limiter_contract import (
    TODAY,
    LimiterContract,
    Pass,
    SetLedger,
    claim,
    limited,
    spent_by,
    used,
)


class TestMemoryLimiter(LimiterContract):
    @pytest.fixture
    def wait(self, clock: SetClock) -> Pass:
        return clock.pass_seconds

    @pytest.fixture
    def fleet(self, clock: SetClock, ledger: SetLedger) -> Sequence[Limiter]:
        return [MemoryLimiter(ledger.load, clock=clock)] * 4


async def test_a_shorter_minute() -> None:
    clock = SetClock()
    limiter = MemoryLimiter(SetLedger().load, clock=clock, window=2)
    await limiter.reserve(claim("1", limited(requests_per_minute=1)))
    clock.pass_seconds(2)
    await limiter.reserve(claim("2", limited(requests_per_minute=1)))


async def test_a_dead_worker_left_nothing_here() -> None:
    limiter, alice = MemoryLimiter(SetLedger().load, clock=SetClock()), limited(tokens_per_minute=100)
    await limiter.reserve(claim("1", alice, tokens=90))
    await limiter.recover("dead", spent_by({"1": (30, 0)}))
    assert await used(limiter, alice) == {("alice", "tokens_per_minute"): 90}


@pytest.mark.parametrize("fraction", [0, 0.0001, 0.0005, 0.0009])
async def test_no_part_of_a_millisecond_makes_more_seem_shipped_than_is(fraction: float) -> None:
    clock = SetClock()
    limiter, ended = MemoryLimiter(SetLedger().load, clock=clock), clock.monotonic() + 0.0007
    limiter.behind = lambda: clock.monotonic() - ended
    clock.pass_seconds(0.02 + fraction)
    assert (await limiter.sums.look(TODAY)).shipped_to <= ended * 1000
