"""The sums beside the ledger on MongoDB: made by the server itself, span by span, out of what is finer.

`stale` holds the spans of which the sums may lack records; `rollups.py` says why that is exact. Sums of five
minutes are kept for three days: what is marked stale is nearly always of now, and then only minutes are
summed up from records, hours from these minutes, days from hours.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from secrets import token_hex
from typing import Any, Final

from msgspec import Struct
from pymongo import UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from llmgateway.domain.call import Record
from llmgateway.domain.ports import Dimension, Document, UsageQuery
from llmgateway.domain.upkeep import Retention
from llmgateway.stores.rollups import (
    DAY,
    FIRST,
    HOUR,
    LAST,
    QUARTER,
    SLICE,
    Coverage,
    Level,
    Plan,
    Span,
    floor,
    merged,
    midnights_of,
    plan,
    units,
)
from llmgateway.stores.usage import COLUMNS, SUMS, Totals, checked, folded, milliseconds, moment_of, zone_of

STEP = 500  # stale spans of one round
MOST_STALE = 5_000  # beyond that, after a long outage or a migration, questions go to the records
SLICE_DAYS = 3
STEP_SECONDS = 60.0  # for one step of work that nobody waits for
SOON = 0.05  # seconds
BEING_MADE: Final = 51183  # "Cannot find index to verify that join fields will be unique"
AMOUNTS: Final = ("requests", *SUMS, "cost")
GROUP: Final = ("user", "key_id", "project", "model")
STATE: Final = {"_id": "sums"}

Asking = Callable[..., AbstractContextManager[None]]


class State(Struct, kw_only=True):
    """What the sums hold at all: nothing until `is_ready`."""

    is_ready: bool = False
    records_since: int = FIRST
    hourly_since: int = FIRST
    slices_since: int = FIRST


class MongoSums:
    """`asking` bounds an operation in time and turns the driver's errors into ours."""

    def __init__(
        self, database: AsyncDatabase[Document], asking: Asking, now: Callable[[], datetime]
    ) -> None:
        self._asking = asking
        self._now = now
        self._records = database["records"]
        self._sums = database["sums"]
        self._stale = database["stale"]
        self._marks = database["marks"]

    async def mark(self, records: Iterable[Record]) -> None:
        """After they are stored. Whoever dies before has told nobody that they are, and stores them again."""
        touched = {milliseconds(record.at) // SLICE * SLICE for record in records}
        marks = [UpdateOne({"_id": moment_of(one)}, {"$inc": {"n": 1}}, upsert=True) for one in touched]
        if marks:
            with self._asking():
                await self._stale.bulk_write(marks, ordered=False)

    # --- questions ---

    async def answer(self, query: UsageQuery) -> Totals:
        where = {name: {"$eq": value} for name, value in checked(query.where).items()}
        zone = zone_of(query.time_zone)
        planned = await self._planned(query)
        sums = [
            {**where, "l": size, "t": between(span)} for size, spans in planned.sums.items() for span in spans
        ]
        records = [{**where, "at": between(span)} for span in planned.records]
        rows = await asyncio.gather(
            self._rows(self._sums, sums, _total(query.by, "$t", of_sums=True)),
            self._rows(self._records, records, _total(query.by, floored("$at", QUARTER), of_sums=False)),
        )
        return folded(_flat([*rows[0], *rows[1]], query.by), query.by, zone)

    async def _planned(self, query: UsageQuery) -> Plan:
        start = FIRST if query.start is None else milliseconds(query.start)
        end = LAST if query.end is None else milliseconds(query.end)
        if start >= end:
            return Plan({}, [])
        state, stale, known = await asyncio.gather(
            self.state(), self._stale_spans(MOST_STALE + 1), self._known_days()
        )
        if not state.is_ready or len(stale) > MOST_STALE:
            return Plan({}, [(start, end)])
        reached = [*known, *(moment for span in stale for moment in span)]
        if not reached:
            return Plan({}, [])
        span = max(start, min(reached)), min(end, max(reached))
        midnights = midnights_of(zone_of(query.time_zone), span) if "day" in query.by else []
        return plan(span, midnights, _coverage(state, merged(stale)))

    async def _rows(self, collection: Any, spans: list[Document], group: Document) -> list[Document]:
        if not spans:
            return []
        with self._asking():
            cursor = await collection.aggregate([{"$match": {"$or": spans}}, {"$group": group}])
            found: list[Document] = await cursor.to_list()
            return found

    async def state(self) -> State:
        with self._asking():
            found = await self._marks.find_one(STATE)
        return (
            State(**{name: found[name] for name in State.__struct_fields__ if name in found})
            if found
            else State()
        )

    async def _stale_spans(self, most: int) -> list[Span]:
        with self._asking():
            found = await self._stale.find({}, {"_id": 1}).sort("_id", 1).limit(most).to_list()
        return [(start, start + SLICE) for start in (milliseconds(one["_id"]) for one in found)]

    async def _known_days(self) -> list[int]:
        found: list[int] = []
        for direction in (1, -1):
            with self._asking():
                one = await self._sums.find_one({"l": DAY}, {"t": 1}, sort=[("t", direction)])
            if one is not None:
                found.append(milliseconds(one["t"]) + (DAY if direction < 0 else 0))
        return found

    # --- keeping them ---

    async def roll_up(self) -> int:
        state = await self.state()
        count = 0
        if not state.is_ready:
            count = await self.rebuild()
            state = await self.state()
        await self._age_slices(state)
        while True:
            with self._asking():
                marks = await self._stale.find().sort("_id", 1).limit(STEP).to_list()
            if not marks:
                return count
            await self._sum_up([(start := milliseconds(mark["_id"]), start + SLICE) for mark in marks], state)
            await self._forget(marks)
            count += len(marks)
            if len(marks) < STEP:
                return count

    async def rebuild(self) -> int:
        state = await self.state()
        state.slices_since = max(state.slices_since, self._slices_from())
        days = await self._days(state)
        for day in days:
            await self._mend_day(day, state)
        state.is_ready = True
        await self._keep(state)
        return len(days) * (DAY // HOUR)

    async def mend(self, hours: Sequence[datetime]) -> None:
        state = await self.state()
        gone = max(state.records_since, state.hourly_since)
        for day in sorted({milliseconds(hour) // DAY * DAY for hour in hours}):
            if day >= gone:
                await self._mend_day(day, state)

    async def differing(self, start: datetime, end: datetime) -> list[datetime]:
        state = await self.state()
        if not state.is_ready:
            return []
        first, last = milliseconds(start), milliseconds(end)
        found: list[int] = []
        for day in await self._days(state):
            if first < day + DAY and day < last:
                found += await self._differing_of(day)
        return [moment_of(hour) for hour in found if first <= hour < last]

    async def drop(self, kept: Retention, now: datetime) -> Mapping[str, int]:
        await self.roll_up()
        state, stale = await self.state(), await self._stale_spans(1)
        first_stale = floor(stale[0][0], DAY) if stale else LAST
        bounds = {"records": _before(now, kept.records), "hourly": _before(now, kept.hourly)}
        state.records_since = max(state.records_since, min(bounds["records"], first_stale))
        state.hourly_since = max(state.hourly_since, min(bounds["hourly"], first_stale))
        await self._keep(state)  # questions stop to count on what goes before it goes
        return {
            "records": await self._drop_records(min(bounds["records"], first_stale)),
            "hourly": await self._drop_sums(HOUR, min(bounds["hourly"], first_stale)),
            "daily": await self._drop_sums(DAY, _before(now, kept.daily)),
        }

    async def _sum_up(self, spans: Sequence[Span], state: State) -> None:
        """Level after level, each from the finer one where that is kept; what has no records any more stays
        as it is."""
        spans = [span for span in spans if span[0] >= state.records_since]
        recent = [span for span in spans if span[0] >= state.slices_since]
        await self._merge(SLICE, recent, None)
        hours = units(spans, HOUR)
        await self._merge(HOUR, [(hour, hour + HOUR) for hour in hours if hour >= state.slices_since], SLICE)
        await self._merge(HOUR, [(hour, hour + HOUR) for hour in hours if hour < state.slices_since], None)
        days = units(spans, DAY)
        await self._merge(DAY, [(day, day + DAY) for day in days if day >= state.hourly_since], HOUR)
        await self._merge(DAY, [(day, day + DAY) for day in days if day < state.hourly_since], None)

    async def _merge(
        self, size: int, spans: Sequence[Span], finer: int | None, made: str | None = None
    ) -> None:
        if not spans:
            return
        source = self._records if finer is None else self._sums
        moment = "$at" if finer is None else "$t"
        within = [{moment[1:]: between(span)} for span in merged(spans)]
        match = {"$or": within} if finer is None else {"l": finer, "$or": within}
        key = {"l": {"$literal": size}, "t": floored(moment, size), **_named(GROUP)}
        fields = {name: f"$_id.{name}" for name in ("l", "t", *GROUP)}
        steps: list[Document] = [
            {"$match": match},
            {"$group": {"_id": key, **_amounts(of_sums=finer is not None)}},
            {"$addFields": {**fields, "made": made}},
            {"$merge": {"into": "sums", "on": "_id", "whenMatched": "replace"}},
        ]
        with self._asking(STEP_SECONDS):
            await _run(source, steps)

    async def _mend_day(self, day: int, state: State) -> None:
        """From the records, and nothing stays that is not from them; so nothing of it is stale any more."""
        made, span = token_hex(8), [(day, day + DAY)]
        with self._asking():
            marks = await self._stale.find({"_id": between(span[0])}).to_list()
        levels = {HOUR: None, DAY: HOUR} | ({SLICE: None} if day >= state.slices_since else {})
        for size, finer in levels.items():
            await self._merge(size, span, finer, made)
            others = {"l": size, "t": between(span[0]), "made": {"$ne": made}}
            with self._asking(STEP_SECONDS):
                await self._sums.delete_many(others)
        await self._forget(marks)

    async def _forget(self, marks: Sequence[Document]) -> None:
        """Those that are still the same, else there are newer records."""
        same = [{"_id": mark["_id"], "n": mark["n"]} for mark in marks]
        if same:
            with self._asking(STEP_SECONDS):
                await self._stale.delete_many({"$or": same})

    async def _days(self, state: State) -> list[int]:
        """Those whose records and hours are all there."""
        reached = await self._known_days()
        for direction in (1, -1):
            with self._asking():
                one = await self._records.find_one({}, {"at": 1}, sort=[("at", direction)])
            if one is not None:
                reached.append(milliseconds(one["at"]) + (1 if direction < 0 else 0))
        if not reached:
            return []
        return units([(max(min(reached), state.records_since, state.hourly_since), max(reached))], DAY)

    async def _differing_of(self, day: int) -> list[int]:
        span = between((day, day + DAY))
        by = {"t": floored("$at", HOUR), **_named(GROUP)}
        with self._asking(STEP_SECONDS):
            made = await self._records.aggregate([
                {"$match": {"at": span}}, {"$group": {"_id": by, **_amounts(of_sums=False)}},
            ], allowDiskUse=True)  # fmt: skip
            records = _keyed(await made.to_list(), HOUR)
        with self._asking(STEP_SECONDS):
            kept = await self._sums.find({"l": {"$in": [HOUR, DAY]}, "t": span}).to_list()
        hours, days = _keyed((one for one in kept if one["l"] == HOUR), HOUR), dict[Any, list[int]]()
        found = {key[0] for key in records.keys() | hours.keys() if records.get(key) != hours.get(key)}
        for key, amounts in hours.items():
            total = days.setdefault((day, *key[1:]), [0] * len(AMOUNTS))
            total[:] = [one + more for one, more in zip(total, amounts, strict=True)]
        if days != _keyed((one for one in kept if one["l"] == DAY), DAY):
            found.add(day)
        stale = {floor(start, HOUR) for start, _ in await self._stale_spans(MOST_STALE)}
        return sorted(found - stale - {floor(start, DAY) for start in stale})

    # --- throwing away ---

    async def _drop_records(self, before: int) -> int:
        """An hour at a time."""
        count = 0
        while True:
            with self._asking(STEP_SECONDS):
                first = await self._records.find_one(
                    {"at": {"$lt": moment_of(before)}}, {"at": 1}, sort=[("at", 1)]
                )
                if first is None:
                    return count
                until = moment_of(min(before, floor(milliseconds(first["at"]), HOUR) + HOUR))
                count += (await self._records.delete_many({"at": {"$lt": until}})).deleted_count

    async def _drop_sums(self, size: int, before: int) -> int:
        with self._asking(STEP_SECONDS):
            return (await self._sums.delete_many({"l": size, "t": {"$lt": moment_of(before)}})).deleted_count

    async def _age_slices(self, state: State) -> None:
        since = self._slices_from()
        if since > state.slices_since:
            state.slices_since = since
            await self._keep(state)
            await self._drop_sums(SLICE, since)

    def _slices_from(self) -> int:
        return floor(milliseconds(self._now() - timedelta(days=SLICE_DAYS)), DAY)

    async def _keep(self, state: State) -> None:
        fields = {name: getattr(state, name) for name in State.__struct_fields__}
        with self._asking():
            await self._marks.update_one(STATE, {"$set": fields}, upsert=True)


async def _run(source: AsyncCollection[Document], steps: Sequence[Document]) -> None:
    """Again while another worker is just making the collection: it is there, and its first index not yet."""
    while True:
        try:
            await source.aggregate(steps, allowDiskUse=True)
        except OperationFailure as error:
            if error.code != BEING_MADE:
                raise
            await asyncio.sleep(SOON)
        else:
            return


def _coverage(state: State, stale: Sequence[Span]) -> Coverage:
    levels = (Level(DAY), Level(HOUR, state.hourly_since), Level(SLICE, state.slices_since))
    return Coverage(levels=levels, records_since=state.records_since, stale=stale)


def _before(now: datetime, days: int | None) -> int:
    return FIRST if days is None else floor(milliseconds(now - timedelta(days=days)), DAY)


def between(span: Span) -> Document:
    return {"$gte": moment_of(span[0]), "$lt": moment_of(span[1])}


def floored(moment: str, size: int) -> Document:
    ms = {"$toLong": moment}
    return {"$toDate": {"$subtract": [ms, {"$mod": [ms, size]}]}}


def _named(names: Iterable[str]) -> Document:
    return {name: {"$ifNull": [f"${name}", None]} for name in names}


def _amounts(*, of_sums: bool) -> Document:
    if of_sums:
        return {name: {"$sum": f"${name}"} for name in AMOUNTS}
    tokens = {name: {"$sum": f"$tokens.{name}"} for name in SUMS}
    return {"requests": {"$sum": {"$ifNull": ["$requests", 1]}}, **tokens, "cost": {"$sum": "$cost"}}


def _total(by: Sequence[Dimension], moment: object, *, of_sums: bool) -> Document:
    group = {name: moment if name == "day" else {"$ifNull": [f"${COLUMNS[name]}", None]} for name in by}
    return {"_id": group or None, **_amounts(of_sums=of_sums)}


def _flat(rows: Iterable[Document], by: Sequence[Dimension]) -> Iterable[Sequence[Any]]:
    for row in rows:
        group = [milliseconds(row["_id"][name]) if name == "day" else row["_id"][name] for name in by]
        yield [*group, *(int(row[name]) for name in AMOUNTS)]


def _keyed(rows: Iterable[Document], size: int) -> dict[Any, list[int]]:
    """Amounts by unit, user, key, project and model."""
    found: dict[Any, list[int]] = {}
    for row in rows:
        unit = floor(milliseconds(row["_id"]["t"]), size)
        key = (unit, *(row["_id"][name] for name in GROUP))
        found[key] = [int(row[name]) for name in AMOUNTS]
    return found
