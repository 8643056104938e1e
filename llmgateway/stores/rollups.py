"""Which sums answer a question to the ledger: days, then hours, then records where neither fits.

A question is cut up from the coarse to the fine. A unit of a level is taken whole when it lies within the
range, no midnight of the asked time zone cuts it, and the level is known to hold all of it; else the next
finer level is asked for its span, and in the end the records. So zones whose days do not begin on a full hour
of UTC read the records of one hour a day, all others none but those of the range's own ends.

What makes this exact is that a store knows what its sums lack. SQLite has one writer, so records have a
number in the order in which they came: what is above the last number in the sums is added to every answer,
and each record is added to the sums once, in the transaction that moves that number. It does not matter how
late a record comes or how often it is sent. MongoDB has many writers and no such order: whoever has stored
records marks their five minutes of time, and marked spans are read from the records until they were summed
up anew. Summing up again is harmless, so a mark too many costs time and never a unit.

Where records are gone, an hour belongs whole to the range or day in which it begins, and where hours are
gone, so does a day.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct

DAY, HOUR, SLICE = 86_400_000, 3_600_000, 300_000
QUARTER = 900_000  # every zone's offset is a multiple of it
FIRST, LAST = -62_135_596_800_000, 253_402_214_400_000  # what a datetime can be

Span = tuple[int, int]  # milliseconds since 1970, the end not included


class Level(Struct, frozen=True):
    """Sums by units of `size`, of which there is none before `since`."""

    size: int
    since: int = FIRST


class Coverage(Struct, frozen=True, kw_only=True):
    """What a store's sums hold: from the coarsest to the finest level, and `stale` spans of the finest, in
    order, of which they may lack something. Records before `records_since` may be gone."""

    levels: Sequence[Level]
    records_since: int = FIRST
    stale: Sequence[Span] = ()


class Plan(Struct, frozen=True):
    """What to add up: spans of sums by the size of their level, and spans of records."""

    sums: dict[int, list[Span]]
    records: list[Span]


def plan(span: Span, midnights: Sequence[int], coverage: Coverage) -> Plan:
    """`midnights` are those of the asked zone, in order; none where days do not matter."""
    return _Cutting(midnights, coverage).cut(span)


class _Cutting:
    """One question."""

    def __init__(self, midnights: Sequence[int], coverage: Coverage) -> None:
        self._midnights = midnights
        self._levels = coverage.levels
        self._records_since = coverage.records_since
        self._stale = coverage.stale
        self._stale_ends = [end for _, end in coverage.stale]
        self._sums: dict[int, list[Span]] = {level.size: [] for level in coverage.levels}
        self._records: list[Span] = []

    def cut(self, span: Span) -> Plan:
        self._cover(*span, 0)
        sums = {size: merged(spans) for size, spans in self._sums.items() if spans}
        return Plan(sums, merged(self._records))

    def _cover(self, start: int, end: int, depth: int) -> None:
        if start >= end:
            return
        if depth == len(self._levels):
            self._records.append((start, end))
            return
        level = self._levels[depth]
        if start < level.since:  # so early there are only finer ones, or nothing
            self._cover(start, min(end, level.since), depth + 1)
        start = max(start, level.since)
        coarse = min(end, ceiling(self._finer_since(depth), level.size))
        if start < coarse:  # nothing finer is left: units belong to where they begin
            self._take(level, ceiling(start, level.size), ceiling(coarse, level.size))
            start = coarse
        if start < end:
            self._cover_units(start, end, depth)

    def _cover_units(self, start: int, end: int, depth: int) -> None:
        level = self._levels[depth]
        first, last = ceiling(start, level.size), floor(end, level.size)
        if first >= last:
            self._cover(start, end, depth + 1)
            return
        self._cover(start, first, depth + 1)
        for unit in self._broken(first, last, level.size):
            self._take(level, first, unit)
            self._cover(unit, unit + level.size, depth + 1)
            first = unit + level.size
        self._take(level, first, last)
        self._cover(last, end, depth + 1)

    def _take(self, level: Level, start: int, end: int) -> None:
        if start < end:
            self._sums[level.size].append((start, end))

    def _finer_since(self, depth: int) -> int:
        return min(self._records_since, *(level.since for level in self._levels[depth + 1 :]), LAST)

    def _broken(self, start: int, end: int, size: int) -> list[int]:
        """Units of [start, end) that a midnight cuts, or that may lack something."""
        low, high = bisect_left(self._midnights, start), bisect_right(self._midnights, end - 1)
        broken = {floor(moment, size) for moment in self._midnights[low:high] if moment % size}
        nearby = self._stale[bisect_right(self._stale_ends, start) :]
        inside = [span for span in nearby if span[0] < end]
        return sorted(broken.union(unit for unit in units(inside, size) if start <= unit < end))


def midnights_of(zone: ZoneInfo, span: Span) -> list[int]:
    """Where a day of the zone begins, after the span's start and before its end."""
    start, end = span
    if start >= end:
        return []
    day = _datetime(start).astimezone(zone).date() + timedelta(days=1)
    found: list[int] = []
    while True:
        # A midnight that the clocks skip is read with the offset before: that is the moment of the change.
        midnight = int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1000
        if midnight >= end:
            return found
        if midnight > start:
            found.append(midnight)
        day += timedelta(days=1)


def merged(spans: Iterable[Span]) -> list[Span]:
    """In order; those that touch are one."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def floor(moment: int, size: int) -> int:
    return moment // size * size


def ceiling(moment: int, size: int) -> int:
    return -(-moment // size) * size


def units(spans: Iterable[Span], size: int) -> list[int]:
    """Where the units begin that any of the spans touches."""
    return sorted({unit for start, end in spans for unit in range(floor(start, size), end, size)})


def begin_of(mark: int) -> datetime | None:
    """Of what is kept; None where nothing was thrown away."""
    return None if mark == FIRST else _datetime(mark)


def _datetime(moment: int) -> datetime:
    return datetime.fromtimestamp(moment // 1000, UTC)
