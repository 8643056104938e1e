"""Who counts what is used and gives the places of full models: one process alone, or all over Redis."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from decimal import Decimal

from llmgateway.app.memory import Memory
from llmgateway.control.used import used_by
from llmgateway.domain.admission import Limiter, Places
from llmgateway.domain.ports import Clock
from llmgateway.domain.pricing import PER_MILLION
from llmgateway.stores.limiter import MemoryLimiter
from llmgateway.stores.places import MemoryPlaces
from llmgateway.stores.redis_limiter import open_redis_limiter
from llmgateway.stores.redis_places import open_places


@asynccontextmanager
async def open_admission(
    memory: Memory,
    clock: Clock,
    *,
    worker: str,
    currency: str,
    names_of: Callable[[str], Iterable[str]],
) -> AsyncIterator[tuple[Limiter, Places]]:
    """`names_of` gives all names that a model is asked by."""
    load = used_by(memory.store, names_of)

    def money(micro_units: int) -> str:
        return f"{Decimal(micro_units) / PER_MILLION:.2f} {currency}"

    if memory.redis is None:
        yield MemoryLimiter(load, clock=clock, money=money), MemoryPlaces(clock=clock)
        return
    async with (
        open_redis_limiter(memory.redis, load, worker=worker, clock=clock, money=money) as limiter,
        open_places(memory.redis, worker) as places,
    ):
        yield limiter, places
