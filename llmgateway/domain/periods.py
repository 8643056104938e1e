"""Calendar windows: the day and the month that a moment lies in, in the configured time zone."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct


class Period(Struct, frozen=True):
    """`day` is written 2026-11-21, `month` 2026-11. The bounds are in UTC; an end belongs to the next one."""

    day: str
    month: str
    day_start: datetime
    day_end: datetime
    month_start: datetime
    month_end: datetime


class Calendar:
    """Days begin at midnight on the zone's own clocks, so one may have 23 or 25 hours."""

    __slots__ = ("_now", "_zone")

    def __init__(self, time_zone: str) -> None:
        self._zone = ZoneInfo(time_zone)
        self._now: Period | None = None

    def period_of(self, moment: datetime) -> Period:
        """Nearly always that of the call before."""
        now = self._now
        if now is None or not now.day_start <= moment < now.day_end:
            now = self._now = self._found(moment)
        return now

    def _found(self, moment: datetime) -> Period:
        local = moment.astimezone(self._zone)
        day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        month = day.replace(day=1)
        return Period(
            day=f"{day:%Y-%m-%d}",
            month=f"{month:%Y-%m}",
            day_start=day.astimezone(UTC),
            day_end=(day + timedelta(days=1)).astimezone(UTC),
            month_start=month.astimezone(UTC),
            month_end=(month + timedelta(days=32)).replace(day=1).astimezone(UTC),
        )
