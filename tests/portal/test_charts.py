"""Charts: which series they have, and that a page says all of it, whatever names are like."""

from llmgateway.domain.ports import UsageRow
from llmgateway.portal.charts import MOST_SERIES, Chart, Series, by_day
from tests.portal.house import Browser, Portal, charted
from tests.portal.test_overview import used

DAYS = ("2026-11-18", "2026-11-19", "2026-11-20")
ODD = "it's </div><script>alert(\"1\")</script> & 'ö' \u2028"
LIBRARY = "/portal/static/chart.umd.min."


def row(model: str, day: str, tokens: int) -> UsageRow:
    return UsageRow(group={"day": day, "model": model}, requests=1, prompt=tokens, completion=0, cached=0,
                    reasoning=0, cost=0)  # fmt: skip


def test_series_are_by_size_and_the_small_ones_together() -> None:
    rows = [row(f"m{n}", DAYS[n % 3], n) for n in range(1, 10)] + [row("m9", "2020-01-01", 5)]
    series = by_day(rows, DAYS, "model", "others")
    assert len(series) == MOST_SERIES
    assert [one.name for one in series] == ["m9", "m8", "m7", "m6", "m5", "others"]
    assert series[0].values == (9, 0, 0)
    assert sum(series[-1].values) == 1 + 2 + 3 + 4


def chart(*values: tuple[int, ...]) -> Chart:
    series = tuple(Series(f"m{n}", one) for n, one in enumerate(values))
    return Chart(title="Tokens", days=DAYS, series=series)


def test_a_day_has_the_sum_of_its_series() -> None:
    assert [chart((100, 0, 300), (100, 0, 700)).total_of(place) for place in range(3)] == [200, 0, 1000]


def test_nothing_is_empty() -> None:
    assert chart().is_empty
    assert chart((0, 0, 0)).is_empty
    assert not chart((0, 0, 1)).is_empty


async def test_s_csp_02_the_script_is_told_all_days_and_names_that_are_markup(
    alice: Browser, portal: Portal
) -> None:
    await alice.get("/portal")
    assert LIBRARY not in alice.page
    await used(portal, "alice", "qwen3-32b", id="a")
    await used(portal, "alice", ODD, days_ago=2, id="b")
    answer = await alice.get("/portal/usage")
    assert "<script>alert" not in answer.text
    drawn = charted(answer.text)
    assert list(drawn) == sorted(["qwen3-32b", ODD])
    for name, day in (("qwen3-32b", "20 Nov"), (ODD, "18 Nov")):
        assert len(drawn[name]) == 30
        assert list(drawn[name])[-3:] == ["18 Nov", "19 Nov", "20 Nov"]
        assert {on: tokens for on, tokens in drawn[name].items() if tokens} == {day: 123}


async def test_only_pages_with_something_to_draw_load_the_library(alice: Browser, portal: Portal) -> None:
    await used(portal, "alice", "qwen3-32b", id="a")
    for path, count in (("", 1), ("/usage", 1), ("/usage?model=other", 0), ("/keys", 0)):
        await alice.get(f"/portal{path}")
        assert alice.page.count(LIBRARY) == count, path
