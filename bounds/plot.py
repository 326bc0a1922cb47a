"""A log-log plot as inline SVG: lines, dashed lines, points, vertical marks with names, a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 860, 430
LEFT, RIGHT, TOP, BOTTOM = 78, 220, 34, 52
COLORS = ("#0b3d91", "#c0392b", "#1e8449", "#8e44ad", "#b9770e", "#148f77", "#7b241c", "#5d6d7e")
INK, GRID = "#24313f", "#dfe5ec"


@dataclass(frozen=True)
class Series:
    """Points of one line; `dashed` for what is not always feasible, `dots` for measurements without a line."""

    name: str
    points: tuple[tuple[float, float], ...]
    dashed: bool = False
    dots: bool = False


def log_log_plot(
    title: str, x_label: str, y_label: str, series: Sequence[Series], marks: Sequence[tuple[str, float]] = ()
) -> str:
    """The SVG element of a plot; marks outside the range of x are left out."""
    points = [point for one in series for point in one.points]
    if not points:
        return ""
    x_range, y_range = (_decades([point[axis] for point in points]) for axis in (0, 1))
    canvas = _Canvas(x_range, y_range)
    canvas.axes(title, x_label, y_label)
    for k, (name, x) in enumerate((n, x) for n, x in marks if x_range[0] <= log10(x) <= x_range[1]):
        canvas.mark(name, x, k)
    for k, one in enumerate(series):
        canvas.series(one, COLORS[k % len(COLORS)], k)
    return canvas.svg(title)


def _decades(values: Sequence[float]) -> tuple[float, float]:
    low, high = log10(min(values)), log10(max(values))
    margin = max(0.04 * (high - low), 0.05)
    return low - margin, high + margin


class _Canvas:
    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
        self.x_range, self.y_range = x_range, y_range
        self.parts: list[str] = []

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (log10(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HEIGHT - BOTTOM - (log10(value) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def text(self, x: float, y: float, text: str, anchor: str = "middle", extra: str = "") -> None:
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{escape(text)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, color: str, extra: str = "") -> None:
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" {extra}/>')

    def axes(self, title: str, x_label: str, y_label: str) -> None:
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        for value in _ticks(*self.x_range):
            self.line(self.x(value), TOP, self.x(value), bottom, GRID)
            self.text(self.x(value), bottom + 17, _short(value))
        for value in _ticks(*self.y_range):
            self.line(LEFT, self.y(value), right, self.y(value), GRID)
            self.text(LEFT - 7, self.y(value) + 4, _short(value), "end")
        self.line(LEFT, bottom, right, bottom, INK)
        self.line(LEFT, TOP, LEFT, bottom, INK)
        self.text((LEFT + right) / 2, 18, title, extra='font-weight="bold" font-size="14"')
        self.text((LEFT + right) / 2, HEIGHT - 10, x_label)
        self.text(16, (TOP + bottom) / 2, y_label, extra=f'transform="rotate(-90 16 {(TOP + bottom) / 2:.1f})"')

    def mark(self, name: str, x: float, k: int) -> None:
        self.line(self.x(x), TOP, self.x(x), HEIGHT - BOTTOM, INK, 'stroke-dasharray="2 3"')
        at = f"{self.x(x) - 4:.1f} {TOP + 8 + 14 * (k % 3):.1f}"
        self.text(self.x(x) - 4, TOP + 8 + 14 * (k % 3), name, "end", f'transform="rotate(-90 {at})" font-size="10"')

    def series(self, one: Series, color: str, k: int) -> None:
        spots = [(self.x(x), self.y(y)) for x, y in one.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        dash = 'stroke-dasharray="6 4"' if one.dashed else ""
        if not one.dots:
            self.parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2" {dash}/>')
        if one.dots or len(spots) == 1:
            self.parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>' for x, y in spots]
        height = TOP + 10 + 18 * k
        self.line(WIDTH - RIGHT + 12, height, WIDTH - RIGHT + 36, height, color, f'stroke-width="2" {dash}')
        self.text(WIDTH - RIGHT + 42, height + 4, one.name, "start")

    def svg(self, title: str) -> str:
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(title, quote=True)}" font-family="system-ui, sans-serif" font-size="11" fill="{INK}">'
            + "".join(self.parts)
            + "</svg>"
        )


def _ticks(low: float, high: float) -> list[float]:
    decades = range(floor(low), ceil(high) + 1)
    steps = (1,) if high - low > 3 else (1, 2, 5)
    return [step * 10.0**decade for decade in decades for step in steps if low <= log10(step) + decade <= high]


def _short(value: float) -> str:
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:g}{unit}"
    return f"{value:g}"
