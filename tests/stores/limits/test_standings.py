"""What a refusal says: which limit comes first, in which words, and when to come back."""

from datetime import UTC, datetime

import pytest

from llmgateway.domain.errors import BudgetSpent, OverLimit, TooManyTokens
from llmgateway.domain.limits import ScopeKind
from llmgateway.edge.ratelimits import ratelimit_headers
from llmgateway.stores.limits.standings import refusal, standings_of, tightest, units
from llmgateway.stores.limits.windows import Reading
from tests.stores.limits.limiter_contract import TODAY, claim, limited


def now() -> datetime:
    return datetime(2026, 11, 20, 21, 59, 30, tzinfo=UTC)


def reading(**values: int) -> Reading:
    plain = dict.fromkeys(Reading.__struct_fields__, 0)
    return Reading(**{**plain, **values})


@pytest.mark.parametrize(
    ("cost", "written"),
    [(0, "0.00"), (1, "0.000001"), (20_000_000, "20.00"), (1_230_000, "1.23"), (1_234_500, "1.2345"),
     (10**15, "1000000000.00")],
)  # fmt: skip
def test_money_is_written_exactly(cost: int, written: str) -> None:
    assert units(cost) == f"{written} units"


@pytest.mark.parametrize(
    ("kind", "whose"),
    [("user", "Your limit"), ("project", "The project's limit"), ("key", "This key's limit"),
     ("model", "This model's limit")],
)  # fmt: skip
def test_whose_limit_it_is(kind: ScopeKind, whose: str) -> None:
    asked = claim("1", limited(kind, requests_per_minute=2))
    error = refusal(asked, [reading(requests=2, requests_wait=1500)], now)
    assert error.message == (
        f"{whose} requests_per_minute is reached: 2 of 2 used in the last minute. Try again in 1.5 s."
    )
    assert error.retry_after == 1.5


def test_the_longest_wait_is_told() -> None:
    asked = claim("1", limited(requests_per_minute=2), limited("key", "k", tokens_per_minute=9), tokens=5)
    readings = [reading(requests=2, requests_wait=1500), reading(tokens=9, tokens_wait=30_000)]
    error = refusal(asked, readings, now)
    assert type(error) is TooManyTokens
    assert error.retry_after == 30
    assert [one.scope.kind for one in error.standings] == ["key", "user"]
    assert error.message.startswith(
        "This key's limit tokens_per_minute is reached: 9 of 9 used or reserved, and this request may take up"
    )


def test_a_wait_for_places_is_less_than_any_other() -> None:
    asked = claim("1", limited(requests_per_minute=2, concurrent_requests=1))
    error = refusal(asked, [reading(requests=2, requests_wait=200, places=1)], now)
    assert error.standings[0].name == "requests_per_minute"
    error = refusal(asked, [reading(places=1)], now, note=" So it is.")
    assert (type(error), error.retry_after) == (OverLimit, 1)
    assert error.message.endswith("Try again when one of these requests has ended. So it is.")


def test_an_operators_own_way_to_write_money() -> None:
    asked = claim("1", limited(cost_per_month=100), cost=60)
    error = refusal(asked, [reading(month_cost=50)], now, money=lambda cost: f"EUR {cost}")
    assert isinstance(error, BudgetSpent)
    assert "EUR 50 of EUR 100 used or reserved, and this request may take up to EUR 60." in error.message


def test_the_tightest_of_each_kind_stand_for_all() -> None:
    scopes = [
        limited("key", "k", requests_per_minute=5, tokens_per_day=1000),
        limited(requests_per_minute=9, tokens_per_minute=300, tokens_per_month=4000, cost_per_month=1),
        limited("model", "m", requests_per_minute=6, tokens_per_minute=200),
    ]
    readings = [
        reading(requests=1, day_tokens=990),
        reading(requests=7, tokens=100, month_tokens=4100, requests_reset=1500),
        reading(requests=2, tokens=150),
    ]
    told = tightest(scopes, readings, TODAY, now)
    assert [(one.scope.kind, one.name, one.left) for one in told] == [
        ("user", "requests_per_minute", 2), ("user", "tokens_per_month", 0),
    ]  # fmt: skip
    everything = standings_of(scopes, readings, TODAY, now)
    assert set(told) <= set(everything)
    assert ratelimit_headers(told) == ratelimit_headers(everything)


def test_time_goes_on_while_a_refusal_is_written() -> None:
    asked = claim("1", limited(tokens_per_day=1, tokens_per_month=100), tokens=2)
    ticking = (datetime(2026, 11, 20, 21, 59, second, tzinfo=UTC) for second in range(60))
    error = refusal(asked, [reading(day_tokens=1)], lambda: next(ticking))
    assert [standing.name for standing in error.standings] == ["tokens_per_day", "tokens_per_month"]


def test_resets_end_with_the_day_and_are_never_negative() -> None:
    scope = limited(tokens_per_day=1, tokens_per_month=1)
    day, month = standings_of([scope], [reading()], TODAY, now)
    assert day.reset == 30
    assert month.reset == 10 * 86_400 + 30
    day, _ = standings_of([scope], [reading()], TODAY, lambda: TODAY.month_end)
    assert day.reset == 0
