"""Ships settled records from the journal to the permanent store, and settles what dead workers left open."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic

from llmgateway.domain.admission import Spent
from llmgateway.domain.call import Record
from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.ports import Clock, Document, Journal
from llmgateway.domain.spool import B, Spool

log = logging.getLogger(__name__)

PERIOD = 0.1  # seconds between two looks into the journal: what waits stays in the CPU's cache
BATCH = 1_000  # records of one append; more than that are shipped without a pause
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0  # seconds between two tries while the store is away
AT_ONCE = 200  # orphans that are settled before others get their turn
TAKE_OVER_PERIOD = 5.0  # seconds between two looks for workers that have died

Append = Callable[[Sequence[Record]], Awaitable[Sequence[str]]]  # `domain.ports.Ledger.append`
Lines = Callable[[Sequence[str]], Awaitable[Sequence[Document]]]  # `domain.upkeep.Upkeep.lines`
Sink = Callable[[Record], None]
Heir = Callable[[str, Spent], Awaitable[None]]
"""Gives back what a dead worker held of something shared. Raises `StoreUnavailable` where that must wait."""


class Shipper(Generic[B]):
    """At least once, with the effect of once: the store knows a record by its id. Nothing leaves the journal
    before the store has it, or the dead-letter file has what no store takes."""

    def __init__(self, spool: Spool[B], append: Append, *, period: float = PERIOD) -> None:
        self._spool = spool
        self._append = append
        self._period = period
        self._jitter = random.SystemRandom().random
        self._pause = 0.0  # while the store is away; 0 while it answers
        self._turn = asyncio.Lock()
        self.dead_letters = 0

    async def run(self) -> None:
        """For ever; what goes wrong is logged and tried again."""
        while True:
            await asyncio.sleep(self._pause * (0.5 + self._jitter()) if self._pause else self._period)
            try:
                await self.ship()
            except Exception:
                log.exception("shipping records failed")
                self._lengthen_pause()

    async def ship(self) -> bool:
        """Ships what waits, but not the few that come meanwhile; False when the store is away."""
        async with self._turn:
            waiting = self._spool.unshipped
            while (batch := self._spool.batch(BATCH)).records:
                try:
                    dead = await self._append(batch.records)
                except StoreUnavailable as error:
                    self._away(error)
                    return False
                if dead:
                    self._bury(batch.records, dead)
                self._spool.shipped(batch)
                self._back()
                waiting -= len(batch.records)
                if waiting <= 0:
                    break
            return True

    async def drain(self, seconds: float) -> bool:
        """Ships all that waits, trying again while the store is away; False when that took too long. Then the
        journal keeps the rest for the next start."""
        try:
            async with asyncio.timeout(seconds):
                await self._ship_all()
        except TimeoutError:
            fields = {"records": self._spool.unshipped}
            log.warning("records stay in the journal until the next start", extra={"fields": fields})
            return False
        return True

    async def _ship_all(self) -> None:
        while self._spool.batch(1).records:
            if not await self.ship():
                await asyncio.sleep(min(self._pause, 1.0))

    def _bury(self, records: Sequence[Record], dead: Sequence[str]) -> None:
        lost = set(dead)
        self._spool.bury(record for record in records if record.id in lost)
        self.dead_letters += len(lost)
        fields = {"ids": sorted(lost)}
        log.error("the store refused records; they are in the dead-letter file", extra={"fields": fields})

    def _away(self, error: StoreUnavailable) -> None:
        if not self._pause:
            fields = {"records": self._spool.unshipped, "reason": error.message}
            log.warning("records wait in the journal: the store is away", extra={"fields": fields})
        self._lengthen_pause()

    def _back(self) -> None:
        if self._pause:
            self._pause = 0.0
            log.info("records are shipped again", extra={"fields": {"records": self._spool.unshipped}})

    def _lengthen_pause(self) -> None:
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)


class Recovery:
    """Looks for the journals of dead workers: at the start before anything is served, and while the gateway
    runs, since a worker may die while others live. `sinks` see recovered records as they see all others. Then
    `heirs` give back what is left; without any that is the next start's to do. `lines` of the ledger tell of
    calls whose record has left the journal."""

    def __init__(
        self, spool: Spool[B], journal: Journal, clock: Clock, *, lines: Lines, sinks: Sequence[Sink] = (),
        heirs: Sequence[Heir] = (),
    ) -> None:  # fmt: skip
        self._take_over = spool.take_over
        self._given_back = spool.given_back
        self._journal = journal
        self._clock = clock
        self._lines = lines
        self._sinks = sinks
        self._heirs = heirs
        self._owing: dict[str, Mapping[str, tuple[int, int]]] = {}  # by dead worker: what its calls have used
        self._turn = asyncio.Lock()
        self.recovered = 0

    async def look(self) -> int:
        """Settles what was left open with what was last known of it; returns how many that were."""
        async with self._turn:
            estate = await self._take_over()
            await self._settle(estate.orphans)
            self._owing |= dict.fromkeys(estate.workers, estate.spent)
            for worker in list(self._owing) if self._heirs else ():
                await self._give_back(worker)
        return len(estate.orphans)

    async def run(self) -> None:
        """For ever; a journal that cannot be read now is looked at again."""
        while True:
            await asyncio.sleep(TAKE_OVER_PERIOD)
            try:
                await self.look()
            except Exception:
                log.exception("taking over the journals of dead workers failed")

    async def _settle(self, orphans: Sequence[Record]) -> None:
        for number, record in enumerate(orphans, 1):
            record.outcome = "recovered"
            record.usage_source = "estimated"
            record.ended_at = self._clock.now()
            self._journal.settle(record)
            for sink in self._sinks:
                sink(record)
            if not number % AT_ONCE:
                await asyncio.sleep(0)
        if orphans:
            self.recovered += len(orphans)
            fields = {"records": len(orphans)}
            log.warning("settled what a dead worker had left open", extra={"fields": fields})

    async def _give_back(self, worker: str) -> None:
        """After its calls are settled: first the truth, then the rest."""
        in_journal = self._owing[worker]

        async def spent(ids: Sequence[str]) -> Mapping[str, tuple[int, int]]:
            found = {id: in_journal[id] for id in ids if id in in_journal}
            if others := [id for id in ids if id not in found]:
                found |= await self._in_ledger(others)
            return found

        try:
            for heir in self._heirs:
                await heir(worker, spent)
        except StoreUnavailable as error:
            fields = {"worker": worker, "reason": error.message}
            log.debug("what a dead worker held is given back later", extra={"fields": fields})
        else:
            del self._owing[worker]
            self._given_back(worker)

    async def _in_ledger(self, ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Calls that were let in and never accepted are nowhere: they have used nothing."""
        try:
            lines = await self._lines(ids)
        except StoreUnavailable:
            return {}
        stored = {
            line["id"]: (line["tokens"]["prompt"] + line["tokens"]["completion"], line["cost"])
            for line in lines
        }
        return dict.fromkeys(ids, (0, 0)) | stored
