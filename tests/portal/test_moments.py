"""Days and times of forms, in the gateway's zone, back and forth."""

from datetime import UTC, datetime

import msgspec
import pytest

from llmgateway.domain.errors import InvalidRequest
from llmgateway.portal.form import Form
from llmgateway.portal.moments import as_last_day, as_local, asked_last_day, asked_moment
from llmgateway.portal.visit import Visit
from tests.portal.asking import request_of
from tests.portal.house import Portal


def visit_with(portal: Portal, written: str) -> Visit:
    visit = Visit(request=request_of(), words=None, look=None, address="")  # type: ignore[arg-type]
    return msgspec.structs.replace(visit, form=Form([("day", written)]))


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2026-11-20", datetime(2026, 11, 20, 22, tzinfo=UTC)),
        ("2026-03-28", datetime(2026, 3, 28, 22, tzinfo=UTC)),
        ("2026-03-29", datetime(2026, 3, 29, 21, tzinfo=UTC)),
        ("", None),
    ],
)
async def test_the_last_day_is_part_of_it(portal: Portal, written: str, moment: datetime | None) -> None:
    desk = portal.portal_desk()
    assert asked_last_day(desk, visit_with(portal, written), "day") == moment
    assert as_last_day(desk, moment) == written


async def test_moments_are_local(portal: Portal) -> None:
    desk, moment = portal.portal_desk(), datetime(2026, 7, 1, 9, 30, tzinfo=UTC)
    assert asked_moment(desk, visit_with(portal, "2026-07-01T12:30"), "day") == moment
    assert as_local(desk, moment) == "2026-07-01T12:30"
    assert asked_moment(desk, visit_with(portal, ""), "day") is None
    assert as_local(desk, None) == ""


@pytest.mark.parametrize("written", ["soon", "2026-13-01", "9999-12-31", "2026-11-20T25:00"])
async def test_what_is_none(portal: Portal, written: str) -> None:
    with pytest.raises(InvalidRequest):
        asked_last_day(portal.portal_desk(), visit_with(portal, written), "day")
