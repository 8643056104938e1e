"""Questions to the ledger: what scopes have used in a period, asked once however many claims wait for it."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from llmgateway.domain.admission import LoadUsed, Used
from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.limits import Claim, Scope
from llmgateway.domain.periods import Period
from llmgateway.domain.ports import Clock
from llmgateway.stores.limits.windows import Begin, Unknown

PAUSE = 5.0  # seconds in which a ledger that was away is not asked again

Key = tuple[str, str, Period]


class LedgerSums:
    """`load` is asked in the task of the first who wants to know. When that is cancelled, the next asks."""

    def __init__(self, load: LoadUsed, clock: Clock) -> None:
        self._load = load
        self._clock = clock
        self._asked: dict[Key, list[asyncio.Future[Used | None]]] = {}
        self._away_until = 0.0

    def away(self, claim: Claim) -> Sequence[Begin]:
        """What a claim begins with while the ledger is known to be away; normally nothing."""
        if not self._away_until:
            return ()
        if self._clock.monotonic() >= self._away_until:
            self._away_until = 0.0
            return ()
        return without(claim)

    async def begins(self, claim: Claim, unknown: Sequence[Unknown]) -> list[Begin]:
        begins: list[Begin] = []
        for one in unknown:
            used = await self._used(claim.scopes[one.index], _before(claim.period, one))
            if used is None:
                begins += all_away([one.index])
                continue
            begins.append(Begin(
                one.index, one.day_since, one.month_since,
                used.tokens_of_day, used.tokens_of_month, used.cost_of_month,
            ))  # fmt: skip
        return begins

    async def _used(self, scope: Scope, period: Period) -> Used | None:
        key = (scope.kind, scope.id, period)
        while (waiting := self._asked.get(key)) is not None:
            mine: asyncio.Future[Used | None] = asyncio.get_running_loop().create_future()
            waiting.append(mine)
            try:
                return await mine
            except _AskYourself:
                continue
        waiting = self._asked[key] = []
        try:
            used = await self._answer(scope, period)
        except BaseException:
            del self._asked[key]
            for one in waiting:
                if not one.done():
                    one.set_exception(_AskYourself())
            raise
        del self._asked[key]
        for one in waiting:
            if not one.done():
                one.set_result(used)
        return used

    async def _answer(self, scope: Scope, period: Period) -> Used | None:
        if self._clock.monotonic() < self._away_until:
            return None
        try:
            return await self._load(scope, period)
        except StoreUnavailable:
            self._away_until = self._clock.monotonic() + PAUSE
            return None


class _AskYourself(Exception):
    """Whoever asked the ledger for all was cut off."""


def without(claim: Claim) -> list[Begin]:
    """What a claim begins with when the ledger is not asked."""
    return all_away(range(len(claim.scopes)))


def all_away(indices: Iterable[int]) -> list[Begin]:
    return [Begin(index, is_away=True) for index in indices]


def _before(period: Period, unknown: Unknown) -> Period:
    """The period up to the time from which use is counted here: the ledger's later records are known."""
    if not unknown.day_since and not unknown.month_since:
        return period
    return msgspec.structs.replace(
        period,
        day_end=_earlier(period.day_start, period.day_end, unknown.day_since),
        month_end=_earlier(period.month_start, period.month_end, unknown.month_since),
    )


def _earlier(start: datetime, end: datetime, since: int) -> datetime:
    return max(start, min(end, datetime.fromtimestamp(since / 1000, UTC))) if since else end
