"""In no minute more than the limit, whatever comes when; what is told and forgotten."""

from collections.abc import Sequence

from hypothesis import given, settings, strategies as st

from llmgateway.domain.limits import Claim, Limits, Scope
from llmgateway.stores.limits.windows import Begin, Counts
from tests.stores.limits.limiter_contract import TODAY, TOMORROW, claim, limited

WINDOW = 60_000
STEPS = st.lists(st.tuples(st.sampled_from([0, 1, 400, 999, 1000, 1001, 15_000, 59_999, 60_000]),
                           st.integers(0, 40), st.integers(0, 60)), max_size=120)  # fmt: skip


def counts(**options: int) -> Counts:
    return Counts(60, lambda: 1, **options)


def takes(counting: Counts, asked: Claim, now: int, begins: Sequence[Begin] = ()) -> bool:
    return counting.claim(asked, now, begins).is_taken


@given(STEPS, st.integers(1, 9), st.integers(1, 100))
def test_in_no_minute_more_than_the_limit(
    steps: list[tuple[int, int, int]], requests: int, most: int
) -> None:
    counting, now, passed = counts(), 0, []
    alice = limited(requests_per_minute=requests, tokens_per_minute=most)
    for n, (step, tokens, _) in enumerate(steps):
        now += step
        if takes(counting, claim(f"{n}", alice, tokens=tokens), now):
            passed.append((now, tokens))
    for first, _ in passed:
        within = [tokens for at, tokens in passed if first <= at < first + WINDOW]
        assert len(within) <= requests
        assert sum(within) <= most


@given(STEPS, st.integers(1, 9), st.integers(40, 100))
def test_the_wait_is_exact(steps: list[tuple[int, int, int]], requests: int, most: int) -> None:
    """A refused claim fits when it was told to come back, and not a millisecond before."""
    counting, now = counts(), 0
    alice = limited(requests_per_minute=requests, tokens_per_minute=most)
    for n, (step, tokens, actual) in enumerate(steps):
        now += step
        asked = claim(f"{n}", alice, tokens=tokens)
        answer = counting.claim(asked, now)
        if not answer.is_taken:
            (read,) = answer.readings
            wait = max(read.requests_wait, read.tokens_wait)
            assert 0 < wait <= WINDOW
            assert not takes(counting, asked, now + wait - 1)
            now += wait
            assert takes(counting, asked, now)
        if n % 2:
            counting.settle(asked.id, min(actual, tokens), 0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 500), st.integers(0, 500)), max_size=60))
@settings(max_examples=50)
def test_what_is_counted_is_what_was_settled(calls: list[tuple[int, int, int]]) -> None:
    counting = counts()
    scopes = [Scope("user", f"u{n}", Limits(tokens_per_day=10**9, cost_per_month=10**9)) for n in range(4)]
    begins = [Begin(0)]
    for n, (user, reserved, _) in enumerate(calls):
        takes(counting, claim(f"{n}", scopes[user], tokens=reserved, cost=reserved), n, begins)
        if n >= 3:  # some are open at any time
            counting.settle(f"{n - 3}", calls[n - 3][2], calls[n - 3][2])
    for n in range(len(calls)):
        counting.settle(f"{n}", calls[n][2], calls[n][2])
    for index, scope in enumerate(scopes):
        (read,) = counting.look(claim("", scope), len(calls), begins).readings
        total = sum(actual for user, _, actual in calls if user == index)
        assert (read.day_tokens, read.month_cost, read.places) == (total, total, 0)


def test_scopes_that_nobody_uses_are_forgotten() -> None:
    counting = counts(idle_at=10)
    busy = limited("user", "busy", concurrent_requests=1)
    assert takes(counting, claim("open", busy), 0)
    for n in range(100):
        assert takes(counting, claim(f"{n}", limited("user", f"u{n}", requests_per_minute=1)), n * 20_000)
        counting.settle(f"{n}", 0, 0)
    assert len(counting._uses) < 25
    assert not takes(counting, claim("again", busy), 10**7)


def test_the_oldest_days_are_forgotten() -> None:
    counting, alice = counts(), limited(tokens_per_day=10)
    days = ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]
    periods = [type(TODAY)(day, "2026-01", *[TODAY.day_start] * 4) for day in days]
    for n, period in enumerate(periods):
        assert takes(counting, claim(f"{n}", alice, tokens=10, period=period), 0, [Begin(0)])
    assert [bool(counting.look(claim("", alice, period=one), 0).unknown) for one in periods] == [
        True, False, False, False
    ]  # fmt: skip


def test_what_the_ledger_says_counts_once() -> None:
    counting, alice = counts(), limited(tokens_per_day=100)
    assert counting.claim(claim("1", alice), 0).unknown
    assert takes(counting, claim("1", alice, tokens=10), 0, [Begin(0, is_away=True)])
    (unknown,) = counting.claim(claim("2", alice), 0).unknown
    assert unknown.day_since == 1
    late = [Begin(0, day_since=unknown.day_since, day_tokens=50)]
    for _ in range(2):
        (read,) = counting.look(claim("", alice), 0, late).readings
        assert read.day_tokens == 60
    assert counting.claim(claim("3", alice, period=TOMORROW), 0, late).unknown
