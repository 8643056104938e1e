"""Sums and records of the ledger as people ask for them."""

import csv
import io
import random
from collections import Counter
from datetime import timedelta

import pytest

from llmgateway.control.reports import RecordsAsk, UsageAsk, csv_of, dimensions_in, record_view, usage_view
from llmgateway.domain.errors import InvalidRequest
from tests.control.desk import Desk
from tests.stores.samples import NOON, moments, record


@pytest.fixture
async def made(desk: Desk) -> list:  # type: ignore[type-arg]
    chance = random.Random(11)
    made = [record(chance, at) for at in moments(chance, 300, NOON, NOON + timedelta(days=4))]
    await desk.store.append(made)
    return made


async def test_rows_add_up_to_the_records(desk: Desk, made: list) -> None:  # type: ignore[type-arg]
    report = await desk.control.reports.usage(UsageAsk(by="user, model"))
    assert report.by == ("user", "model")
    expected = Counter({(one.user, one.model): 0 for one in made})
    for one in made:
        expected[one.user, one.model] += one.tokens.prompt + one.tokens.completion
    views = [usage_view(row) for row in report.rows]
    assert {(view["user"], view["model"]): view["tokens"]["total"] for view in views} == expected
    assert list(views[0]) == ["user", "model", "requests", "tokens", "cost"]
    (total,) = (await desk.control.reports.usage(UsageAsk())).rows
    assert total.requests == 300
    assert total.cost == sum(one.cost for one in made)


@pytest.mark.parametrize("by", ["", "user", "day", "project,user,day", "key,model"])
async def test_csv_holds_the_same_sums(desk: Desk, made: list, by: str) -> None:  # type: ignore[type-arg]
    report = await desk.control.reports.usage(UsageAsk(by=by, tz="Europe/Helsinki"))
    rows = list(csv.DictReader(io.StringIO(csv_of(report))))
    for row, view in zip(rows, map(usage_view, report.rows), strict=True):
        assert {name: row[name] or None for name in report.by} == {name: view[name] for name in report.by}
        assert {name: int(row[name]) for name in view["tokens"]} == view["tokens"]
        assert (int(row["requests"]), int(row["cost"])) == (view["requests"], view["cost"])


async def test_what_a_spreadsheet_would_compute_is_quoted(desk: Desk) -> None:
    await desk.store.append([record(random.Random(1), user='=HYPERLINK("http://x")')])
    report = await desk.control.reports.usage(UsageAsk(by="user"))
    (row,) = csv.DictReader(io.StringIO(csv_of(report)))
    assert row["user"] == '\'=HYPERLINK("http://x")'


@pytest.mark.parametrize("by", ["user", "project,day", "key,model,user"])
async def test_pages_of_sums(desk: Desk, made: list, by: str) -> None:  # type: ignore[type-arg]
    whole = (await desk.control.reports.usage(UsageAsk(by=by))).rows
    seen, after = [], None
    while True:
        page = await desk.control.reports.usage(UsageAsk(by=by, limit=3, after=after))
        seen += page.rows
        after = page.next
        if after is None:
            break
    assert seen == whole
    for wrong in ("x", "W10", "WyJhIl0=x", "é"):
        with pytest.raises(InvalidRequest):
            await desk.control.reports.usage(UsageAsk(by="user,day", limit=3, after=wrong))


async def test_spans_filters_and_zones(desk: Desk, made: list) -> None:  # type: ignore[type-arg]
    desk.configure(time_zone="Europe/Helsinki")
    midnight = NOON.replace(hour=22)  # of the day on which Helsinki's clocks go forward
    ask = UsageAsk(start="2026-03-29", end="2026-03-30", user="alice", by="day")
    (row,) = (await desk.control.reports.usage(ask)).rows
    inside = [
        one for one in made if midnight <= one.at < midnight + timedelta(hours=23) and one.user == "alice"
    ]
    assert (row.group, row.requests) == ({"day": "2026-03-29"}, len(inside))
    assert (await desk.control.reports.usage(UsageAsk(start="2026-03-29", end="2026-03-29"))).rows == []


@pytest.mark.parametrize(
    ("ask", "param"),
    [
        (UsageAsk(by="user,colour"), "by"),
        (UsageAsk(start="x"), "from"),
        (UsageAsk(end="x"), "to"),
        (UsageAsk(tz="x"), "tz"),
        (UsageAsk(start="2026-03-29", end="2026-03-28"), "to"),
        (UsageAsk(after="W10"), "after"),
    ],
)
async def test_what_cannot_be_asked(desk: Desk, ask: UsageAsk, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await desk.control.reports.usage(ask)
    assert refused.value.param == param


def test_dimensions_are_taken_once() -> None:
    assert dimensions_in(" user,,day,user ") == ("user", "day")


async def test_records_are_paged_newest_first(desk: Desk, made: list) -> None:  # type: ignore[type-arg]
    seen, after = [], None
    while True:
        found, after = await desk.control.reports.records(
            RecordsAsk(user="bob", key="key000000001", limit=7, after=after)
        )
        seen += found
        if after is None:
            break
    expected = sorted(
        (one.id for one in made if (one.user, one.key_id) == ("bob", "key000000001")), reverse=True
    )
    assert [one["id"] for one in seen] == expected
    view = record_view(seen[0])
    assert view["at"].endswith("Z")
    assert "_id" not in view


async def test_an_alias_is_its_models_use(desk: Desk) -> None:
    chance = random.Random(5)
    names = ("default", "qwen3-32b", "org/embed", "qwen3-32b")
    made = [record(chance, NOON + timedelta(seconds=n), model=name) for n, name in enumerate(names)]
    await desk.store.append(made)
    reports = desk.control.reports
    rows = (await reports.usage(UsageAsk(by="model"))).rows
    assert [(row.group["model"], row.requests) for row in rows] == [("org/embed", 1), ("qwen3-32b", 3)]
    for name, count in (("qwen3-32b", 3), ("default", 1)):
        (total,) = (await reports.usage(UsageAsk(model=name))).rows
        assert total.requests == count
        found, _ = await reports.records(RecordsAsk(model=name))
        assert len(found) == count
    first, following = await reports.records(RecordsAsk(model="qwen3-32b", limit=2))
    rest, end = await reports.records(RecordsAsk(model="qwen3-32b", limit=2, after=following))
    assert [one["id"] for one in first + rest] == [made[n].id for n in (3, 1, 0)]
    assert end is None
