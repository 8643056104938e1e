"""Which stores there are: one embedded file and this process, or MongoDB and Redis, which may be away."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from msgspec import Struct

from llmgateway.domain.ports import Shelf, State, Store, SystemClock
from llmgateway.domain.upkeep import Upkeep
from llmgateway.settings import BadSettings, Settings
from llmgateway.stores.memory import MemoryState
from llmgateway.stores.mongo import open_mongo
from llmgateway.stores.redis import RedisState, open_redis
from llmgateway.stores.redis_shelf import RedisShelf
from llmgateway.stores.sqlite import open_sqlite
from llmgateway.stores.sqlite_shelf import SqliteShelf
from llmgateway.stores.worker_lock import lock

DATABASE = "llmgateway.db"


class Memory(Struct, frozen=True):
    """The truth, what the fleet shares and can lose, and what it shares for a while. `ledger` is the truth
    again, with its upkeep; `redis` is None where a process is alone."""

    store: Store
    state: State
    shelf: Shelf
    ledger: Upkeep
    redis: RedisState | None = None


@asynccontextmanager
async def open_memory(settings: Settings) -> AsyncIterator[Memory]:
    timeouts = settings.stores
    if settings.mongo_url is not None and settings.redis_url is not None:
        async with (
            open_mongo(settings.mongo_url.reveal(), timeouts.mongo_timeout) as mongo,
            open_redis(settings.redis_url.reveal(), timeouts.redis_timeout) as redis,
        ):
            yield Memory(mongo, redis, RedisShelf(redis), mongo, redis)
    else:
        async with open_sqlite(settings.data_dir / DATABASE) as sqlite:
            shelf = SqliteShelf(sqlite.file, SystemClock())
            yield Memory(sqlite, MemoryState(sqlite.changed_elsewhere), shelf, sqlite)


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """An embedded gateway is one process: two could not keep limits and caches together. Raises
    `BadSettings`."""
    if settings.is_production:
        yield
        return
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    held = lock(settings.data_dir)
    if held is None:
        raise BadSettings([
            f"LLMGATEWAY_DATA_DIR: another gateway runs on {settings.data_dir}; "
            "several processes need REDIS_URL and MONGO_URL"
        ])  # fmt: skip
    try:
        yield
    finally:
        os.close(held)
