"""Whose the records and sums on MongoDB are: what was done with some keys becomes another user's.

A key's day is one transaction. Where its records are there, those change, the sums that name others go, and
the slices are marked as stale, so answers come from the records until these are summed up anew. Where only
sums are left, they are added to the new user's. Answers are exact in between, too.
"""

from collections.abc import Sequence
from typing import Final

from pymongo import DeleteOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase

from llmgateway.domain.ports import Document
from llmgateway.stores.mongo_sums import (
    AMOUNTS,
    GROUP,
    STEP_SECONDS,
    Asking,
    MongoSums,
    between,
    floored,
)
from llmgateway.stores.rollups import DAY, SLICE
from llmgateway.stores.usage import milliseconds

ROUNDS: Final = 20  # a roll-up beside it may bring sums back that are gone: then they go again


class MongoOwners:
    """`asking` bounds an operation in time and turns the driver's errors into ours."""

    def __init__(self, database: AsyncDatabase[Document], asking: Asking, sums: MongoSums) -> None:
        self._asking = asking
        self._keeping = sums
        self._client = database.client
        self._records = database["records"]
        self._sums = database["sums"]
        self._stale = database["stale"]

    async def reassign(self, keys: Sequence[str], user: str) -> int:
        count = 0
        for _ in range(ROUNDS):
            await self._keeping.roll_up()  # from then on every record has a day in the sums
            found = await self._days_of_others(keys, user)
            if not found:
                break
            since = (await self._keeping.state()).records_since
            for key, day in found:
                await self._reassign_day(key, day, user, has_records=day >= since)
            count += len(found)
        return count

    async def _days_of_others(self, keys: Sequence[str], user: str) -> list[tuple[str, int]]:
        wanted = {"key_id": {"$in": list(keys)}, "l": DAY, "user": {"$ne": user}}
        with self._asking():
            rows = await self._sums.find(wanted, {"key_id": 1, "t": 1}).to_list()
        return sorted({(row["key_id"], milliseconds(row["t"])) for row in rows})

    async def _reassign_day(self, key: str, day: int, user: str, *, has_records: bool) -> None:
        others, span = {"key_id": key, "user": {"$ne": user}}, between((day, day + DAY))

        async def whole(session: AsyncClientSession) -> None:
            if has_records:
                await self._rename_records({**others, "at": span}, user, session)
                await self._sums.delete_many({**others, "t": span}, session=session)
            else:
                await self._move_sums({**others, "t": span}, user, session)

        with self._asking(STEP_SECONDS):
            async with self._client.start_session() as session:
                await session.with_transaction(whole)

    async def _rename_records(self, wanted: Document, user: str, session: AsyncClientSession) -> None:
        slices = [{"$match": wanted}, {"$group": {"_id": floored("$at", SLICE)}}]
        touched = await (await self._records.aggregate(slices, session=session)).to_list()
        await self._records.update_many(wanted, {"$set": {"user": user}}, session=session)
        marks = [UpdateOne({"_id": one["_id"]}, {"$inc": {"n": 1}}, upsert=True) for one in touched]
        if marks:
            await self._stale.bulk_write(marks, ordered=False, session=session)

    async def _move_sums(self, wanted: Document, user: str, session: AsyncClientSession) -> None:
        """Their ids hold the user, so each is added to another one."""
        changes: list[UpdateOne | DeleteOne] = []
        for row in await self._sums.find(wanted, session=session).to_list():
            fields = {**{name: row[name] for name in ("l", "t", *GROUP)}, "user": user}
            key = {name: fields[name] for name in row["_id"]}  # in the order that it has: it is a part of it
            amounts = {name: row[name] for name in AMOUNTS}
            more = {"$inc": amounts, "$set": {**fields, "made": row.get("made")}}
            changes += [UpdateOne({"_id": key}, more, upsert=True), DeleteOne({"_id": row["_id"]})]
        if changes:
            await self._sums.bulk_write(changes, session=session)
