"""Handing results on: all points of a store as CSV or Parquet, a part at a time."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from einsum.errors import SpecError
from einsum.files import check_ending, whole_file
from explorer.store import Store

Rows = Iterator[list[Sequence[Any]]]


def check_export(path: str | Path) -> str:
    """The ending of a file to export to. Raises SpecError for an unknown one, and for Parquet without pyarrow."""
    ending = check_ending(path, *_WRITERS).suffix.lower()
    if ending == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        message = "Parquet needs pyarrow: pip install 'einsight[parquet]'; or export to CSV"
        raise SpecError(message, file=str(path))
    return ending


def export(store: Store, path: str | Path) -> None:
    """Write every point with its key, all its inputs (constants too), quantities, feasibility and error.

    The ending of `path` says the format. Raises SpecError as `check_export` does.
    """
    ending = check_export(path)
    about = store.about()
    constants = {name: value for name, value in about["constants"].items() if value is not None}
    stored = ["point", "key", *about["varying"], *about["columns"], "feasible", "error"]
    names = [*stored[:2], *constants, *stored[2:]]

    def rows() -> Rows:
        for part in store.chunks(stored):
            point, key, *rest = part
            fixed = [[value] * len(point) for value in constants.values()]
            yield [point, [each.hex() for each in key], *fixed, *rest]

    with whole_file(path) as partial:
        _WRITERS[ending](partial, names, rows())


def _write_csv(path: Path, names: list[str], rows: Rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        for columns in rows:
            writer.writerows(zip(*columns, strict=True))


def _write_parquet(path: Path, names: list[str], rows: Rows) -> None:
    import pyarrow
    from pyarrow import parquet

    parts = [pyarrow.table([pyarrow.array(_alike(column)) for column in columns], names=names) for columns in rows]
    if not parts:
        parts = [pyarrow.table([pyarrow.array([], pyarrow.string())] * len(names), names=names)]
    # A column that is empty in one part has no type there; the others give it one.
    parquet.write_table(pyarrow.concat_tables(parts, promote_options="permissive"), path)


_WRITERS: Mapping[str, Callable[[Path, list[str], Rows], None]] = {".csv": _write_csv, ".parquet": _write_parquet}


def _alike(column: Sequence[Any]) -> Sequence[Any]:
    """Numbers of one type: whole ones become floats where fractions stand beside them."""
    return [None if v is None else float(v) for v in column] if any(isinstance(v, float) for v in column) else column
