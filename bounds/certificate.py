"""Certificates: what `bounds/verify.py` needs to recheck a bound without the engine or a solver. Plain JSON values.

Every certificate has `theorem`, `memory_words` and `value`. Exponents are exact fractions as text; the weights of
mixtures are floating point numbers that sum to 1 (any weights give a valid inequality).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bounds.hbl import Inequality, Program

if TYPE_CHECKING:
    from bounds.chi import Chi, Segments
    from bounds.fusion import Fusion, Mode
    from bounds.joint import Joint
    from bounds.problem import FiberPasses, ValueClass
    from bounds.star import Star
    from bounds.turnover import Turnover, Waste

Certificate = dict[str, Any]
Floats = NDArray[np.float64]


def of_segments(theorem: str, fusion: Fusion, chi: Chi, counted: Segments, memory: float, value: float) -> Certificate:
    """A segment count: its modes with the mixtures at the words of the first, the later and the last segments."""
    segment = _segment(counted)
    length = segment["length"]
    words = {"first": length, "later": memory + length, "last": memory + segment["rest"]}
    weights = [{name: envelope.weights[envelope.line_at(x)] for name, x in words.items()} for envelope in chi.modes]
    return {
        "theorem": theorem,
        "statement": fusion.statement,
        "memory_words": memory,
        "volume": fusion.volume,
        "copies": fusion.batch,
        "combine": fusion.combine,
        "segment": segment,
        "modes": [_mode(mode, own) for mode, own in zip(fusion.modes, weights, strict=True)],
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


def _mode(mode: Mode, weights: dict[str, Floats]) -> Certificate:
    """The statement's inequalities with their weights in each kind of segment, then those of a rebuilt operand.

    The weights of the statement's sum to 1, those of the operand's to the exponent that the operand has among them.
    """
    used = sorted({int(k) for own in weights.values() for k in np.flatnonzero(own > 0)})
    whole: dict[Inequality, Floats] = {}
    inside: dict[Inequality, Floats] = {}
    for k in used:
        term, own = mode.terms[k], np.array([weights[at][k] for at in weights])
        whole[term.outer] = whole.get(term.outer, 0.0) + own
        power = float(term.outer.s[0]) if term.inner else 0.0
        if term.inner and power:
            inside[term.inner] = inside.get(term.inner, 0.0) + power * own
    programs = {"statement": _program(mode.program, whole, list(weights))}
    if mode.operand is not None and mode.rebuilt is not None:
        programs[mode.rebuilt] = _program(mode.operand, inside, list(weights))
    return {"name": mode.name, "programs": programs}


def _program(program: Program, used: dict[Inequality, Floats], places: list[str]) -> Certificate:
    """What is counted, and its inequalities; loops of bounded length are arrays of that size."""
    loops = {loop for inequality in used for loop, _ in inequality.t}
    axes = {loop: [[int(loop == other) for other in program.loops]] for loop in program.loops if loop in loops}
    arrays = {a.name: {"index": [list(row) for row in a.index], "words": a.words} for a in program.arrays}
    return {
        "loops": list(program.loops),
        "caps": [[list(loops), cap] for loops, cap in program.caps],
        "arrays": arrays | {f"|{loop}|": {"index": axis, "size": program.extents[loop]} for loop, axis in axes.items()},
        "inequalities": [
            {
                "capped": list(one.capped),
                "exponents": {array.name: str(e) for array, e in zip(program.arrays, one.s, strict=True) if e}
                | {f"|{loop}|": str(e) for loop, e in one.t},
                "chain": [list(form) for form in one.chain],
                "weights": dict(zip(places, map(float, weights), strict=True)),
            }
            for one, weights in used.items()
        ],
    }


def of_joint(joint: Joint, memory: float, value: float, label: str) -> Certificate:
    """A joint count around an intermediate or an input."""
    return {
        "theorem": "joint phases" if joint.rebuild > 1 else "joint statements",
        "label": label,
        "memory_words": memory,
        "around": joint.tensor,
        "kind": joint.kind,
        "width": joint.width,
        "elements": joint.elements,
        "edges": [list(edge) for edge in joint.edges],
        "spread": joint.spread,
        "copies": joint.batch,
        "volume": joint.volume,
        "free": joint.free,
        "rebuild": joint.rebuild,
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


def of_passes(fiber: FiberPasses, own: ValueClass, once: float, memory: float, value: float) -> Certificate:
    """A pass bound: each fiber `returns` but for the words that stay, besides the words that move `once`."""
    inside = own.kind == "intermediate"
    return {
        "theorem": "passes",
        "memory_words": memory,
        "tensor": fiber.tensor,
        "rank": fiber.rank,
        "passes": fiber.passes,
        "copies": fiber.fibers,
        "fiber_words": fiber.length * own.width,
        "returns": fiber.passes - 1 + inside,
        "compulsory": {fiber.tensor: once} if once else {},
        "value": value,
    }
