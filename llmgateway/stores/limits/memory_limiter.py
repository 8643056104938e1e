"""The limiter of a gateway that is one process."""

import math
from collections.abc import Callable, Mapping, Sequence

from llmgateway.domain.admission import Behind, LoadUsed, Look, ScopeKey, Spent
from llmgateway.domain.limits import Claim, Scope, Standing
from llmgateway.domain.periods import Period
from llmgateway.domain.ports import Clock, SystemClock
from llmgateway.stores.limits.standings import Money, refusal, standings_of, tightest, units
from llmgateway.stores.limits.sums import LedgerSums
from llmgateway.stores.limits.windows import Answer, Counts

MINUTE = 60.0


def nothing_waits() -> float:
    return 0.0


class MemoryLimiter:
    """Forgets everything with its process, and asks the ledger again. `window` is what a minute is."""

    name = "memory"

    def __init__(self, load: LoadUsed, *, clock: Clock | None = None, window: float = MINUTE,
                 money: Money = units) -> None:  # fmt: skip
        self._clock = clock or SystemClock()
        self._money = money
        self._sums = LedgerSums(load, self._clock)
        self.counts = Counts(window, self._wall)
        self.behind: Behind = nothing_waits
        self.sums = MemorySums(self.counts, self.milliseconds, lambda: self.behind())

    def is_healthy(self) -> bool:
        return True

    async def reserve(self, claim: Claim) -> Sequence[Standing]:
        answer = await self.admit(claim)
        if not answer.is_taken:
            raise refusal(claim, answer.readings, self._clock.now, money=self._money)
        return tightest(claim.scopes, answer.readings, claim.period, self._clock.now)

    async def admit(self, claim: Claim) -> Answer:
        """As `reserve`, in numbers."""
        begins = self._sums.away(claim)
        while (answer := self.counts.claim(claim, self.milliseconds(), begins)).unknown:
            begins = await self._sums.begins(claim, answer.unknown)
        return answer

    def settle(self, id: str, tokens: int, cost: int) -> None:
        self.counts.settle(id, tokens, cost)

    async def standings(self, scopes: Sequence[Scope], period: Period) -> Sequence[Standing]:
        answer = await self.look(question(scopes, period))
        return standings_of(scopes, answer.readings, period, self._clock.now)

    async def look(self, claim: Claim) -> Answer:
        begins = self._sums.away(claim)
        while (answer := self.counts.look(claim, self.milliseconds(), begins)).unknown:
            begins = await self._sums.begins(claim, answer.unknown)
        return answer

    async def recover(self, worker: str, spent: Spent) -> None:
        """A dead worker's calls died with its counts."""

    def milliseconds(self) -> int:
        return int(self._clock.monotonic() * 1000)

    def _wall(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


class MemorySums:
    """The sums of days and months in this process."""

    def __init__(self, counts: Counts, milliseconds: Callable[[], int], behind: Behind) -> None:
        self._counts = counts
        self._milliseconds = milliseconds
        self._behind = behind

    async def look(self, period: Period) -> Look:
        now = self._milliseconds()
        shipped_to = now - math.ceil(self._behind() * 1000)
        return Look(
            epoch=self.__class__.__name__, at=now, shipped_to=shipped_to, silent=0,
            sums=self._counts.settled(period),
        )  # fmt: skip

    async def add(self, period: Period, more: Mapping[ScopeKey, tuple[int, int, int]]) -> None:
        self._counts.add(period, more)


def question(scopes: Sequence[Scope], period: Period) -> Claim:
    """A claim of nothing, for a look."""
    return Claim("", tuple(scopes), 0, 0, period)
