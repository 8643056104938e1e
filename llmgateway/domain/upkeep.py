"""The ports of periodic work: sums that are kept beside the ledger, what is thrown away, who leads."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from llmgateway.domain.call import Record
from llmgateway.domain.ports import Document, Ledger

ADJUSTED = ":adj:"  # between a record's id and the number of its correction


class Adjustment(Record, kw_only=True):
    """A correction of the record `adjusts`, added to the ledger, which never changes: its tokens and cost are
    differences, its time is that of what it corrects, and it is no request of its own."""

    adjusts: str = ""
    requests: int = 0
    why: str = ""


class Retention(Struct, frozen=True, kw_only=True):
    """Days that each class of memory is kept; None for ever. Days of sums (`daily`) outlive their hours, and
    hours the records they were made of."""

    records: int | None = 400
    hourly: int | None = 400
    daily: int | None = None
    audit: int | None = None


class Upkeep(Ledger, Protocol):
    """A ledger with sums beside it: by hour and by day, for each user, key, project and model. `usage` reads
    them wherever they say enough, so it costs the same however many records there are."""

    async def roll_up(self) -> int:
        """Puts into the sums what is not in them yet; returns how many records, or spans of time, that
        were."""

    async def rebuild(self) -> int:
        """Makes the sums anew from all records that are still there; returns how many hours those are."""

    async def differing(self, start: datetime, end: datetime) -> list[datetime]:
        """Hours in [start, end) whose sums are not those of their records, though nothing is to be rolled
        up."""

    async def mend(self, hours: Sequence[datetime]) -> None:
        """Makes the sums of these hours, and of their days, anew."""

    async def drop(self, kept: Retention, now: datetime) -> Mapping[str, int]:
        """Throws away what is older, a little at a time, and no record that is not in the sums yet; returns
        how much of each class. What is left to do is done at the next call."""

    async def reassign(self, keys: Sequence[str], user: str) -> int:
        """Gives all that was done with these keys to `user`, in records and sums, and to nobody else what
        they say; returns how many days and keys that concerned, 0 when all of it is theirs already. May be
        cut off and done again."""

    async def lines(self, ids: Sequence[str]) -> list[Document]:
        """Those of these records that are stored."""

    async def twins(self, start: datetime, end: datetime) -> list[list[Document]]:
        """Records of [start, end) that say the same but for their ids: one call twice, by a fault, or calls
        of one millisecond that their caller named alike."""


class Lead(Protocol):
    """Who does the work that one process does for all."""

    async def is_mine(self) -> bool:
        """Whether this process leads, from now on for a while longer. Raises `StoreUnavailable` when nobody
        can tell: then nobody leads."""

    async def resign(self) -> None:
        """Lets another lead at once."""


class Warmth(Protocol):
    """Whether a cache that all share holds what it was filled with."""

    async def is_cold(self) -> bool:
        """True until it is filled, and again when it has lost everything."""

    async def warmed(self) -> None: ...
