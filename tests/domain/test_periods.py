"""Tests of calendar windows."""

from datetime import UTC, datetime, timedelta

import pytest

from llmgateway.domain.periods import Calendar

HELSINKI = "Europe/Helsinki"


def test_a_day_is_that_of_the_zone() -> None:
    period = Calendar(HELSINKI).period_of(datetime(2026, 11, 20, 22, 30, tzinfo=UTC))
    assert (period.day, period.month) == ("2026-11-21", "2026-11")
    assert period.day_start == datetime(2026, 11, 20, 22, tzinfo=UTC)
    assert period.day_end == datetime(2026, 11, 21, 22, tzinfo=UTC)
    assert period.month_start == datetime(2026, 10, 31, 22, tzinfo=UTC)
    assert period.month_end == datetime(2026, 11, 30, 22, tzinfo=UTC)


@pytest.mark.parametrize(("date", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25), ((2026, 7, 1), 24)])
def test_r_fault_50_days_are_as_long_as_their_zone_says(date: tuple[int, int, int], hours: int) -> None:
    period = Calendar(HELSINKI).period_of(datetime(*date, 12, tzinfo=UTC))
    assert period.day_end - period.day_start == timedelta(hours=hours)


def test_an_end_belongs_to_the_next_day() -> None:
    calendar = Calendar(HELSINKI)
    period = calendar.period_of(datetime(2026, 12, 31, 12, tzinfo=UTC))
    after = calendar.period_of(period.day_end)
    assert (after.day, after.month) == ("2027-01-01", "2027-01")
    assert after.day_start == after.month_start == period.month_end
    assert calendar.period_of(period.day_start).day == "2026-12-31"
