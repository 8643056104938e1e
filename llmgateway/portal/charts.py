"""Charts as values: bars, lines and labels in the units of an SVG, which the template `chart.html` writes.

Drawn here, since libraries bring styles and scripts of their own, which the pages' policy forbids.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from msgspec import Struct

from llmgateway.domain.ports import UsageRow

MOST_SERIES = 6  # the style sheet has as many colours; the last one is for all others together
WIDTH, HEIGHT = 920, 260
LEFT, BOTTOM, TOP, RIGHT = 64, 28, 10, 6  # around the bars
BAR_SHARE = 0.8  # of the room of a day
MOST_LABELS, MOST_LINES = 8, 5
MANY = 1_000_000


class Series(Struct, frozen=True):
    """A value for each day."""

    name: str
    values: tuple[int, ...]


class Bar(Struct, frozen=True):
    """A piece of a day's column; `title` is what the pointer is told."""

    x: float
    y: float
    width: float
    height: float
    colour: int
    title: str


class Mark(Struct, frozen=True):
    """A place on an axis, and what is written there."""

    at: float
    text: str


class Chart(Struct, frozen=True, kw_only=True):
    """What is drawn, and the same as a table: the values themselves."""

    title: str
    days: tuple[str, ...]
    series: tuple[Series, ...]
    bars: tuple[Bar, ...] = ()
    lines: tuple[Mark, ...] = ()
    labels: tuple[Mark, ...] = ()
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT

    @property
    def is_empty(self) -> bool:
        return not any(any(one.values) for one in self.series)

    def total_of(self, place: int) -> int:
        return sum(one.values[place] for one in self.series)


def by_day(rows: Sequence[UsageRow], days: Sequence[str], dimension: str, others: str) -> tuple[Series, ...]:
    """Tokens of each day by one more dimension; the largest by name, the rest as `others`."""
    sums: dict[str, dict[str, int]] = {}
    for row in rows:
        of_day = sums.setdefault(row.group[dimension] or "-", {})
        day = row.group["day"] or ""
        of_day[day] = of_day.get(day, 0) + row.prompt + row.completion
    names = sorted(sums, key=lambda name: (-sum(sums[name].values()), name))
    kept = names if len(names) <= MOST_SERIES else names[: MOST_SERIES - 1]
    series = [Series(name, tuple(sums[name].get(day, 0) for day in days)) for name in kept]
    rest = names[len(kept) :]
    if rest:
        series.append(Series(others, tuple(sum(sums[name].get(day, 0) for name in rest) for day in days)))
    return tuple(series)


def stacked(
    days: Sequence[str], series: Sequence[Series], title: str, *,
    label: Callable[[str], str], number: Callable[[float], str], short: Callable[[int], str],
) -> Chart:  # fmt: skip
    """A column for each day, the first series at its foot. Millions are written `short` beside the lines:
    there is no room for all their digits."""
    chart = Chart(title=title, days=tuple(days), series=tuple(series))
    if chart.is_empty:
        return chart
    highest = max(chart.total_of(place) for place in range(len(days)))
    step = step_of(highest)
    top = -(-highest // step) * step
    scale, room = (HEIGHT - TOP - BOTTOM) / top, (WIDTH - LEFT - RIGHT) / len(days)
    foot, written = HEIGHT - BOTTOM, short if top >= MANY else number
    every = -(-len(days) // MOST_LABELS)
    bars = []
    for place, day in enumerate(days):
        x, heights = LEFT + room * (place + (1 - BAR_SHARE) / 2), [0]
        for one in series:
            heights.append(heights[-1] + one.values[place])
        for colour, (low, high) in enumerate(pairwise(heights)):
            if high > low:
                told = f"{label(day)}, {series[colour].name}: {number(high - low)}"
                y, tall = foot - high * scale, (high - low) * scale
                bars.append(Bar(_round(x), _round(y), _round(room * BAR_SHARE), _round(tall), colour, told))
    return Chart(
        title=title, days=tuple(days), series=tuple(series), bars=tuple(bars),
        lines=tuple(Mark(_round(foot - n * scale), written(n)) for n in range(0, top + 1, step)),
        labels=tuple(
            Mark(_round(LEFT + room * (place + 0.5)), label(days[place]))
            for place in range(0, len(days), every)
        ),
    )  # fmt: skip


def step_of(highest: int) -> int:
    """A round number of which a few make `highest`."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor * MOST_LINES >= highest:
                return step * factor
        step *= 10


def _round(length: float) -> float:
    return round(length, 2)
