"""Tests of limits."""

import msgspec
import pytest

from llmgateway.domain.limits import Limits, Scope, Standing


def test_a_limit_is_not_negative() -> None:
    with pytest.raises(ValueError, match="tokens_per_day must not be negative"):
        Limits(tokens_per_day=-1)


def test_only_what_is_limited_is_written() -> None:
    assert msgspec.json.encode(Limits(requests_per_minute=0)) == b'{"requests_per_minute":0}'


def test_nothing_is_left_of_a_limit_that_was_lowered_below_what_is_used() -> None:
    scope = Scope("user", "alice", Limits(tokens_per_day=10))
    assert Standing(scope, "tokens_per_day", 10, 15, 60.0).left == 0
    assert Standing(scope, "tokens_per_day", 10, 4, 60.0).left == 6
