"""Prices and costs: integers in micro-units of the configured currency, exact.

A price per million tokens in whole units is the price of one token in micro-units: 0.20 a million tokens is
0.2 micro-units a token. So a price is held in pico-units a token (micro-units a million tokens), the products
are summed exactly, and the sum is rounded once, half up.
"""

from decimal import Decimal

from msgspec import Struct

from llmgateway.domain.call import Tokens

PER_MILLION = 1_000_000


class Price(Struct, frozen=True, kw_only=True):
    """Micro-units per million tokens, and micro-units per request. `cached_input` is None where it costs as
    `input`."""

    id: str = "free"
    input: int = 0
    cached_input: int | None = None
    output: int = 0
    request: int = 0


FREE = Price()


def micro_units(amount: Decimal) -> int:
    """An amount of currency as integer micro-units. Raises ValueError for more than six decimals or a
    negative."""
    scaled = amount * PER_MILLION
    if amount < 0 or scaled != scaled.to_integral_value():
        raise ValueError(f"{amount} is not a non-negative amount with at most six decimals")
    return int(scaled)


def cost_of(tokens: Tokens, price: Price) -> int:
    """Micro-units. Cached tokens are part of the prompt and are charged at their own price; reasoning tokens
    are part of the completion."""
    if price is FREE:
        return 0
    cached = min(tokens.cached, tokens.prompt)
    cached_price = price.input if price.cached_input is None else price.cached_input
    total = (tokens.prompt - cached) * price.input + cached * cached_price + tokens.completion * price.output
    return price.request + (total + PER_MILLION // 2) // PER_MILLION
