"""`analyse`: the bound, the best schedule, the gap and named schedules at each fast memory size, as a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil, isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bounds.composition import passed_again
from bounds.engine import LABELS, LowerBound, compulsory, lower_bound
from bounds.masks import conditions_of
from bounds.measured import Measurement
from bounds.named_schedules import SCHEDULES, Traffic
from bounds.pattern import Pattern
from bounds.problem import Problem
from bounds.reader import read_problem
from bounds.schedules import Schedules, find_schedules, smallest_memory
from bounds.staircase import Staircase
from einsum.cascade import Cascade
from einsum.errors import InternalError, SpecError, nearest
from einsum.files import output_folder, whole_file
from einsum.units import format_quantity

Floats = NDArray[np.float64]
CURVE_POINTS = 257


@dataclass(frozen=True)
class ScheduleTraffic:
    """Words that a named schedule moves, whether it fits in the memory, and its blocks."""

    words: float
    fits: bool
    blocks: str


@dataclass(frozen=True)
class BoundsRow:
    """Everything at one fast memory size. `best_schedule_words` and `gap` are None where no schedule is known.

    `level` names the memories of an architecture that have the size.
    """

    fast_memory_words: float
    lower_bound_words: float
    label: str
    theorem: str
    certificate: dict[str, Any]
    best_schedule_words: float | None
    best_schedule: str | None
    gap: float | None
    schedules: dict[str, ScheduleTraffic]
    level: str | None = None


@dataclass(frozen=True)
class OwnSchedule:
    """A schedule that the user brings, such as a mapping: bytes that it moves, and the fast memory that it needs."""

    name: str
    traffic_bytes: float
    fast_memory_bytes: float

    def describe(self, _: int) -> str:
        """The name, as that of a best schedule."""
        return self.name


@dataclass(frozen=True)
class BoundsReport:
    """The rows, what they are about, and what a reader should know.

    operations       multiplications of all sums of products
    compulsory       words of each input and output that move at least once
    memories         names of real memories and their bytes, for the plots
    remarks          Einsums left out of the bounds, or why no schedule is compared
    curve            further rows between the smallest and the largest memory, for the plots
    """

    cascade: str
    sizes: dict[str, Any]
    mask: str | None
    word_bytes: float
    operations: float
    compulsory: dict[str, float]
    rows: tuple[BoundsRow, ...]
    remarks: tuple[str, ...] = ()
    memories: dict[str, float] = field(default_factory=dict)
    measured: tuple[Measurement, ...] = ()
    curve: tuple[BoundsRow, ...] = ()

    def to_json(self) -> str:
        """The rows as a JSON list, one object for each fast memory size."""
        return json.dumps([asdict(row) for row in self.rows], indent=2)

    def write(self, folder: str | Path) -> tuple[Path, ...]:
        """Write bounds.md, bounds.html and bounds.json; nothing is left behind when one cannot be made."""
        from bounds.pages import html_page, markdown_page

        texts = {"bounds.md": markdown_page(self), "bounds.html": html_page(self), "bounds.json": self.to_json() + "\n"}
        with output_folder(folder) as target:
            for name, text in texts.items():
                with whole_file(target / name) as partial:
                    partial.write_text(text, encoding="utf-8")
        return tuple(target / name for name in texts)


def analyse(
    cascade: Cascade | str,
    extents: Mapping[str, Any],
    fast_memory_words: ArrayLike,
    *,
    mask: str | Pattern | None = None,
    word_bytes: float = 2,
    schedules: Sequence[str] = (),
    label: str = "recompute-safe",
    own: Sequence[OwnSchedule] = (),
    levels: Mapping[str, float] | None = None,
    memories: Mapping[str, float] | None = None,
    measured: Sequence[Measurement] = (),
    curve: bool = False,
) -> BoundsReport:
    """Bounds and schedules of a cascade at sizes `extents`, for each fast memory size (words of `word_bytes` bytes).

    mask       `causal`, `window:W`, `band:W`, `blocks:FILE` or a Pattern, on top of a cascade without conditions
    schedules  names of `named_schedules.SCHEDULES` to count as well, or `mapper` for the mapper's search
    own        the user's own schedules, counted beside the named ones
    levels     names of memories and their bytes: rows of that size carry the name
    memories   names of memories and their bytes, as marks in the plots
    measured   traffic that was measured, each compared with the bound in its own memory
    label      the class of algorithms that the bound must hold for: a key of `engine.LABELS`, or `schedule-class`
    curve      whether the plots get rows between the sizes asked for

    SpecError for sizes that are not positive, a memory too small for any schedule known (with the words needed),
    unknown names, and problems outside the class.
    """
    chosen = Cascade.load(cascade) if isinstance(cascade, str) else cascade
    known = (*LABELS, "schedule-class")
    if label not in known:
        raise SpecError(f"unknown label '{label}'{nearest(label, known)}")
    if not word_bytes > 0:
        raise SpecError(f"a word of {word_bytes} bytes: expected a positive size")
    memory = np.atleast_1d(np.asarray(fast_memory_words, float))
    if memory.ndim != 1 or memory.size == 0 or not np.all(np.isfinite(memory)) or np.any(memory <= 0):
        raise SpecError("fast memory sizes must be positive numbers of words")
    problem = read_problem(chosen, extents, mask, word_bytes)
    found = find_schedules(problem, recompute=label != "no-recompute")
    if label == "no-recompute" and passed_again(problem):
        found = replace(found, written=find_schedules(problem, recompute=False, written=True).best)
    _refuse_too_small(problem, found, memory)
    found.named([name for name in schedules if name in SCHEDULES], memory)  # refused before the mapper takes its time
    found = _joined(found, chosen, extents, memory, word_bytes, problem, [*schedules], own, mask)
    names = [*schedules, *(one.name for one in own)]
    named_levels: dict[float, str] = {}
    for name, size in (levels or {}).items():
        words = float(size // word_bytes)
        named_levels[words] = f"{named_levels[words]}, {name}" if words in named_levels else name
    return BoundsReport(
        cascade=chosen.name,
        sizes={name: _plain(value) for name, value in extents.items()},
        mask=mask if isinstance(mask, str) or mask is None else f"{mask.pairs} pairs",
        word_bytes=float(word_bytes),
        operations=sum(problem.volume(s.loops) for s in problem.statements),
        compulsory={_told(chosen, problem, name): words for name, words in compulsory(problem).items()},
        rows=_rows(problem, found, memory, names, label, named_levels),
        remarks=(*problem.remarks, *([found.reason] if found.reason else []), *_too_large(own, memory, word_bytes)),
        memories=dict(memories or {}),
        measured=_compared(problem, measured, word_bytes, label),
        curve=_rows(problem, found, _between(memory), names, label, {}) if curve and memory.size > 1 else (),
    )


def _between(memory: Floats) -> Floats:
    """The sizes, and others among them close enough for a plot."""
    return np.unique([*memory, *np.round(np.geomspace(memory.min(), memory.max(), CURVE_POINTS))[1:-1]])


def _too_large(own: Sequence[OwnSchedule], memory: Floats, word_bytes: float) -> list[str]:
    """What the user's schedules need that fit in none of the memories."""
    return [
        f"{one.name} needs {format_quantity(one.fast_memory_bytes, 'bytes')}: all memory inside the outermost one, "
        "registers included"
        for one in own
        if one.fast_memory_bytes > memory.max() * word_bytes
    ]


def _told(cascade: Cascade, problem: Problem, name: str) -> str:
    """The name that a user knows an input or output class by."""
    members = problem.classes[name].members
    return next((m for m in members if cascade.tensors[m].kind in ("input", "output")), name)


def _joined(
    found: Schedules,
    cascade: Cascade,
    extents: Mapping[str, Any],
    memory: Floats,
    word_bytes: float,
    problem: Problem,
    names: list[str],
    own: Sequence[OwnSchedule],
    mask: str | Pattern | None,
) -> Schedules:
    """The closed forms, the user's schedules, and what the mapper finds where it is asked for or nothing else is."""
    for one in own:
        stairs = Staircase.of([one.fast_memory_bytes / word_bytes], [one.traffic_bytes / word_bytes], one.describe)
        found = found.joined(one.name, stairs)
    if "mapper" in names or (found.least is None and not problem.remarks):
        from bounds.mapped import mapper_schedules

        named = isinstance(mask, str) and not mask.startswith("blocks:")  # other masks cannot be said by conditions
        where = conditions_of(cascade, extents, mask) if isinstance(mask, str) and named else ()
        try:
            found = found.joined("mapper", mapper_schedules(cascade, extents, memory, word_bytes, where))
        except SpecError as error:
            if "mapper" in names:
                raise error.located(key="--schedules") from None
            return replace(found, reason=f"{found.reason}; {error.message}")
        return replace(found, reason=f"{found.reason}; the mapper's search stands for it" if found.reason else "")
    return found


def _compared(
    problem: Problem, measured: Sequence[Measurement], word_bytes: float, label: str
) -> tuple[Measurement, ...]:
    """Measurements with the bound in their own memory; in any memory, where theirs is not known."""
    if label == "schedule-class":
        return tuple(measured)
    least = sum(compulsory(problem).values()) * word_bytes
    known = [one for one in measured if one.fast_memory_bytes]
    sizes = np.array([(one.fast_memory_bytes or 0.0) / word_bytes for one in known])
    at = dict(zip(known, lower_bound(problem, sizes, label).words * word_bytes, strict=True)) if known else {}
    return tuple(replace(one, bound_bytes=float(at.get(one, least))) for one in measured)


def _rows(
    problem: Problem, found: Schedules, memory: Floats, names: Sequence[str], label: str, levels: Mapping[float, str]
) -> tuple[BoundsRow, ...]:
    if label == "schedule-class":
        if found.best is None:
            raise SpecError(f"no bound over a class of schedules: {found.reason}")
        best, described = found.best.at(memory)
        bound = LowerBound(
            memory,
            best,
            ("least of the enumerated schedules",) * memory.size,
            (label,) * memory.size,
            tuple({"theorem": "enumeration", "schedule": name} for name in described),
        )
    else:
        bound = lower_bound(problem, memory, label)
        best, described = found.best_at(memory, bound.theorems)
    named = found.named(names, memory)
    if label != "schedule-class":
        _refuse_below(bound, best, described, named)
    whole = all(value.width == 1 for value in problem.classes.values())
    rows = []
    for k in range(memory.size):
        # I/O is counted in whole words; the small tolerance keeps rounding from adding one.
        words = float(ceil(bound.words[k] - 1e-6)) if whole else float(bound.words[k])
        least = None if isnan(best[k]) else float(best[k])
        rows.append(
            BoundsRow(
                fast_memory_words=_whole(float(memory[k])),
                lower_bound_words=_whole(words),
                label=bound.labels[k],
                theorem=bound.theorems[k],
                certificate=bound.certificates[k],
                best_schedule_words=None if least is None else _whole(least),
                best_schedule=None if least is None else described[k],
                gap=least / words if least is not None and words > 0 else None,
                schedules={
                    n: ScheduleTraffic(_whole(float(t.words[k])), bool(t.fits[k]), t.blocks[k])
                    for n, t in named.items()
                },
                level=levels.get(float(memory[k])),
            )
        )
    return tuple(rows)


def _refuse_below(bound: LowerBound, best: Floats, described: Sequence[str], named: Mapping[str, Traffic]) -> None:
    """InternalError where a schedule that fits moves less than the bound; a part in 10^6 is left to rounding.

    A bound without recomputation is none for schedules that recompute, as some of these do.
    """
    holds = np.array([label != "no-recompute" for label in bound.labels])
    tried = [("the best schedule", best, np.isfinite(best), described)]
    tried += [(f"the schedule {name}", t.words, t.fits, t.blocks) for name, t in named.items()]
    for name, words, fits, blocks in tried:
        below = np.flatnonzero(holds & fits & (words < np.floor(bound.words * (1 - 1e-6))))
        for k in below[:1].tolist():
            raise InternalError(
                f"{name} ({blocks[k]}) moves {words[k]:,.0f} words, and the bound ({bound.theorems[k]}) "
                f"says that none moves less than {bound.words[k]:,.0f} with {bound.memory[k]:,.0f} words of fast "
                "memory; one of the two is wrong"
            )


def _refuse_too_small(problem: Problem, found: Schedules, memory: Floats) -> None:
    needed, what = smallest_memory(problem, found)
    if memory.min() < needed:
        raise SpecError(
            f"a fast memory of {_whole(float(memory.min()))} words is too small: {what} is {_whole(needed)} words",
            key="fast_memory_words",
        )


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
