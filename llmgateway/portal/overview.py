"""The first page: how the limits stand, what was spent, what was used, what failed, and how to begin."""

from collections.abc import Mapping, Sequence

from llmgateway.control.reports import RecordsAsk, UsageAsk
from llmgateway.domain.errors import Unavailable
from llmgateway.domain.keys import Key
from llmgateway.domain.ports import Dimension, Document
from llmgateway.domain.refusals import Refusal
from llmgateway.portal.charts import Chart, by_day
from llmgateway.portal.keys import keys_of
from llmgateway.portal.spans import Span, lately, this_month
from llmgateway.portal.standings import of_person
from llmgateway.portal.visit import Answer, Desk, Page, Visit
from llmgateway.portal.words import later

OTHERS, ALL_OTHERS = later("Other models"), later("All others")
BY_MODEL, BY_DAY = later("Tokens by day and model"), later("Tokens by day")
FAILURES = 5  # shown
LOOKED_THROUGH = 200  # of the newest records


async def show(desk: Desk, visit: Visit) -> Answer:
    user, span = visit.me.id, lately(desk)
    keys = [key for key in await keys_of(desk, user) if key.state == "active"]
    month = await desk.control.reports.usage(UsageAsk(start=this_month(desk).start, user=user))
    values = {
        "key_names": {key.id: key.name for key in keys},
        "keys": keys, "expiring": _expiring(desk, keys), "standings": await of_person(desk, visit.me, keys),
        "month": month.rows[0] if month.rows else None,
        "chart": await tokens_by_day(desk, visit, span, {"user": user}),
        "failures": await failures_of(desk, user), "refusals": await refusals_of(desk, user),
        "models": desk.visible_to(visit.me)[:1],
    }  # fmt: skip
    return Page("overview.html", values)


async def tokens_by_day(
    desk: Desk, visit: Visit, span: Span, where: Mapping[str, str], *, by: Dimension = "model"
) -> Chart:
    """`where` are names and values of filters."""
    ask = UsageAsk(start=span.start, end=span.end, by=f"day,{by}", **where)  # type: ignore[arg-type]  # their names
    report = await desk.control.reports.usage(ask)
    title, others = (BY_MODEL, OTHERS) if by == "model" else (BY_DAY, ALL_OTHERS)
    series = by_day(report.rows, span.days, by, visit.words.gettext(others))
    return Chart(title=visit.words.gettext(title), days=tuple(span.days), series=series)


async def failures_of(desk: Desk, user: str) -> Sequence[Document]:
    """The newest requests that did not end well."""
    found, _ = await desk.control.reports.records(RecordsAsk(user=user, limit=LOOKED_THROUGH))
    return [record for record in found if has_failed(record)][:FAILURES]


async def refusals_of(desk: Desk, user: str) -> Sequence[Refusal] | None:
    """None where nobody can tell now."""
    try:
        return await desk.refusals(user, FAILURES)
    except Unavailable:
        return None


def has_failed(record: Document) -> bool:
    return record["status"] >= 400 or record["outcome"] not in ("completed", "cached", "client_gone")


def _expiring(desk: Desk, keys: Sequence[Key]) -> list[Key]:
    now = desk.clock.now()
    return [key for key in keys if key.expires_at is not None and 0 < (key.expires_at - now).days < 14]
