"""Charts: what they draw, what they leave out, and that names are text."""

import re
from xml.etree import ElementTree as ET

from llmgateway.domain.ports import UsageRow
from llmgateway.portal.charts import MOST_SERIES, Series, by_day, stacked

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


def test_a_chart_is_svg_without_script_or_style() -> None:
    series = (Series('<script>"&', (1, 2, 30_000)), Series("b", (0, 0, 0)))
    chart = stacked(DAYS, series, "Tokens <b>", label=str, number=lambda value: f"{value:.0f} t")
    root = ET.fromstring(str(chart.svg))
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Tokens <b>"
    assert not re.search(r"<style|<script|\sstyle=|\son\w+=|\sid=|http://p|<!--", str(chart.svg))
    titles = [element.text for element in root.iter() if element.tag.endswith("title")]
    assert "2026-11-20: 30000 t" in titles
    assert len([element for element in root.iter() if element.tag.endswith("rect")]) == 2 + 6
    assert not chart.is_empty
    assert chart.total_of(2) == 30_000


def test_nothing_is_empty() -> None:
    chart = stacked(DAYS, (), "Tokens", label=str, number=str)
    assert chart.is_empty
    assert stacked(DAYS, (Series("a", (0, 0, 0)),), "Tokens", label=str, number=str).is_empty
