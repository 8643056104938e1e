"""Charts as values: what each day had of everything. Tables show them, and `static/charts.js` draws them."""

from collections.abc import Sequence

from msgspec import Struct

from llmgateway.domain.ports import UsageRow

MOST_SERIES = 6  # the style sheet has as many colours; the last one is for all others together


class Series(Struct, frozen=True):
    """A value for each day."""

    name: str
    values: tuple[int, ...]


class Chart(Struct, frozen=True, kw_only=True):
    """Every day of a span, the first one first, and every series, the largest first."""

    title: str
    days: tuple[str, ...]
    series: tuple[Series, ...]

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
