"""A log-log plot as inline SVG: lines, dashed where a schedule does not fit, points, marks with names, a legend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil, floor, log2, log10
from typing import Literal

WIDTH, HEIGHT = 960, 470
LEFT, RIGHT, TOP, BOTTOM = 84, 236, 44, 56
COLORS = ("#0b3d91", "#c0392b", "#1e8449", "#8e44ad", "#d68910", "#17a2b8", "#7b241c", "#5d6d7e", "#2e86c1", "#af7ac5")
INK, GRID, SOFT = "#24313f", "#e6ebf1", "#5b6b7c"
BINARY = (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0))
NEAR = 11.0  # marks closer than this, in units of the drawing, share a label


@dataclass(frozen=True)
class Series:
    """Points of one line, in order; `dashed` holds the places of those that are not feasible; `dots` has no line.

    `floor` shades what lies below the line, `ceiling` what lies above: nothing can be there. `color` is an index.
    `step`: between two points the line is as high as the `last` or the `next` one; None: straight.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    dashed: frozenset[int] = frozenset()
    dots: bool = False
    floor: bool = False
    ceiling: bool = False
    color: int | None = None
    step: Literal["last", "next"] | None = None

    def corners(self, first: int) -> tuple[tuple[float, float], ...]:
        """The line from point `first` to the one behind it."""
        start, end = self.points[first : first + 2]
        between = {"last": ((end[0], start[1]),), "next": ((start[0], end[1]),)}.get(self.step or "", ())
        return (start, *between, end)


def log_log_plot(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    marks: Sequence[tuple[str, float]] = (),
    y_text: Callable[[float], str] | None = None,
) -> str:
    """The SVG element of a plot over bytes; marks outside the range of x are left out."""
    points = [point for one in series for point in one.points]
    if not points:
        return ""
    x_range, y_range = (_decades([point[axis] for point in points]) for axis in (0, 1))
    canvas = _Canvas(x_range, y_range)
    for one in series:
        canvas.shade(one)
    canvas.axes(title, x_label, y_label, y_text or _short)
    canvas.marks([(name, x) for name, x in marks if x_range[0] <= log10(x) <= x_range[1]])
    for k, one in enumerate(series):
        canvas.series(one, COLORS[(k if one.color is None else one.color) % len(COLORS)], k)
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

    def shade(self, one: Series) -> None:
        if not (one.floor or one.ceiling) or len(one.points) < 2:
            return
        edge = HEIGHT - BOTTOM if one.floor else TOP
        line = [corner for first in range(len(one.points) - 1) for corner in one.corners(first)]
        spots = [(self.x(x), self.y(y)) for x, y in line]
        corners = [(spots[0][0], edge), *spots, (spots[-1][0], edge)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        self.parts.append(f'<polygon points="{path}" fill="{COLORS[0]}" fill-opacity="0.08"/>')
        height = HEIGHT - BOTTOM - 12 if one.floor else TOP + 20
        style = f'fill="{SOFT}" font-style="italic"'
        self.text(spots[0][0] + 10, height, "no schedule can be here", "start", style)

    def axes(self, title: str, x_label: str, y_label: str, y_text: Callable[[float], str]) -> None:
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        for value in _powers_of_two(*self.x_range):
            self.line(self.x(value), TOP, self.x(value), bottom, GRID)
            self.text(self.x(value), bottom + 18, _binary(value))
        for value in _ticks(*self.y_range):
            self.line(LEFT, self.y(value), right, self.y(value), GRID)
            self.text(LEFT - 8, self.y(value) + 4, y_text(value), "end")
        self.line(LEFT, bottom, right, bottom, INK)
        self.line(LEFT, TOP, LEFT, bottom, INK)
        self.text(LEFT, 20, title, "start", 'font-weight="bold" font-size="15"')
        self.text((LEFT + right) / 2, HEIGHT - 10, x_label, extra=f'fill="{SOFT}"')
        turned = f'transform="rotate(-90 18 {(TOP + bottom) / 2:.1f})" fill="{SOFT}"'
        self.text(18, (TOP + bottom) / 2, y_label, extra=turned)

    def marks(self, marks: Sequence[tuple[str, float]]) -> None:
        groups: list[tuple[float, list[str]]] = []
        for name, value in sorted(marks, key=lambda mark: mark[1]):
            at = self.x(value)
            self.line(at, TOP, at, HEIGHT - BOTTOM, SOFT, 'stroke-dasharray="2 4"')
            if groups and at - groups[-1][0] < NEAR:
                groups[-1][1].append(name)
            else:
                groups.append((at, [name]))
        for at, names in groups:
            turn = f'transform="rotate(-90 {at - 4:.1f} {TOP + 4:.1f})" font-size="10.5" fill="{SOFT}"'
            halo = 'stroke="#fff" stroke-width="3" paint-order="stroke"'
            self.text(at - 4, TOP + 4, ", ".join(names), "end", f"{turn} {halo}")

    def series(self, one: Series, color: str, k: int) -> None:
        spots = [(self.x(x), self.y(y)) for x, y in one.points]
        if not one.dots:
            for first in range(len(spots) - 1):
                dash = 'stroke-dasharray="5 4" stroke-opacity="0.6"' if {first, first + 1} & one.dashed else ""
                for (x1, y1), (x2, y2) in pairwise(one.corners(first)):
                    ends = (self.x(x1), self.y(y1), self.x(x2), self.y(y2))
                    self.line(*ends, color, f'stroke-width="2.2" stroke-linecap="round" {dash}')
        if one.dots or len(spots) == 1:
            self.parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{color}" stroke="#fff" stroke-width="1.5"/>'
                for x, y in spots
            ]
        at, height = WIDTH - RIGHT + 16, TOP + 10 + 20 * k
        if one.dots:
            self.parts.append(f'<circle cx="{at + 12:.1f}" cy="{height:.1f}" r="5" fill="{color}"/>')
        else:
            dash = 'stroke-dasharray="5 4"' if spots and len(one.dashed) == len(spots) else ""
            self.line(at, height, at + 24, height, color, f'stroke-width="2.2" {dash}')
        self.text(at + 32, height + 4, one.name if len(one.name) < 34 else f"{one.name[:31]}…", "start")

    def svg(self, title: str) -> str:
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(title, quote=True)}" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">'
            + "".join(self.parts)
            + "</svg>"
        )


def _ticks(low: float, high: float) -> list[float]:
    decades = range(floor(low), ceil(high) + 1)
    steps = (1,) if high - low > 3 else (1, 2, 5)
    return [step * 10.0**decade for decade in decades for step in steps if low <= log10(step) + decade <= high]


def _powers_of_two(low: float, high: float) -> list[float]:
    first, last = ceil(low / log10(2)), floor(high / log10(2))
    step = max(1, ceil((last - first + 1) / 11))
    return [2.0**power for power in range(first + -first % step, last + 1, step)]


def _binary(value: float) -> str:
    unit, power = next((one for one in BINARY if log2(value) >= one[1]), BINARY[-1])
    return f"{value / 2**power:g} {unit}"


def _short(value: float) -> str:
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:g}{unit}"
    return f"{value:g}"
