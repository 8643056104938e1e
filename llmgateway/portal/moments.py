"""Days and times as forms write them: local to the gateway's time zone."""

from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from llmgateway.control.moments import parse_moment
from llmgateway.domain.errors import InvalidRequest
from llmgateway.portal.visit import Desk, Visit
from llmgateway.portal.words import later

WRONG = later("Please write a date such as 2026-11-01.")


def asked_moment(desk: Desk, visit: Visit, name: str) -> datetime | None:
    """None where nothing was written."""
    written = visit.form.text(name)
    try:
        return parse_moment(written, _zone(desk), name) if written else None
    except InvalidRequest:
        raise InvalidRequest(WRONG, param=name) from None


def asked_last_day(desk: Desk, visit: Visit, name: str) -> datetime | None:
    """Midnight after the day that was written: that day is part of it."""
    written = visit.form.text(name)
    if not written:
        return None
    try:
        day = date.fromisoformat(written)
        return datetime.combine(day + timedelta(days=1), time(), _zone(desk))
    except (ValueError, OverflowError):
        raise InvalidRequest(WRONG, param=name) from None


def as_local(desk: Desk, moment: datetime | None) -> str:
    """As an input of the kind `datetime-local` has it."""
    return "" if moment is None else moment.astimezone(_zone(desk)).strftime("%Y-%m-%dT%H:%M")


def as_last_day(desk: Desk, moment: datetime | None) -> str:
    """As an input of the kind `date` has it."""
    if moment is None:
        return ""
    return (moment.astimezone(_zone(desk)) - timedelta(microseconds=1)).date().isoformat()


def _zone(desk: Desk) -> ZoneInfo:
    return ZoneInfo(desk.facts().time_zone)
