"""Money: integers, exact, rounded once."""

from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from llmgateway.domain.call import Tokens
from llmgateway.domain.pricing import FREE, Price, cost_of, micro_units

PRICE = Price(id="p", input=200_000, cached_input=50_000, output=800_000, request=3)
COUNT = st.integers(0, 10**9)


def test_nothing_costs_nothing() -> None:
    assert cost_of(Tokens(10**9, 10**9), FREE) == 0
    assert cost_of(Tokens(), Price(id="p", input=1, output=1)) == 0


def test_each_kind_has_its_price() -> None:
    assert cost_of(Tokens(1_000_000), PRICE) == 3 + 200_000
    assert cost_of(Tokens(1_000_000, cached=1_000_000), PRICE) == 3 + 50_000
    assert cost_of(Tokens(completion=1_000_000, reasoning=400_000), PRICE) == 3 + 800_000


def test_cached_tokens_cost_as_input_where_they_have_no_price() -> None:
    price = Price(id="p", input=200_000)
    assert cost_of(Tokens(1_000_000, cached=600_000), price) == 200_000


def test_r_acc_16_halves_are_rounded_up_once() -> None:
    price = Price(id="p", input=500_000, output=500_000)
    assert [cost_of(Tokens(n), price) for n in range(4)] == [0, 1, 1, 2]
    assert cost_of(Tokens(1, 1), price) == 1  # two halves are one, not two


@given(COUNT, COUNT, COUNT)
def test_r_acc_16_the_cost_is_within_half_a_unit_of_the_exact_one(
    prompt: int, completion: int, cached: int
) -> None:
    tokens = Tokens(prompt, completion, cached)
    used = min(cached, prompt)
    exact = Decimal((prompt - used) * 200_000 + used * 50_000 + completion * 800_000) / 1_000_000
    assert abs(cost_of(tokens, PRICE) - 3 - exact) <= Decimal("0.5")


def test_amounts_become_micro_units() -> None:
    assert micro_units(Decimal("0.20")) == 200_000
    assert micro_units(Decimal("0.000001")) == 1


@pytest.mark.parametrize("amount", ["-1", "0.0000001", "1.0000005"])
def test_amounts_that_are_none(amount: str) -> None:
    with pytest.raises(ValueError, match="six decimals"):
        micro_units(Decimal(amount))
