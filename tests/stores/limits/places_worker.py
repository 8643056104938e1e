"""A worker in a process of its own, to be killed or frozen: takes places, and waits for more.

    python -m tests.stores.limits.places_worker URL NAME MOST CALLS LEASE

Prints each of its calls, numbered from 0, as it gets its place.
"""

import asyncio
import sys

from llmgateway.stores.limits.redis_places import RedisPlaces, Times, open_places
from llmgateway.stores.redis import open_redis
from tests.stores.limits.places_contract import turn


async def call(places: RedisPlaces, id: str, user: str, most: int) -> None:
    await places.take(turn(id, user, most=most))
    print(id, flush=True)


async def main(url: str, name: str, most: str, calls: str, lease: str) -> None:
    async with (
        open_redis(url, 1) as state,
        open_places(state, name, times=Times(tick=0.05, lease=float(lease))) as places,
        asyncio.TaskGroup() as group,
    ):
        for n in range(int(calls)):
            group.create_task(call(places, f"{name}-{n}", name, int(most)))
            await asyncio.sleep(0)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
