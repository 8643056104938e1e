"""Times as people write them."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from llmgateway.control.moments import in_future, parse_moment, parse_zone, to_the_millisecond, written
from llmgateway.domain.errors import InvalidRequest

HELSINKI = ZoneInfo("Europe/Helsinki")
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20T12:00:00Z", NOON),
        ("2026-11-20t12:00:00z", NOON),
        ("2026-11-20T12:00Z", NOON),
        ("2026-11-20T14:00:00+02:00", NOON),
        ("2026-11-20T14:00:00 02:00", NOON),
        ("2026-11-20 14:00", NOON),
        ("2026-11-20T12:00:00.5Z", NOON + timedelta(milliseconds=500)),
        ("2026-11-20T12:00:00.123456789Z", NOON + timedelta(microseconds=123456)),
        ("2026-11-20", datetime(2026, 11, 19, 22, tzinfo=UTC)),
        ("2026-07-01", datetime(2026, 6, 30, 21, tzinfo=UTC)),
    ],
)
def test_what_is_understood(text: str, moment: datetime) -> None:
    assert parse_moment(text, HELSINKI, "from") == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-02-30",
        "2026-11-20T25:00Z",
        "20261120",
        "2026-11-20Z",
        "1969-12-31",
        "9999-12-31",
        "2026-11-20T12:00:00+25:00",
        "٢٠٢٦-11-20",
        "2026-11-20T12:00:00Z\n",
        "1700000000",
    ],
)
def test_what_is_not(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_moment(text, HELSINKI, "from")
    assert refused.value.param == "from"


@pytest.mark.parametrize("name", ["", "Europe", "Europe/Nowhere", "../../etc/passwd", "a\0b", "x" * 5000])
def test_zones_that_are_none(name: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_zone(name, "tz")


def test_the_future() -> None:
    later = NOON + timedelta(seconds=1, microseconds=1500)
    assert in_future(later.replace(tzinfo=None), NOON, "p") == to_the_millisecond(later)
    assert in_future(later.astimezone(HELSINKI), NOON, "p").utcoffset() == timedelta(0)
    with pytest.raises(InvalidRequest):
        in_future(NOON, NOON, "p")
    with pytest.raises(InvalidRequest):
        in_future(datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), NOON, "p")


def test_how_times_are_shown() -> None:
    assert written(NOON.astimezone(HELSINKI)) == "2026-11-20T12:00:00Z"
    assert written(NOON + timedelta(milliseconds=5)) == "2026-11-20T12:00:00.005Z"
    assert written(None) is None
