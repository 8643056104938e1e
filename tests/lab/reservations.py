"""What is reserved on Redis: claims of open calls, places of limits and of models; and what is counted."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.asyncio import Redis

from llmgateway.stores.limits.limiter_turn import HELD, USE
from llmgateway.stores.limits.places_batch import MODELS, PREFIX
from tests.lab.waiting import eventually_answers

NUMBER = b"#"  # beside a worker's claims: how many turns it has sent
SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Reserved:
    """`claims` are calls by worker, `places` counts of scopes by worker, `models` calls that hold or wait for
    a model's place; `tokens` and `cost` are the sums of all days and months of a scope."""

    claims: Mapping[str, set[str]]
    places: Mapping[str, Mapping[str, int]]
    models: Mapping[str, int]
    tokens: Mapping[str, int]
    cost: Mapping[str, int]

    @property
    def is_nothing(self) -> bool:
        return not (self.claims or self.places or self.models)


async def reserved_on(redis_url: str) -> Reserved:
    async with _opened(redis_url) as redis:
        claims: dict[str, set[str]] = {}
        async for key in redis.scan_iter(match=f"{HELD}*"):
            if calls := set(await redis.hkeys(key)) - {NUMBER}:
                claims[key.decode().removeprefix(HELD)] = {call.decode() for call in calls}
        places: dict[str, Mapping[str, int]] = {}
        tokens: dict[str, int] = {}
        cost: dict[str, int] = {}
        async for key in redis.scan_iter(match=f"{USE}*"):
            scope, (_, days, months, workers) = key.decode().removeprefix(USE), await _use(redis, key)
            if workers:
                places[scope] = workers
            tokens[scope] = sum(int(of[0]) for of in (days or months).values())
            cost[scope] = sum(int(of[1]) for of in months.values())
        models = {
            model.decode(): count
            for model in await redis.smembers(MODELS)
            if (count := await redis.hlen(f"{PREFIX}calls:{model.decode()}"))
        }
        return Reserved(claims, places, models, tokens, cost)


async def nothing_is_reserved(redis_url: str, seconds: float = SECONDS) -> Reserved:
    """What the counters say when nothing is open any more."""

    async def is_clean() -> Reserved | None:
        now = await reserved_on(redis_url)
        return now if now.is_nothing else None

    try:
        found = await eventually_answers(is_clean, "nothing is reserved", seconds)
    except AssertionError:
        raise AssertionError(f"still reserved after {seconds:g} s: {await reserved_on(redis_url)}") from None
    assert found is not None
    return found


async def _use(redis: Any, key: bytes) -> tuple[Any, dict[str, Any], dict[str, Any], dict[str, int]]:
    """Empty tables are written as empty lists."""
    packed = await redis.get(key) or msgspec.msgpack.encode([[], [], [], []])
    parts, days, months, workers, *_ = msgspec.msgpack.decode(packed)
    return parts, days or {}, months or {}, workers or {}


@asynccontextmanager
async def _opened(redis_url: str) -> AsyncIterator[Any]:
    redis: Any = Redis.from_url(redis_url)
    try:
        yield redis
    finally:
        await redis.aclose()
