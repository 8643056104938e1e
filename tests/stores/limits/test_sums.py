"""Questions to the ledger: one for all who wait, a pause while it is away, and errors that are not ours."""

import asyncio
from datetime import UTC, datetime

import pytest

from llmgateway.domain.admission import Used
from llmgateway.stores.limits.sums import PAUSE, LedgerSums
from llmgateway.stores.limits.windows import Begin, Unknown
from tests.doubles import SetClock
from tests.stores.limits.limiter_contract import TODAY, SetLedger, claim, limited

ALICE = limited(tokens_per_day=10)
ASKED = claim("1", ALICE, limited("project", "physics", cost_per_month=5))
BOTH = [Unknown(0, 0, 0), Unknown(1, 0, 0)]


async def test_what_the_ledger_says_of_each_scope() -> None:
    ledger = SetLedger()
    ledger.used = {"alice": Used(1, 2, 3), "physics": Used(4, 5, 6)}
    sums = LedgerSums(ledger.load, SetClock())
    assert await sums.begins(ASKED, BOTH) == [Begin(0, 0, 0, 1, 2, 3), Begin(1, 0, 0, 4, 5, 6)]
    assert sums.away(ASKED) == ()


async def test_only_what_was_accepted_before_the_count_began_is_asked_for() -> None:
    ledger, sums = SetLedger(), LedgerSums
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
    since = int(noon.timestamp() * 1000)
    await sums(ledger.load, SetClock()).begins(ASKED, [Unknown(0, since, 0), Unknown(1, 1, since)])
    (_, first), (_, second) = ledger.asked
    assert (first.day_end, first.month_end) == (noon, TODAY.month_end)
    assert (second.day_end, second.month_end) == (TODAY.day_start, noon)


async def test_a_ledger_that_is_away_is_left_alone_for_a_while() -> None:
    ledger, clock = SetLedger(), SetClock()
    ledger.is_down = True
    sums = LedgerSums(ledger.load, clock)
    away = [Begin(0, is_away=True), Begin(1, is_away=True)]
    for _ in range(3):
        assert await sums.begins(ASKED, BOTH) == away
        assert sums.away(ASKED) == away
    assert len(ledger.asked) == 1
    clock.pass_seconds(PAUSE)
    assert sums.away(ASKED) == ()
    ledger.is_down = False
    assert await sums.begins(ASKED, BOTH[:1]) == [Begin(0)]


async def test_a_failure_that_is_not_the_ledgers_absence_is_each_callers_own() -> None:
    calls = 0

    async def broken(_scope: object, _period: object) -> Used:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        raise ValueError("a fault in the query")

    sums = LedgerSums(broken, SetClock())
    results = await asyncio.gather(*(sums.begins(ASKED, BOTH) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in results] == [ValueError] * 3
    assert calls == 3
    with pytest.raises(ValueError, match="query"):
        await sums.begins(ASKED, BOTH)
