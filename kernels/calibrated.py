"""An architecture from a calibration: what its facts tell of a GPU, and all else as on one that it is like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from einsum.errors import SpecError
from kernels.calibrate import Fact

Facts = Mapping[str, list[Fact]]


def architecture(document: Mapping[str, Any], name: str, like: str, source: str) -> str:
    """The YAML text of architecture `name`: a calibration's variables, each with the section that tells it.

    `document`: what `calibrate` writes; `like`: the architecture that has what no section tells (tensor cores under
    load, instructions, energies). Raises SpecError where a section that is read lacks a fact.
    """
    lines = [
        f"architecture: {name}",
        f"like: {like}",
        f"description: {document['gpu']['device']}, as measured; what was not is that of {like}",
        f"source: {source}",
        "",
        "variables:",
    ]
    for variable, value, told_by in _variables(document["gpu"], document["facts"]):
        lines.append(f"  {variable}: {value}  # {told_by}")
    return "\n".join(lines) + "\n"


def write_architecture(document: Mapping[str, Any], path: Path, like: str, source: str) -> None:
    """Write that to `path`; the file's stem is its name."""
    text = architecture(document, path.stem, like, source)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _variables(gpu: Mapping[str, Any], facts: Facts) -> list[tuple[str, str, str]]:
    """Name, value in SI units, and what tells it."""
    multiprocessors = int(gpu["multiprocessors"])
    clock_hz = 1e6 * _of(facts, "arithmetic", "sm_clock_mhz", kind="exponentials")
    lane_hz = multiprocessors * clock_hz
    empty_s, many_s = (
        1e-3 * _of(facts, "launch", "ms", blocks=blocks) for blocks in (1, _most(facts, "launch", "blocks"))
    )

    def rate(kind: str) -> float:
        return _of(facts, "arithmetic", "operations_per_s", kind=kind)

    found: list[tuple[str, float, str]] = [
        ("multiprocessors", multiprocessors, "driver"),
        ("clock_hz", clock_hz, "measured, arithmetic: the driver's reading while exp2 runs"),
        ("registers_per_multiprocessor", gpu["registers_per_multiprocessor"], "driver"),
        ("shared_memory", gpu["shared_bytes_per_multiprocessor"], "driver"),
        ("memory_capacity", gpu["memory_bytes"], "driver"),
        ("l2_capacity", gpu["l2_bytes"], "driver"),
        ("sfu_lanes", rate("exponentials") / lane_hz, "measured, arithmetic: exp2"),
        ("fp32_lanes", rate("multiply_adds") / lane_hz, "measured, arithmetic"),
        ("dram_read_bandwidth", _largest(facts, "memory", "read"), "measured, memory: the largest buffer"),
        ("dram_write_bandwidth", _largest(facts, "memory", "fill"), "measured, memory: the largest buffer"),
        ("dram_copy_bandwidth", _largest(facts, "memory", "copy"), "measured, memory: the largest buffer"),
        ("dram_first_latency", 1e-9 * _best(facts, "latency", "cold_load_ns", min), "measured, latency: cold"),
        ("l2_latency", 1e-9 * _best(facts, "latency", "warm_load_ns", max), "measured, latency: warm, largest ring"),
        ("l2_bandwidth", _best(facts, "resident", "bytes_per_s", max, kind="read"), "measured, resident: reads"),
        ("block_launch", (many_s - empty_s) / _most(facts, "launch", "blocks"), "measured, launch"),
    ]  # fmt: skip
    shown = [(name, f"{value:.6g}" if isinstance(value, float) else str(value), told) for name, value, told in found]
    return [*shown, ("launch_latency", f"{empty_s:.4g} - block_latency", "measured, launch: an empty kernel")]


def _chosen(facts: Facts, section: str, fact: str, **which: Any) -> list[Fact]:
    rows = [row for row in facts.get(section, []) if row.get(fact) is not None and which.items() <= row.items()]
    if not rows:
        described = "".join(f" of {key} {value}" for key, value in which.items())
        raise SpecError(f"the calibration has no '{fact}'{described}", key=f"facts.{section}")
    return rows


def _of(facts: Facts, section: str, fact: str, **which: Any) -> float:
    return float(_chosen(facts, section, fact, **which)[0][fact])  # type: ignore[arg-type]


def _best(facts: Facts, section: str, fact: str, choose: Callable[[list[float]], float], **which: Any) -> float:
    return choose([float(row[fact]) for row in _chosen(facts, section, fact, **which)])  # type: ignore[arg-type]


def _most(facts: Facts, section: str, fact: str) -> int:
    return int(_best(facts, section, fact, max))


def _largest(facts: Facts, section: str, kind: str) -> float:
    """Bytes a second of the largest buffer."""
    rows = _chosen(facts, section, "bytes_per_s", kind=kind)
    return float(max(rows, key=lambda row: float(row["bytes"]))["bytes_per_s"])  # type: ignore[arg-type]
