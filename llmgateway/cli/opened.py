"""The use cases over the stores, opened for one command."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from msgspec import Struct

from llmgateway.app.in_force import InForce
from llmgateway.app.memory import open_memory
from llmgateway.app.portal import accounts_of
from llmgateway.app.services import control_over, erasure_over
from llmgateway.cli.options import Arguments, settings_of
from llmgateway.control.accounts import Accounts
from llmgateway.control.audit import Actor
from llmgateway.control.erasure import Erasure
from llmgateway.control.services import Control
from llmgateway.domain.ports import State, Store, SystemClock
from llmgateway.domain.upkeep import Upkeep
from llmgateway.settings import Settings

PAGE = 1000
ACTOR = Actor("operator", "cli")
T = TypeVar("T")


class Opened(Struct, frozen=True):
    """What a command works with."""

    settings: Settings
    store: Store
    state: State
    ledger: Upkeep
    control: Control
    erasure: Erasure
    accounts: Accounts


@asynccontextmanager
async def opened(arguments: Arguments) -> AsyncIterator[Opened]:
    settings = settings_of(arguments)
    async with open_memory(settings) as memory:
        store, state = memory.store, memory.state
        in_force, clock = InForce(settings), SystemClock()
        control = control_over(in_force, store, state, clock)
        erasure = erasure_over(in_force, memory, clock, control)
        accounts = accounts_of(in_force, memory, control, clock)
        yield Opened(settings, store, state, memory.ledger, control, erasure, accounts)


async def all_of(page: Callable[..., Any], *where: object) -> list[Any]:
    """Every element of a paged list."""
    found: list[Any] = []
    after: str | None = None
    while True:
        data, after = await page(*where, limit=PAGE, after=after)
        found += data
        if after is None:
            return found
