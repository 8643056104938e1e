"""Charts as SVG that stands in a page: no script, no style of its own, every value to be read as well."""

from collections.abc import Callable, Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement

import pygal
from markupsafe import Markup
from msgspec import Struct

from llmgateway.domain.ports import UsageRow

MOST_SERIES = 6  # the style sheet has as many colours; the last one is for all others together
WIDTH, HEIGHT = 920, 260
COMMENT = "comment"
LABELS = 8  # along the days, at most


class Series(Struct, frozen=True):
    name: str
    values: tuple[int, ...]


class Chart(Struct, frozen=True):
    """What is drawn, and the same as a table. `svg` is our own markup, with all names escaped."""

    days: tuple[str, ...]
    series: tuple[Series, ...]
    svg: Markup

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
    label: Callable[[str], str], number: Callable[[float], str],
) -> Chart:  # fmt: skip
    """A bar for each day."""
    chart = pygal.StackedBar(
        js=(), css=(), width=WIDTH, height=HEIGHT, explicit_size=False, show_legend=False,
        disable_xml_declaration=True, show_minor_x_labels=False, truncate_label=-1, margin=4, margin_left=26,
        spacing=4, value_formatter=number, order_min=0, min_scale=3, max_scale=5, include_x_axis=True,
        no_prefix=True,
    )  # fmt: skip
    names = [label(day) for day in days]
    step = max(1, -(-len(names) // LABELS))
    chart.x_labels = names
    chart.x_labels_major = names[::step]
    for one in series:
        chart.add(one.name, list(one.values))
    told = {"title": title, "names": tuple(one.name for one in series), "number": number}
    chart.add_xml_filter(lambda root: _plain(root, told))
    return Chart(tuple(days), tuple(series), Markup(chart.render()))  # noqa: S704 - made by an XML writer


def _plain(root: Element, told: Mapping[str, object]) -> Element:
    """Without what the page's policy forbids; with names for those who hear it instead of seeing it."""
    for parent in list(root.iter()):
        for child in list(parent):
            if _kind(child) in ("style", "script", "defs", "title", COMMENT):
                parent.remove(child)
    for element in root.iter():
        for name in ("style", "id"):
            element.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": str(told["title"]), "class": "chart"}
    for bar in [element for element in root.iter() if element.get("class") == "bar"]:
        _explain(bar)
    return root


def _explain(bar: Element) -> None:
    """What the pointer is told."""
    described = {child.get("class"): child.text or "" for child in bar if _kind(child) == "desc"}
    for child in [child for child in bar if _kind(child) == "desc"]:
        bar.remove(child)
    title = SubElement(bar, "title")
    title.text = f"{described.get('x_label', '')}: {described.get('value', '')}"


def _kind(element: Element) -> str:
    """The tag without its namespace; a comment's is a function."""
    return COMMENT if callable(element.tag) else element.tag.rpartition("}")[2]
