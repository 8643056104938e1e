"""Line charts as SVG, side by side: small enough to read in a diff, the same bytes for the same numbers."""

import html
import math
from collections.abc import Sequence

from msgspec import Struct

PANEL, HEIGHT = 480, 330  # pixels
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 46, 52
COLOURS = ("#1b7f5c", "#c4452f", "#3366aa", "#8a6d1f")
STYLE = "font: 12px sans-serif; fill: #222"


class Axis(Struct, frozen=True, kw_only=True):
    name: str
    low: float
    high: float
    marks: Sequence[float]
    is_log: bool = False

    def at(self, value: float) -> float:
        """From 0 to 1; what lies outside is put on the edge."""
        value = min(self.high, max(self.low, value))
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


class Curve(Struct, frozen=True):
    name: str
    points: Sequence[tuple[float, float]]


class Panel(Struct, frozen=True, kw_only=True):
    """`legend` is where its first line ends, in the units of the axes."""

    title: str
    x: Axis
    y: Axis
    curves: Sequence[Curve]
    legend: tuple[float, float]


def svg(panels: Sequence[Panel]) -> str:
    width = PANEL * len(panels)
    body = [line for number, panel in enumerate(panels) for line in _panel(panel, number * PANEL)]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" '
        f'height="{HEIGHT}" style="{STYLE}">',
        f'<rect width="{width}" height="{HEIGHT}" fill="#fff"/>',
        *body,
        "</svg>\n",
    ])  # fmt: skip


def _panel(panel: Panel, offset: int) -> list[str]:
    width, height = PANEL - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(value: float) -> str:
        return f"{offset + LEFT + panel.x.at(value) * width:.1f}"

    def y(value: float) -> str:
        return f"{TOP + height - panel.y.at(value) * height:.1f}"

    lines = [_text(offset + LEFT, 20, panel.title, "start", "font-weight: bold")]
    left, right, top, bottom = x(panel.x.low), x(panel.x.high), y(panel.y.high), y(panel.y.low)
    for mark in panel.y.marks:
        lines.append(f'<path d="M{left} {y(mark)}H{right}" stroke="#ddd"/>')
        lines.append(_text(offset + LEFT - 6, float(y(mark)) + 4, f"{mark:,g}", "end"))
    for mark in panel.x.marks:
        lines.append(f'<path d="M{x(mark)} {top}V{bottom}" stroke="#ddd"/>')
        lines.append(_text(float(x(mark)), HEIGHT - BOTTOM + 17, f"{mark:,g}", "middle"))
    lines.append(_text(offset + LEFT + width / 2, HEIGHT - 14, panel.x.name, "middle"))
    lines.append(_text(offset + LEFT, 38, panel.y.name, "start", "fill: #666"))
    for number, curve in enumerate(panel.curves):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x(a)},{y(b)}" for a, b in curve.points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        end, first = float(x(panel.legend[0])), float(y(panel.legend[1]))
        lines.append(_text(end, first + 17 * number, curve.name, "end", f"fill: {colour}; font-weight: bold"))
    return lines


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="{style}">{html.escape(text)}</text>'
