"""What a person used: a chart, a table, single requests, and both as files."""

import msgspec

from llmgateway.control.plain import plain
from llmgateway.control.reports import RecordsAsk, UsageAsk, UsageReport, csv_of, usage_view
from llmgateway.portal.keys import keys_of
from llmgateway.portal.overview import has_failed, tokens_by_day
from llmgateway.portal.spans import Span, asked_span
from llmgateway.portal.visit import Answer, Desk, Download, Page, Visit

GROUPINGS = ("day", "model", "key")
PER_PAGE = 50


def _filters(visit: Visit) -> dict[str, str]:
    """As far as they were given: of whose requests is never one of them."""
    return {name: visit.asked(name) for name in ("model", "key") if visit.asked(name)}


def _ask(visit: Visit, span: Span, by: str) -> UsageAsk:
    filters = _filters(visit)
    return UsageAsk(
        start=span.start, end=span.end, by=by, user=visit.me.id,
        model=filters.get("model"), key=filters.get("key"),
    )  # fmt: skip


async def show(desk: Desk, visit: Visit) -> Answer:
    span, filters = asked_span(desk, visit), _filters(visit)
    by = visit.asked("by") if visit.asked("by") in GROUPINGS else "day"
    report = await desk.control.reports.usage(_ask(visit, span, by))
    total = await desk.control.reports.usage(_ask(visit, span, ""))
    values = {
        "span": span, "filters": filters, "by": by, "groupings": GROUPINGS,
        "rows": report.rows[::-1] if by == "day" else report.rows,
        "total": total.rows[0] if total.rows else None,
        "chart": await tokens_by_day(desk, visit, span, {"user": visit.me.id, **filters}),
        "names": await _names(desk, visit), "models": await _models(desk, visit),
        "query": {"from": span.start, "to": span.last.isoformat(), "by": by, **filters},
    }  # fmt: skip
    return Page("usage.html", values)


async def as_csv(desk: Desk, visit: Visit) -> Answer:
    span = asked_span(desk, visit)
    report = await desk.control.reports.usage(_ask(visit, span, visit.asked("by") or "day"))
    return Download(csv_of(report).encode(), "text/csv; charset=utf-8", f"{file_name(span)}.csv")


async def as_json(desk: Desk, visit: Visit) -> Answer:
    span = asked_span(desk, visit)
    report = await desk.control.reports.usage(_ask(visit, span, visit.asked("by") or "day"))
    return json_file(desk, span, report)


async def show_requests(desk: Desk, visit: Visit) -> Answer:
    span, filters = asked_span(desk, visit), _filters(visit)
    ask = RecordsAsk(
        start=span.start, end=span.end, user=visit.me.id, model=filters.get("model"), key=filters.get("key"),
        limit=PER_PAGE, after=visit.asked("after") or None,
    )  # fmt: skip
    records, following = await desk.control.reports.records(ask)
    values = {
        "span": span, "filters": filters, "following": following, "has_failed": has_failed,
        "records": records, "names": await _names(desk, visit), "models": await _models(desk, visit),
        "is_first": not visit.asked("after"),
        "query": {"from": span.start, "to": span.last.isoformat(), **filters},
    }  # fmt: skip
    return Page("requests.html", values)


async def _names(desk: Desk, visit: Visit) -> dict[str, str]:
    """Of keys, by id: of those that the portal uses, too."""
    names = {key.id: key.name for key in await keys_of(desk, visit.me.id)}
    own, _ = await desk.control.keys.page({"user": visit.me.id, "purpose": "playground"}, limit=10)
    return names | {key.id: visit.words.gettext("Playground") for key in own}


async def _models(desk: Desk, visit: Visit) -> list[str]:
    """What there is to choose from: what may be used now, and what was used."""
    report = await desk.control.reports.usage(UsageAsk(user=visit.me.id, by="model"))
    used = {row.group["model"] or "" for row in report.rows}
    return sorted(used | {model.id for model in desk.visible_to(visit.me)})


def file_name(span: Span) -> str:
    return f"usage-{span.start}-{span.last.isoformat()}"


def json_file(desk: Desk, span: Span, report: UsageReport) -> Download:
    told = {
        "from": span.start, "to": span.last.isoformat(), "time_zone": desk.facts().time_zone,
        "currency": desk.facts().currency, "cost_unit": "millionths of the currency",
        "data": [usage_view(row) for row in report.rows],
    }  # fmt: skip
    body = msgspec.json.format(msgspec.json.encode(told, enc_hook=plain), indent=2)
    return Download(body, "application/json", f"{file_name(span)}.json")
