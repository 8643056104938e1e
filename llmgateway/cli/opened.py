"""The use cases over the stores, opened for one command."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from msgspec import Struct

from llmgateway.app.in_force import InForce
from llmgateway.app.memory import open_memory
from llmgateway.app.portal import accounts_of
from llmgateway.app.services import control_over, erasure_over
from llmgateway.cli.options import Arguments, settings_of
from llmgateway.cli.printing import complain, say
from llmgateway.control.accounts import Accounts
from llmgateway.control.audit import Actor
from llmgateway.control.erasure import Erasure
from llmgateway.control.services import Control
from llmgateway.domain.ports import State, Store, SystemClock
from llmgateway.domain.upkeep import Upkeep
from llmgateway.settings import Settings

PAGE = 1000
PATIENCE = 3.0  # seconds for a state that is away just now; whoever waits here waits for the command
LOOK = 0.05
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


async def say_spread(state: State, *, as_json: bool, patience: float = PATIENCE) -> None:
    """How soon others go by what was changed. A command cannot stay until a state that is away is back."""
    for _ in range(int(patience / LOOK)):
        if not state.untold:
            break
        await asyncio.sleep(LOOK)
    if state.untold:
        complain("this is stored, but workers could not be told, since Redis does not answer; "
                 "they may go by what was before for up to 5 minutes")  # fmt: skip
    elif not as_json:
        say("Every worker knows within a second.")


async def all_of(page: Callable[..., Any], *where: object) -> list[Any]:
    """Every element of a paged list."""
    found: list[Any] = []
    after: str | None = None
    while True:
        data, after = await page(*where, limit=PAGE, after=after)
        found += data
        if after is None:
            return found
