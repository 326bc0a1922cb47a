"""Measured rows beside predicted ones: errors of time and traffic, ranks of tiles, and what a chosen tile costs.

Input is a CSV file of anybody's; `docs/gpu.md` lists its columns. Each row becomes a `Compared`, or a reason why not.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from architectures import EvaluatedArchitecture
from architectures.gpu import Gpu
from einsum.errors import EinsightError, SpecError, nearest
from einsum.files import reason
from einsum.specfile import load_yaml
from kernels.case import Case
from kernels.predict import FORMS, STEPS, TILE, Fidelity, Form, Prediction, predict

CASE_COLUMNS = tuple(field.name for field in fields(Case))
REQUIRED = ("kernel", "ms")
SHAPE = {
    "copy": (), "softmax": ("kv_len",), "matmul": ("q_len", "kv_len", "head_dim"),
    "flash_decode": ("kv_len", "head_dim"), "lean_decode": ("kv_len", "head_dim"),
}  # fmt: skip
"""Sizes without which a row means nothing; of other kernels the length of the queries and the width of a head."""
MEASURED = ("ms", "dram_read_bytes", "dram_write_bytes")
MEASUREMENTS = Path(__file__).parent / "measurements"


@dataclass(frozen=True)
class Row:
    """One row of the input: its number, what ran, what was measured (None where empty), and all cells as text."""

    number: int
    case: Case
    measured: Mapping[str, float | None]
    cells: Mapping[str, str]
    reason: str = ""


@dataclass(frozen=True)
class Compared:
    """A row and its prediction, or the reason why there is none."""

    row: Row
    prediction: Prediction | None
    reason: str = ""

    @property
    def error(self) -> float | None:
        """Predicted over measured time, less 1; None where either is missing."""
        measured = self.row.measured["ms"]
        return self.prediction.time_s * 1e3 / measured - 1 if self.prediction and measured else None


def read_comparisons(path: str, architecture: str | None) -> dict[str, tuple[str, str]]:
    """Name -> CSV file and architecture: of a YAML file that lists some, or of one CSV file (its name is empty).

    A file's name in the YAML is relative to the YAML file. SpecError names what is missing.
    """
    if Path(path).suffix not in (".yaml", ".yml"):
        file = str(find_measurements(path))
        if architecture is None:
            raise SpecError("needs the name of a GPU's description", key="--architecture")
        return {"": (file, architecture)}
    listed = load_yaml(path).get("comparisons")
    if not isinstance(listed, dict) or not listed:
        raise SpecError("expected comparisons by name", file=path, key="comparisons")
    found = {}
    for name, entry in listed.items():
        if not isinstance(entry, dict) or set(entry) != {"measured", "architecture"}:
            raise SpecError("expected the fields measured and architecture", file=path, key=f"comparisons.{name}")
        found[str(name)] = (str(Path(path).parent / entry["measured"]), architecture or str(entry["architecture"]))
    return found


def find_measurements(name_or_path: str) -> Path:
    """The CSV file of a name in `kernels/measurements`, or of a path."""
    path = Path(name_or_path)
    if path.suffix or "/" in name_or_path or path.exists():
        return path
    if name_or_path not in list_measurements():
        raise SpecError(f"unknown measurements '{name_or_path}'{nearest(name_or_path, list_measurements())}")
    return MEASUREMENTS / f"{name_or_path}.csv"


def list_measurements() -> tuple[str, ...]:
    """The names of the measurements that come with Einsight, sorted."""
    return tuple(sorted(path.stem for path in MEASUREMENTS.glob("*.csv")))


def read_rows(path: str | Path) -> tuple[Row, ...]:
    """The rows of a CSV file. SpecError names file, line and column of what cannot be read."""
    file = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SpecError(f"cannot be read: {reason(error)}", file=file) from None
    except UnicodeDecodeError:
        raise SpecError("is not a text file in UTF-8", file=file) from None
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        columns = [name.strip() for name in reader.fieldnames or ()]
        _check_columns(columns, file)
        reader.fieldnames = columns
        rows = tuple(_row(cells, number, file) for number, cells in enumerate(reader, start=2))
    except csv.Error as error:
        raise SpecError(f"is not a CSV file: {error}", file=file) from None
    if not rows:
        raise SpecError("has no rows", file=file)
    return rows


def _check_columns(columns: Sequence[str], file: str) -> None:
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice:
        raise SpecError(f"has the column '{twice}' twice", file=file)
    for name in REQUIRED:
        if name not in columns:
            raise SpecError(f"lacks the column '{name}'{nearest(name, columns)}", file=file)


def _row(cells: Mapping[str | None, Any], number: int, file: str) -> Row:
    if None in cells or None in cells.values():
        raise SpecError(f"line {number}: has {'more' if None in cells else 'fewer'} cells than columns", file=file)
    texts = {str(name): str(value).strip() for name, value in cells.items()}
    try:
        case = Case.from_fields({name: texts[name] for name in CASE_COLUMNS if name in texts})
        measured = {name: _number(texts.get(name, ""), name) for name in MEASURED}
        _check_variant(case)
        missing = [name for name in SHAPE.get(case.kernel, ("q_len", "head_dim")) if not texts.get(name)]
        if missing:
            raise SpecError(f"{case.kernel} needs a number, found nothing", key=missing[0])
    except SpecError as error:
        raise SpecError(f"line {number}: {error.message}", file=file, key=error.key) from None
    reason = texts.get("reason", "") or texts.get("status", "") if texts.get("status", "ok") != "ok" else ""
    if not reason and measured["ms"] is None:
        reason = "no time was measured"
    return Row(number, case, measured, texts, reason)


def _check_variant(case: Case) -> None:
    known = (*FORMS, *STEPS) if case.kernel == "unfused" else tuple(FORMS)
    if case.variant and case.variant not in known:
        hint = nearest(case.variant, known)
        raise SpecError(f"unknown variant '{case.variant}' of {case.kernel}{hint}", key="variant")


def _number(text: str, name: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0) or (name == "ms" and value == 0):
        raise SpecError(f"expected a number {'above' if name == 'ms' else 'of at least'} 0, found '{text}'", key=name)
    return value


def compare(
    rows: Sequence[Row],
    machine: EvaluatedArchitecture,
    progress: Callable[[int, int], None] | None = None,
    fidelity: Fidelity = "analytic",
    form: Form = "kernel",
) -> tuple[Compared, ...]:
    """Predict every row; rows that cannot run keep the reason. `fidelity` and `form` as for `predict`.

    SpecError for an architecture that is no GPU.
    """
    Gpu.of(machine)
    found: list[Compared] = []
    known: dict[Case, Prediction | str] = {}
    for done, row in enumerate(rows):
        if row.case not in known:
            try:
                known[row.case] = predict(row.case, machine, fidelity, form)
            except SpecError as error:
                known[row.case] = error.message
        answer = known[row.case]
        prediction = answer if isinstance(answer, Prediction) else None
        found.append(Compared(row, prediction, row.reason or ("" if prediction else str(answer))))
        if progress is not None:
            progress(done + 1, len(rows))
    if not any(item.prediction for item in found):
        first = found[0]
        raise EinsightError(f"no row can be predicted; line {first.row.number}: {first.reason}")
    return tuple(found)


def summarise(compared: Sequence[Compared]) -> dict[str, Any]:
    """Errors in all and by kernel (a kernel's variants apart), ranks of tiles, and errors of traffic."""
    usable = [item for item in compared if item.error is not None and not item.row.reason]
    families: dict[str, list[Compared]] = {}
    for item in usable:
        name = item.row.case.kernel + (f":{item.row.case.variant}" if item.row.case.variant else "")
        families.setdefault(name, []).append(item)
    return {
        "rows": len(compared),
        "compared": len(usable),
        "all": _errors(usable),
        "kernels": {name: _errors(items) for name, items in sorted(families.items())},
        "tiles": tile_ranks(usable),
        "dram_read": _traffic(usable, "dram_read_bytes"),
        "dram_write": _traffic(usable, "dram_write_bytes"),
        "dram_total": _traffic(usable, "total"),
    }


def _errors(items: Sequence[Compared]) -> dict[str, float | int | None]:
    errors = np.array([item.error for item in items], dtype=float)
    if not errors.size:
        return {"rows": 0, "mean_error": None, "mean_absolute_error": None, "median_absolute_error": None}
    roofline = np.array([_roofline_error(item) for item in items])
    return {
        "rows": len(items),
        "mean_error": float(errors.mean()),
        "mean_absolute_error": float(np.abs(errors).mean()),
        "median_absolute_error": float(np.median(np.abs(errors))),
        "roofline_mean_absolute_error": float(np.abs(roofline).mean()),
    }


def _roofline_error(item: Compared) -> float:
    assert item.prediction is not None and item.row.measured["ms"]
    return item.prediction.roofline_s * 1e3 / item.row.measured["ms"] - 1


NOISE = 0.02
"""Measured times that differ by less are taken as equal: the spread of repeated measurements."""


def tile_ranks(items: Sequence[Compared]) -> dict[str, float | int | None]:
    """Kendall's tau-b of predicted and measured times over the tiles of a shape, and the regret of the tile that the
    prediction picks, both as means over the shapes with at least three tiles."""
    shapes: dict[tuple[Any, ...], list[Compared]] = {}
    for item in items:
        case = item.row.case.fields()
        shapes.setdefault(tuple(value for name, value in case.items() if name not in TILE), []).append(item)
    taus, regrets = [], []
    for group in shapes.values():
        measured = np.array([item.row.measured["ms"] for item in group], dtype=float)
        predicted = np.array([item.prediction.time_s for item in group if item.prediction])
        if len({tuple(getattr(item.row.case, name) for name in TILE) for item in group}) < 3:
            continue
        tau = kendall_tau(predicted, measured, NOISE)
        if tau is not None:
            taus.append(tau)
        regrets.append(float(measured[np.argmin(predicted)] / measured.min() - 1))
    return {
        "shapes": len(regrets),
        "kendall_tau": float(np.mean(taus)) if taus else None,
        "regret": float(np.mean(regrets)) if regrets else None,
    }


def kendall_tau(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any], noise: float = 0.0) -> float | None:
    """Kendall's tau: agreement of two orders over the pairs that `second` tells apart by more than a share `noise`.

    None where it tells no pair apart. A pair that `first` does not tell apart counts as neither right nor wrong.
    """
    above = np.triu_indices(first.size, 1)
    low, high = (np.sort(np.stack([second[index] for index in above]), axis=0)[side] for side in (0, 1))
    apart = high > low * (1 + noise)
    signs = [np.sign(values[above[0]] - values[above[1]]) for values in (first, second)]
    return float(np.mean((signs[0] * signs[1])[apart])) if apart.any() else None


def _traffic(items: Sequence[Compared], column: str) -> dict[str, float | int | None]:
    """Errors of predicted bytes where they were counted."""
    errors = []
    for item in items:
        counted = _bytes(item.row.measured, column)
        if counted and item.prediction:
            predicted = {name: getattr(item.prediction, name) for name in MEASURED[1:]}
            guess = _bytes(predicted, column)
            assert guess is not None
            errors.append(guess / counted - 1)
    if not errors:
        return {"rows": 0, "mean_error": None, "mean_absolute_error": None, "within_5_percent": None}
    values = np.array(errors)
    return {
        "rows": len(errors),
        "mean_error": float(values.mean()),
        "mean_absolute_error": float(np.abs(values).mean()),
        "within_5_percent": float(np.mean(np.abs(values) <= 0.05)),
    }


def _bytes(values: Mapping[str, float | None], column: str) -> float | None:
    if column != "total":
        return values[column]
    parts = [values[name] for name in MEASURED[1:]]
    return sum(part for part in parts if part is not None) if None not in parts else None


def row_document(item: Compared) -> dict[str, Any]:
    """A compared row for JSON and CSV: the input's cells, then what was predicted."""
    found = item.prediction
    tile = (
        {name: getattr(found.case, name) for name in TILE if found and not getattr(item.row.case, name)}
        if found
        else {}
    )
    return {
        **item.row.cells,
        "line": item.row.number,
        "predicted_ms": found.time_s * 1e3 if found else None,
        "error": item.error,
        "predicted_dram_read_bytes": found.dram_read_bytes if found else None,
        "predicted_dram_write_bytes": found.dram_write_bytes if found else None,
        "bound_by": found.bound_by if found else "",
        "roofline_ms": found.roofline_s * 1e3 if found else None,
        "chosen_tile": " ".join(f"{name}={value}" for name, value in tile.items() if value),
        "not_compared": item.reason,
    }


def percent(value: float | None, signed: bool = False) -> str:
    """A share in percent, or a dash."""
    return "-" if value is None else f"{100 * value:{'+' if signed else ''}.1f} %"
