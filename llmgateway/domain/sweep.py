"""One timer for all deadlines: things say when they are due, and a sweep ten times a second asks them.

A timer of the event loop per request and phase costs more than the relay of a chunk; a float in a set costs
nothing.
"""

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

PERIOD = 0.1  # seconds between sweeps: how late a deadline may fire
NEVER = float("inf")
AFTER_FAILURE = 1.0  # seconds in which a thing that could not expire does not keep others from it


class Timed(Protocol):
    """`due` is a time of the monotonic clock; `expire` must move it on, or have the thing discarded."""

    due: float

    def expire(self, now: float) -> None: ...


Thing = TypeVar("Thing", bound=Timed)


class Sweep(Generic[Thing]):
    """The things of one kind that wait for something."""

    __slots__ = ("_things", "add", "discard")

    def __init__(self) -> None:
        self._things: set[Thing] = set()
        self.add = self._things.add
        self.discard = self._things.discard

    def turn(self, now: float) -> None:
        """What one of them raises ends the turn; the next one begins with the others."""
        for thing in [thing for thing in self._things if thing.due <= now]:
            thing.due = now + AFTER_FAILURE
            thing.expire(now)

    def __iter__(self) -> Iterator[Thing]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)
