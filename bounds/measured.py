"""Traffic that was measured, to stand beside the bounds: one's own tables, and those that `einsight measure` writes."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bounds.attention_schedules import Heads
from einsum.errors import SpecError
from einsum.units import parse_quantity

DRAM = ("dram_read_bytes", "dram_write_bytes", "dram_drain_bytes")
ATTENTION_KERNELS = ("flash_attention", "flash_decode", "lean_decode", "unfused")
STEPS = ("qk", "softmax", "pv")  # variants of `unfused` that are a part of attention only
DTYPE_BYTES = {"fp16": 2.0, "bf16": 2.0, "fp8": 1.0, "fp32": 4.0}


@dataclass(frozen=True)
class Measurement:
    """Traffic that was measured: bytes between slow and fast memory, with the fast memory where it is known.

    bound_bytes   what no schedule can go below in that memory; in any memory, where it is not known
    """

    name: str
    traffic_bytes: float
    fast_memory_bytes: float | None = None
    bound_bytes: float | None = None

    @property
    def remark(self) -> str:
        """What to think of traffic below the bound; empty for other traffic."""
        below = self.bound_bytes is not None and self.traffic_bytes < self.bound_bytes
        return "below the bound: more fast memory was used, or another problem measured" if below else ""


def read_measurements(
    path: str | Path, heads: Heads | None = None, mask: str | None = None, word_bytes: float = 2
) -> tuple[Measurement, ...]:
    """Measured traffic from a CSV file with the columns name, traffic_bytes and, if known, fast_memory_bytes.

    A file that `einsight measure` wrote (columns kernel and dram_read_bytes) is understood too: of it the attention
    kernels of the problem's own shape, mask and word size count that have DRAM counters. Numbers may have units
    ("1.5 GiB"). SpecError names the line of a mistake.
    """
    file = str(path)
    try:
        with Path(path).open(encoding="utf-8", newline="") as stream:
            table = csv.DictReader(line for line in stream if not line.startswith("#"))
            names = list(table.fieldnames or ())
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"the measurements cannot be read: {error}", file=file) from None
    columns = set(names)
    if {"kernel", *DRAM[:2]} <= columns:
        return _of_kernels(rows, heads, mask, word_bytes, file)
    if not {"name", "traffic_bytes"} <= columns:
        raise SpecError(
            f"expected the columns name and traffic_bytes, or kernel and {DRAM[0]}, found "
            f"{', '.join(sorted(columns)) or 'none'}",
            file=file,
        )
    _refuse_broken(names, rows, file)
    return tuple(_row(row, line, file) for line, row in enumerate(rows, start=2))


def _refuse_broken(names: list[str], rows: list[dict[str, str]], file: str) -> None:
    """SpecError for a column that stands twice, for no rows, and for a row of more cells than columns."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SpecError(f"has the column '{twice}' twice", file=file)
    if not rows:
        raise SpecError("has no rows", file=file)
    for line, row in enumerate(rows, start=2):
        if None in row:
            raise SpecError("has more cells than columns", file=file, key=f"line {line}")


def _row(row: Mapping[str, str | None], line: int, file: str) -> Measurement:
    try:
        traffic = parse_quantity(row["traffic_bytes"] or "", "bytes")
        memory = parse_quantity(row["fast_memory_bytes"] or "", "bytes") if row.get("fast_memory_bytes") else None
    except SpecError as error:
        raise error.located(file=file, key=f"line {line}") from None
    if traffic <= 0 or (memory is not None and memory <= 0):
        raise SpecError("traffic and fast memory must be positive", file=file, key=f"line {line}")
    return Measurement(row["name"] or f"line {line}", traffic, memory)


def _of_kernels(
    rows: list[dict[str, str]], heads: Heads | None, mask: str | None, word_bytes: float, file: str
) -> tuple[Measurement, ...]:
    if heads is None:
        raise SpecError("the rows of measured kernels are compared with one attention in closed form", file=file)
    found = []
    for line, row in enumerate(rows, start=2):
        try:
            if row["kernel"] not in ATTENTION_KERNELS or row.get("variant") in STEPS or not row[DRAM[0]]:
                continue
            if _shape(row) != (heads.pattern.rows, heads.columns, heads.copies, heads.group, heads.d, mask):
                continue
            if heads.dv != heads.d or DTYPE_BYTES.get(row.get("dtype", ""), word_bytes) != word_bytes:
                continue
            moved = sum(float(row.get(column) or 0) for column in DRAM)
        except (KeyError, ValueError) as error:
            raise SpecError(f"not a row of measured kernels: {error}", file=file, key=f"line {line}") from None
        tile = "x".join(part for part in (row.get("block_m"), row.get("block_n")) if part)
        kind = " ".join(part for part in (row["kernel"], row.get("variant"), tile) if part)
        found.append(Measurement(f"{kind} (line {line})", moved))
    if not found:
        raise SpecError(f"none of the {len(rows)} rows measures this problem's shape with DRAM counters", file=file)
    return tuple(found)


def _shape(row: Mapping[str, str]) -> tuple[int, int, int, int, int, str | None]:
    """Queries, keys, key heads of all batches, query heads that share one, width and mask of a measured kernel.

    A kernel's last query sees the last key, a bound's first query the first key; with a mask they are the same problem
    only where there are as many queries as keys, so others match nothing.
    """
    causal, window = row.get("causal") == "true", int(row.get("window") or 0)
    mask = (f"window:{window}" if causal else f"band:{window - 1}") if window else ("causal" if causal else None)
    queries, keys, heads = int(row["q_len"]), int(row["kv_len"]), int(row["heads"])
    shared = int(row.get("kv_heads") or heads)
    if mask and queries != keys:
        mask = f"{mask} from the end"
    return queries, keys, int(row["batch"]) * shared, heads // shared, int(row["head_dim"]), mask
