"""Times as people write them: RFC 3339, with or without a zone, or a date alone."""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from llmgateway.domain.errors import InvalidRequest, shown
from llmgateway.domain.ports import Clock

WRITTEN = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[Tt ](?P<time>\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)(?P<zone>[Zz]|[+ -]\d\d:\d\d)?)?",
    re.ASCII,
)
FIRST, LAST = 1970, 9998  # years: a day on either side is still a date in every zone


def now_of(clock: Clock) -> datetime:
    """Now, to the millisecond: what every store keeps of it."""
    return to_the_millisecond(clock.now())


def to_the_millisecond(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def to_the_second(moment: datetime) -> str:
    """As JSON shows what nobody needs to know more exactly: UTC, with `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def in_utc(moment: datetime, param: str) -> datetime:
    """As it is stored; one without a zone is read as UTC."""
    try:
        utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise InvalidRequest("That is further away than the calendar goes.", param=param) from None
    return to_the_millisecond(utc)


def parse_moment(written: str, zone: ZoneInfo, param: str) -> datetime:
    """What is written without a zone is local to `zone`; a date alone is its midnight there."""
    parts = WRITTEN.fullmatch(written)
    if parts is None:
        raise _wrong(written, param)
    offset = (parts["zone"] or "").upper().replace(" ", "+")  # a query turns + into a space
    try:
        moment = datetime.fromisoformat(f"{parts['date']}T{parts['time'] or '00:00'}{offset}")
        if not FIRST <= moment.year <= LAST:
            raise _wrong(written, param)
        return (moment if offset else moment.replace(tzinfo=zone)).astimezone(UTC)
    except ValueError:
        raise _wrong(written, param) from None


def parse_zone(name: str, param: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # not there, not a name, the name of a directory of zones
        message = f"'{shown(name)}' is not a time zone such as Europe/Helsinki."
        raise InvalidRequest(message, param=param) from None


def in_future(moment: datetime, now: datetime, param: str) -> datetime:
    """A time to come, in UTC; one without a zone is read as UTC."""
    utc = in_utc(moment, param)
    if utc <= now:
        raise InvalidRequest(f"{param} must be in the future.", param=param)
    return utc


def written(moment: datetime | None) -> str | None:
    """As JSON and CSV show it: UTC, with `Z`, with milliseconds where there are any."""
    if moment is None:
        return None
    utc = moment.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds" if utc.microsecond else "seconds").replace("+00:00", "Z")


def _wrong(text: str, param: str) -> InvalidRequest:
    message = f"'{shown(text, 40)}' is not a time such as 2026-11-01T00:00:00Z or a date such as 2026-11-01."
    return InvalidRequest(message, param=param)
