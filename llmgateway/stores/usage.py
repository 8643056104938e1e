"""What the sums of every ledger have in common: filters, time zones, milliseconds, the order of rows."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from llmgateway.domain.errors import InvalidRequest
from llmgateway.domain.ports import Dimension, UsageRow

COLUMNS: Final[Mapping[Dimension, str]] = {
    "user": "user", "model": "model", "key": "key_id", "project": "project",
}  # fmt: skip
FILTERS: Final = frozenset(COLUMNS.values())
SUMS: Final = ("prompt", "completion", "cached", "reasoning")
Totals = dict[tuple[str | None, ...], list[int]]
"""Requests, the sums and the cost, by group."""
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


def moment_of(ms: int) -> datetime:
    return _EPOCH + ms * _MILLISECOND


def to_the_millisecond(moment: datetime) -> datetime:
    utc = moment.astimezone(UTC)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)


def in_order(rows: Sequence[UsageRow]) -> list[UsageRow]:
    """By what is in their groups, dimension after dimension; None first."""
    return sorted(rows, key=lambda row: [(value is not None, value or "") for value in row.group.values()])


def folded(rows: Iterable[Sequence[Any]], by: Sequence[Dimension], zone: ZoneInfo) -> Totals:
    """Adds up rows of groups and amounts; where they have a moment in the place of `day`, it becomes the day
    of `zone` that it lies in."""
    day = by.index("day") if "day" in by else None
    dates: dict[int, str] = {}
    totals: Totals = {}
    for row in rows:
        group, amounts = list(row[: len(by)]), row[len(by) :]
        if not amounts[0] and not any(amounts):  # the only row of a sum over nothing
            continue
        if day is not None:
            group[day] = dates.get(group[day]) or dates.setdefault(group[day], _date(group[day], zone))
        total = totals.setdefault(tuple(group), [0] * len(amounts))
        for place, amount in enumerate(amounts):
            total[place] += amount
    return totals


def usage_rows(by: Sequence[Dimension], totals: Totals) -> list[UsageRow]:
    rows: list[UsageRow] = []
    for group, (requests, prompt, completion, cached, reasoning, cost) in totals.items():
        rows.append(UsageRow(
            group=dict(zip(by, group, strict=True)), requests=requests,
            prompt=prompt, completion=completion, cached=cached, reasoning=reasoning, cost=cost,
        ))  # fmt: skip
    return in_order(rows)


def _date(moment: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(moment // 1000, zone).date().isoformat()
