"""Values to compare with: a CSV of published or measured numbers, matched to points by their inputs."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from einsum.errors import SpecError, nearest
from einsum.expressions import Expression
from einsum.files import reason
from explorer.part import Part
from explorer.points import Points
from explorer.settings import Setting


class Reference(Part):
    """Where the values to compare with are, and what they mean."""

    file: str
    """A CSV file with a header line, beside the experiment."""
    title: str = "reference"
    """What the values are called in tables and figures, such as `published`."""
    keys: dict[str, str]
    """Input of the experiment -> CSV column with its value; together they say which point a line is about."""
    columns: dict[str, Expression]
    """Column of the experiment -> the same quantity (SI) as an expression over the CSV's columns."""


def read_reference(reference: Reference, folder: Path, points: Points) -> dict[str, NDArray[np.float64]]:
    """For each compared column its reference value at every point, NaN where the CSV gives none.

    Raises SpecError for a file that cannot be read, unknown columns, and when no line is about any point.
    """
    path = folder / reference.file
    lines = _read_csv(path)
    known = lines[0].keys()
    for name in {*reference.keys.values(), *(name for value in reference.columns.values() for name in value.names)}:
        if name not in known:
            raise SpecError(f"the file has no column '{name}'{nearest(name, known)}", file=str(path))
    inputs = [points.column(name).tolist() for name in reference.keys]
    rows: dict[tuple[Setting, ...], list[int]] = {}
    for row, key in enumerate(zip(*inputs, strict=True)):
        rows.setdefault(key, []).append(row)
    values = {name: np.full(len(points), np.nan) for name in reference.columns}
    matched = False
    for number, line in enumerate(lines, 2):
        about = rows.get(tuple(line[name] for name in reference.keys.values()), [])
        matched = matched or bool(about)
        for name, expression in reference.columns.items():
            if about and all(line[used] != "" for used in expression.names):
                values[name][about] = _evaluate(expression, line, path, number)
    if not matched:
        raise SpecError(f"no line matches a run by {', '.join(reference.keys)}", file=str(path))
    return values


def _evaluate(expression: Expression, line: Mapping[str, Setting], path: Path, number: int) -> float:
    try:
        return expression.number(line)
    except SpecError as error:
        raise SpecError(f"line {number}: {error.message}", file=str(path)) from None


def _read_csv(path: Path) -> list[dict[str, Setting]]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            content = (line for line in stream if not line.startswith("#"))
            lines = [
                {name: _typed(cell or "") for name, cell in line.items() if name} for line in csv.DictReader(content)
            ]
    except OSError as error:
        raise SpecError(f"cannot be read: {reason(error)}", file=str(path)) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"is no CSV file: {error}", file=str(path)) from None
    if not lines:
        raise SpecError("the file has no lines under its header", file=str(path))
    return lines


def _typed(cell: str) -> Setting:
    if cell.lower() in ("true", "false"):
        return cell.lower() == "true"
    try:
        return float(cell)
    except ValueError:
        return cell
