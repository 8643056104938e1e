"""What the sums of every ledger have in common: filters, time zones, milliseconds, the order of rows."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from llmgateway.domain.errors import InvalidRequest
from llmgateway.domain.ports import Dimension, UsageRow

COLUMNS: Final[Mapping[Dimension, str]] = {
    "user": "user", "model": "model", "key": "key_id", "project": "project",
}  # fmt: skip
FILTERS: Final = frozenset(COLUMNS.values())
SUMS: Final = ("prompt", "completion", "cached", "reasoning")
_EPOCH, _MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)


def checked(where: Mapping[str, str]) -> Mapping[str, str]:
    if unknown := where.keys() - FILTERS:
        raise ValueError(f"the ledger has no filter {', '.join(sorted(unknown))}")
    return where


def zone_of(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not there, not a name, the name of a directory of zones
        message = "The time zone is not an IANA name such as Europe/Helsinki."
        raise InvalidRequest(message, param="tz") from None


def milliseconds(moment: datetime) -> int:
    """Since 1970, rounded down: the resolution that every store has."""
    return (moment - _EPOCH) // _MILLISECOND


def to_the_millisecond(moment: datetime) -> datetime:
    utc = moment.astimezone(UTC)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)


def in_order(rows: Sequence[UsageRow]) -> list[UsageRow]:
    """By what is in their groups, dimension after dimension; None first."""
    return sorted(rows, key=lambda row: [(value is not None, value or "") for value in row.group.values()])
