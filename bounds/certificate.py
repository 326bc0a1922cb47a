"""Certificates: what `bounds/verify.py` needs to recheck a bound without the engine or a solver. Plain JSON values.

Every certificate has `theorem`, `memory_words` and `value`. Exponents are exact fractions as text; the weights of
mixtures are floating point numbers that sum to 1 (any weights give a valid inequality).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bounds.hbl import Inequality, Program

if TYPE_CHECKING:
    from bounds.chi import Chi, Segments
    from bounds.fusion import Fusion, Mode
    from bounds.joint import Joint
    from bounds.problem import FiberPasses, ValueClass
    from bounds.star import Star
    from bounds.turnover import Turnover, Waste

Certificate = dict[str, Any]


def of_segments(theorem: str, fusion: Fusion, chi: Chi, counted: Segments, memory: float, value: float) -> Certificate:
    """A segment count: its modes with the mixtures at the words of the first, the later and the last segments."""
    segment = _segment(counted)
    length = segment["length"]
    words = {"first": length, "later": memory + length, "last": memory + segment["rest"]}
    modes = []
    for mode, envelope in zip(fusion.modes, chi.modes, strict=True):
        mixtures = {name: envelope.weights[envelope.line_at(x)] for name, x in words.items()}
        used = sorted({int(k) for weights in mixtures.values() for k in np.flatnonzero(weights > 0)})
        modes.append(
            {
                **_mode(mode, used),
                "mixtures": {name: [float(weights[k]) for k in used] for name, weights in mixtures.items()},
            }
        )
    return {
        "theorem": theorem,
        "statement": fusion.statement,
        "memory_words": memory,
        "volume": fusion.volume,
        "copies": fusion.batch,
        "combine": fusion.combine,
        "segment": segment,
        "modes": modes,
        "value": value,
    }


def _segment(counted: Segments) -> Certificate:
    """Length of the segments, full ones after the first, charges of the last; one alone where it holds everything."""
    length, full, rest = float(counted.length[0]), int(counted.full[0]), float(counted.rest[0])
    return {"length": length, "full": full, "rest": rest} if full >= 0 else {"length": rest, "full": 0, "rest": 0.0}


def of_star(around: Star, counted: Segments, memory: float, value: float) -> Certificate:
    """A segment count of all statements around an intermediate that need all of its producers."""
    return {
        "theorem": "star segments",
        "statement": " and ".join(around.statements),
        "memory_words": memory,
        "volume": around.volume,
        "copies": around.batch,
        "intermediate": around.tensor,
        "widths": [around.rows, around.columns, around.own_rows, around.own_columns],
        "point": list(around.point),
        "segment": _segment(counted),
        "value": value,
    }


def of_turnover(around: Turnover, found: Waste, memory: float, value: float) -> Certificate:
    """Scores computed once: the volume, and what row and column words waste for each range of levels."""
    return {
        "theorem": "turnover",
        "label": "no-recompute",
        "memory_words": memory,
        "pairs": around.pairs,
        "rows": around.rows,
        "columns": around.columns,
        "row_words": around.row_words,
        "column_words": around.column_words,
        "width": around.width,
        "copies": around.copies,
        "length": found.length,
        "excess": found.excess,
        "prices": found.prices.tolist(),
        "value": value,
    }


def _mode(mode: Mode, used: list[int]) -> Certificate:
    record: Certificate = {"name": mode.name, "statement": _program(mode.program)}
    if mode.operand is not None:
        record["rebuilt"] = mode.rebuilt
        record["operand"] = _program(mode.operand)
    record["inequalities"] = [
        {"outer": _inequality(mode.terms[k].outer, mode.program)}
        | ({"inner": _inequality(inner, mode.operand)} if (inner := mode.terms[k].inner) and mode.operand else {})
        for k in used
    ]
    return record


def _program(program: Program) -> Certificate:
    return {
        "loops": list(program.loops),
        "extents": dict(program.extents),
        "caps": [[list(loops), cap] for loops, cap in program.caps],
        "arrays": {a.name: {"index": [list(row) for row in a.index], "words": a.words} for a in program.arrays},
    }


def _inequality(inequality: Inequality, program: Program) -> Certificate:
    return {
        "capped": list(inequality.capped),
        "s": {array.name: str(e) for array, e in zip(program.arrays, inequality.s, strict=True) if e},
        "t": {loop: str(e) for loop, e in inequality.t},
    }


def of_joint(joint: Joint, memory: float, value: float, label: str) -> Certificate:
    """A joint count around an intermediate."""
    return {
        "theorem": "joint statements",
        "label": label,
        "memory_words": memory,
        "intermediate": joint.tensor,
        "width": joint.width,
        "elements": joint.elements,
        "edges": [list(edge) for edge in joint.edges],
        "spread": joint.spread,
        "copies": joint.batch,
        "volume": joint.volume,
        "producers": joint.producers,
        "fiber": joint.fiber,
        "value": value,
    }


def of_sum(theorem: str, left: dict[str, float], parts: list[Certificate], memory: float, value: float) -> Certificate:
    """Bounds on different words, and the compulsory traffic of the classes that they do not charge."""
    if not parts:
        theorem = "compulsory"
    return {"theorem": theorem, "memory_words": memory, "compulsory": left, "parts": parts, "value": value}


def of_cut(part: Certificate, unpaid: dict[str, float], memory: float, value: float) -> Certificate:
    """A bound of a group of statements, less the first presence of the tensors that were cut."""
    return {"theorem": "cut", "memory_words": memory, "unpaid": unpaid, "parts": [part], "value": value}


def of_passes(fiber: FiberPasses, own: ValueClass, memory: float, value: float) -> Certificate:
    """A pass bound."""
    return {
        "theorem": "passes",
        "memory_words": memory,
        "tensor": fiber.tensor,
        "rank": fiber.rank,
        "kind": own.kind,
        "width": own.width,
        "elements": own.elements,
        "fiber": fiber.length,
        "fibers": fiber.fibers,
        "passes": fiber.passes,
        "value": value,
    }
