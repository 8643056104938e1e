"""Whose the records and sums on MongoDB are: what was done with some keys becomes another user's.

A key's day is one transaction: records change, and sums are added to the new user's, so that whoever asks in
between finds the same total. Where records have changed, their slices are marked as stale, too: another
process's roll-up that read them before may bring old sums back, which the next round then finds.
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
from llmgateway.stores.rollups import DAY, SLICE, floor
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
            touched = None
            if has_records:
                touched = await self._rename_records({**others, "at": span}, user, session)
            await self._move_sums({**others, "t": span}, user, session, touched)

        with self._asking(STEP_SECONDS):
            async with self._client.start_session() as session:
                await session.with_transaction(whole)

    async def _rename_records(self, wanted: Document, user: str, session: AsyncClientSession) -> set[int]:
        """The slices in which there were any; they are stale from then on."""
        slices = [{"$match": wanted}, {"$group": {"_id": floored("$at", SLICE)}}]
        found = await (await self._records.aggregate(slices, session=session)).to_list()
        await self._records.update_many(wanted, {"$set": {"user": user}}, session=session)
        marks = [UpdateOne({"_id": one["_id"]}, {"$inc": {"n": 1}}, upsert=True) for one in found]
        if marks:
            await self._stale.bulk_write(marks, ordered=False, session=session)
        return {milliseconds(one["_id"]) for one in found}

    async def _move_sums(
        self, wanted: Document, user: str, session: AsyncClientSession, touched: set[int] | None
    ) -> None:
        """Their ids hold the user, so each is added to another one. Where records are there and none has
        changed in its time, what it counts is counted already."""
        changes: list[UpdateOne | DeleteOne] = []
        for row in await self._sums.find(wanted, session=session).to_list():
            unit = milliseconds(row["t"])
            if touched is None or any(floor(one, row["l"]) == unit for one in touched):
                changes.append(_added(row, user))
            changes.append(DeleteOne({"_id": row["_id"]}))
        if changes:
            await self._sums.bulk_write(changes, session=session)


def _added(row: Document, user: str) -> UpdateOne:
    fields = {**{name: row[name] for name in ("l", "t", *GROUP)}, "user": user}
    key = {name: fields[name] for name in row["_id"]}  # in the order that it has: it is a part of it
    amounts = {name: row[name] for name in AMOUNTS}
    return UpdateOne(
        {"_id": key}, {"$inc": amounts, "$set": {**fields, "made": row.get("made")}}, upsert=True
    )
