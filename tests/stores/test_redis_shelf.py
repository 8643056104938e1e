"""The shelf's contract on Redis, and that nothing stays there for ever."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from llmgateway.domain.errors import StoreUnavailable
from llmgateway.stores.redis import open_redis
from llmgateway.stores.redis_shelf import OWNERS, SHELVES, RedisShelf
from tests.stores.shelf_contract import LONG, ShelfContract

pytestmark = pytest.mark.service


@pytest.fixture
async def shelf(redis_url: str) -> AsyncIterator[RedisShelf]:
    async with open_redis(redis_url, 5) as state:
        yield RedisShelf(state)


class TestRedisShelf(ShelfContract):
    @pytest.fixture
    async def other_shelf(self, redis_url: str) -> AsyncIterator[RedisShelf]:
        async with open_redis(redis_url, 5) as state:
            yield RedisShelf(state)


async def test_everything_expires(shelf: RedisShelf, redis_url: str) -> None:
    await shelf.put("sessions", "a", b"1", LONG, owner="alice")
    await shelf.add("seen", "b", b"1", LONG)
    await shelf.count("tries", "c", LONG)
    async with Redis.from_url(redis_url) as client:
        names = [name async for name in client.scan_iter("*")]
        assert len(names) == 4
        assert all(name.decode().startswith((SHELVES, OWNERS)) for name in names)
        assert all([await client.pttl(name) > 0 for name in names])


async def test_while_redis_is_away_nothing_is_said_to_be_gone() -> None:
    async with open_redis("redis://127.0.0.1:1/0", 1) as state:
        with pytest.raises(StoreUnavailable):
            await RedisShelf(state).get("sessions", "a")
