"""Who used what: sums of the ledger, and its single records, for people to read."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast, get_args
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from llmgateway.control.called import in_order, names_of, under_their_ids
from llmgateway.control.ground import Ground
from llmgateway.control.models import Models
from llmgateway.control.moments import parse_moment, parse_zone, written
from llmgateway.domain.catalog import Catalog
from llmgateway.domain.errors import InvalidRequest, shown
from llmgateway.domain.ports import Dimension, Document, RecordQuery, UsageQuery, UsageRow

DIMENSIONS: Sequence[Dimension] = get_args(Dimension)
FILTERS: Mapping[str, str] = {"user": "user", "model": "model", "key": "key_id", "project": "project"}
SUMS = ("requests", "prompt", "completion", "cached", "reasoning", "total", "cost")
SPAN: Mapping[str, str] = MappingProxyType({"start": "from", "end": "to"})
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet compute a cell

Limit = Annotated[int, Meta(ge=1, le=1000)]


class UsageAsk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=SPAN):
    """`from` is part of the span, `to` is not; times without a zone, and days, are those of `tz`. `by` lists
    dimensions with commas between them. All rows come at once unless `limit` is given."""

    start: str | None = None
    end: str | None = None
    by: str = ""
    tz: str | None = None
    user: str | None = None
    model: str | None = None
    key: str | None = None
    project: str | None = None
    format: Literal["json", "csv"] = "json"
    limit: Limit | None = None
    after: str | None = None


class RecordsAsk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=SPAN):
    """As `UsageAsk`; newest first."""

    start: str | None = None
    end: str | None = None
    tz: str | None = None
    user: str | None = None
    model: str | None = None
    key: str | None = None
    project: str | None = None
    limit: Limit = 100
    after: str | None = None


class UsageReport(Struct, frozen=True):
    """`by` is in the order asked for; `next` is the cursor of the rows that did not fit."""

    by: tuple[Dimension, ...]
    rows: list[UsageRow]
    next: str | None = None


class TokenSums(Struct, frozen=True, kw_only=True):
    prompt: int
    completion: int
    cached: int
    reasoning: int
    total: int


class UsageView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row of sums; of the dimensions it holds those asked for. `cost` is in micro-units of the currency."""

    user: str | None = None
    model: str | None = None
    key: str | None = None
    project: str | None = None
    day: str | None = None
    requests: int
    tokens: TokenSums
    cost: int


class Reports:
    """Reads the ledger; what the journals have not shipped yet follows within a second. Sums are those of
    models, under whichever of their names they were asked for; to ask for an alias is to ask for it alone."""

    def __init__(self, ground: Ground, models: Models) -> None:
        self._ledger = ground.store
        self._configured = ground.configured
        self._models = models

    async def usage(self, ask: UsageAsk) -> UsageReport:
        zone, name = self._zone(ask.tz)
        start, end = _span(ask.start, ask.end, zone)
        by = dimensions_in(ask.by)
        catalog, rows = await self._models.catalog(), []
        for where in _wheres(ask, catalog):
            query = UsageQuery(start=start, end=end, by=by, time_zone=name, where=where)
            rows += await self._ledger.usage(query)
        rows = under_their_ids(rows, catalog)
        if ask.after is not None:
            last = _from_cursor(ask.after, by)
            rows = [row for row in rows if in_order(list(row.group.values())) > last]
        if ask.limit is None or len(rows) <= ask.limit:
            return UsageReport(by, rows)
        return UsageReport(by, rows[: ask.limit], _cursor(rows[ask.limit - 1]))

    async def records(self, ask: RecordsAsk) -> tuple[list[Document], str | None]:
        """Newest first, with the cursor of the next page."""
        zone, _ = self._zone(ask.tz)
        start, end = _span(ask.start, ask.end, zone)
        most, found = ask.limit + 1, []
        for where in _wheres(ask, await self._models.catalog()):
            query = RecordQuery(start=start, end=end, where=where, limit=most, after=ask.after)
            found += await self._ledger.records(query)
        found.sort(key=itemgetter("id"), reverse=True)
        return found[: ask.limit], found[ask.limit - 1]["id"] if len(found) > ask.limit else None

    def _zone(self, name: str | None) -> tuple[ZoneInfo, str]:
        wanted = name if name is not None else self._configured().time_zone
        return parse_zone(wanted, "tz"), wanted


def dimensions_in(written_list: str) -> tuple[Dimension, ...]:
    names = [name.strip() for name in written_list.split(",") if name.strip()]
    for name in names:
        if name not in DIMENSIONS:
            known = ", ".join(DIMENSIONS)
            message = f"Use cannot be summed by '{shown(name)}', only by {known}, or by several at once."
            raise InvalidRequest(message, param="by")
    return cast(tuple[Dimension, ...], tuple(dict.fromkeys(names)))


def usage_view(row: UsageRow) -> dict[str, Any]:
    """As JSON: the dimensions asked for stand in front."""
    sums = {name: getattr(row, name) for name in ("prompt", "completion", "cached", "reasoning")}
    tokens = {**sums, "total": row.prompt + row.completion}
    return {**row.group, "requests": row.requests, "tokens": tokens, "cost": row.cost}


def csv_of(report: UsageReport) -> str:
    """The same rows, one line each, with a head. What a spreadsheet would compute gets a quote in front."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    table.writerow([*report.by, *SUMS])
    for row in report.rows:
        flat: dict[str, object] = {name: getattr(row, name, row.prompt + row.completion) for name in SUMS}
        table.writerow([*(safe_cell(row.group[name]) for name in report.by), *flat.values()])
    return out.getvalue()


def record_view(record: Document) -> dict[str, Any]:
    """As JSON."""
    return {**record, "at": written(record["at"]), "ended_at": written(record["ended_at"])}


def safe_cell(value: str | None) -> str:
    """What a spreadsheet would compute gets a quote in front."""
    text = value or ""
    return f"'{text}" if text.startswith(FORMULA) else text


def _span(start: str | None, end: str | None, zone: ZoneInfo) -> tuple[datetime | None, datetime | None]:
    begins = None if start is None else parse_moment(start, zone, "from")
    ends = None if end is None else parse_moment(end, zone, "to")
    if begins is not None and ends is not None and ends < begins:
        raise InvalidRequest("to must not be before from.", param="to")
    return begins, ends


def _wheres(ask: UsageAsk | RecordsAsk, catalog: Catalog) -> list[dict[str, str]]:
    """The filters, once for each name of the model that is asked for."""
    values = {field: getattr(ask, name) for name, field in FILTERS.items()}
    where = {field: value for field, value in values.items() if value is not None}
    names = names_of(catalog, ask.model) if ask.model is not None else ()
    return [{**where, "model": name} for name in names] or [where]


# --- cursors of sums: the group of the last row that was shown ---


def _cursor(row: UsageRow) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(list(row.group.values()))).decode().rstrip("=")


def _from_cursor(cursor: str, by: Sequence[Dimension]) -> list[tuple[bool, str]]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        group = msgspec.json.decode(text, type=list[str | None])
    except (ValueError, msgspec.DecodeError):
        group = []
    if len(group) != len(by) or not by:
        raise InvalidRequest("after is not a cursor of this list.", param="after")
    return in_order(group)
