"""Usage of everybody: by anything, narrowed down, paged, and as files."""

import csv
import io

import pytest

from llmgateway.control.keys import NewKey
from llmgateway.domain.call import Tokens
from tests.control.desk import ANN
from tests.portal.house import Browser, Portal, charted
from tests.portal.test_overview import used

USAGE = "/portal/operators/usage"


@pytest.fixture(autouse=True)
async def use(portal: Portal) -> None:
    key = (await portal.desk.control.keys.create(ANN, NewKey(user="aino", name="laptop"))).key.id
    await used(portal, "aino", "qwen3-32b", id="a", key_id=key, project="thesis")
    await used(portal, "aino", "org/embed", id="b", key_id=key, days_ago=2, project=None)
    await used(portal, "ville", "qwen3-32b", id="c", key_id="gone", project="thesis", cost=90_000_000)


def rows_in(page: str) -> list[str]:
    body = page.partition('id="table"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    return body.split("<tr>")[1:]


@pytest.mark.parametrize(
    ("query", "first", "count"),
    [
        ("", "ville", 2),
        ("by=user&and=model", "ville", 3),
        ("by=project", "thesis", 2),
        ("by=day", "20/11/2026", 2),
        ("by=key", "gone", 2),
        ("by=model&user=aino", "org/embed", 2),
        ("by=colour", "ville", 2),
        ("by=day&and=user", "ville", 3),
        ("from=2026-11-20", "ville", 2),
        ("user=nobody", "", 0),
    ],
)
async def test_by_anything(ann: Browser, query: str, first: str, count: int) -> None:
    assert (await ann.get(f"{USAGE}?{query}")).status_code == 200
    rows = rows_in(ann.page)
    assert len(rows) == count
    assert not count or first in rows[0] or first == "20/11/2026"


async def test_the_sum_and_the_names(ann: Browser) -> None:
    await ann.get(f"{USAGE}?by=key")
    assert "€90.01" in ann.page
    assert ">laptop</a>" in ann.page
    assert ">gone</a>" in ann.page
    await ann.get(USAGE)
    assert charted(ann.page)["ville"]["20 Nov"] == 123
    await ann.get(f"{USAGE}?by=project")
    assert charted(ann.page)["thesis"]["20 Nov"] == 246


async def test_both_files_hold_the_table(ann: Browser) -> None:
    table = await ann.get(f"{USAGE}.csv?by=user&and=model")
    rows = list(csv.DictReader(io.StringIO(table.text)))
    told = (await ann.get(f"{USAGE}.json?by=user&and=model")).json()
    assert [(row["user"], row["model"], row["requests"]) for row in rows] == [
        (row["user"], row["model"], str(row["requests"])) for row in told["data"]]  # fmt: skip
    assert len(rows) == 3
    assert table.headers["content-disposition"].startswith('attachment; filename="usage-')


async def test_a_long_table_is_paged(ann: Browser, portal: Portal) -> None:
    for n in range(130):
        await used(portal, f"user-{n:03}", f"model-{n}", id=f"r{n}", tokens=Tokens(n + 1, 0), cost=0)
    await ann.get(USAGE)
    assert len(rows_in(ann.page)) == 100
    assert "Next page" in ann.page
    await ann.get(f"{USAGE}?page=1")
    assert len(rows_in(ann.page)) == 32
    await ann.get(f"{USAGE}?page=99999")
    assert len(rows_in(ann.page)) == 32


async def test_single_requests(ann: Browser, portal: Portal) -> None:
    failed = await used(portal, "ville", "broken", id="d", outcome="timeout", status=504)
    await ann.get("/portal/operators/requests")
    assert failed in ann.page
    assert "504 Too slow" in ann.page
    await ann.get("/portal/operators/requests?user=aino")
    assert failed not in ann.page
    await ann.get("/portal/operators/requests?user=nobody")
    assert "No requests in this time" in ann.page
