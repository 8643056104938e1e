"""A worker's share: all shares together let through what the limit does, and begin with what was seen."""

import pytest

from llmgateway.domain.admission import Used
from llmgateway.domain.limits import Claim, Scope
from llmgateway.stores.limits.grants import Shares, Spending
from llmgateway.stores.limits.share import Seen, Share
from llmgateway.stores.limits.windows import Answer, Reading
from tests.doubles import SetClock
from tests.stores.limits.limiter_contract import TOMORROW, SetLedger, claim, limited


def seen(scope: Scope, read: Reading) -> Seen:
    stood = Seen()
    stood.note([(claim("0", scope), Answer(is_taken=True, readings=[read]))])
    return stood


def shares(count: int, clock: SetClock, ledger: SetLedger, stood: Seen | None = None,
           known: Shares | None = None) -> list[Share]:  # fmt: skip
    known, stood = known or Shares(60_000), stood or Seen()
    return [Share(ledger.load, clock, 60, workers=count, shares=known, seen=stood) for _ in range(count)]


async def taken(share: Share, asked: Claim) -> bool:
    return (await share.admit(asked)).is_taken


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 30])
async def test_all_shares_together_are_the_limit(workers: int) -> None:
    """Never more, unless each must let one through."""
    fleet = shares(workers, SetClock(), SetLedger())
    alice = limited(requests_per_minute=20, tokens_per_day=50)
    passed = [await taken(share, claim(f"{n}", alice, tokens=1)) for share in fleet for n in range(21)]
    assert sum(passed) == workers * max(1, 20 // workers)


async def test_it_begins_with_what_of_it_is_used() -> None:
    clock, ledger, known = SetClock(), SetLedger(), Shares(60_000)
    read = Reading(10, 100, 500, 600, 70, 4, 60_000, 60_000)
    now = int(clock.monotonic() * 1000)
    ledger.used = {"alice": Used(400, 900, 70)}
    known.heard(("user", "alice"), Spending(3, 5, 50, now))
    alice = limited(requests_per_minute=12, tokens_per_day=600, cost_per_month=80)
    (share, _) = shares(2, clock, ledger, seen(alice, read), known)
    assert await taken(share, claim("1", alice, tokens=50, cost=5))
    answer = await share.admit(claim("2", alice, tokens=1))
    assert not answer.is_taken
    assert (answer.readings[0].requests, answer.readings[0].day_tokens) == (12, 600)
    clock.pass_seconds(60)
    share.settle("1", 10, 1)
    assert await taken(share, claim("2", alice, tokens=40))


async def test_of_another_day_the_ledger_knows() -> None:
    clock, ledger = SetClock(), SetLedger()
    ledger.used = {"alice": Used(80, 80, 0)}
    read = Reading(0, 0, 100, 100, 0, 0, 0, 0)
    alice = limited(tokens_per_day=100)
    (share, _) = shares(2, clock, ledger, seen(alice, read))
    assert not await taken(share, claim("1", alice, tokens=1))
    assert await taken(share, claim("2", alice, tokens=10, period=TOMORROW))
    assert not await taken(share, claim("3", alice, tokens=1, period=TOMORROW))


async def test_its_open_calls_have_their_places() -> None:
    (share, _) = shares(2, SetClock(), SetLedger())
    model = limited("model", "m", concurrent_requests=4)
    share.adopt([claim("a", model), claim("b", model)])
    answer = await share.admit(claim("c", model))
    assert not answer.is_taken
    assert answer.readings[0].places == 4
    share.settle("a", 0, 0)
    assert await taken(share, claim("c", model))


async def test_what_is_larger_than_a_share_takes_all_of_it() -> None:
    (share, *_) = shares(4, SetClock(), SetLedger())
    alice = limited(tokens_per_minute=1000, cost_per_month=100)
    assert not await taken(share, claim("0", alice, tokens=1001))
    assert await taken(share, claim("1", alice, tokens=900, cost=90))
    assert not await taken(share, claim("2", alice, tokens=1))
    share.settle("1", 100, 0)
    assert await taken(share, claim("2", alice, tokens=150))


async def test_a_look_takes_nothing_and_a_limit_of_nothing_stays_one() -> None:
    (share, _) = shares(2, SetClock(), SetLedger())
    look = claim("", limited(requests_per_minute=1, concurrent_requests=0))
    for _ in range(2):
        (read,) = (await share.admit(look)).readings
        assert (read.requests, read.places) == (0, 0)
    assert not await taken(share, claim("1", limited(concurrent_requests=0)))
