"""All that one store remembers goes to another: looked at first, then copied, then proved to be there.

As long as the look finds anything in the way, nothing is to be written. Where a copy broke off the next one
goes on, since what is there and the same is passed over; where all is there, nothing is written.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args

from msgspec import Struct

from llmgateway.control.audit import Audit, Verdict
from llmgateway.control.moves import (
    MOST,
    ChainMove,
    DocumentMove,
    Finding,
    LedgerMove,
    Move,
    SumsMove,
    Tally,
    Tell,
)
from llmgateway.domain.moving import Destination, Origin
from llmgateway.domain.ports import Clock, Dimension, Kind, Ledger, UsageQuery, UsageRow

LEFT: Final = frozenset({"jobs"})  # when each daily job last ran, which is a matter of every installation
KINDS: Final[Sequence[Kind]] = [kind for kind in get_args(Kind) if kind not in LEFT]
BY: Final[tuple[Dimension, ...]] = ("day", "user", "key", "project", "model")
DAYS_AT_ONCE = 7  # whose sums are compared
START, END = datetime(1970, 1, 1, tzinfo=UTC), datetime(9998, 1, 1, tzinfo=UTC)


class Proof(Struct, frozen=True):
    """What was found when all was copied: nothing, where all is well. `days` are those that have sums, the
    same on both sides where nothing says otherwise."""

    findings: Sequence[Finding]
    days: int
    audit: Verdict


class Migration:
    """`tell` hears how far it is."""

    def __init__(self, source: Origin, target: Destination, clock: Clock, tell: Tell) -> None:
        self._source = source
        self._target = target
        self._tell = tell
        self._audit = Audit(target, clock)
        self._moves: list[Move] = [
            *((ChainMove if kind == "audit" else DocumentMove)(kind, source, target, tell) for kind in KINDS),
            SumsMove(source, target, tell),  # before the records: with them come sums of what has left some
            LedgerMove(source, target, tell),
        ]

    async def look(self) -> list[Tally]:
        """What is where, and what is in the way."""
        tallies = [await move.look() for move in self._moves]
        for hour in (await self._source.differing(START, END))[:MOST]:
            tallies[-1].found(f"{hour:%Y-%m-%d %H:%M}", "the source's sums of this hour are not its records'")
        return tallies

    async def copy(self, tallies: Sequence[Tally]) -> None:
        """What the look has found missing."""
        for move, tally in zip(self._moves, tallies, strict=True):
            if tally.missing or isinstance(move, SumsMove):
                await move.copy(tally)
        if tallies[-1].copied:
            self._tell("sums", 0, tallies[-1].source)
            await self._target.rebuild()  # all days at once: faster than each span that is stale by now
        await self._target.roll_up()

    async def prove(self) -> Proof:
        """Everything is there, the same; the sums are, too; the audit log is whole."""
        findings: list[Finding] = []
        for tally in [await move.look() for move in self._moves]:
            findings += tally.findings
            if tally.missing:
                findings.append(Finding(tally.part, "-", f"{tally.missing:,} did not arrive"))
        days = await self._days()
        for start in range(0, len(days), DAYS_AT_ONCE):
            findings += await self._compare(days[start], days[min(start + DAYS_AT_ONCE, len(days)) - 1])
            self._tell("sums of days", start, len(days))
        verdict = await self._audit.verify()
        if verdict.bad is not None:
            is_copy = not any(finding.part == "audit" for finding in findings)
            where = ", in the source as here" if is_copy else ""
            findings.append(Finding("audit", verdict.bad, f"{verdict.reason}{where}"))
        return Proof(findings, len(days), verdict)

    async def _days(self) -> list[datetime]:
        sides = (self._source.archive, self._target.archive)
        return sorted({day for archive in sides for day in await archive.days(END)})

    async def _compare(self, first: datetime, last: datetime) -> list[Finding]:
        query = UsageQuery(start=first, end=last + timedelta(days=1), by=BY)
        ours, theirs = await _sums(self._source, query), await _sums(self._target, query)
        unlike = [
            key for key in sorted(ours.keys() | theirs.keys(), key=repr) if ours.get(key) != theirs.get(key)
        ]
        return [
            Finding(
                "sums", " ".join(map(str, key)), f"{_shown(ours.get(key))}, there {_shown(theirs.get(key))}"
            )
            for key in unlike[:MOST]
        ]


async def _sums(ledger: Ledger, query: UsageQuery) -> dict[Any, UsageRow]:
    return {tuple(row.group.values()): row for row in await ledger.usage(query)}


def _shown(row: UsageRow | None) -> str:
    if row is None:
        return "nothing"
    return f"{row.requests:,} requests, {row.prompt + row.completion:,} tokens, cost {row.cost:,}"
