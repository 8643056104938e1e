"""Usage: one's own figures, filtered, as a page and as files."""

import pytest

from llmgateway.portal.usage import PER_PAGE
from tests.portal.house import Browser, Portal
from tests.portal.test_overview import used


@pytest.fixture(autouse=True)
async def some_use(portal: Portal) -> None:
    await used(portal, "alice", "qwen3-32b", id="a", key_id="k1")
    await used(portal, "alice", "org/embed", days_ago=2, id="b", key_id="k2")
    await used(portal, "alice", "qwen3-32b", days_ago=40, id="c", key_id="k1")
    await used(portal, "bob", "bobs-model", id="d", key_id="bobs-key-9")


async def test_the_table_by_each_dimension(alice: Browser) -> None:
    await alice.get("/portal/usage")
    assert "20 Nov 2026" in alice.page
    assert "18 Nov 2026" in alice.page
    assert "bobs-model" not in alice.page
    await alice.get("/portal/usage?by=model&from=2026-01-01")
    assert '<th scope="row">qwen3-32b</th><td class="num">2</td>' in alice.page
    await alice.get("/portal/usage?by=key")
    assert '<th scope="row">k1</th><td class="num">1</td>' in alice.page


@pytest.mark.parametrize(
    "query",
    [
        "from=nonsense",
        "to=0001-01-01",
        "from=2026-12-01&to=2026-01-01",
        "by=user",
        "to=9999-12-31",
        "from=1000-01-01",
    ],
)
async def test_what_makes_no_sense_is_left_out(alice: Browser, query: str) -> None:
    assert (await alice.get(f"/portal/usage?{query}")).status_code == 200


@pytest.mark.parametrize("path", ["usage", "usage.csv", "usage.json", "requests"])
async def test_nobody_asks_for_somebody_elses(alice: Browser, path: str) -> None:
    for query in ("user=bob", "user=bob&user=alice", "key=bobs-key-9", "model=bobs-model", "where=bob"):
        answer = await alice.get(f"/portal/{path}?{query}&from=2026-01-01")
        assert answer.status_code == 200
        assert "bobs-model</th>" not in answer.text
        assert "bobs-key-9" not in answer.text.replace("key=bobs-key-9", "")


async def test_as_csv_and_json(alice: Browser) -> None:
    answer = await alice.get("/portal/usage.csv?from=2026-01-01&by=model&model=qwen3-32b")
    assert answer.headers["content-disposition"] == 'attachment; filename="usage-2026-01-01-2026-11-20.csv"'
    assert answer.text.splitlines() == [
        "model,requests,prompt,completion,cached,reasoning,total,cost", "qwen3-32b,2,200,46,0,0,246,10000",
    ]  # fmt: skip
    told = (await alice.get("/portal/usage.json?by=day")).json()
    assert [row["day"] for row in told["data"]] == ["2026-11-18", "2026-11-20"]
    assert (told["currency"], told["time_zone"]) == ("EUR", "Europe/Helsinki")


async def test_single_requests_in_pages(alice: Browser, portal: Portal) -> None:
    for n in range(PER_PAGE):
        await used(
            portal, "alice", "m", id=f"m{n:03}", request_id=f"req-{n:03}", status=500, outcome="timeout"
        )
    await alice.get("/portal/requests?model=m")
    assert alice.page.count("Too slow") == PER_PAGE
    assert "Older" not in alice.page
    await alice.get("/portal/requests")
    assert "Older" in alice.page
    await alice.get("/portal/requests?after=m010")
    assert alice.page.count("req-") == 10
    assert "Newest" in alice.page
    await alice.get("/portal/requests?model=unknown")
    assert "No requests in this time" in alice.page
