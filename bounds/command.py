"""What the command `einsight bounds` does: texts in, a report out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from architectures import Architecture, EvaluatedArchitecture
from architectures.gpu import Gpu
from bounds.attention_schedules import Heads
from bounds.heads import heads_of
from bounds.measured import Measurement, read_measurements
from bounds.pattern import Pattern
from bounds.reader import read_problem, score_ranks
from bounds.report import BoundsReport, OwnSchedule, analyse
from einsum.cascade import Cascade
from einsum.errors import SpecError, refuse_unknown
from einsum.evaluation import Name
from einsum.units import parse_quantity

Floats = NDArray[np.float64]
MOST_SIZES = 10_000
MARKED = ("h100-sxm", "fusemax", "flat-cloud", "tpu-v4i")  # a GPU, two research designs and a TPU: enough for a plot
DEFAULT_SIZES = "16KiB:64MiB:log"
REGISTERS = "registers_per_multiprocessor"
PLACEHOLDER = 4096
"""Stands for sizes that are not given while ranks are told apart: enough for the blocks and windows of a cascade."""


def run_bounds(
    cascade: str | Cascade,
    settings: Mapping[str, Any],
    *,
    fast_memory: str | None = None,
    mask: str | Pattern | None = None,
    word_bytes: float = 2,
    schedules: str | Sequence[str] = (),
    label: str = "recompute-safe",
    architecture: str | None = None,
    architecture_settings: Mapping[str, Any] | None = None,
    measured: str | Path | None = None,
    own: Sequence[OwnSchedule] = (),
    out: str | Path | None = None,
) -> BoundsReport:
    """Analyse a cascade as the command's options say, and write the report to `out` when it is given.

    Without `fast_memory` the sizes are the architecture's bounded memories, level by level, or 16 KiB to 64 MiB.
    `architecture_settings` are values for the architecture's variables, looked up in `settings` when not given.
    The settings N (length of sequences) and d (width of heads) stand for several extents, see `complete_sizes`.
    """
    chosen = Cascade.load(cascade) if isinstance(cascade, str) else cascade
    check_names(chosen, settings, architecture)
    sizes = complete_sizes(chosen, settings)
    memories = _memories(architecture, architecture_settings or settings) if architecture else {}
    if fast_memory is not None or not memories:
        words = parse_memory_sizes(fast_memory or DEFAULT_SIZES, word_bytes)
        levels = {}
    else:
        words = np.unique(np.floor(np.array(list(memories.values())) / word_bytes))
        levels = memories
    names = [name.strip() for name in schedules.split(",") if name.strip()] if isinstance(schedules, str) else schedules
    known = {name: value for name, value in sizes.items() if name in {*chosen.parameters, *chosen.variables}}
    report = analyse(
        chosen,
        known,
        words,
        mask=mask,
        word_bytes=word_bytes,
        schedules=names,
        label=label,
        own=own,
        levels=levels,
        memories=memories or known_memories(),
        measured=_measured(measured, chosen, known, mask, word_bytes) if measured else (),
        curve=out is not None,
    )
    if architecture and levels:
        remarks = _copies(architecture, architecture_settings or settings)
        report = replace(report, remarks=(*report.remarks, *remarks))
    if out is not None:
        report.write(out)
    return report


def parse_memory_sizes(text: str, word_bytes: float = 2) -> Floats:
    """Fast memory sizes in words from "16KiB:64MiB:log", "1024,4096" or a list of both.

    A number with a unit is bytes, one without is words. A range goes in powers of two from its first end, or in N
    sizes with "low:high:log:N" and "low:high:lin:N". SpecError for anything else, and for sizes below one word.
    """
    if not word_bytes > 0:
        raise SpecError(f"a word of {word_bytes} bytes: expected a positive size")
    found = np.concatenate([_sizes(part.strip(), word_bytes, text) for part in text.split(",")])
    return np.unique(found) if ":" in text else found


def _sizes(entry: str, word_bytes: float, text: str) -> Floats:
    """The sizes of one entry of a list: a size or a range."""
    parts = [part.strip() for part in entry.split(":")]
    if len(parts) == 1:
        return np.array([_words(entry, word_bytes, text)], float)
    if len(parts) not in (3, 4) or parts[2] not in ("log", "lin") or (parts[2] == "lin" and len(parts) == 3):
        raise SpecError(f"expected sizes such as '1024,4096' or '16KiB:64MiB:log', found '{text}'", key="--fast-memory")
    low, high = _words(parts[0], word_bytes, text), _words(parts[1], word_bytes, text)
    if high < low:
        raise SpecError(f"the range '{entry}' ends below its start", key="--fast-memory")
    if len(parts) == 3:
        return np.array([low * 2**k for k in range(int(np.floor(np.log2(high / low) + 1e-9)) + 1)], float)
    if not parts[3].isdecimal() or not 2 <= int(parts[3]) <= MOST_SIZES:
        raise SpecError(f"expected 2 to {MOST_SIZES} sizes, found '{parts[3]}' in '{text}'", key="--fast-memory")
    spaced = np.geomspace if parts[2] == "log" else np.linspace
    return np.unique(np.round(spaced(low, high, int(parts[3]))))


def _words(text: str, word_bytes: float, whole: str) -> int:
    plain = text.replace("_", "").replace(".", "", 1).isdecimal()
    try:
        words = float(text) if plain else parse_quantity(text, "bytes") / word_bytes
    except SpecError as error:
        raise SpecError(f"{error.message} in '{whole}'", key="--fast-memory") from None
    if words < 1:
        raise SpecError(f"a fast memory of '{text}' is less than one word", key="--fast-memory")
    return int(words)


def check_names(
    cascade: Cascade, settings: Mapping[str, Any], architecture: str | None, more: Iterable[str] = ()
) -> None:
    """SpecError for a setting that neither the cascade nor the architecture nor `more` knows, nor the shorthands."""
    known = {*cascade.parameters, *cascade.variables, "N", "d", *more}
    known |= set(Architecture.load(architecture).known_names) if architecture else set()
    refuse_unknown(settings, known)


def complete_sizes(cascade: Cascade, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with N and d spelled out where the cascade has scores and does not use these names itself.

    N gives the extents of the scores' ranks, d those of the ranks summed by the first product and kept by the
    second; extents of other ranks of an attention that are not given (batch, heads) are then 1, also where N and d
    are not used.
    """
    sizes = dict(settings)
    missing = [name for name in cascade.parameters if name not in sizes]
    shorthands = [name for name in ("N", "d") if name in sizes and name not in cascade.parameters]
    if not missing:
        return sizes
    try:
        roles = score_ranks(cascade, {**sizes, **dict.fromkeys(missing, PLACEHOLDER)})
    except SpecError as error:
        if not shorthands:
            return sizes
        raise SpecError(f"{error.message}; {cascade.name} needs {', '.join(cascade.parameters)}", key="--set") from None
    values = {
        "N": {_extent(cascade, rank) for rank in roles.positions},
        "d": {_extent(cascade, rank) for rank in roles.widths},
    }
    for shorthand in shorthands:
        if not values[shorthand] & set(cascade.parameters):
            raise SpecError(
                f"{shorthand} stands for no size of {cascade.name}, which needs {', '.join(cascade.parameters)}",
                key="--set",
            )
        for name in missing:
            if name in values[shorthand]:
                sizes[name] = sizes[shorthand]
        if shorthand not in cascade.variables:
            del sizes[shorthand]
    ranks = {_extent(cascade, rank) for rank in cascade.ranks if rank not in (*roles.positions, *roles.widths)}
    return sizes | {name: 1 for name in missing if name not in sizes and name in ranks}


def _extent(cascade: Cascade, rank: str) -> str:
    """The name that is the rank's extent, or empty text for a number or a formula."""
    root = cascade.ranks[rank].extent.root
    return root.name if isinstance(root, Name) else ""


def _memories(architecture: str, settings: Mapping[str, Any]) -> dict[str, float]:
    """The bounded memories of an architecture, outermost first: bytes of one copy."""
    described = Architecture.load(architecture)
    known = {name: value for name, value in settings.items() if name in described.known_names}
    evaluated = described.evaluate(known)
    found = {name: float(m.capacity_bytes) for name, m in evaluated.memories.items() if not m.unbounded}
    found.pop(evaluated.backing_store.name, None)
    if not found:
        raise SpecError(f"the architecture '{evaluated.name}' has no memory of known size inside its outermost one")
    return found


def _copies(architecture: str, settings: Mapping[str, Any]) -> list[str]:
    """A sentence for each memory of which there are several, and one on the memory that all of them are together."""
    described = Architecture.load(architecture)
    evaluated = described.evaluate({name: v for name, v in settings.items() if name in described.known_names})
    inner = list(evaluated.memories.values())[1:]
    several = [m for m in inner if not m.unbounded and float(m.copies) > 1]
    found = [f"{m.name}: one of {float(m.copies):g} copies; its row is for one that does all the work" for m in several]
    if not any(m.unbounded for m in inner):
        size = on_chip_bytes(evaluated)
        found.append(
            f"where memories hold other data than those inside them, the bound of {evaluated.backing_store.name} is "
            f"that of all together, registers included: --fast-memory {size:.0f}B"
        )
    return found


def on_chip_bytes(machine: EvaluatedArchitecture) -> float:
    """All memory inside the outermost one, registers included (one word for each element that names none; those of a
    GPU's multiprocessors have 4 bytes)."""
    memories = sum(float(m.capacity_bytes) * float(m.copies) for m in list(machine.memories.values())[1:])
    words = sum(
        float(unit.elements) * float(unit.copies) * float(unit.registers.words if unit.registers else 1)
        for unit in machine.units.values()
    )
    if REGISTERS in machine.variables:
        gpu = Gpu.of(machine)
        return memories + 4.0 * gpu.registers_per_multiprocessor * gpu.multiprocessors
    return memories + words * float(machine.word_bytes)


def known_memories() -> dict[str, float]:
    """Memories of some of the library's machines at their default sizes: marks that show where real ones are."""
    found: dict[str, float] = {}
    for name in MARKED:
        try:
            found |= {f"{name} {level}": size for level, size in _memories(name, {}).items()}
        except SpecError:
            continue  # a description without sizes of its own has no place on the axis
    return found


def _measured(
    path: str | Path, cascade: Cascade, sizes: Mapping[str, Any], mask: str | Pattern | None, word_bytes: float
) -> tuple[Measurement, ...]:
    heads = heads_of(read_problem(cascade, sizes, mask, word_bytes))
    name = mask if isinstance(mask, str) else None
    return read_measurements(path, heads if isinstance(heads, Heads) else None, name, word_bytes)
