"""What everybody used, by anything: a chart, a table, single requests, and both as files."""

from llmgateway.control.reports import FILTERS, RecordsAsk, UsageAsk, UsageReport, csv_of
from llmgateway.domain.errors import NotFound
from llmgateway.domain.ports import Dimension, UsageRow
from llmgateway.portal.overview import has_failed, tokens_by_day
from llmgateway.portal.spans import Span, asked_span
from llmgateway.portal.usage import PER_PAGE, file_name, json_file
from llmgateway.portal.visit import Answer, Desk, Download, Page, Visit

GROUPINGS: tuple[Dimension, ...] = ("user", "project", "model", "key", "day")
ROWS = 100  # of a page


async def show(desk: Desk, visit: Visit) -> Answer:
    span, filters, by = asked_span(desk, visit), _filters(visit), _groupings(visit)
    report = await _report(desk, visit, span, by)
    total = await _report(desk, visit, span, [])
    rows = ordered(report, by)
    page = _page(visit, len(rows))
    shown = rows[page * ROWS : (page + 1) * ROWS]
    drawn: Dimension = next((one for one in by if one not in ("day", "key")), "model")
    values = {
        "span": span, "filters": filters, "by": by, "groupings": GROUPINGS, "rows": shown,
        "total": total.rows[0] if total.rows else None, "count": len(rows), "page": page,
        "pages": -(-len(rows) // ROWS), "names": await _names(desk, shown),
        "chart": await tokens_by_day(desk, visit, span, filters, by=drawn), "drawn": drawn,
        "query": _query(span, filters) | {"by": by[0], "and": by[1] if len(by) > 1 else ""},
    }  # fmt: skip
    return Page("operators/usage.html", values)


def ordered(report: UsageReport, by: list[Dimension]) -> list[UsageRow]:
    """Days from the last one on, all else from the dearest and largest."""
    rows = sorted(report.rows, key=lambda row: (-row.cost, -(row.prompt + row.completion)))
    return sorted(rows, key=lambda row: row.group["day"] or "", reverse=True) if "day" in by else rows


async def as_csv(desk: Desk, visit: Visit) -> Answer:
    span = asked_span(desk, visit)
    report = await _report(desk, visit, span, _groupings(visit))
    return Download(csv_of(report).encode(), "text/csv; charset=utf-8", f"{file_name(span)}.csv")


async def as_json(desk: Desk, visit: Visit) -> Answer:
    span = asked_span(desk, visit)
    report = await _report(desk, visit, span, _groupings(visit))
    return json_file(desk, span, report)


async def show_requests(desk: Desk, visit: Visit) -> Answer:
    span, filters = asked_span(desk, visit), _filters(visit)
    ask = RecordsAsk(
        start=span.start, end=span.end, limit=PER_PAGE, after=visit.asked("after") or None,
        **filters,
    )  # fmt: skip
    records, following = await desk.control.reports.records(ask)
    values = {
        "span": span, "filters": filters, "following": following, "has_failed": has_failed,
        "records": records, "is_first": not visit.asked("after"), "query": _query(span, filters),
    }  # fmt: skip
    return Page("operators/requests.html", values)


async def _report(desk: Desk, visit: Visit, span: Span, by: list[Dimension]) -> UsageReport:
    ask = UsageAsk(start=span.start, end=span.end, by=",".join(by), **_filters(visit))  # type: ignore[arg-type]  # names of filters
    return await desk.control.reports.usage(ask)


def _filters(visit: Visit) -> dict[str, str]:
    """As far as they were given."""
    return {name: visit.asked(name) for name in FILTERS if visit.asked(name)}


def _groupings(visit: Visit) -> list[Dimension]:
    """At most two; people at first."""
    asked = [one for name in ("by", "and") for one in GROUPINGS if one == visit.asked(name)]
    return list(dict.fromkeys(asked)) or ["user"]


def _query(span: Span, filters: dict[str, str]) -> dict[str, str]:
    return {"from": span.start, "to": span.last.isoformat(), **filters}


def _page(visit: Visit, count: int) -> int:
    asked = visit.asked("page")
    return min(int(asked), max(0, (count - 1) // ROWS)) if asked.isdecimal() and len(asked) < 6 else 0


async def _names(desk: Desk, rows: list[UsageRow]) -> dict[str | None, str]:
    """Of keys, by id."""
    names: dict[str | None, str] = {}
    for id in {row.group["key"] for row in rows if row.group.get("key")}:
        try:
            names[id] = (await desk.control.keys.get(str(id))).name
        except NotFound:
            names[id] = str(id)
    return names
