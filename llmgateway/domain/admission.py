"""The ports of admission: who counts what is used, and who gives the places of full models."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from llmgateway.domain.limits import Claim, Scope, ScopeKind, Standing
from llmgateway.domain.periods import Period


class Used(Struct, frozen=True):
    """What the ledger says that a scope has used in a period."""

    tokens_of_day: int = 0
    tokens_of_month: int = 0
    cost_of_month: int = 0


LoadUsed = Callable[[Scope, Period], Awaitable[Used]]
"""Sums of the ledger: what a limiter begins to count from where it knows nothing of a scope."""


ScopeKey = tuple[ScopeKind, str]


class Counted(Struct, frozen=True):
    """What a limiter has counted of a scope in a period without what is reserved for open calls; None where
    it does not count all of the day or month."""

    day_tokens: int | None = None
    month_tokens: int | None = None
    month_cost: int | None = None


class Look(Struct, frozen=True, kw_only=True):
    """All sums of a period. Sums of another `epoch` were begun anew. What ended before `shipped_to` is in the
    ledger, in milliseconds of the clock of `at`; `silent` workers may know what is not counted yet."""

    epoch: str
    at: int
    shipped_to: int
    silent: int
    sums: Mapping[ScopeKey, Counted]


class CalendarSums(Protocol):
    """What a limiter counts of days and months, to be compared with the ledger."""

    async def look(self, period: Period) -> Look: ...

    async def add(self, period: Period, more: Mapping[ScopeKey, tuple[int, int, int]]) -> None:
        """Tokens of the day, tokens and cost of the month; to sums that are there."""


Behind = Callable[[], float]
"""How long the oldest record of this process that is not in the ledger has waited, in seconds."""

Spent = Callable[[Sequence[str]], Awaitable[Mapping[str, tuple[int, int]]]]
"""What calls of a dead worker have used in the end, (tokens, cost) by id; those of which nobody can tell now
are left out."""


class Limiter(Protocol):
    """Counts what scopes use. Minutes are true sliding windows: in no 60 seconds more than the limit. Days
    and months are those of the claim's period."""

    name: str
    behind: Behind

    @property
    def sums(self) -> CalendarSums: ...

    async def reserve(self, claim: Claim) -> Sequence[Standing]:
        """Takes the claim from all its scopes, or from none: one atomic step. Returns how the limits with
        least left stand after it, of requests and of tokens. Raises `OverLimit`, `TooManyTokens` or
        `BudgetSpent`."""

    def settle(self, id: str, tokens: int, cost: int) -> None:
        """Puts the truth in the place of what call `id` reserved, once, and gives its place back. Never
        raises and never waits: what cannot be told now is told later."""

    async def standings(self, scopes: Sequence[Scope], period: Period) -> Sequence[Standing]:
        """How these limits stand now, without taking anything."""

    async def recover(self, worker: str, spent: Spent) -> None:
        """Settles what a dead worker held. Raises `StoreUnavailable` where some of it must wait: then it is
        to be done again."""

    def is_healthy(self) -> bool: ...


class Turn(Struct, frozen=True, kw_only=True):
    """A call that asks for one of a model's places. `most` is how many there are, `waiting` how many may wait
    for one; `weight` is the user's share against others', `prompt` the call's tokens."""

    id: str
    model: str
    user: str
    most: int
    waiting: int
    weight: float = 1.0
    prompt: int = 0


class Queue(Struct, frozen=True):
    """How many calls wait for a model's places, and about how many seconds until all of them have one: None
    when none came free lately."""

    waiting: int = 0
    seconds: float | None = None


class Places(Protocol):
    """The places of full models, given to the user who was served least lately: the virtual token counter of
    Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024."""

    name: str

    async def take(self, turn: Turn) -> None:
        """Returns when the place is the call's. Raises `Overloaded` when too many wait already, at once or
        while it waits: a full queue refuses the last call of the user who has most of them waiting. Whoever
        is cancelled while it waits holds nothing afterwards."""

    def served(self, id: str, tokens: int) -> None:
        """So many tokens of the completion so far: the counter of the call's user goes on with them. It never
        goes back, so an estimate should rather be too small."""

    def leave(self, id: str, tokens: int) -> None:
        """Gives the place to the next; `tokens` is the completion's final size. Never raises or waits."""

    def resize(self, most: Mapping[str, int]) -> None:
        """So many places these models have from now on: who waits for one may get it. Never waits."""

    def queue(self, model: str) -> Queue:
        """As it was when this process last heard of it: for messages."""

    async def recover(self, worker: str) -> None:
        """Gives back the places of a dead worker. Raises `StoreUnavailable`: then it is to be done again, or
        happens by itself a minute after the worker's last sign of life."""

    def is_healthy(self) -> bool: ...
