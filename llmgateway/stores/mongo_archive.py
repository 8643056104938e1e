"""What the ledger on MongoDB knows beside its records, and how it takes over what another one knew.

Of times before `records_since` nothing is summed up from records any more, so what is taken over stays as it
came, whatever is rolled up or made anew.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from llmgateway.domain.moving import Since, Sum
from llmgateway.domain.ports import Document
from llmgateway.stores.mongo_sums import AMOUNTS, GROUP, STATE, STEP_SECONDS, Asking, MongoSums, between
from llmgateway.stores.rollups import DAY, HOUR, begin_of
from llmgateway.stores.usage import milliseconds

SIZES: Final = {"hour": HOUR, "day": DAY}


class MongoArchive:
    """Implements `domain.moving.OpenArchive`. `asking` bounds an operation in time and turns the driver's
    errors into ours."""

    def __init__(self, database: AsyncDatabase[Document], asking: Asking, sums: MongoSums) -> None:
        self._asking = asking
        self._keeping = sums
        self._records = database["records"]
        self._sums = database["sums"]
        self._marks = database["marks"]

    async def count(self) -> int:
        with self._asking(STEP_SECONDS):
            return await self._records.count_documents({})

    async def since(self) -> Since:
        state = await self._keeping.state()
        return Since(begin_of(state.records_since), begin_of(state.hourly_since))

    async def days(self, before: datetime) -> list[datetime]:
        steps: list[Document] = [
            {"$match": {"l": DAY, "t": {"$lt": before}}}, {"$group": {"_id": "$t"}}, {"$sort": {"_id": 1}},
        ]  # fmt: skip
        with self._asking(STEP_SECONDS):
            found = await (await self._sums.aggregate(steps)).to_list()
        return [one["_id"] for one in found]

    async def sums(self, day: datetime) -> list[Sum]:
        start = milliseconds(day)
        wanted = {"l": {"$in": [HOUR, DAY]}, "t": between((start, start + DAY))}
        with self._asking():
            found = await self._sums.find(wanted).to_list()
        return [_sum(one) for one in found]

    async def inherit(self, since: Since, sums: Sequence[Sum]) -> None:
        """The mark comes first: else a roll-up would put what some left-over records say in their place."""
        begins = {f"{name}_since": milliseconds(at) for name, at in _given(since)}
        if begins:
            with self._asking():
                await self._marks.update_one(STATE, {"$max": begins}, upsert=True)
        if sums:
            with self._asking(STEP_SECONDS):
                await self._sums.bulk_write([_kept(one) for one in sums], ordered=False)


def _given(since: Since) -> list[tuple[str, datetime]]:
    return [(name, at) for name, at in msgspec.structs.asdict(since).items() if at is not None]


def _sum(stored: Document) -> Sum:
    fields: dict[str, Any] = {name: stored.get(name) for name in GROUP}
    fields |= {name: int(stored[name]) for name in AMOUNTS}
    return Sum(unit="day" if stored["l"] == DAY else "hour", start=stored["t"], **fields)


def _kept(one: Sum) -> UpdateOne:
    key = {"l": SIZES[one.unit], "t": one.start, **{name: getattr(one, name) for name in GROUP}}
    amounts = {name: getattr(one, name) for name in AMOUNTS}
    return UpdateOne({"_id": key}, {"$setOnInsert": {**key, **amounts, "made": None}}, upsert=True)
