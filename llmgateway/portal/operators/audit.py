"""The audit log: looked through, taken away as a file, and proved to be whole.

A file may have a hundred thousand lines: it is written in a thread, so that no stream waits for it.
"""

import asyncio
import csv
import io
from typing import Any

import msgspec

from llmgateway.control.audit import AuditLine, Verdict
from llmgateway.control.moments import written
from llmgateway.control.plain import plain
from llmgateway.control.reports import safe_cell
from llmgateway.domain.ports import Document
from llmgateway.portal.usage import PER_PAGE
from llmgateway.portal.visit import Answer, Desk, Download, Page, Visit

FILTERS = ("who", "action", "target", "result")
FIELDS = AuditLine.__struct_fields__
BATCH, MOST = 1000, 100_000  # lines of a file


async def show(desk: Desk, visit: Visit, verdict: Verdict | None = None) -> Answer:
    filters = _filters(visit)
    page = await desk.control.audit.page(dict(filters), limit=PER_PAGE, after=visit.asked("after") or None)
    values = {
        "lines": page.data, "following": page.next, "is_first": not visit.asked("after"),
        "filters": filters, "verdict": verdict, "details": lambda line: _details(line["details"]),
    }  # fmt: skip
    return Page("operators/audit.html", values)


async def verify(desk: Desk, visit: Visit) -> Answer:
    """A walk along the whole chain."""
    return await show(desk, visit, await desk.control.audit.verify())


async def as_json(desk: Desk, visit: Visit) -> Answer:
    body = await asyncio.to_thread(_json_of, await _all(desk, visit))
    return Download(body, "application/json", "audit.json")


async def as_csv(desk: Desk, visit: Visit) -> Answer:
    body = await asyncio.to_thread(_csv_of, await _all(desk, visit))
    return Download(body, "text/csv; charset=utf-8", "audit.csv")


def _json_of(found: list[Document]) -> bytes:
    lines = [{name: line.get(name) for name in FIELDS} | {"at": written(line["at"])} for line in found]
    return msgspec.json.format(msgspec.json.encode({"data": lines}, enc_hook=plain), indent=2)


def _csv_of(found: list[Document]) -> bytes:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    table.writerow(FIELDS)
    for line in found:
        told = {**line, "at": written(line["at"]), "details": _details(line["details"])}
        table.writerow([safe_cell(None if told.get(name) is None else str(told[name])) for name in FIELDS])
    return out.getvalue().encode()


async def _all(desk: Desk, visit: Visit) -> list[Document]:
    """Newest first."""
    found: list[Document] = []
    after: str | None = None
    while len(found) < MOST:
        page = await desk.control.audit.page(dict(_filters(visit)), limit=BATCH, after=after)
        found += page.data
        after = page.next
        if after is None:
            break
    return found


def _filters(visit: Visit) -> dict[str, str]:
    """As far as they were given."""
    return {name: visit.asked(name) for name in FILTERS if visit.asked(name)}


def _details(details: Any) -> str:
    return msgspec.json.encode(details, enc_hook=str).decode() if details else ""
