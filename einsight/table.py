"""The one table printer: columns of text that fit a terminal of 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 100
_GAP = "  "


@dataclass(frozen=True)
class Column:
    """A column's title, whether its cells (numbers, mostly) stand at the right, and whether it belongs to the column
    before it: the two stay together where a table has to be cut.
    """

    title: str
    right: bool = False
    joined: bool = False


def render_table(
    columns: Sequence[Column | str], rows: Sequence[Sequence[str]], width: int = WIDTH, keys: int | None = None
) -> str:
    """Lay out `rows` of ready-made cells under the columns' titles, at most `width` columns wide where words allow it.

    Long titles and then columns of text give way; they continue on further lines. No word is cut. What is wider even
    then becomes several tables, one below the other, each with the first `keys` columns (default: the text that rows
    begin with).
    """
    sides = [Column(column) if isinstance(column, str) else column for column in columns]
    body = [[str(cell) for cell in row] for row in rows]
    if keys is None:
        keys = next((i for i, column in enumerate(sides) if column.right), 0)
    parts = _parts(sides, body, width, keys)
    return "\n\n".join(
        _one_table([sides[i] for i in part], [[row[i] for i in part] for row in body], width) for part in parts
    )


def _one_table(sides: Sequence[Column], body: Sequence[Sequence[str]], width: int) -> str:
    widths = _widths([column.title for column in sides], body, sides, width)
    lines = [*_layout([column.title for column in sides], widths, sides), _GAP.join("─" * limit for limit in widths)]
    for row in body:
        lines += _layout(row, widths, sides)
    return "\n".join(lines)


def _parts(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, keys: int) -> list[list[int]]:
    """The places of the columns of each part that the table has to be cut into; mostly all of them."""

    def fits(part: list[int]) -> bool:
        titles = [columns[i].title for i in part]
        needed = _widths(titles, [[row[i] for i in part] for row in rows], [columns[i] for i in part], width)
        return sum(needed) + len(_GAP) * (len(part) - 1) <= width

    leading = list(range(keys))
    groups: list[list[int]] = []
    for i in range(keys, len(columns)):
        if columns[i].joined and groups:
            groups[-1].append(i)
        else:
            groups.append([i])
    parts = [[*leading, *(groups[0] if groups else [])]]
    for group in groups[1:]:
        if fits([*parts[-1], *group]):
            parts[-1] += group
        else:
            parts.append([*leading, *group])
    return parts


def _layout(cells: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> list[str]:
    """The lines of one row, whose cells are wrapped to their columns' widths."""
    wrapped = [textwrap.wrap(cell, limit) or [""] for cell, limit in zip(cells, widths, strict=True)]
    height = max(map(len, wrapped))
    texts = ([cell[part] if part < len(cell) else "" for cell in wrapped] for part in range(height))
    return [_GAP.join(map(_align, line, widths, columns)).rstrip() for line in texts]


def _align(text: str, width: int, column: Column) -> str:
    return text.rjust(width) if column.right else text.ljust(width)


def _widths(titles: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[Column], width: int) -> list[int]:
    """Natural widths, cut where the table is too wide: first titles wider than their cells, then columns of text."""
    cells = [[row[i] for row in rows] for i in range(len(columns))]
    widths = [max(map(len, [title, *column])) for title, column in zip(titles, cells, strict=True)]
    wrapped = [max(_longest_word(title), *map(len, [*column, ""])) for title, column in zip(titles, cells, strict=True)]
    _shrink(widths, wrapped, width)
    words = [
        limit if column.right else max(_longest_word(" ".join([title, *texts])), 1)
        for title, texts, column, limit in zip(titles, cells, columns, wrapped, strict=True)
    ]
    _shrink(widths, words, width)
    return widths


def _shrink(widths: list[int], least: Sequence[int], width: int) -> None:
    """Narrow the widest columns, none below its least width, until all together fit."""
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    while excess > 0 and (open_ := [i for i, limit in enumerate(least) if widths[i] > limit]):
        widths[max(open_, key=widths.__getitem__)] -= 1
        excess -= 1


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def render_fields(fields: Sequence[tuple[str, str]], width: int = WIDTH) -> str:
    """Name-and-text pairs, one under the other, with the texts aligned and wrapped."""
    indent = max((len(name) for name, _ in fields), default=0) + len(_GAP)
    return "\n".join(
        textwrap.fill(text, width, initial_indent=name.ljust(indent), subsequent_indent=" " * indent)
        for name, text in fields
    )
