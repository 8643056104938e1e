"""One worker's share of all limits, counted alone while Redis is away.

Limits and what was last seen of their use are divided by the number of workers, so all shares together let
through no more than the limit, or one call each where that is smaller than their number.
"""

from collections.abc import Iterable, Mapping

import msgspec

from llmgateway.domain.admission import LoadUsed, Used
from llmgateway.domain.limits import Claim, Limits, Scope
from llmgateway.domain.periods import Period
from llmgateway.domain.ports import Clock
from llmgateway.stores.limits.memory_limiter import MemoryLimiter
from llmgateway.stores.limits.windows import Answer, Reading

Seen = Mapping[tuple[str, str], tuple[int, Period, Reading]]
"""How scopes, by kind and id, stood when Redis last said so, in milliseconds of the monotonic clock."""


class Share:
    """`adopted` are this worker's open calls: they have their places already."""

    def __init__(self, load: LoadUsed, clock: Clock, window: float, *, workers: int,
                 seen: Seen) -> None:  # fmt: skip
        self._workers = max(1, workers)
        self._load = load
        self._seen = seen
        self._limiter = MemoryLimiter(self._used, clock=clock, window=window)
        self._known: set[tuple[str, str]] = set()
        self._limits: dict[Limits, Limits] = {}

    def adopt(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            self._begin(claim)
            self._limiter.counts.adopt(claim)

    async def admit(self, claim: Claim) -> Answer:
        """The answer in terms of the limits as they are. What is larger than a share, but not than the limit,
        takes all of the share."""
        self._begin(claim)
        scopes = tuple(Scope(one.kind, one.id, self._share_of(one.limits)) for one in claim.scopes)
        part = msgspec.structs.replace(
            claim, scopes=scopes, tokens=_fitting(claim, scopes, claim.tokens, _TOKENS),
            cost=_fitting(claim, scopes, claim.cost, ("cost_per_month",)),
        )  # fmt: skip
        answer = await (self._limiter.admit(part) if claim.id else self._limiter.look(part))
        readings = [
            _whole(read, share.limits, scope.limits)
            for read, share, scope in zip(answer.readings, scopes, claim.scopes, strict=True)
        ]
        return Answer(is_taken=answer.is_taken, readings=readings)

    def settle(self, id: str, tokens: int, cost: int) -> None:
        self._limiter.settle(id, tokens, cost)

    def _begin(self, claim: Claim) -> None:
        """What is new here begins with this worker's share of what was seen."""
        for scope in claim.scopes:
            key = (scope.kind, scope.id)
            if key in self._known:
                continue
            self._known.add(key)
            if (seen := self._seen.get(key)) is not None:
                at, _, reading = seen
                shares = (reading.requests // self._workers, reading.tokens // self._workers)
                self._limiter.counts.used_before(scope, at, *shares)

    async def _used(self, scope: Scope, period: Period) -> Used:
        seen = self._seen.get((scope.kind, scope.id))
        if seen is None or seen[1].day != period.day:
            used = await self._load(scope, period)
        else:
            read = seen[2]
            used = Used(read.day_tokens, read.month_tokens, read.month_cost)
        day, month, cost = used.tokens_of_day, used.tokens_of_month, used.cost_of_month
        return Used(day // self._workers, month // self._workers, cost // self._workers)

    def _share_of(self, limits: Limits) -> Limits:
        share = self._limits.get(limits)
        if share is None:
            parts = {
                name: limit and max(1, limit // self._workers)
                for name in limits.__struct_fields__ if (limit := getattr(limits, name)) is not None
            }  # fmt: skip
            share = self._limits[limits] = Limits(**parts)
        return share


_TOKENS = ("tokens_per_minute", "tokens_per_day", "tokens_per_month")


def _fitting(claim: Claim, scopes: Iterable[Scope], need: int, names: Iterable[str]) -> int:
    """What a claim asks of its shares; all of it where it is more than a whole limit, which refuses it."""
    if any(need > whole for whole in _limits(claim.scopes, names)):
        return need
    return min([need, *_limits(scopes, names)])


def _limits(scopes: Iterable[Scope], names: Iterable[str]) -> list[int]:
    found: list[int | None] = [getattr(scope.limits, name) for scope in scopes for name in names]
    return [limit for limit in found if limit is not None]


def _whole(read: Reading, share: Limits, limits: Limits) -> Reading:
    """As if what is not left of the share were used of the limit."""

    def used(name: str, of_share: int) -> int:
        whole = getattr(limits, name)
        return of_share if whole is None else whole - getattr(share, name) + of_share

    return Reading(
        used("requests_per_minute", read.requests),
        used("tokens_per_minute", read.tokens),
        used("tokens_per_day", read.day_tokens),
        used("tokens_per_month", read.month_tokens),
        used("cost_per_month", read.month_cost),
        used("concurrent_requests", read.places),
        read.requests_reset, read.tokens_reset, read.requests_wait, read.tokens_wait,
    )  # fmt: skip
