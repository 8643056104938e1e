"""Bytes of the ledger per record on a real MongoDB, and what a month of them is."""

import argparse
import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import MongoClient

from llmgateway.domain.call import Attempt, ClientInfo, Record, TargetRef, Tokens
from llmgateway.domain.ids import Ids
from llmgateway.stores.mongo import open_mongo
from tests.lab.servers import Mongod

BATCH = 1000
MONTH = 100_000_000
USERS, MODELS, PROJECTS = 5000, 12, 200
GIB = 2**30


def made(ids: Ids, at: datetime, chance: random.Random) -> Record:
    """As a real call leaves one, names as long as real ones."""
    user = f"person{chance.randrange(USERS)}@university.example"
    id = ids(at)
    model = f"qwen3-{chance.randrange(MODELS)}b-instruct"
    target = TargetRef("openai", model, f"vllm-{chance.randrange(8)}.models.svc:8000")
    return Record(
        id=id, request_id=id, at=at, key_id=f"{chance.randrange(2 * USERS):016x}", user=user,
        endpoint="/v1/chat/completions", model=model, price_id=f"{chance.randrange(99):08x}",
        project=f"project-{chance.randrange(PROJECTS)}", ended_at=at + timedelta(seconds=9), duration_ms=9000,
        ttft_ms=chance.randrange(50, 900), overhead_us=chance.randrange(80, 400), stream=True,
        client=ClientInfo("openai-python", "3.52.0"), target=target,
        attempts=[Attempt(target.replica, 200, "ok", 9000)], outcome="completed", status=200,
        tokens=Tokens(chance.randrange(9000), chance.randrange(1500)), usage_source="upstream",
        cost=chance.randrange(99_999),
    )  # fmt: skip


async def fill(mongod: Mongod, count: int) -> float:
    """Seconds that it took, two workers shipping side by side."""
    chance, began_at = random.Random(5), datetime(2026, 11, 1, tzinfo=UTC)
    ids = Ids()
    batches = [
        [made(ids, began_at + timedelta(milliseconds=25 * (start + n)), chance) for n in range(BATCH)]
        for start in range(0, count, BATCH)
    ]
    began = time.perf_counter()
    async with open_mongo(mongod.url("capacity"), 30) as store:

        async def ship(mine: list[list[Record]]) -> None:
            for batch in mine:
                assert await store.append(batch) == []

        await asyncio.gather(ship(batches[::2]), ship(batches[1::2]))
        return time.perf_counter() - began


def told(mongod: Mongod, seconds: float) -> dict[str, float]:
    with MongoClient[dict[str, Any]](mongod.url()) as client:
        client.admin.command("fsync")
        stats = client["capacity"].command("collStats", "records")
    count = stats["count"]
    figures = {name: stats[name] / count for name in ("size", "storageSize", "totalIndexSize")}
    print(f"{count} records in {seconds:.1f} s ({count / seconds:,.0f} a second)")
    for name, each in figures.items():
        print(f"{name:16}{each:8.0f} bytes each, {each * MONTH / GIB:8.1f} GiB a month of {MONTH:,}")
    for name, size in stats["indexSizes"].items():
        print(f"  index {name:20}{size / count:6.0f} bytes each, {size / count * MONTH / GIB:6.1f} GiB")
    return figures


async def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--records", type=int, default=200_000)
    with Mongod() as mongod:
        told(mongod, await fill(mongod, asked.parse_args().records))


if __name__ == "__main__":
    asyncio.run(main())
