"""Who counts what is used and gives the places of full models: one process alone, or all over Redis."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from llmgateway.app.memory import Memory
from llmgateway.control.used import KnownAs, used_by
from llmgateway.domain.admission import Limiter, Places
from llmgateway.domain.ports import Clock
from llmgateway.stores.limits.memory_limiter import MemoryLimiter
from llmgateway.stores.limits.memory_places import MemoryPlaces
from llmgateway.stores.limits.redis_limiter import open_redis_limiter
from llmgateway.stores.limits.redis_places import open_places
from llmgateway.stores.limits.standings import money_in


@asynccontextmanager
async def open_admission(
    memory: Memory,
    clock: Clock,
    *,
    worker: str,
    currency: str,
    names_of: Callable[[str], Iterable[str]],
    known_as: KnownAs,
) -> AsyncIterator[tuple[Limiter, Places]]:
    """`names_of` gives all names that a model is asked by, `known_as` the pseudonyms of who came back."""
    load, money = used_by(memory.store, names_of, known_as), money_in(currency)
    if memory.redis is None:
        yield MemoryLimiter(load, clock=clock, money=money), MemoryPlaces(clock=clock)
        return
    async with (
        open_redis_limiter(memory.redis, load, worker=worker, clock=clock, money=money) as limiter,
        open_places(memory.redis, worker) as places,
    ):
        yield limiter, places
