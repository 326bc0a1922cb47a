"""A table of evaluated points: one row a point, one column an input or a result."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.errors import SpecError, nearest
from einsum.files import whole_file
from explorer.settings import Setting

Cells = NDArray[Any]


@dataclass(frozen=True)
class Points:
    """Columns of equal length by name; the first `inputs` say which point a row is, the others what came out."""

    columns: Mapping[str, Cells]
    inputs: tuple[str, ...]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def column(self, name: str) -> Cells:
        """One column. Raises SpecError with the nearest name where there is none."""
        if name not in self.columns:
            raise SpecError(f"unknown column '{name}'{nearest(name, self.columns)}")
        return self.columns[name]

    def with_columns(self, columns: Mapping[str, Cells]) -> Points:
        """The same points with more columns."""
        return Points({**self.columns, **columns}, self.inputs)

    def where(self, condition: Mapping[str, Setting]) -> Points:
        """The points whose inputs have the given values."""
        chosen = np.ones(len(self), dtype=bool)
        for name, value in condition.items():
            chosen &= self.column(name) == value
        return Points({name: cells[chosen] for name, cells in self.columns.items()}, self.inputs)

    def keys(self, changed: Mapping[str, Setting] | None = None) -> list[tuple[Any, ...]]:
        """The values of the inputs of every point, as if those in `changed` had the values given there."""
        changed = changed or {}
        cells = [
            [changed[name]] * len(self) if name in changed else self.columns[name].tolist() for name in self.inputs
        ]
        return list(zip(*cells, strict=True))

    def matching(self, changed: Mapping[str, Setting]) -> NDArray[np.intp]:
        """For every point the row of the point that differs from it only by the inputs in `changed`.

        Raises SpecError where there is no such point.
        """
        for name in changed:
            self.column(name)
        rows = {key: row for row, key in enumerate(self.keys())}
        wanted = self.keys(changed)
        missing = next((key for key in wanted if key not in rows), None)
        if missing is not None:
            text = ", ".join(f"{name}={value}" for name, value in zip(self.inputs, missing, strict=True))
            raise SpecError(f"no run has {text}")
        return np.array([rows[key] for key in wanted], dtype=np.intp)

    def write_csv(self, path: str | Path) -> None:
        """Write all columns with full precision; a missing number is an empty cell."""
        with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows(zip(*([_cell(v) for v in cells.tolist()] for cells in self.columns.values()), strict=True))


def stack(tables: Sequence[Points]) -> Points:
    """Put tables with the same columns one under the other."""
    first = tables[0]
    return Points(
        {name: np.concatenate([table.columns[name] for table in tables]) for name in first.columns}, first.inputs
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None or (isinstance(value, float) and np.isnan(value)) else str(value)
