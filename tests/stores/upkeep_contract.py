"""What every ledger must do with the sums beside it: they never show in an answer, only in its cost."""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from llmgateway.domain.call import Record, Tokens
from llmgateway.domain.ports import UsageQuery
from llmgateway.domain.upkeep import Adjustment, Retention, Upkeep
from tests.stores.contract import DIMENSIONS, ZONES, plain_sums, sums_of
from tests.stores.samples import EPOCH, NOON, moments, record

SPRING, AUTUMN = datetime(2026, 3, 6, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)
FOREVER = Retention(records=None, hourly=None)


def asked(chance: random.Random, start: datetime, end: datetime, zone: str) -> UsageQuery:
    by = tuple(chance.sample(DIMENSIONS, chance.randrange(len(DIMENSIONS) + 1)))
    bounds = [chance.choice([None, *moments(chance, 3, start, end)]) for _ in "ab"]
    filters = chance.choice([{}, {"user": "cœur"}, {"project": "physics", "model": "qwen3-32b"}])
    return UsageQuery(start=bounds[0], end=bounds[1], by=by, time_zone=zone, where=filters)


async def agrees(ledger: Upkeep, made: Sequence[Record], query: UsageQuery) -> None:
    assert sums_of(await ledger.usage(query)) == plain_sums(made, query), query


def adjusting(one: Record, number: int = 1, **changes: Any) -> Adjustment:
    fields = {name: getattr(one, name) for name in Record.__struct_fields__}
    fields |= {"id": f"{one.id}:adj:{number}", "adjusts": one.id, "tokens": Tokens(), "cost": 0, **changes}
    return Adjustment(**fields)


class UpkeepContract:
    @pytest.fixture
    def ledger(self, store: Upkeep) -> Upkeep:
        return store

    @pytest.mark.parametrize("seed", range(3))
    async def test_r_acc_21_sums_are_those_of_the_records(self, ledger: Upkeep, seed: int) -> None:
        """In every state of the roll-ups: before, between, after, with late records and ones sent again."""
        chance = random.Random(300 + seed)
        start = (SPRING, AUTUMN)[seed % 2]
        end = start + timedelta(days=34)
        made = [record(chance, at) for at in moments(chance, 1200, start, end)]
        chance.shuffle(made)
        stored: list[Record] = []
        for batch in (made[:500], made[500:800], made[800:801], made[801:]):
            await ledger.append([*batch, *chance.sample(stored, len(stored) // 10)])
            stored += batch
            for zone in chance.sample(ZONES, 2):
                await agrees(ledger, stored, asked(chance, start, end, zone))
            await ledger.roll_up()
            for zone in ZONES:
                for _ in range(2):
                    await agrees(ledger, stored, asked(chance, start, end, zone))
        assert await ledger.differing(start, end) == []
        assert await ledger.roll_up() == 0

    async def test_r_acc_07_what_is_sent_again_after_it_was_rolled_up_counts_once(
        self, ledger: Upkeep
    ) -> None:
        chance = random.Random(7)
        made = [record(chance, at) for at in moments(chance, 200, NOON, NOON + timedelta(hours=9))]
        for _ in range(3):
            await asyncio.gather(*(ledger.append(chance.sample(made, 150)) for _ in range(3)))
            await ledger.roll_up()
        await ledger.append(made)
        await ledger.roll_up()
        await agrees(ledger, made, UsageQuery(by=("user", "model")))

    async def test_appends_beside_roll_ups_lose_nothing(self, ledger: Upkeep) -> None:
        chance = random.Random(8)
        made = [record(chance, at) for at in moments(chance, 600, NOON, NOON + timedelta(minutes=40))]

        async def append() -> None:
            for first in range(0, 600, 20):
                await ledger.append(made[first : first + 20])

        async def roll_up() -> None:
            for _ in range(12):
                await ledger.roll_up()

        await asyncio.gather(append(), roll_up())
        await agrees(ledger, made, UsageQuery())
        await ledger.roll_up()
        await agrees(ledger, made, UsageQuery(by=("key",)))
        assert await ledger.differing(NOON - timedelta(days=1), NOON + timedelta(days=1)) == []

    async def test_a_rebuild_gives_the_same_sums(self, ledger: Upkeep) -> None:
        chance = random.Random(9)
        made = [record(chance, at) for at in moments(chance, 300, NOON, NOON + timedelta(days=3))]
        await ledger.append(made)
        assert await ledger.rebuild() >= 72
        await ledger.append(made)
        assert await ledger.rebuild() >= 72
        await agrees(ledger, made, UsageQuery(by=("user", "day"), time_zone="Asia/Kathmandu"))

    async def test_a_correction_is_no_request_and_lies_where_its_record_does(self, ledger: Upkeep) -> None:
        chance = random.Random(10)
        made = [record(chance, NOON + timedelta(minutes=n), user="alice") for n in range(5)]
        await ledger.append(made)
        await ledger.roll_up()
        one = made[2]
        more = adjusting(one, tokens=Tokens(-3, 7), cost=-5, why="test")
        twice = adjusting(made[3], requests=-1, tokens=_less(made[3].tokens), cost=-made[3].cost)
        for _ in range(2):
            assert list(await ledger.append([more, twice])) == []
        expected = [msgspec.structs.replace(one, cost=one.cost - 5, tokens=_plus(one.tokens, -3, 7))]
        for _ in range(2):
            await agrees(ledger, [*made[:2], *expected, *made[4:]], UsageQuery(by=("user",)))
            await ledger.roll_up()
        assert await ledger.known([more.id]) == {more.id}
        assert [line["id"] for line in await ledger.lines([one.id, more.id, "nobody"])] == [one.id, more.id]
        assert (await ledger.lines([more.id]))[0]["adjusts"] == one.id

    async def test_old_records_go_and_their_sums_stay(self, ledger: Upkeep) -> None:
        chance = random.Random(11)
        now = NOON + timedelta(days=20)
        made = [record(chance, at) for at in moments(chance, 400, NOON, now)]
        await ledger.append(made)
        dropped = await ledger.drop(msgspec.structs.replace(FOREVER, records=10), now)
        border = (now - timedelta(days=10)).replace(hour=0)
        assert dropped["records"] == sum(one.at < border for one in made)
        await agrees(ledger, made, UsageQuery(by=("user", "day")))
        await agrees(ledger, made, UsageQuery(by=("model",), start=NOON, end=now))
        assert not await ledger.known([one.id for one in made if one.at < border])
        await agrees(ledger, made, UsageQuery(by=("day",), time_zone="Europe/Helsinki"))
        assert (await ledger.drop(msgspec.structs.replace(FOREVER, records=10), now))["records"] == 0
        await ledger.rebuild()
        await agrees(ledger, made, UsageQuery(by=("user", "day")))

    @pytest.mark.parametrize("kept", [None, 10])
    async def test_what_was_done_with_keys_becomes_another_users(
        self, ledger: Upkeep, kept: int | None
    ) -> None:
        """In records and sums, rolled up or not, also where only sums are left; what is late comes after."""
        chance, now = random.Random(14), NOON + timedelta(days=20)
        made = [record(chance, at) for at in moments(chance, 400, NOON, now)]
        await ledger.append(made[:300])
        if kept is not None:
            await ledger.drop(msgspec.structs.replace(FOREVER, records=kept), now)
        border = now - timedelta(days=10)
        rest = [one for one in made[300:] if kept is None or one.at > border]
        await ledger.append(rest[:40])
        owned = ("key000000001", "key000000002")
        assert await ledger.reassign(owned, "gone:1") > 0
        renamed = [_owned(one, owned) for one in made[:300] + rest[:40]]
        for query in (UsageQuery(by=("user", "key", "model", "project")), UsageQuery(by=("user", "day"))):
            await agrees(ledger, renamed, query)
        assert await ledger.reassign(owned, "gone:1") == 0
        await ledger.append(rest[40:])
        await ledger.append([adjusting(rest[40], cost=-7)])
        assert await ledger.reassign(owned, "gone:1") > 0
        corrected = msgspec.structs.replace(rest[40], cost=rest[40].cost - 7)
        renamed += [_owned(one, owned) for one in (corrected, *rest[41:])]
        for _ in range(2):
            await agrees(ledger, renamed, UsageQuery(by=("user", "key", "model", "project")))
            await agrees(ledger, renamed, UsageQuery(where={"user": "gone:1"}, by=("day",)))
            await ledger.roll_up()
        lines = await ledger.lines([one.id for one in rest])
        assert {line["user"] for line in lines if line["key_id"] in owned} == {"gone:1"}
        assert "gone:1" not in {line["user"] for line in lines if line["key_id"] not in owned}
        assert await ledger.differing(NOON - timedelta(days=1), now + timedelta(days=1)) == []

    async def test_another_users_beside_appends_and_roll_ups(self, ledger: Upkeep) -> None:
        chance = random.Random(15)
        made = [record(chance, at) for at in moments(chance, 600, NOON, NOON + timedelta(minutes=40))]
        owned = ("key000000001",)

        async def append() -> None:
            for first in range(0, 600, 20):
                await ledger.append(made[first : first + 20])

        async def roll_up() -> None:
            for _ in range(12):
                await ledger.roll_up()

        async def reassign() -> None:
            for _ in range(6):
                await ledger.reassign(owned, "gone:1")

        await asyncio.gather(append(), roll_up(), reassign())
        await agrees(ledger, made, UsageQuery(by=("model",)))
        await ledger.reassign(owned, "gone:1")
        await agrees(ledger, [_owned(one, owned) for one in made], UsageQuery(by=("user", "key")))
        assert await ledger.differing(NOON - timedelta(days=1), NOON + timedelta(days=1)) == []

    async def test_where_records_are_gone_an_hour_belongs_to_the_day_it_begins_in(
        self, ledger: Upkeep
    ) -> None:
        made = record(random.Random(12), datetime(2026, 3, 28, 18, 20, tzinfo=UTC))
        await ledger.append([made])
        await ledger.drop(msgspec.structs.replace(FOREVER, records=10), NOON + timedelta(days=20))
        rows = await ledger.usage(UsageQuery(by=("day",), time_zone="Asia/Kathmandu"))
        assert [(row.group["day"], row.requests) for row in rows] == [
            ("2026-03-28", 1)
        ]  # in truth on the 29th

    async def test_hours_go_and_days_stay(self, ledger: Upkeep) -> None:
        chance = random.Random(13)
        now = NOON + timedelta(days=20)
        made = [record(chance, at) for at in moments(chance, 200, NOON, now)]
        await ledger.append(made)
        kept = Retention(records=5, hourly=10, daily=15)
        dropped = await ledger.drop(kept, now)
        assert dropped["hourly"] > 0
        assert dropped["daily"] > 0
        border = (now - timedelta(days=15)).replace(hour=0)
        await agrees(ledger, [one for one in made if one.at >= border], UsageQuery(by=("user", "day")))
        assert await ledger.differing(NOON, now) == []

    async def test_twins_are_found(self, ledger: Upkeep) -> None:
        chance = random.Random(14)
        made = [record(chance, at) for at in moments(chance, 50, NOON, NOON + timedelta(hours=3))]
        copy = msgspec.structs.replace(made[7], id=made[7].id[:-1] + "x")
        like = msgspec.structs.replace(made[8], id=made[8].id[:-1] + "x", overhead_us=77)
        await ledger.append([*made, copy, like])
        found = await ledger.twins(NOON, NOON + timedelta(days=1))
        assert [[line["id"] for line in lines] for lines in found] == [sorted([made[7].id, copy.id])]
        assert await ledger.twins(NOON + timedelta(days=1), NOON + timedelta(days=2)) == []
        async with asyncio.timeout(5):  # all times, of which nearly none have records
            assert await ledger.twins(EPOCH, NOON + timedelta(days=365)) == found


def _less(tokens: Tokens) -> Tokens:
    return Tokens(*(-getattr(tokens, name) for name in Tokens.__struct_fields__))


def _plus(tokens: Tokens, prompt: int, completion: int) -> Tokens:
    return msgspec.structs.replace(
        tokens, prompt=tokens.prompt + prompt, completion=tokens.completion + completion
    )


def _owned(one: Record, keys: Sequence[str]) -> Record:
    return msgspec.structs.replace(one, user="gone:1") if one.key_id in keys else one
