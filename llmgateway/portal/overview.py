"""The first page: how the limits stand, what was spent, what was used, what failed, and how to begin."""

from collections.abc import Sequence

from llmgateway.control.reports import RecordsAsk, UsageAsk
from llmgateway.domain.errors import Unavailable
from llmgateway.domain.keys import Key
from llmgateway.domain.limits import Standing
from llmgateway.domain.ports import Document
from llmgateway.portal.charts import Chart, by_day, stacked
from llmgateway.portal.keys import keys_of
from llmgateway.portal.spans import Span, lately, this_month
from llmgateway.portal.visit import Answer, Desk, Page, Visit

FAILURES = 5  # shown
LOOKED_THROUGH = 200  # of the newest records


async def show(desk: Desk, visit: Visit) -> Answer:
    user, span = visit.me.id, lately(desk)
    keys = [key for key in await keys_of(desk, user) if key.state == "active"]
    month = await desk.control.reports.usage(UsageAsk(start=this_month(desk).start, user=user))
    values = {
        "keys": keys, "expiring": _expiring(desk, keys), "standings": await _standings(desk, visit),
        "month": month.rows[0] if month.rows else None, "chart": await tokens_by_day(desk, visit, span),
        "failures": await failures_of(desk, user), "models": desk.visible_to(visit.me)[:1],
    }  # fmt: skip
    return Page("overview.html", values)


async def _standings(desk: Desk, visit: Visit) -> Sequence[Standing] | None:
    """None where nobody can tell now: all else is still worth to be shown."""
    try:
        return await desk.standings(visit.me)
    except Unavailable:
        return None


async def tokens_by_day(desk: Desk, visit: Visit, span: Span, **where: str) -> Chart:
    ask = UsageAsk(start=span.start, end=span.end, by="day,model", user=visit.me.id, **where)  # type: ignore[arg-type]  # names of filters
    report = await desk.control.reports.usage(ask)
    series = by_day(report.rows, span.days, "model", visit.words.gettext("Other models"))
    return stacked(
        span.days, series, visit.words.gettext("Tokens by day and model"),
        label=visit.words.short_day, number=visit.words.number,
    )  # fmt: skip


async def failures_of(desk: Desk, user: str) -> Sequence[Document]:
    """The newest requests that did not end well."""
    found, _ = await desk.control.reports.records(RecordsAsk(user=user, limit=LOOKED_THROUGH))
    return [record for record in found if has_failed(record)][:FAILURES]


def has_failed(record: Document) -> bool:
    return record["status"] >= 400 or record["outcome"] not in ("completed", "cached", "client_gone")


def _expiring(desk: Desk, keys: Sequence[Key]) -> list[Key]:
    now = desk.clock.now()
    return [key for key in keys if key.expires_at is not None and 0 < (key.expires_at - now).days < 14]
