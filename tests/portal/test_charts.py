"""Charts: how they are drawn, and which series they have."""

import pytest

from llmgateway.domain.ports import UsageRow
from llmgateway.portal.charts import MOST_SERIES, Chart, Series, by_day, stacked, step_of

DAYS = ("2026-11-18", "2026-11-19", "2026-11-20")


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


def drawn(*series: Series) -> Chart:
    return stacked(DAYS, series, "Tokens", label=str, number=lambda value: f"{value:.0f} t", short=str)


def test_columns_are_stacked_to_scale() -> None:
    chart = drawn(Series("a", (100, 0, 300)), Series("b", (100, 0, 700)))
    (a1, b1, a3, b3) = chart.bars
    assert [bar.colour for bar in chart.bars] == [0, 1, 0, 1]
    assert (a1.x, a1.width) == (b1.x, b1.width)
    assert a1.height == b1.height
    assert b1.y + b1.height == pytest.approx(a1.y, abs=0.02)
    assert a1.y + a1.height == pytest.approx(a3.y + a3.height, abs=0.02)
    assert b3.height == pytest.approx(7 * a1.height, rel=0.01)
    assert b3.title == "2026-11-20, b: 700 t"
    assert [line.text for line in chart.lines] == ["0 t", "200 t", "400 t", "600 t", "800 t", "1000 t"]
    assert [label.text for label in chart.labels] == list(DAYS)
    assert chart.total_of(2) == 1000


@pytest.mark.parametrize(
    ("highest", "step"), [(1, 1), (5, 1), (6, 2), (11, 5), (99, 20), (1001, 500), (12_345_678, 5_000_000)]
)
def test_lines_stand_at_round_numbers(highest: int, step: int) -> None:
    assert step_of(highest) == step


def test_nothing_is_empty() -> None:
    assert drawn().is_empty
    assert drawn(Series("a", (0, 0, 0))).is_empty
    assert not drawn(Series("a", (0, 0, 1))).is_empty


def test_many_days_have_few_labels() -> None:
    days = [f"d{n}" for n in range(366)]
    chart = stacked(days, [Series("a", tuple(range(366)))], "Tokens", label=str, number=str, short=str)
    assert len(chart.labels) <= 8
    assert len(chart.bars) == 365
    assert all(bar.x >= 0 and bar.x + bar.width <= chart.right for bar in chart.bars)
    assert all(bar.y >= 0 and bar.y + bar.height <= chart.height for bar in chart.bars)


def test_millions_are_written_short_beside_the_lines() -> None:
    for most, text in ((700_000, "n"), (1_500_000, "s")):
        chart = stacked(
            DAYS, [Series("a", (most, 0, 0))], "Tokens", label=str, number=lambda _: "n", short=lambda _: "s"
        )
        assert {line.text for line in chart.lines} == {text}
        assert chart.bars[0].title.endswith("n")
