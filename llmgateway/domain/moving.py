"""The ports of moving from one store to another: what is read there, and how it is taken in here."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol

from msgspec import Struct

from llmgateway.domain.ports import Document, Documents, Kind
from llmgateway.domain.upkeep import Upkeep


class Since(Struct, frozen=True):
    """From which day of UTC on all records, and all sums of hours, are there; None where none was thrown
    away."""

    records: datetime | None = None
    hourly: datetime | None = None


class Sum(Struct, frozen=True, kw_only=True):
    """What one user, key, project and model have used in an hour or a day of UTC."""

    unit: Literal["hour", "day"]
    start: datetime
    user: str
    key_id: str
    project: str | None
    model: str
    requests: int
    prompt: int
    completion: int
    cached: int
    reasoning: int
    cost: int


class Archive(Protocol):
    """What a ledger knows beside its records: of times whose records were thrown away there are only sums."""

    async def count(self) -> int:
        """All records that are there, corrections too."""

    async def since(self) -> Since: ...

    async def days(self, before: datetime) -> list[datetime]:
        """Days of UTC that have sums, in order."""

    async def sums(self, day: datetime) -> list[Sum]:
        """A day's, and those of its hours."""


class OpenArchive(Archive, Protocol):
    """One that takes another's over."""

    async def inherit(self, since: Since, sums: Sequence[Sum]) -> None:
        """From now on the ledger says of times before `since` what these sums say. None that is there is
        changed."""


class Origin(Documents, Upkeep, Protocol):
    """What is moved; it is only read."""

    @property
    def archive(self) -> Archive: ...


class Destination(Documents, Upkeep, Protocol):
    """Where it goes."""

    @property
    def archive(self) -> OpenArchive: ...

    async def insert_all(self, kind: Kind, documents: Sequence[Document]) -> None:
        """One after the other, in their order. Raises `Conflict` at the first whose id is taken."""
