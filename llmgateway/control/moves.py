"""What moves from one store to another, part by part: each is looked at, then what is missing is copied.

Both sides are walked in the order of ids, a page of each at a time: nothing else is in memory, however much
there is. Nothing that is there is ever changed.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from typing_extensions import override

from llmgateway.domain.call import Record
from llmgateway.domain.moving import Destination, Origin, Since, Sum
from llmgateway.domain.ports import Document, Documents, Kind, Ledger, RecordQuery
from llmgateway.domain.upkeep import Adjustment

PAGE = 1000
MOST = 100  # findings of a part that are told one by one
OTHER = "is there already, and is not the same"

Tell = Callable[[str, int, int], None]
"""Of a part, so many are done of so many."""


class Finding(Struct, frozen=True):
    """Something that is in the way, or not as it should be."""

    part: str
    id: str
    what: str


class Tally(Struct):
    """How many the source has of a part; how many of these the target has, how many it has otherwise.
    `others` are in the target only. Whatever is found is in the way."""

    part: str
    source: int = 0
    there: int = 0
    copied: int = 0
    conflicts: int = 0
    others: int = 0
    findings: list[Finding] = []

    @property
    def missing(self) -> int:
        return self.source - self.there - self.conflicts

    def conflict(self, id: str, what: str = OTHER) -> None:
        self.conflicts += 1
        self.found(id, what)

    def found(self, id: str, what: str) -> None:
        if len(self.findings) < MOST:
            self.findings.append(Finding(self.part, id, what))


class Move(Protocol):
    """A part."""

    async def look(self) -> Tally:
        """Both sides as they are now."""

    async def copy(self, tally: Tally) -> None:
        """What is missing; `tally` is what the look has found, and is told what was copied."""


class DocumentMove:
    """All documents of a kind."""

    def __init__(self, kind: Kind, source: Documents, target: Destination, tell: Tell) -> None:
        self._kind = kind
        self._source = source
        self._target = target
        self._tell = tell

    async def look(self) -> Tally:
        tally = Tally(self._kind)
        async for ours, theirs in pairs(self._source, self._target, self._kind):
            self._compare(tally, ours, theirs)
        self._tell(self._kind, tally.source, tally.source)
        return tally

    def _compare(self, tally: Tally, ours: Document | None, theirs: Document | None) -> None:
        tally.source += ours is not None
        if ours is None:
            tally.others += 1
        elif ours == theirs:
            tally.there += 1
        elif theirs is not None:
            tally.conflict(ours["id"])

    async def copy(self, tally: Tally) -> None:
        missing: list[Document] = []
        async for ours, theirs in pairs(self._source, self._target, self._kind):
            if ours is not None and theirs is None:
                missing.append(ours)
            if len(missing) == PAGE:
                await self._put(missing, tally)
                missing = []
        if missing:
            await self._put(missing, tally)

    async def _put(self, documents: Sequence[Document], tally: Tally) -> None:
        await self._target.insert_all(self._kind, documents)
        tally.copied += len(documents)
        self._tell(self._kind, tally.copied, tally.missing)


class ChainMove(DocumentMove):
    """The audit log: each line holds the hash of the one before, so it goes on in the target only where that
    has its beginning and nothing else."""

    @override
    def _compare(self, tally: Tally, ours: Document | None, theirs: Document | None) -> None:
        is_after_gap = tally.missing > 0
        super()._compare(tally, ours, theirs)
        if ours is None and theirs is not None:
            tally.found(theirs["id"], "is a line of another log, or of a gateway that was in use there")
        elif ours == theirs and is_after_gap and theirs is not None:
            tally.conflict(theirs["id"], "is there, and a line before it is not")


class LedgerMove:
    """All records, with their ids and times."""

    def __init__(self, source: Origin, target: Destination, tell: Tell) -> None:
        self._source = source
        self._target = target
        self._tell = tell

    async def look(self) -> Tally:
        tally = Tally("records", source=await self._source.archive.count())
        held = await self._target.archive.count()
        looked = 0
        async for records in pages(self._source) if held else nothing():
            lines = {line["id"]: line for line in await self._target.lines([one.id for one in records])}
            for one in records:
                if one.id in lines:
                    self._compare(tally, one, lines[one.id])
            self._tell("records", looked := looked + len(records), tally.source)
        tally.others = held - tally.there - tally.conflicts
        if tally.others:
            tally.found("-", f"{tally.others:,} of other calls are in the target's ledger")
        return tally

    def _compare(self, tally: Tally, ours: Record, theirs: Document) -> None:
        if record_of(theirs) == ours:
            tally.there += 1
        else:
            tally.conflict(ours.id)

    async def copy(self, tally: Tally) -> None:
        async for records in pages(self._source):
            known = await self._target.known([one.id for one in records]) if tally.there else set[str]()
            missing = [one for one in records if one.id not in known]
            refused = await self._target.append(missing) if missing else ()
            for id in refused:
                tally.found(id, "can never be stored there")
            tally.copied += len(missing) - len(refused)
            self._tell("records", tally.there + tally.copied, tally.source)


class SumsMove:
    """Sums of times whose records are gone on one of the sides. All others are made of the records."""

    def __init__(self, source: Origin, target: Destination, tell: Tell) -> None:
        self._source = source.archive
        self._target = target.archive
        self._tell = tell

    async def look(self) -> Tally:
        tally = Tally("old sums")
        async for ours, theirs in self._days(await self._since()):
            tally.source += len(ours)
            for key, one in theirs.items():
                if key not in ours:
                    tally.others += 1
                    tally.found(_named(one), "is a sum of other calls")
                elif ours[key] == one:
                    tally.there += 1
                else:
                    tally.conflict(_named(one))
        return tally

    async def copy(self, tally: Tally) -> None:
        since = await self._since()
        await self._target.inherit(since, [])
        async for ours, theirs in self._days(since):
            missing = [one for key, one in ours.items() if key not in theirs]
            await self._target.inherit(since, missing)
            tally.copied += len(missing)
            self._tell("old sums", tally.there + tally.copied, tally.source)

    async def _since(self) -> Since:
        """The later ones: the target makes no sums of records that it would throw away at once."""
        ours, theirs = await self._source.since(), await self._target.since()
        return Since(_later(ours.records, theirs.records), _later(ours.hourly, theirs.hourly))

    async def _days(self, since: Since) -> AsyncIterator[tuple[dict[Any, Sum], dict[Any, Sum]]]:
        if since.records is None:
            return
        days = {*await self._source.days(since.records), *await self._target.days(since.records)}
        for day in sorted(days):
            ours, theirs = await self._source.sums(day), await self._target.sums(day)
            yield _kept(ours, since.hourly), _kept(theirs, since.hourly)


# --- both sides ---


async def pairs(
    source: Documents, target: Documents, kind: Kind
) -> AsyncIterator[tuple[Document | None, Document | None]]:
    """What both have under each id, in the order of ids. What is inserted on the way, under an id that was
    given, is passed over."""
    others = walk(target, kind)
    theirs = await anext(others, None)
    async for ours in walk(source, kind):
        while theirs is not None and theirs["id"] < ours["id"]:
            yield None, theirs
            theirs = await anext(others, None)
        if theirs is not None and theirs["id"] == ours["id"]:
            yield ours, theirs
            theirs = await anext(others, None)
        else:
            yield ours, None
    while theirs is not None:
        yield None, theirs
        theirs = await anext(others, None)


async def walk(documents: Documents, kind: Kind) -> AsyncIterator[Document]:
    after: str | None = None
    while True:
        page = await documents.find(kind, {}, limit=PAGE, after=after)
        for document in page.data:
            yield document
        if page.next is None:
            return
        after = page.next


async def pages(ledger: Ledger) -> AsyncIterator[list[Record]]:
    """All records."""
    after: str | None = None
    while lines := await ledger.records(RecordQuery(limit=PAGE, after=after)):
        after = lines[-1]["id"]
        yield [record_of(line) for line in lines]


async def nothing() -> AsyncIterator[list[Record]]:
    for records in list[list[Record]]():
        yield records


def record_of(line: Document) -> Record:
    """As it was appended: a field that it has not is of a later version, and has its default."""
    kind = Adjustment if "adjusts" in line else Record
    return msgspec.convert({"_id": line["id"], **line}, kind)


def _kept(sums: Sequence[Sum], hourly: datetime | None) -> dict[Any, Sum]:
    """By what they are of; hours only where they are kept."""
    return {
        (one.unit, one.start, one.user, one.key_id, one.project, one.model): one
        for one in sums
        if one.unit == "day" or hourly is None or one.start >= hourly
    }


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((at for at in (one, other) if at is not None), default=None)


def _named(one: Sum) -> str:
    return f"{one.unit} {one.start:%Y-%m-%d %H:%M} of {one.user}, {one.key_id}, {one.project}, {one.model}"
