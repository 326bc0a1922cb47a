"""A few shapes of SVG: boxes with text, and curves between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from xml.sax.saxutils import escape

FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif"
FONT_SIZE = 12
CHARACTER = 7.2
"""Width to leave for a character: the widest of these fonts needs about 0.6 em on average."""
LINE = 16
INK, SOFT, EDGE = "#1c2733", "#566474", "#33506e"
"""Colours of text, of what matters less, and of outlines."""
ARROWS = {"arrow": "#666666", "back": "#b0413e", "both": EDGE}
"""Colours of arrows onwards, back, and of those that point both ways."""


@dataclass
class Svg:
    """A picture that grows: shapes are added in the order in which they are painted."""

    width: float
    height: float
    title: str = ""
    _shapes: list[str] = field(default_factory=list)

    def box(
        self, x: float, y: float, width: float, height: float, lines: Sequence[str], fill: str, edge: str = EDGE
    ) -> None:
        """A box with its centre at (x, y) and centred lines of text; the first line is bold."""
        self.rectangle(x - width / 2, y - height / 2, width, height, fill, edge)
        first = y - (len(lines) - 1) * LINE / 2 + FONT_SIZE / 3
        for number, line in enumerate(lines):
            weight = ' font-weight="bold"' if number == 0 else ""
            self._shapes.append(
                f'<text x="{x:.1f}" y="{first + number * LINE:.1f}" text-anchor="middle"{weight}>{escape(line)}</text>'
            )

    def rectangle(
        self, left: float, top: float, width: float, height: float, fill: str, edge: str = "none", radius: float = 7
    ) -> None:
        """A rectangle with round corners."""
        self._shapes.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:g}" '
            f'fill="{fill}" stroke="{edge}"/>'
        )

    def text(
        self, x: float, y: float, text: str, size: float = FONT_SIZE, color: str = INK, anchor: str = "start",
        bold: bool = False,
    ) -> None:  # fmt: skip
        """A line of text that begins at (x, y), or is centred there (`middle`), or ends there (`end`)."""
        weight = ' font-weight="bold"' if bold else ""
        self._shapes.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{color}" text-anchor="{anchor}"{weight}>'
            f"{escape(text)}</text>"
        )

    def line(self, x0: float, y0: float, x1: float, y1: float, color: str = EDGE, arrows: bool = False) -> None:
        """A straight line, with arrows at both ends if asked for."""
        ends = ' marker-start="url(#both)" marker-end="url(#both)" stroke-width="2"' if arrows else ""
        self._shapes.append(f'<path d="M {x0:.1f} {y0:.1f} L {x1:.1f} {y1:.1f}" stroke="{color}" fill="none"{ends}/>')

    def curve(self, points: Sequence[tuple[float, float]], label: str = "") -> None:
        """A smooth curve downwards through `points`, with an arrow at its end and a label shown on hovering."""
        path = f"M {points[0][0]:.1f} {points[0][1]:.1f}"
        for (x0, y0), (x1, y1) in pairwise(points):
            middle = (y0 + y1) / 2
            path += f" C {x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}"
        self._path(path, "arrow", label)

    def back(self, start: tuple[float, float], end: tuple[float, float], reach: float, label: str = "") -> None:
        """A dashed arrow between the right sides of two boxes (or of one) that swings out to the right by `reach`."""
        (x0, y0), (x1, y1), x = start, end, max(start[0], end[0]) + reach
        self._path(f"M {x0:.1f} {y0:.1f} C {x:.1f} {y0:.1f} {x:.1f} {y1:.1f} {x1:.1f} {y1:.1f}", "back", label)

    def _path(self, path: str, kind: str, label: str) -> None:
        dash = ' stroke-dasharray="5 4"' if kind == "back" else ""
        self._shapes.append(
            f'<path d="{path}" fill="none" stroke="{ARROWS[kind]}" stroke-width="1.5"{dash} '
            f'marker-end="url(#{kind})"><title>{escape(label)}</title></path>'
        )

    def __str__(self) -> str:
        """The document."""
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:.0f} {self.height:.0f}" '
                f'width="{self.width:.0f}" height="{self.height:.0f}" font-family="{FONT}" '
                f'font-size="{FONT_SIZE}" fill="{INK}">',
                f"<title>{escape(self.title)}</title>",
                "<defs>",
                *(_arrow_head(kind, color) for kind, color in ARROWS.items()),
                "</defs>",
                f'<rect width="{self.width:.0f}" height="{self.height:.0f}" fill="white"/>',
                *self._shapes,
                "</svg>\n",
            ]
        )


def text_width(lines: Sequence[str]) -> float:
    """The room that the lines of a box need; its first line is bold."""
    return max((len(line) * CHARACTER * (1.1 if i == 0 else 1.0) for i, line in enumerate(lines)), default=0.0)


def _arrow_head(kind: str, color: str) -> str:
    return (
        f'<marker id="{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" '
        'orient="auto-start-reverse">'
        f'<path d="M 0 0 L 8 4 L 0 8 z" fill="{color}"/></marker>'
    )
