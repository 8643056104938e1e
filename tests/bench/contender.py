"""What a contender is: how it is started on a bed, and what is missing when it cannot be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.bench.machine import Bed


@dataclass(frozen=True)
class Launch:
    """One contender, ready to be started: `ready` answers below 500 when it is up.

    `aside` are processes that belong to it but do not count as its cost; `ledger` tells how many requests it
    has booked.
    """

    argv: tuple[str, ...]
    ready: str
    env: Mapping[str, str] | None = None
    key: str = "none"
    headers: tuple[str, ...] = ()
    patience: float = 20
    aside: tuple[int, ...] = ()
    ledger: Callable[[], int] | None = None


@dataclass(frozen=True)
class Contender:
    """`missing` says what to install, or None; `launch` is None for the upstream itself."""

    name: str
    missing: Callable[[], str | None]
    launch: Callable[[Bed], Launch] | None
