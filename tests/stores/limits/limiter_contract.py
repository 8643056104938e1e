"""What every limiter does, as tests: subclasses give the limiters and move their time."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import pytest

from llmgateway.domain.admission import Limiter, Spent, Used
from llmgateway.domain.errors import BudgetSpent, OverLimit, StoreUnavailable, TooManyTokens
from llmgateway.domain.limits import Claim, Limits, Scope, ScopeKind, Standing
from llmgateway.domain.periods import Calendar, Period
from llmgateway.stores.limits.sums import PAUSE
from tests.doubles import SetClock

CALENDAR = Calendar("Europe/Helsinki")
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TODAY = CALENDAR.period_of(NOON)
TOMORROW = CALENDAR.period_of(datetime(2026, 11, 21, 12, tzinfo=UTC))
NEXT_MONTH = CALENDAR.period_of(datetime(2026, 12, 1, 12, tzinfo=UTC))

Pass = Callable[[float], None]


class SetLedger:
    """Answers with `used` when it is let."""

    def __init__(self) -> None:
        self.used: dict[str, Used] = {}
        self.asked: list[tuple[str, Period]] = []
        self.is_down = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, scope: Scope, period: Period) -> Used:
        self.asked.append((scope.id, period))
        await self.gate.wait()
        if self.is_down:
            raise StoreUnavailable("The ledger is away.")
        return self.used.get(scope.id, Used())


def limited(kind: ScopeKind = "user", id: str = "alice", /, **limits: int) -> Scope:
    return Scope(kind, id, Limits(**limits))


def claim(id: str, *scopes: Scope, tokens: int = 0, cost: int = 0, period: Period = TODAY) -> Claim:
    return Claim(id, scopes, tokens, cost, period)


async def admits(limiter: Limiter, asked: Claim) -> bool:
    try:
        await limiter.reserve(asked)
    except OverLimit:
        return False
    return True


def spent_by(calls: Mapping[str, tuple[int, int]]) -> Spent:
    """These calls have used so much, and all others nothing."""

    async def spent(ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        return {id: calls.get(id, (0, 0)) for id in ids}

    return spent


async def refused(limiter: Limiter, asked: Claim) -> OverLimit:
    with pytest.raises(OverLimit) as caught:
        await limiter.reserve(asked)
    return caught.value


def used_of(standings: Sequence[Standing]) -> dict[tuple[str, str], int]:
    return {(one.scope.id, one.name): one.used for one in standings}


async def used(limiter: Limiter, *scopes: Scope, period: Period = TODAY) -> dict[tuple[str, str], int]:
    return used_of(await limiter.standings(scopes, period))


class LimiterContract:
    """`fleet` are limiters of workers that share everything, `limiter` is the first of them; `wait` lets
    seconds pass."""

    @pytest.fixture
    def clock(self) -> SetClock:
        return SetClock(NOON)

    @pytest.fixture
    def ledger(self) -> SetLedger:
        return SetLedger()

    @pytest.fixture
    def limiter(self, fleet: Sequence[Limiter]) -> Limiter:
        return fleet[0]

    async def test_what_is_taken_is_taken_of_every_scope(self, limiter: Limiter) -> None:
        alice = limited(requests_per_minute=5, tokens_per_day=1000, concurrent_requests=2)
        model = limited("model", "org/m:1", tokens_per_minute=500, cost_per_month=90, tokens_per_month=700)
        told = await limiter.reserve(claim("1", alice, model, tokens=100, cost=7))
        standings = await limiter.standings((alice, model), TODAY)
        assert [standing for standing in standings if standing.name.endswith("per_minute")] == told
        assert used_of(standings) == {
            ("alice", "requests_per_minute"): 1, ("alice", "tokens_per_day"): 100,
            ("alice", "concurrent_requests"): 1, ("org/m:1", "tokens_per_minute"): 100,
            ("org/m:1", "cost_per_month"): 7, ("org/m:1", "tokens_per_month"): 100,
        }  # fmt: skip
        resets = {one.name: one.reset for one in standings}
        assert resets == {
            "requests_per_minute": 60, "tokens_per_minute": 60, "concurrent_requests": 0,
            "tokens_per_day": 10 * 3600, "tokens_per_month": resets["cost_per_month"],
            "cost_per_month": (TODAY.month_end - NOON).total_seconds(),
        }  # fmt: skip
        limiter.settle("1", 60, 5)
        after = await used(limiter, alice, model)
        assert after == {
            ("alice", "requests_per_minute"): 1, ("alice", "tokens_per_day"): 60,
            ("alice", "concurrent_requests"): 0, ("org/m:1", "tokens_per_minute"): 60,
            ("org/m:1", "cost_per_month"): 5, ("org/m:1", "tokens_per_month"): 60,
        }  # fmt: skip

    async def test_a_refused_claim_takes_nothing_of_any_scope(self, limiter: Limiter) -> None:
        wide = limited("project", "physics", requests_per_minute=9, tokens_per_day=900, concurrent_requests=9)
        narrow = limited(tokens_per_minute=50)
        assert not await admits(limiter, claim("1", wide, narrow, tokens=51))
        assert set((await used(limiter, wide, narrow)).values()) == {0}
        limiter.settle("1", 40, 0)
        assert set((await used(limiter, wide, narrow)).values()) == {0}

    async def test_a_claim_without_scopes(self, limiter: Limiter) -> None:
        assert list(await limiter.reserve(claim("1"))) == []
        limiter.settle("1", 5, 5)
        assert list(await limiter.standings((), TODAY)) == []

    async def test_requests_pass_again_when_they_were_told(self, limiter: Limiter, wait: Pass) -> None:
        alice = limited(requests_per_minute=3)
        for n in range(3):
            assert await admits(limiter, claim(f"a{n}", alice))
            wait(10)
        error = await refused(limiter, claim("b", alice))
        assert (error.retry_after, error.code, error.type) == (30, "rate_limit_exceeded", "requests")
        assert error.should_retry is None
        assert "Your limit requests_per_minute is reached: 3 of 3 used" in error.message
        assert "Try again in 30.0 s." in error.message
        wait(29.9)
        assert not await admits(limiter, claim("b", alice))
        wait(0.1)
        assert await admits(limiter, claim("b", alice))
        assert not await admits(limiter, claim("c", alice))

    async def test_no_doubling_at_the_edge_of_a_minute(self, limiter: Limiter, wait: Pass) -> None:
        alice = limited(requests_per_minute=10)
        wait(59.5)
        for n in range(10):
            assert await admits(limiter, claim(f"a{n}", alice))
        for _ in range(59):
            wait(1)
            assert not await admits(limiter, claim("b", alice))
        wait(1)
        taken = [await admits(limiter, claim(f"c{n}", alice)) for n in range(12)]
        assert taken == [True] * 10 + [False] * 2

    async def test_tokens_of_a_minute(self, limiter: Limiter, wait: Pass) -> None:
        key = limited("key", "k1", tokens_per_minute=1000, requests_per_minute=50)
        await limiter.reserve(claim("1", key, tokens=400))
        wait(20)
        await limiter.reserve(claim("2", key, tokens=500))
        error = await refused(limiter, claim("3", key, tokens=300))
        assert isinstance(error, TooManyTokens)
        assert error.retry_after == 40
        assert [one.name for one in error.standings] == ["tokens_per_minute", "requests_per_minute"]
        assert "This key's limit tokens_per_minute is reached: 900 of 1000 used" in error.message
        assert "up to 300" in error.message
        assert (await refused(limiter, claim("4", key, tokens=501))).retry_after == 60
        limiter.settle("2", 200, 0)
        assert await admits(limiter, claim("5", key, tokens=300))

    async def test_a_request_that_never_fits_is_not_to_be_tried_again(self, limiter: Limiter) -> None:
        project = limited("project", "physics", tokens_per_minute=1000)
        error = await refused(limiter, claim("1", project, tokens=1001))
        assert isinstance(error, TooManyTokens)
        assert error.should_retry is False
        assert error.retry_after is None
        assert "up to 1001 tokens, and the project's limit tokens_per_minute is 1000" in error.message
        assert await admits(limiter, claim("2", project, tokens=1000))

    @pytest.mark.parametrize("name", ["requests_per_minute", "concurrent_requests"])
    async def test_a_limit_of_nothing(self, limiter: Limiter, name: str) -> None:
        error = await refused(limiter, claim("1", limited(**{name: 0})))
        assert error.should_retry is False
        assert "nothing" in error.message

    async def test_concurrent_requests(self, limiter: Limiter) -> None:
        model = limited("model", "m", concurrent_requests=2)
        assert await admits(limiter, claim("1", model))
        assert await admits(limiter, claim("2", model))
        error = await refused(limiter, claim("3", model))
        assert (error.type, error.retry_after) == ("requests", 1)
        assert "This model's limit concurrent_requests is reached: 2 of 2" in error.message
        limiter.settle("1", 0, 0)
        assert await admits(limiter, claim("3", model))

    @pytest.mark.parametrize(
        ("name", "reset"), [("tokens_per_day", "2026-11-20 22:00"), ("tokens_per_month", "2026-11-30 22:00")]
    )
    async def test_a_budget_of_tokens(self, limiter: Limiter, name: str, reset: str) -> None:
        alice = limited(**{name: 100})
        assert await admits(limiter, claim("1", alice, tokens=80))
        error = await refused(limiter, claim("2", alice, tokens=21))
        assert isinstance(error, BudgetSpent)
        assert (error.code, error.should_retry, error.retry_after) == ("insufficient_quota", False, None)
        assert f"Your limit {name} is reached: 80 of 100 used or reserved" in error.message
        assert f"It begins anew at {reset} UTC." in error.message

    async def test_a_budget_of_money(self, limiter: Limiter) -> None:
        alice = limited(cost_per_month=20_000_000)
        await limiter.reserve(claim("1", alice, cost=19_500_000))
        error = await refused(limiter, claim("2", alice, cost=750_001))
        assert isinstance(error, BudgetSpent)
        assert "19.50 units of 20.00 units used" in error.message
        assert "up to 0.750001 units" in error.message

    @pytest.mark.parametrize(
        ("limits", "tokens", "cost", "words"),
        [
            ({"tokens_per_day": 100}, 101, 0,
             "take up to 101 tokens, and your limit tokens_per_day is 100"),
            ({"cost_per_month": 5_000_000}, 1, 5_000_001,
             "cost up to 5.000001 units, and your limit cost_per_month is 5.00 units"),
        ],
    )  # fmt: skip
    async def test_what_no_budget_has_room_for(
        self, limiter: Limiter, limits: dict[str, int], tokens: int, cost: int, words: str
    ) -> None:
        """The next day would not help."""
        error = await refused(limiter, claim("1", limited(**limits), tokens=tokens, cost=cost))
        assert isinstance(error, BudgetSpent)
        assert f"This request may {words}: it never has room." in error.message
        assert "It begins anew" not in error.message

    async def test_what_waiting_does_not_help_is_said_first(self, limiter: Limiter, wait: Pass) -> None:
        alice = limited(requests_per_minute=1, concurrent_requests=1, tokens_per_day=10)
        key = limited("key", "k1", requests_per_minute=1)
        await limiter.reserve(claim("0", key))
        wait(5)
        await limiter.reserve(claim("1", alice, tokens=10))
        error = await refused(limiter, claim("2", key, alice, tokens=1))
        assert (error.standings[0].scope.id, error.standings[0].name) == ("alice", "tokens_per_day")
        assert len(error.standings) == 4
        limiter.settle("1", 0, 0)
        assert (await refused(limiter, claim("3", key, alice))).retry_after == 60

    # --- sums of the ledger -------------------------------------------------------------------------------

    async def test_sums_begin_with_the_ledgers(self, limiter: Limiter, ledger: SetLedger) -> None:
        ledger.used = {"alice": Used(900, 5000, 70), "physics": Used(1, 2, 3)}
        alice = limited(tokens_per_day=1000, tokens_per_month=9000, cost_per_month=80)
        minute = limited("project", "physics", requests_per_minute=5)
        await limiter.reserve(claim("1", alice, minute, tokens=100, cost=10))
        assert await used(limiter, alice, minute) == {
            ("alice", "tokens_per_day"): 1000, ("alice", "tokens_per_month"): 5100,
            ("alice", "cost_per_month"): 80, ("physics", "requests_per_minute"): 1,
        }  # fmt: skip
        assert not await admits(limiter, claim("2", alice, minute, tokens=1))
        assert ledger.asked == [("alice", TODAY)]

    async def test_the_ledger_is_asked_once_however_many_wait(
        self, limiter: Limiter, ledger: SetLedger
    ) -> None:
        ledger.used, alice = {"alice": Used(950)}, limited(tokens_per_day=1000)
        ledger.gate.clear()
        waiting = [asyncio.ensure_future(admits(limiter, claim(f"{n}", alice, tokens=10))) for n in range(20)]
        while not ledger.asked:
            await asyncio.sleep(0)
        ledger.gate.set()
        assert sum(await asyncio.gather(*waiting)) == 5
        assert len(ledger.asked) == 1

    async def test_whoever_asks_the_ledger_may_be_cancelled(
        self, limiter: Limiter, ledger: SetLedger
    ) -> None:
        ledger.used, alice = {"alice": Used(990)}, limited(tokens_per_day=1000)
        ledger.gate.clear()
        waiting = [asyncio.ensure_future(admits(limiter, claim(f"{n}", alice, tokens=10))) for n in range(3)]
        for n in range(2):
            while len(ledger.asked) == n:
                await asyncio.sleep(0.001)
            waiting[n].cancel()
        ledger.gate.set()
        assert await waiting[2]
        assert await used(limiter, alice) == {("alice", "tokens_per_day"): 1000}

    async def test_while_the_ledger_is_away_sums_begin_at_nothing_and_are_put_right_once(
        self, limiter: Limiter, ledger: SetLedger, wait: Pass, clock: SetClock
    ) -> None:
        ledger.used, ledger.is_down = {"alice": Used(500, 600, 7)}, True
        alice = limited(tokens_per_day=1000, cost_per_month=100)
        assert await admits(limiter, claim("1", alice, tokens=100, cost=1))
        assert await admits(limiter, claim("2", alice, tokens=100, cost=1))
        assert len(ledger.asked) == 1
        ledger.is_down = False
        began = clock.now()
        wait(PAUSE)
        await limiter.reserve(claim("3", alice, tokens=100, cost=1))
        now = await used(limiter, alice)
        assert now == {("alice", "tokens_per_day"): 800, ("alice", "cost_per_month"): 10}
        (_, asked) = ledger.asked[-1]  # what was accepted later is counted here
        assert (asked.day_end, asked.month_end) == (began, began)
        wait(PAUSE)
        assert await admits(limiter, claim("4", alice, tokens=100, cost=1))
        assert len(ledger.asked) == 2
        limiter.settle("1", 0, 0)
        assert (await used(limiter, alice))["alice", "tokens_per_day"] == 800

    # --- accounts -----------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "limits", [{"cost_per_month": 30}, {"tokens_per_day": 3000}, {"requests_per_minute": 3},
                   {"concurrent_requests": 3}],
    )  # fmt: skip
    async def test_r_acc_08_a_balance_for_three_and_fifty_at_once(
        self, fleet: Sequence[Limiter], ledger: SetLedger, limits: dict[str, int]
    ) -> None:
        """Of a user that nobody has seen before, over all workers."""
        alice, key = limited(**limits), limited("key", "k", requests_per_minute=100)
        asked = [
            admits(fleet[n % len(fleet)], claim(f"{n}", alice, key, tokens=1000, cost=10)) for n in range(50)
        ]
        assert sum(await asyncio.gather(*asked)) == 3
        assert (await used(fleet[0], key))["k", "requests_per_minute"] == 3

    async def test_r_acc_08_a_hundred_of_a_thousand_over_all_workers(self, fleet: Sequence[Limiter]) -> None:
        alice = limited(requests_per_minute=100)
        asked = [admits(fleet[n % len(fleet)], claim(f"{n}", alice)) for n in range(1000)]
        assert sum(await asyncio.gather(*asked)) == 100

    async def test_r_acc_09_more_less_twice_and_unknown(self, limiter: Limiter) -> None:
        alice = limited(tokens_per_minute=1000, tokens_per_day=1000, concurrent_requests=9)

        async def counted() -> tuple[int, ...]:
            return tuple((await used(limiter, alice)).values())

        for id in "ab":
            await limiter.reserve(claim(id, alice, tokens=300))
        limiter.settle("a", 100, 0)
        assert await counted() == (400, 1, 400)
        limiter.settle("a", 300, 0)
        limiter.settle("nobody", 300, 0)
        assert await counted() == (400, 1, 400)
        limiter.settle("b", 1200, 0)
        assert await counted() == (1300, 0, 1300)
        limiter.settle("b", 0, 0)
        assert await counted() == (1300, 0, 1300)
        assert not await admits(limiter, claim("c", alice, tokens=0))

    async def test_what_ends_after_its_minute_counts_for_its_day_only(
        self, limiter: Limiter, wait: Pass
    ) -> None:
        alice = limited(tokens_per_minute=1000, tokens_per_day=1000)
        await limiter.reserve(claim("1", alice, tokens=300))
        wait(61)
        limiter.settle("1", 700, 0)
        assert await used(limiter, alice) == {
            ("alice", "tokens_per_minute"): 0, ("alice", "tokens_per_day"): 700
        }  # fmt: skip

    async def test_r_acc_11_a_call_is_charged_to_the_day_it_began(
        self, fleet: Sequence[Limiter], ledger: SetLedger
    ) -> None:
        alice = limited(tokens_per_day=1000, tokens_per_month=5000)
        one, other = fleet[0], fleet[-1]
        await one.reserve(claim("1", alice, tokens=900))
        assert not await admits(other, claim("2", alice, tokens=200))
        assert await admits(other, claim("3", alice, tokens=200, period=TOMORROW))
        one.settle("1", 1500, 0)
        await used(one, alice)
        assert await used(other, alice) == {
            ("alice", "tokens_per_day"): 1500, ("alice", "tokens_per_month"): 1700
        }  # fmt: skip
        assert await used(other, alice, period=TOMORROW) == {
            ("alice", "tokens_per_day"): 200, ("alice", "tokens_per_month"): 1700
        }  # fmt: skip
        assert await admits(one, claim("4", alice, tokens=800, period=TOMORROW))
        assert not await admits(one, claim("5", alice, tokens=1, period=TOMORROW))
        assert await admits(one, claim("6", alice, tokens=1000, period=NEXT_MONTH))

    async def test_a_limit_that_changes_holds_at_once(self, limiter: Limiter) -> None:
        assert await admits(limiter, claim("1", limited(tokens_per_day=100), tokens=100))
        assert not await admits(limiter, claim("2", limited(tokens_per_day=100), tokens=1))
        assert await admits(limiter, claim("3", limited(tokens_per_day=200), tokens=100))
        assert await admits(limiter, claim("4", limited(requests_per_minute=3), tokens=100))
        assert not await admits(limiter, claim("5", limited(requests_per_minute=3)))
        assert await used(limiter, limited(tokens_per_day=1)) == {("alice", "tokens_per_day"): 300}

    async def test_cancelled_callers_take_nothing(self, limiter: Limiter) -> None:
        alice = limited(concurrent_requests=1000, requests_per_minute=5000, tokens_per_day=10**6)
        await limiter.reserve(claim("first", alice, tokens=1))
        for turn in range(20):
            asked = [claim(f"{turn}-{n}", alice, tokens=1) for n in range(40)]
            calls = {one.id: asyncio.ensure_future(limiter.reserve(one)) for one in asked}
            for n, call in enumerate(list(calls.values())[::2]):
                if n % 5 == 4:
                    await asyncio.sleep(0.0003 * (n % 3))
                call.cancel()
            await asyncio.wait(calls.values())
            for id, call in calls.items():
                if not call.cancelled():
                    assert used_of(call.result())["alice", "requests_per_minute"] >= 1
                    limiter.settle(id, 1, 0)
        limiter.settle("first", 1, 0)
        after = await used(limiter, alice)
        assert after["alice", "concurrent_requests"] == 0
        assert after["alice", "tokens_per_day"] <= after["alice", "requests_per_minute"]

    async def test_it_is_healthy(self, limiter: Limiter) -> None:
        assert limiter.is_healthy()
        assert limiter.name in ("memory", "redis")
