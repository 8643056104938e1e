"""Spans of days in the gateway's own time zone: what pages sum up over."""

from datetime import date, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct

from llmgateway.portal.visit import Desk, Visit

USUAL, LONGEST = 30, 366  # days


class Span(Struct, frozen=True):
    """From the first day to the last, which is part of it."""

    first: date
    last: date

    @property
    def days(self) -> list[str]:
        count = (self.last - self.first).days + 1
        return [(self.first + timedelta(days=n)).isoformat() for n in range(count)]

    @property
    def start(self) -> str:
        return self.first.isoformat()

    @property
    def end(self) -> str:
        """Midnight after the last day."""
        return (self.last + timedelta(days=1)).isoformat()


def today(desk: Desk) -> date:
    return desk.clock.now().astimezone(ZoneInfo(desk.facts().time_zone)).date()


def lately(desk: Desk, days: int = USUAL) -> Span:
    last = today(desk)
    return Span(last - timedelta(days=days - 1), last)


def this_month(desk: Desk) -> Span:
    last = today(desk)
    return Span(last.replace(day=1), last)


def asked_span(desk: Desk, visit: Visit) -> Span:
    """What the address asks for; what makes no sense in it is left out."""
    usual = lately(desk)
    last = min(_date(visit.asked("to")) or usual.last, usual.last)
    first = _date(visit.asked("from")) or last - timedelta(days=USUAL - 1)
    return Span(max(min(first, last), last - timedelta(days=LONGEST - 1)), last)


def _date(text: str) -> date | None:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return None
    return found if 2000 <= found.year <= 9000 else None
