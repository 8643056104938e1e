"""Reconciliation: what the journals, the ledger and its sums say of the same calls is made to agree.

The ledger never changes, so a record that is not what was measured gets a correction beside it, `id:adj:n`,
with the difference. What was measured is what a journal holds as settled. A fault counts only when two looks
with a pause between them have seen it: nearly all that differs in one is on its way.

- missing: settled in a journal, not in the ledger. It is appended.
- altered: with other tokens or cost in the ledger than in the journal. The difference is appended.
- twin: one call under two ids, the same to the last field, and the gateway named it. All but the first are
  taken back. Calls that bear a name of their caller's may be alike and many: they stay.
- drift: an hour whose sums are not those of its records. It is summed up anew.
- orphan: left open by a dead worker. `recover` settles it, as a start of the gateway would.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from llmgateway.domain.call import Record, Tokens
from llmgateway.domain.ports import Clock, Document
from llmgateway.domain.upkeep import ADJUSTED, Adjustment, Upkeep

log = logging.getLogger(__name__)

PAUSE = 5.0  # seconds between the two looks
WINDOW = timedelta(days=35)  # of the daily run: all of a month that may still be charged
PAGE = 500
MOST = 9  # corrections of one record that are looked for
TOKENS = Tokens.__struct_fields__


class Left(Struct, frozen=True):
    """What the journals of one machine hold: settled records by id, how many the dead left open, and how many
    letters are dead."""

    settled: Mapping[str, Record]
    orphans: int = 0
    dead_letters: int = 0


class Found(Struct, frozen=True, kw_only=True):
    """The faults of one run, all of them put right but for dead letters."""

    missing: int = 0
    altered: int = 0
    twins: int = 0
    drift: int = 0
    orphans: int = 0
    dead_letters: int = 0

    @property
    def discrepancy(self) -> int:
        return self.missing + self.altered + self.twins + self.drift


class Reconciliation:
    """`survey` reads the journals; `recover` settles orphans and returns how many."""

    def __init__(
        self,
        ledger: Upkeep,
        clock: Clock,
        *,
        survey: Callable[[], Awaitable[Left]],
        recover: Callable[[], Awaitable[int]],
        pause: float = PAUSE,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._survey = survey
        self._recover = recover
        self._pause = pause
        self.last: Found | None = None

    async def run(self, window: timedelta | None = WINDOW) -> Found:
        """Looks at what was accepted within `window`; None for everything."""
        now = self._clock.now()
        start = datetime(1970, 1, 1, tzinfo=now.tzinfo) if window is None else now - window
        orphans = await self._recover()
        await self._ledger.roll_up()
        first = await self._look(start, now)
        if not first.is_clean:
            await asyncio.sleep(self._pause)
            await self._ledger.roll_up()
            first = first.still(await self._look(start, now))
        await self._correct(first)
        self.last = Found(
            missing=len(first.missing), altered=len(first.altered), twins=len(first.twins),
            drift=len(first.drift), orphans=orphans, dead_letters=first.dead_letters,
        )  # fmt: skip
        return self.last

    async def work(self) -> dict[str, int]:
        """As a job."""
        found = await self.run()
        return {name: getattr(found, name) for name in Found.__struct_fields__}

    async def _look(self, start: datetime, end: datetime) -> "_Look":
        left = await self._survey()
        missing: dict[str, Record] = {}
        altered: dict[str, Adjustment] = {}
        ids = list(left.settled)
        for page in (ids[at : at + PAGE] for at in range(0, len(ids), PAGE)):
            lines = {line["id"]: line for line in await self._ledger.lines(page)}
            missing |= {id: left.settled[id] for id in page if id not in lines}
            stored = [left.settled[id] for id in page if id in lines]
            unlike = [record for record in stored if _difference(record, [lines[record.id]])]
            altered |= await self._corrections(unlike, lines)
        return _Look(
            missing, altered, await self._twins(start, end),
            frozenset(await self._ledger.differing(start, end)), left.dead_letters,
        )  # fmt: skip

    async def _corrections(
        self, measured: Sequence[Record], lines: Mapping[str, Document]
    ) -> dict[str, Adjustment]:
        """By id of the record; none where earlier corrections have put it right."""
        found: dict[str, Adjustment] = {}
        for record in measured:
            earlier = await self._ledger.lines([f"{record.id}{ADJUSTED}{n}" for n in range(1, MOST + 1)])
            difference = _difference(record, [lines[record.id], *earlier])
            if difference is not None:
                tokens, cost = difference
                found[record.id] = _adjustment(
                    record, len(earlier) + 1, tokens=tokens, cost=cost, why="the journal has measured this"
                )
        return found

    async def _twins(self, start: datetime, end: datetime) -> dict[str, Adjustment]:
        found: dict[str, Adjustment] = {}
        for lines in await self._ledger.twins(start, end):
            for line in lines[1:] if _is_one_call(lines) else ():
                if not await self._ledger.known([f"{line['id']}{ADJUSTED}1"]):
                    found[line["id"]] = _taken_back(line, lines[0]["id"])
        return found

    async def _correct(self, look: "_Look") -> None:
        new = [*look.missing.values(), *look.altered.values(), *look.twins.values()]
        for page in (new[at : at + PAGE] for at in range(0, len(new), PAGE)):
            if dead := await self._ledger.append(page):
                log.error("the store refuses corrections", extra={"fields": {"ids": sorted(dead)}})
        await self._ledger.mend(sorted(look.drift))
        await self._ledger.roll_up()
        if not look.is_clean:
            fields: dict[str, Any] = {
                "missing": sorted(look.missing), "altered": sorted(look.altered), "twins": sorted(look.twins),
                "hours": [hour.isoformat() for hour in sorted(look.drift)],
            }  # fmt: skip
            log.warning("the ledger was put right", extra={"fields": fields})


class _Look(Struct, frozen=True):
    """What differs now: what is to be appended for it by record, and hours to sum up anew."""

    missing: Mapping[str, Record]
    altered: Mapping[str, Adjustment]
    twins: Mapping[str, Adjustment]
    drift: frozenset[datetime]
    dead_letters: int

    @property
    def is_clean(self) -> bool:
        return not (self.missing or self.altered or self.twins or self.drift)

    def still(self, later: "_Look") -> "_Look":
        return _Look(
            {id: one for id, one in later.missing.items() if id in self.missing},
            {id: one for id, one in later.altered.items() if self.altered.get(id) == one},
            {id: one for id, one in later.twins.items() if id in self.twins},
            later.drift & self.drift,
            later.dead_letters,
        )


def _difference(measured: Record, stored: Sequence[Document]) -> tuple[Tokens, int] | None:
    """What is lacking in the ledger, with all that corrects it; None where nothing is."""
    tokens = Tokens(
        *(getattr(measured.tokens, name) - sum(line["tokens"][name] for line in stored) for name in TOKENS)
    )
    cost = measured.cost - sum(line["cost"] for line in stored)
    return (tokens, cost) if cost or tokens != Tokens() else None


def _adjustment(record: Record, number: int, *, tokens: Tokens, cost: int, why: str) -> Adjustment:
    return Adjustment(
        id=f"{record.id}{ADJUSTED}{number}", request_id=record.request_id, at=record.at,
        ended_at=record.ended_at, key_id=record.key_id, user=record.user, project=record.project,
        endpoint=record.endpoint, model=record.model, price_id=record.price_id, stream=record.stream,
        outcome=record.outcome, status=record.status, usage_source=record.usage_source,
        tokens=tokens, cost=cost, adjusts=record.id, why=why,
    )  # fmt: skip


def _is_one_call(lines: Sequence[Document]) -> bool:
    """Whether the gateway gave them their name, which is the id of one of them. Who brings the id of another
    call as a name has read it in that call's answer, so in a later millisecond than that came in: unless the
    answer took none."""
    said = lines[0]["duration_ms" if lines[0]["ttft_ms"] is None else "ttft_ms"]
    return said > 0 and any(line["request_id"] == line["id"] for line in lines)


def _taken_back(line: Document, first: str) -> Adjustment:
    kept = ("request_id", "at", "ended_at", "key_id", "user", "project", "endpoint", "model", "price_id",
            "stream", "outcome", "status", "usage_source")  # fmt: skip
    tokens = Tokens(*(-line["tokens"][name] for name in TOKENS))
    return Adjustment(
        id=f"{line['id']}{ADJUSTED}1", **{name: line[name] for name in kept}, tokens=tokens,
        cost=-line["cost"], adjusts=line["id"], requests=-1, why=f"it is the same call as {first}",
    )  # fmt: skip
