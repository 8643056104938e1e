"""What a worker let in, said as Redis can count it anew, and what it knows of its shares."""

from llmgateway.domain.admission import ScopeKey
from llmgateway.stores.limits.grants import SWEEP_AT, Grants, Shares, Spending, Window
from tests.stores.limits.limiter_contract import claim, limited

MINUTE = 60_000
ALICE = limited(requests_per_minute=5, tokens_per_day=9)
KEY: ScopeKey = ("user", "alice")


def test_a_window_holds_the_last_minute_and_what_was_used() -> None:
    grants, bob = Grants(MINUTE), limited("user", "bob", tokens_per_minute=9)
    daily = limited("key", "k", tokens_per_day=9)
    grants.take(claim("0", ALICE, tokens=1), 0)
    first = grants.take(claim("1", ALICE, bob, daily, tokens=10), 30_000)
    grants.take(claim("2", ALICE, tokens=10), 30_400)
    grants.take(claim("3", ALICE, tokens=10), 50_000)
    grants.correct(first, -7)
    assert list(grants.windows(60_500)) == [
        Window(ALICE, [30_100, 2, 13, 10_500, 1, 10]), Window(bob, [30_500, 1, 3])
    ]  # fmt: skip
    assert list(grants.windows(200_000)) == []


def test_it_is_said_with_the_limits_of_now() -> None:
    grants, now = Grants(MINUTE), limited(requests_per_minute=50)
    grants.take(claim("1", ALICE), 0)
    grants.take(claim("2", now), 1)
    (window,) = grants.windows(2)
    assert window == Window(now, [1, 2, 0])


def test_scopes_that_are_not_used_are_forgotten() -> None:
    grants, shares = Grants(MINUTE), Shares(MINUTE)
    for n in range(SWEEP_AT + 1):
        one = claim(f"{n}", limited("user", f"u{n}", requests_per_minute=5))
        grants.take(one, 10 * n)
        shares.heard(("user", f"u{n}"), Spending(0, 1, 0, 10 * n))
    assert len(grants._uses) < SWEEP_AT
    assert len(shares._known) < SWEEP_AT


def test_an_answer_knows_better_than_a_telling_and_what_is_newer_better_than_both() -> None:
    shares = Shares(MINUTE)
    shares.told(KEY, Spending(3, 5, 50, 0))
    shares.heard(KEY, Spending(3, 6, 60, 1))
    shares.told(KEY, Spending(3, 5, 50, 2))
    shares.heard(KEY, Spending(2, 1, 10, 3))
    assert shares.of(KEY) == Spending(3, 6, 60, 1)
    shares.told(KEY, Spending(4, 7, 70, 4))
    assert shares.of(KEY) == Spending(4, 7, 70, 4)
    shares.told(KEY, Spending(1, 0, 0, 4 + MINUTE))
    assert shares.of(KEY) == Spending(1, 0, 0, 4 + MINUTE), "Redis has forgotten the scope since"


def test_what_is_let_in_alone_is_spent() -> None:
    shares = Shares(MINUTE)
    for now in (1, 2):
        shares.spent(claim("1", ALICE, limited("key", "k", tokens_per_day=1), tokens=7), now)
    assert shares.of(KEY) == Spending(-1, 2, 14, 2)
    assert shares.of(("key", "k")) is None
    shares.told(KEY, Spending(9, 0, 0, 3))
    shares.begin_anew()
    shares.told(KEY, Spending(0, 4, 40, 4))
    assert shares.of(KEY) == Spending(0, 4, 40, 4)
