"""What a limiter says: how limits stand after a claim, or which one refuses it, why, and until when."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from msgspec import Struct

from llmgateway.domain.errors import BudgetSpent, OverLimit, TooManyTokens
from llmgateway.domain.limits import Claim, Scope, Standing
from llmgateway.domain.periods import Period
from llmgateway.stores.limits.windows import Reading

LONGEST_RETRY = 60.0  # seconds; some SDKs ignore more
PLACE_RETRY = 1.0  # seconds; nobody knows when a call ends
WHOSE = {"user": "Your limit", "project": "The project's limit", "key": "This key's limit",
         "model": "This model's limit"}  # fmt: skip

Money = Callable[[int], str]
"""Writes micro-units for people."""


def money_in(currency: str) -> Money:
    """Exact, as a plain decimal number and the currency's name."""

    def written(cost: int) -> str:
        exact = Decimal(cost).scaleb(-6)
        plain = exact.quantize(Decimal("0.01")) if exact == round(exact, 2) else exact.normalize()
        return f"{plain:f} {currency}"

    return written


units = money_in("units")


def standings_of(scopes: Iterable[Scope], readings: Iterable[Reading], period: Period,
                 now: Callable[[], datetime]) -> list[Standing]:  # fmt: skip
    """`now` is asked only when a limit of a day or month is among them."""
    standings: list[Standing] = []
    add = standings.append
    left: tuple[float, float] | None = None
    for scope, read in zip(scopes, readings, strict=True):
        limits = scope.limits
        if (limit := limits.requests_per_minute) is not None:
            add(Standing(scope, "requests_per_minute", limit, read.requests, read.requests_reset / 1000))
        if (limit := limits.tokens_per_minute) is not None:
            add(Standing(scope, "tokens_per_minute", limit, read.tokens, read.tokens_reset / 1000))
        if (limit := limits.concurrent_requests) is not None:
            add(Standing(scope, "concurrent_requests", limit, read.places, 0.0))
        if (limits.tokens_per_day is not None or limits.tokens_per_month is not None
                or limits.cost_per_month is not None):  # fmt: skip
            left = left or _left(period, now())
            _add_calendar(standings, scope, read, left)
    return standings


def tightest(scopes: Iterable[Scope], readings: Iterable[Reading], period: Period,
             now: Callable[[], datetime]) -> list[Standing]:  # fmt: skip
    """Of requests and of tokens the limit with least left, as every answer tells them."""
    of_requests: Standing | None = None
    of_tokens: Standing | None = None
    left: tuple[float, float] | None = None
    least_requests = least_tokens = math.inf
    for scope, read in zip(scopes, readings, strict=True):
        limits = scope.limits
        if (limit := limits.requests_per_minute) is not None and limit - read.requests < least_requests:
            least_requests = limit - read.requests
            of_requests = Standing(scope, "requests_per_minute", limit, read.requests,
                                   read.requests_reset / 1000)  # fmt: skip
        if (limit := limits.tokens_per_minute) is not None and limit - read.tokens < least_tokens:
            least_tokens = limit - read.tokens
            of_tokens = Standing(scope, "tokens_per_minute", limit, read.tokens, read.tokens_reset / 1000)
        if (limit := limits.tokens_per_day) is not None and limit - read.day_tokens < least_tokens:
            least_tokens = limit - read.day_tokens
            left = left or _left(period, now())
            of_tokens = Standing(scope, "tokens_per_day", limit, read.day_tokens, left[0])
        if (limit := limits.tokens_per_month) is not None and limit - read.month_tokens < least_tokens:
            least_tokens = limit - read.month_tokens
            left = left or _left(period, now())
            of_tokens = Standing(scope, "tokens_per_month", limit, read.month_tokens, left[1])
    return [standing for standing in (of_requests, of_tokens) if standing is not None]


def _add_calendar(standings: list[Standing], scope: Scope, read: Reading,
                  left: tuple[float, float]) -> None:  # fmt: skip
    limits, add, (of_day, of_month) = scope.limits, standings.append, left
    if (limit := limits.tokens_per_day) is not None:
        add(Standing(scope, "tokens_per_day", limit, read.day_tokens, of_day))
    if (limit := limits.tokens_per_month) is not None:
        add(Standing(scope, "tokens_per_month", limit, read.month_tokens, of_month))
    if (limit := limits.cost_per_month) is not None:
        add(Standing(scope, "cost_per_month", limit, read.month_cost, of_month))


def _left(period: Period, now: datetime) -> tuple[float, float]:
    """Seconds of the day and of the month."""
    ends = (period.day_end, period.month_end)
    day, month = (max(0.0, (end - now).total_seconds()) for end in ends)
    return day, month


class _Refusing(Struct, frozen=True):
    """A limit without room for what a claim needs; `wait` in seconds, -1 for ever."""

    standing: Standing
    need: int
    wait: float

    @property
    def rank(self) -> tuple[int, float]:
        """What waiting helps least comes first."""
        if self.wait < 0:
            return (3, 0)
        return (2 if self.standing.name in _CALENDAR else int(self.wait > 0), self.wait)


_CALENDAR = ("tokens_per_day", "tokens_per_month", "cost_per_month")


def refusal(claim: Claim, readings: Sequence[Reading], now: Callable[[], datetime], *,
            money: Money = units, note: str = "") -> OverLimit:  # fmt: skip
    """The error for a claim that was not taken; `note` is a sentence more."""
    at = now()
    read = [(reading, standings_of((scope,), (reading,), claim.period, lambda: at))
            for scope, reading in zip(claim.scopes, readings, strict=True)]  # fmt: skip
    first = max(_refusing(claim, read), key=lambda one: one.rank)
    others = (standing for _, standings in read for standing in standings if standing is not first.standing)
    ordered = [first.standing, *others]
    message = " ".join(_message(first, claim.period, money)) + note
    if first.standing.name in _CALENDAR:
        return BudgetSpent(message, standings=ordered)
    kind = TooManyTokens if first.standing.name == "tokens_per_minute" else OverLimit
    if first.wait < 0:
        error = kind(message, standings=ordered)
        error.should_retry = False
        return error
    return kind(message, standings=ordered, retry_after=min(LONGEST_RETRY, first.wait or PLACE_RETRY))


def _refusing(claim: Claim, read: Sequence[tuple[Reading, Sequence[Standing]]]) -> Iterator[_Refusing]:
    for reading, standings in read:
        for standing in standings:
            need = _need(claim, standing)
            if standing.used + need > standing.limit:
                yield _Refusing(standing, need, _wait(reading, standing, need))


def _wait(reading: Reading, standing: Standing, need: int) -> float:
    """Until there may be room: -1 for ever, 0 where nobody can tell."""
    if standing.name == "requests_per_minute":
        return reading.requests_wait / 1000
    if standing.name == "tokens_per_minute":
        return reading.tokens_wait / 1000
    return -1.0 if need > standing.limit else 0.0


def _need(claim: Claim, standing: Standing) -> int:
    if standing.name in ("requests_per_minute", "concurrent_requests"):
        return 1
    return claim.cost if standing.name == "cost_per_month" else claim.tokens


def _message(refusing: _Refusing, period: Period, money: Money) -> Iterator[str]:
    standing, need = refusing.standing, refusing.need
    whose, name = WHOSE[standing.scope.kind], standing.name
    shown = money if name == "cost_per_month" else str
    if refusing.wait < 0 and standing.limit:
        most = f"cost up to {money(need)}" if name == "cost_per_month" else f"take up to {need} tokens"
        yield f"This request may {most}, and {_lower(whose)} {name} is {shown(standing.limit)}:"
        yield "it never has room. Shorten the request, or ask for less with max_tokens."
        return
    yield f"{whose} {name} is reached: {shown(standing.used)} of {shown(standing.limit)} used"
    if name in ("requests_per_minute", "concurrent_requests"):
        yield "now." if name == "concurrent_requests" else "in the last minute."
    else:
        yield f"or reserved, and this request may take up to {shown(need)}."
    if refusing.wait < 0:
        yield "It lets nothing through."
    elif name in _CALENDAR:
        end = period.day_end if name == "tokens_per_day" else period.month_end
        yield f"It begins anew at {end.astimezone(UTC):%Y-%m-%d %H:%M} UTC."
    elif name == "concurrent_requests":
        yield "Try again when one of these requests has ended."
    else:
        yield f"Try again in {refusing.wait:.1f} s."


def _lower(whose: str) -> str:
    return whose[0].lower() + whose[1:]
