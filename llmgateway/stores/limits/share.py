"""One worker's share of all limits, counted alone while Redis is away.

Limits are divided by the number of workers, so all shares together let through no more than the limit, or one
call each where that is smaller than their number. What of a share is used already is known (`grants.py`).
"""

from collections.abc import Iterable
from itertools import islice

import msgspec

from llmgateway.domain.admission import LoadUsed, ScopeKey, Used
from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.limits import Claim, Limits, Scope
from llmgateway.domain.periods import Period
from llmgateway.domain.ports import Clock
from llmgateway.stores.limits.grants import Shares
from llmgateway.stores.limits.memory_limiter import MemoryLimiter
from llmgateway.stores.limits.windows import Answer, Reading

SEEN = 20_000  # scopes whose use is remembered


class Seen:
    """How scopes stood when Redis last said so."""

    def __init__(self) -> None:
        self._found: dict[ScopeKey, tuple[Period, Reading]] = {}

    def note(self, answers: Iterable[tuple[Claim, Answer]]) -> None:
        found = self._found
        for claim, answer in answers:
            for scope, reading in zip(claim.scopes, answer.readings, strict=True):
                found[scope.kind, scope.id] = (claim.period, reading)
        for oldest in list(islice(found, max(0, len(found) - SEEN))):
            del found[oldest]

    def of(self, scope: Scope, day: str) -> Reading | None:
        period, reading = self._found.get((scope.kind, scope.id), (None, None))
        return reading if period is not None and period.day == day else None


class Share:
    """`adopted` are this worker's open calls: they have their places already. `shares` say what of them is
    used in the minute, `seen` tells of days and months."""

    def __init__(self, load: LoadUsed, clock: Clock, window: float, *, workers: int, shares: Shares,
                 seen: Seen) -> None:  # fmt: skip
        self._workers = max(1, workers)
        self._load = load
        self._shares = shares
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
        """What is new here begins with what of this worker's share is used."""
        for scope in claim.scopes:
            key = (scope.kind, scope.id)
            if key in self._known:
                continue
            self._known.add(key)
            if (used := self._shares.of(key)) is not None:
                self._limiter.counts.used_before(scope, used.at, used.requests, used.tokens)

    async def _used(self, scope: Scope, period: Period) -> Used:
        """By the ledger or as last heard, whichever is more: others' calls came since, and some are open."""
        read = self._seen.of(scope, period.day)
        found: tuple[int, ...]
        heard = None if read is None else (read.day_tokens, read.month_tokens, read.month_cost)
        try:
            used = await self._load(scope, period)
        except StoreUnavailable:
            if heard is None:
                raise
            found = heard
        else:
            by_ledger = (used.tokens_of_day, used.tokens_of_month, used.cost_of_month)
            found = tuple(map(max, heard or by_ledger, by_ledger))
        return Used(*(-(-amount // self._workers) for amount in found))

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
