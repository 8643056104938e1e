"""Milliseconds, zones and the order of rows."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from llmgateway.domain.errors import InvalidRequest
from llmgateway.domain.ports import UsageRow
from llmgateway.stores.usage import checked, in_order, milliseconds, to_the_millisecond, zone_of


def test_milliseconds_are_exact_and_rounded_down() -> None:
    assert milliseconds(datetime(1970, 1, 1, 0, 0, 1, 999, tzinfo=UTC)) == 1000
    moment = datetime(2026, 11, 20, 8, 30, 15, 123_999, tzinfo=UTC)
    assert milliseconds(moment) == 1795163415123
    assert milliseconds(moment.astimezone(ZoneInfo("Europe/Helsinki"))) == 1795163415123


def test_a_moment_keeps_its_millisecond_in_utc() -> None:
    local = datetime(2026, 11, 20, 10, 30, 15, 123_999, tzinfo=ZoneInfo("Europe/Helsinki"))
    assert to_the_millisecond(local) == datetime(2026, 11, 20, 8, 30, 15, 123_000, tzinfo=UTC)


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "Europe", "/etc/localtime", "../UTC", "\x00"])
def test_what_is_no_zone_is_the_callers_mistake(name: str) -> None:
    with pytest.raises(InvalidRequest):
        zone_of(name)


def test_only_known_filters() -> None:
    assert checked({"user": "alice"}) == {"user": "alice"}
    with pytest.raises(ValueError, match="no filter cost, status"):
        checked({"status": "200", "cost": "0"})


def test_rows_are_ordered_by_their_groups_none_first() -> None:
    groups = [("b", None), ("a", "2"), ("b", "1"), ("a", "1")]
    nothing = UsageRow(group={}, requests=0, prompt=0, completion=0, cached=0, reasoning=0, cost=0)
    rows = [replace(nothing, group={"user": user, "project": project}) for user, project in groups]
    ordered = [tuple(row.group.values()) for row in in_order(rows)]
    assert ordered == [("a", "1"), ("a", "2"), ("b", None), ("b", "1")]
