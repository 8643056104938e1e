"""Another user's on MongoDB, beyond the contract: where a roll-up of another process comes in between."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest

from llmgateway.domain.ports import UsageQuery
from llmgateway.stores.mongo import MongoStore, open_mongo
from tests.stores.contract import plain_sums, sums_of
from tests.stores.samples import NOON, record

pytestmark = pytest.mark.service

QUERY = UsageQuery(by=("user", "key", "day"))


@pytest.fixture
async def stores(mongo_url: str) -> AsyncIterator[tuple[MongoStore, MongoStore]]:
    """Two processes."""
    async with open_mongo(mongo_url, 5) as one, open_mongo(mongo_url, 5) as other:
        yield one, other


async def test_answers_are_whole_all_the_while(stores: tuple[MongoStore, MongoStore]) -> None:
    one, other = stores
    chance = random.Random(21)
    made = [
        record(chance, NOON + timedelta(hours=n), user="alice", key_id=f"key{n % 3:09}") for n in range(150)
    ]
    await one.append(made)
    await one.roll_up()
    (total,) = plain_sums(made, UsageQuery()).values()
    seen = 0

    async def ask() -> None:
        nonlocal seen
        while not done.is_set():
            assert list(sums_of(await other.usage(UsageQuery())).values()) == [total]
            seen += 1

    done = asyncio.Event()
    asking = asyncio.ensure_future(ask())
    assert await one.reassign(["key000000001"], "gone:1") > 0
    done.set()
    await asking
    assert seen > 3
    renamed = [
        msgspec.structs.replace(line, user="gone:1") if line.key_id == "key000000001" else line
        for line in made
    ]
    assert sums_of(await other.usage(QUERY)) == plain_sums(renamed, QUERY)


async def test_sums_that_another_process_brings_back_go_again(stores: tuple[MongoStore, MongoStore]) -> None:
    """As its roll-up does that has read the records before."""
    one, _ = stores
    made = [record(random.Random(n), NOON, user="alice", key_id="key000000001") for n in range(5)]
    await one.append(made)
    await one.roll_up()
    before = await one._database["sums"].find({"user": "alice"}).to_list()
    await one.reassign(["key000000001"], "gone:1")
    await one._database["sums"].insert_many(before)
    assert await one.reassign(["key000000001"], "gone:1") == 1
    renamed = [msgspec.structs.replace(line, user="gone:1") for line in made]
    assert sums_of(await one.usage(QUERY)) == plain_sums(renamed, QUERY)
    assert await one.differing(NOON - timedelta(days=1), NOON + timedelta(days=1)) == []
