"""Compares what limits count of a day and a month with the ledger's sums, and puts right what has drifted.

Calls go on meanwhile, so no two sums are of one moment. But what had ended by the first look is in the ledger
when that is read, where no journal lags behind; and what the ledger holds is counted by the last look, where
every worker is heard of. So a sum has drifted by at least what it was too high at first, or is too low at
last: that much is corrected, and a sum that nobody uses is put right to the unit.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping

from llmgateway.domain.admission import CalendarSums, Counted, Look, ScopeKey, Used
from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.periods import Calendar, Period
from llmgateway.domain.ports import Clock

log = logging.getLogger(__name__)

PAUSE = 2.5  # seconds between two looks: records are shipped, and workers heard of, long before
SHOWN = 20  # scopes that are named in the log

UsedByAll = Callable[[Period, Collection[ScopeKey]], Awaitable[Mapping[ScopeKey, Used]]]
Amounts = tuple[int, int, int]
"""Tokens of the day, tokens of the month, cost of the month."""


class Comparison:
    """`used` asks the ledger for these scopes. `healed` counts the scopes that were put right."""

    def __init__(
        self, sums: CalendarSums, used: UsedByAll, calendar: Callable[[], Calendar], clock: Clock, *,
        pause: float = PAUSE,
    ) -> None:  # fmt: skip
        self._sums = sums
        self._used = used
        self._calendar = calendar
        self._clock = clock
        self._pause = pause
        self.healed = 0

    async def work(self) -> dict[str, int]:
        """As a job. While a store is away there is nothing to compare, and that is told of elsewhere."""
        try:
            return {"healed": await self._compare()}
        except StoreUnavailable:
            return {"healed": 0}

    async def _compare(self) -> int:
        period = self._calendar().period_of(self._clock.now())
        first = await self._sums.look(period)
        await asyncio.sleep(self._pause)
        before = await self._sums.look(period)
        used = await self._used(period, first.sums.keys())
        await asyncio.sleep(self._pause)
        last = await self._sums.look(period)
        if not first.epoch == before.epoch == last.epoch or before.silent or last.silent:
            return 0  # Redis begins anew, or a worker may know what nobody else does
        more = dict(_drifted(first, last, used, is_shipped=before.shipped_to > first.at))
        if more:
            await self._sums.add(period, more)
            self.healed += len(more)
            shown = {f"{kind}:{id}": more[kind, id] for kind, id in sorted(more)[:SHOWN]}
            log.warning("sums of limits had drifted from the ledger's and are put right",
                        extra={"fields": {"scopes": len(more), "added": shown}})  # fmt: skip
        return len(more)


def _drifted(
    first: Look, last: Look, used: Mapping[ScopeKey, Used], *, is_shipped: bool
) -> Iterator[tuple[ScopeKey, Amounts]]:
    for key, then in first.sums.items():
        now, of = last.sums.get(key), used.get(key, Used())
        if now is None:
            continue
        day, month, cost = (
            _correction(low, high, true, is_shipped=is_shipped)
            for low, high, true in zip(
                _amounts(then), _amounts(now),
                (of.tokens_of_day, of.tokens_of_month, of.cost_of_month), strict=True,
            )
        )  # fmt: skip
        if day or month or cost:
            yield key, (day, month, cost)


def _amounts(counted: Counted) -> tuple[int | None, ...]:
    return counted.day_tokens, counted.month_tokens, counted.month_cost


def _correction(first: int | None, last: int | None, true: int, *, is_shipped: bool) -> int:
    if first is None or last is None:
        return 0
    if first > true and is_shipped:
        return true - first
    return max(0, true - last)
