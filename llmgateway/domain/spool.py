"""The port of the journal's other end: what is settled, on its way to the store; what dead workers left."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct

from llmgateway.domain.call import Record


class Batch(Protocol):
    """Settled records, in the order in which they were settled."""

    @property
    def records(self) -> Sequence[Record]: ...


B = TypeVar("B", bound=Batch)


class Estate(Struct, frozen=True):
    """What dead workers left: their names, the records that were open, and what is known to be used of every
    call in their journals: (tokens, cost) by id."""

    workers: Sequence[str] = ()
    orphans: Sequence[Record] = ()
    spent: Mapping[str, tuple[int, int]] = {}


class Spool(Protocol[B]):
    """The other end of the journal: what is settled, on its way to the permanent store."""

    @property
    def unshipped(self) -> int: ...

    def batch(self, most: int) -> B:
        """The next records; the same ones again until they are said to be `shipped`."""

    def shipped(self, batch: B) -> None:
        """The batch is in the store, or in the dead-letter file."""

    def bury(self, records: Iterable[Record]) -> None:
        """Keeps records that no store takes in the dead-letter file."""

    async def take_over(self) -> Estate:
        """Adopts the journals of dead workers; the caller settles what is open, gives back what the workers
        held elsewhere, and says so."""

    def given_back(self, worker: str) -> None:
        """Nothing is left of this dead worker but its journal; until then it is never quite forgotten."""
