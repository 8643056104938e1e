"""Limits as headers: OpenAI's names, whole numbers, Go's durations."""

import pytest

from llmgateway.domain.limits import LimitName, Limits, Scope, Standing
from llmgateway.edge.ratelimits import go_duration, ratelimit_headers

ALICE = Scope("user", "alice", Limits(requests_per_minute=60, tokens_per_day=1000))


def standing(name: LimitName, limit: int, used: int, reset: float = 60.0) -> Standing:
    return Standing(ALICE, name, limit, used, reset)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, b"0ms"), (0.028, b"28ms"), (0.9999, b"1000ms"), (1, b"1s"), (59.4, b"59s"), (360, b"6m0s"),
     (18180, b"5h3m0s"), (-1, b"0ms"), (86399.9, b"24h0m0s")],
)  # fmt: skip
def test_durations_are_go_s(seconds: float, written: bytes) -> None:
    assert go_duration(seconds) == written


def test_the_tightest_limit_of_each_unit_is_told() -> None:
    standings = [
        standing("requests_per_minute", 60, 10),
        standing("requests_per_minute", 100, 99, 0.5),
        standing("tokens_per_day", 1000, 10),
        standing("tokens_per_minute", 2000, 1995, 12),
        standing("concurrent_requests", 1, 1, 0),
        standing("cost_per_month", 1, 1),
    ]
    assert dict(ratelimit_headers(standings)) == {
        b"x-ratelimit-limit-requests": b"100",
        b"x-ratelimit-remaining-requests": b"1",
        b"x-ratelimit-reset-requests": b"500ms",
        b"x-ratelimit-limit-tokens": b"2000",
        b"x-ratelimit-remaining-tokens": b"5",
        b"x-ratelimit-reset-tokens": b"12s",
    }


def test_where_nothing_is_limited_nothing_is_told() -> None:
    assert ratelimit_headers([]) == []
    assert ratelimit_headers([standing("concurrent_requests", 1, 0)]) == []
