"""The calls that are under way now, and the last that ended: who and where, never what is said."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

from llmgateway.control.reports import RecordsAsk
from llmgateway.domain.errors import GatewayError
from llmgateway.portal.overview import has_failed
from llmgateway.portal.visit import Answer, Desk, Event, Events, Page, Visit

ENDED = 20  # shown
PERIOD = 1.0  # seconds between two looks
LONGEST = 900  # looks until the browser has to ask again


async def show(desk: Desk, visit: Visit) -> Answer:
    return Page("operators/live.html", await _now(desk))


async def follow(desk: Desk, visit: Visit) -> Answer:
    return Events(_looks(desk))


async def _looks(desk: Desk) -> AsyncIterator[Event]:
    for _ in range(LONGEST):
        now: Mapping[str, Any] | None = None
        with suppress(GatewayError):  # a store is away: what was shown last stays
            now = await _now(desk)
        if now is not None:
            yield Event("operators/live-now.html", now)
        await asyncio.sleep(PERIOD)


async def _now(desk: Desk) -> Mapping[str, Any]:
    records, _ = await desk.control.reports.records(RecordsAsk(limit=ENDED))
    return {"calls": await desk.open_calls(), "records": records, "has_failed": has_failed}
