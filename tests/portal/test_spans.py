from datetime import UTC, date, datetime

from llmgateway.portal.spans import LONGEST, Span, asked_span, lately, this_month, today
from llmgateway.portal.visit import Look, Visit
from llmgateway.portal.words import load_words
from tests.portal.asking import request_of
from tests.portal.house import Portal

WORDS = load_words()["en"]


def asked(portal: Portal, query: str) -> Span:
    request = request_of()
    request.scope["query_string"] = query.encode()
    visit = Visit(request=request, words=WORDS, look=Look("en", "auto"), address="")
    return asked_span(portal.portal_desk(), visit)


async def test_days_are_those_of_the_gateways_zone(portal: Portal) -> None:
    portal.desk.clock.at = datetime(2026, 11, 30, 22, 30, tzinfo=UTC)
    desk = portal.portal_desk()
    assert today(desk) == date(2026, 12, 1)
    assert this_month(desk) == Span(date(2026, 12, 1), date(2026, 12, 1))
    span = lately(desk, 3)
    assert span.days == ["2026-11-29", "2026-11-30", "2026-12-01"]
    assert (span.start, span.end) == ("2026-11-29", "2026-12-02")


async def test_spans_of_the_address(portal: Portal) -> None:
    assert asked(portal, "from=2026-11-01&to=2026-11-03").days == ["2026-11-01", "2026-11-02", "2026-11-03"]
    assert asked(portal, "") == lately(portal.portal_desk())
    assert asked(portal, "to=2027-05-01").last == date(2026, 11, 20)
    assert asked(portal, "from=2026-11-09&to=2026-11-03").days == ["2026-11-03"]
    assert len(asked(portal, "from=2001-01-01").days) == LONGEST
    assert asked(portal, "from=x&to=0001-01-01") == lately(portal.portal_desk())
