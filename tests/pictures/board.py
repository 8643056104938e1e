"""A dashboard as SVG: its panels where Grafana would put them, with what its queries gave."""

import html
import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from tests.deploy.boards import Dashboard

COLUMN, ROW, GAP, HEAD, FOOT = 50, 26, 6, 48, 34  # pixels
COLOURS = ("#1b7f5c", "#c4452f", "#3366aa", "#8a6d1f", "#7b4fa3", "#2f8fa8", "#a83f6f", "#5f6b2d")
MOST_LEGENDS, LETTER = 6, 6.1
SAID = (
    "Drawn from this dashboard's own queries, answered by Prometheus in front of a fleet of two workers "
    "under a test's load; Grafana shows the same with its own curves."
)

Series = dict[str, Any]
Box = tuple[float, float, float, float]


class Answers(dict[str, list[Series]]):
    """Series by query."""


def drawn(dashboard: Dashboard, answers: Answers) -> str:
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    width, height = 24 * COLUMN, HEAD + rows * ROW + FOOT
    body = [line for panel in dashboard["panels"] for line in _panel(panel, answers)]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" style="font: 11px sans-serif; fill: #222">',
        f'<rect width="{width}" height="{height}" fill="#f3f4f6"/>',
        _text(12, 24, dashboard["title"], "font-size: 17px; font-weight: 600"),
        _text(12, 40, dashboard["description"], "fill: #555"),
        *body,
        _text(12, height - 14, SAID, "fill: #555; font-style: italic"),
        "</svg>\n",
    ])  # fmt: skip


def _panel(panel: Any, answers: Answers) -> Iterator[str]:
    at = panel["gridPos"]
    x, y = at["x"] * COLUMN + GAP / 2, HEAD + at["y"] * ROW + GAP / 2
    width, height = at["w"] * COLUMN - GAP, at["h"] * ROW - GAP
    yield f'<rect x="{x:g}" y="{y:g}" width="{width}" height="{height}" rx="3" fill="#fff" stroke="#ddd"/>'
    yield _text(x + 8, y + 16, panel["title"], "font-weight: 600")
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    named = [
        (_legend(target["legendFormat"], series["metric"]), _points(series))
        for target in panel["targets"] for series in answers[target["expr"]]
    ]  # fmt: skip
    said = sorted((name, points) for name, points in named if points)
    curves = sorted(said, key=_is_flat)  # what says something comes first in the legend
    draw = {"stat": _stat, "table": _table}.get(panel["type"], _curves)
    yield from draw(curves, unit, (x + 8, y + 24, width - 16, height - 30))


Curves = Sequence[tuple[str, Sequence[tuple[float, float]]]]


def _points(series: Series) -> list[tuple[float, float]]:
    found = [(float(at), float(value)) for at, value in series["values"]]
    return [(at, value) for at, value in found if math.isfinite(value)]


def _is_flat(curve: tuple[str, Sequence[tuple[float, float]]]) -> bool:
    return not any(value for _, value in curve[1])


def _stat(curves: Curves, unit: str, box: Box) -> Iterator[str]:
    x, y, width, height = box
    size = 20 if len(curves) > 1 else 28
    for number, (name, points) in enumerate(curves):
        at = y + (number + 0.5) * height / len(curves) + size / 3
        value = f"{name} {shown(points[-1][1], unit)}".strip()
        yield _text(x + width / 2, at, value, f"font-size: {size}px; fill: #1b7f5c", "middle")
    if not curves:
        yield _nothing(box)


def _table(curves: Curves, unit: str, box: Box) -> Iterator[str]:
    x, y, width, height = box
    most = int(height // 18)
    for number, (name, points) in enumerate(curves[:most]):
        at = y + 14 + number * 18
        yield _text(x + 4, at, name)
        yield _text(x + width - 4, at, shown(points[-1][1], unit), "", "end")
        yield f'<path d="M{x:g} {at + 5:g}h{width:g}" stroke="#eee"/>'
    if not curves:
        yield _nothing(box)


def _curves(curves: Curves, unit: str, box: Box) -> Iterator[str]:
    if not curves:
        yield _nothing(box)
        return
    x, y, width, height = box
    left, bottom = 52, 34
    times = [at for _, points in curves for at, _ in points]
    highest = max(value for _, points in curves for _, value in points)
    top, low, high = nice(highest), min(times), max(max(times), min(times) + 1)
    across, up = width - left, height - bottom
    for step in range(5):
        level, at = top * step / 4, y + up * (1 - step / 4)
        yield f'<path d="M{x + left:g} {at:.1f}h{across:g}" stroke="#e8e8e8"/>'
        yield _text(x + left - 5, at + 4, shown(level, unit), "fill: #666", "end")
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        clock = datetime.fromtimestamp(low + share * (high - low), UTC).strftime("%H:%M:%S")
        yield _text(x + left + share * across, y + up + 14, clock, "fill: #666", anchor)
    for number, (_, points) in enumerate(curves):
        path = " ".join(
            f"{x + left + (at - low) / (high - low) * across:.1f},{y + up * (1 - max(0.0, value) / top):.1f}"
            for at, value in points
        )
        colour = COLOURS[number % len(COLOURS)]
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    yield from _legends([name for name, _ in curves], x + left, y + height, across)


def _legends(names: Sequence[str], x: float, y: float, room: float) -> Iterator[str]:
    at = x
    for number, name in enumerate(names[:MOST_LEGENDS]):
        size = 18 + len(name) * LETTER
        if not name or at + size > x + room:
            return
        colour = COLOURS[number % len(COLOURS)]
        yield f'<rect x="{at:.1f}" y="{y - 8:g}" width="9" height="3" fill="{colour}"/>'
        yield _text(at + 12, y - 2, name)
        at += size


def _nothing(box: Box) -> str:
    x, y, width, height = box
    return _text(x + width / 2, y + height / 2, "nothing yet", "fill: #999", "middle")


def _legend(form: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), form).strip()


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    styled = f' style="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{styled}>{html.escape(text)}</text>'


def nice(value: float) -> float:
    """A round number that is not below it."""
    if value <= 0:
        return 1.0
    scale = 10.0 ** math.floor(math.log10(value))
    return next(step * scale for step in (1, 2, 4, 5, 8, 10) if step * scale >= value * 0.999)


def shown(value: float, unit: str) -> str:
    match unit:
        case "s":
            return next(
                f"{value / size:.3g} {name}" for size, name in SECONDS if value >= size or size == 1e-6
            )
        case "percentunit":
            return f"{value:.1%}"
        case "bytes":
            return next(f"{value / size:.3g} {name}" for size, name in BYTES if value >= size or size == 1)
        case "bool_yes_no":
            return "yes" if value >= 1 else "no" if value == 0 else ""
        case "reqps":
            return f"{value:.3g}/s"
        case _:
            return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


SECONDS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))
BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
