"""What a record takes in a real MongoDB, with the gateway's own indexes."""

import random
from datetime import datetime, timedelta
from typing import Any

import msgspec
from pymongo.database import Database

from llmgateway.stores.mongo import INDEXES
from tests.stores.samples import NOON, record

BATCH = 1000
USERS, PROJECTS, MODELS = 10_000, 200, ("qwen3-32b", "llama-3-70b", "bge-m3")


def document(chance: random.Random, at: datetime) -> dict[str, Any]:
    number = chance.randrange(USERS)
    made = record(
        chance, at, user=f"user{number:05}", key_id=f"k{number:011}", model=chance.choice(MODELS),
        project=f"p{chance.randrange(PROJECTS):04}",
    )  # fmt: skip
    found: dict[str, Any] = msgspec.to_builtins(made, builtin_types=(datetime,))
    return found


def bytes_of_a_record(database: Database[dict[str, Any]], count: int) -> tuple[float, dict[str, float]]:
    """In the collection, and in each index."""
    chance, records = random.Random(7), database["records"]
    records.create_indexes(list(INDEXES["records"]))
    for start in range(0, count, BATCH):
        times = (NOON + timedelta(milliseconds=26 * number) for number in range(start, start + BATCH))
        records.insert_many([document(chance, at) for at in times], ordered=False)
    database.client.admin.command("fsync")
    told = database.command("collStats", "records")
    sizes = {name: size / count for name, size in told["indexSizes"].items()}
    return told["storageSize"] / count, sizes
