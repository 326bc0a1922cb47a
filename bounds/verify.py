"""An independent check of certificates, in exact arithmetic and without the engine or a solver. Taken as given is the
translation of the cascade: index maps, words per element, caps and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from math import exp, inf, log, sqrt
from typing import Any

import numpy as np

Record = dict[str, Any]
Rows = Sequence[Sequence[Fraction]]
SLACK = 1e-6  # relative; the engine rounds its values down by 1e-7, and sums of floats differ in their last digits


def verify(record: Record) -> float:
    """Words proven by the certificate; ValueError when a condition fails or the value claimed is larger."""
    parts = [verify(part) for part in record.get("parts", ())]
    if "modes" in record:
        proven = record["copies"] * _segments(record)
    elif "edges" in record:
        proven = _joint(record)
    elif "unpaid" in record:
        proven = parts[0] - sum(record["unpaid"].values())
    elif "passes" in record:
        times = record["passes"] - 1 + (record["kind"] == "intermediate")
        proven = record["fibers"] * times * max(record["fiber"] * record["width"] - record["memory_words"], 0.0)
        proven += record["elements"] * record["width"] * (record["kind"] != "intermediate")
    else:
        proven = sum(parts) + sum(record["compulsory"].values())
    _require(record["value"] <= max(proven, 0.0) * (1 + SLACK), f"claims {record['value']}, proves {proven}")
    return float(record["value"])


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"certificate refused: {message}")


def _segments(record: Record) -> float:
    for mode in record["modes"]:
        for inequality in mode["inequalities"]:
            for role, program in (("outer", "statement"), ("inner", "operand")):
                if role in inequality:
                    _holds(mode[program], inequality[role])
    length, full, rest = (record["segment"][name] for name in ("length", "full", "rest"))
    memory, most = record["memory_words"], record["volume"] * (1 + SLACK)
    if full < 0:  # one segment, which starts with nothing in fast memory
        length, full, rest, held = rest, 0, 0.0, _chi(record, "only", rest)
    else:
        held = _chi(record, "first", length) + full * _chi(record, "later", memory + length)
        held += _chi(record, "last", memory + rest) if rest > 0 else 0.0
    _require(held <= most and 0 <= rest <= length * (1 + SLACK), "the segments hold more than the volume")
    return float(length * (1 + full) + rest)


def _chi(record: Record, at: str, words: float) -> float:
    found = [exp(_mixture(mode, at, words)) for mode in record["modes"]]
    return max(found) if record["combine"] == "max" else sum(found)


def _mixture(mode: Record, at: str, words: float) -> float:
    """log of K (X / sigma)^sigma prod (s / w)^s for a mixture; a rebuilt operand is replaced by its own inequality."""
    arrays = mode["statement"]["arrays"] | mode.get("operand", {}).get("arrays", {})
    weights, s, constant = mode["mixtures"][at], dict.fromkeys(arrays, 0.0), 0.0
    _require(min(weights) >= 0 and abs(sum(weights) - 1) < 1e-9, "weights of a mixture")
    for weight, inequality in zip(weights, mode["inequalities"], strict=True):
        powers = {name: weight * Fraction(e) for name, e in inequality["outer"]["s"].items()}
        constant += weight * _constant(mode["statement"], inequality["outer"])
        if power := powers.pop(mode.get("rebuilt"), 0.0):
            constant += power * _constant(mode["operand"], inequality["inner"])
            powers |= {name: power * Fraction(e) for name, e in inequality["inner"]["s"].items()}
        for name, e in powers.items():
            s[name] += e
    sigma = sum(s.values())
    shares = sum(e * log(e / arrays[name]["words"]) for name, e in s.items() if e > 0)
    return constant + shares + (sigma * log(words / sigma) if sigma > 0 else 0.0)


def _constant(program: Record, inequality: Record) -> float:
    cap = next((value for loops, value in program["caps"] if loops == inequality["capped"]), inf)
    return log(cap) + sum(float(Fraction(e)) * log(program["extents"][loop]) for loop, e in inequality["t"].items())


def _holds(program: Record, inequality: Record) -> None:
    """The rank conditions on every subspace of the kernels' lattice of each block of loops that dimensions tie."""
    loops = [k for k, loop in enumerate(program["loops"]) if loop not in inequality["capped"]]
    pairs = [(a["index"], Fraction(inequality["s"].get(name, 0))) for name, a in program["arrays"].items()]
    powers = {program["loops"].index(loop): Fraction(e) for loop, e in inequality["t"].items()}
    _require(all(e >= 0 for e in [*powers.values(), *(e for _, e in pairs)]), "negative exponent")
    blocks = [{k} for k in loops]
    for row in (row for index, _ in pairs for row in index):
        tied = [block for block in blocks if any(row[k] for k in block)]
        blocks = [block for block in blocks if block not in tied] + [set().union(*tied)]
    for block in map(sorted, filter(None, blocks)):
        maps = [([[Fraction(row[k]) for k in block] for row in index], e) for index, e in pairs if index]
        maps += [([[Fraction(k == loop) for k in block]], e) for loop, e in powers.items() if loop in block]
        for space in _lattice([_kernel(rows, len(block)) for rows, _ in maps], len(block)):
            images = [(e, (np.array(space, object) @ np.array(rows, object).T).tolist()) for rows, e in maps]
            _require(sum(e * len(_echelon(image)) for e, image in images) >= len(space), "rank condition")


def _echelon(rows: Rows) -> Rows:
    basis: list[list[Fraction]] = []
    while rows := [row for row in rows if any(row)]:
        column = min(next(c for c, v in enumerate(row) if v) for row in rows)
        pivot = next(row for row in rows if row[column])
        pivot = [v / pivot[column] for v in pivot]
        rows = [[v - row[column] * p for v, p in zip(row, pivot, strict=True)] for row in rows]
        basis = [[v - row[column] * p for v, p in zip(row, pivot, strict=True)] for row in basis] + [pivot]
    return basis


def _kernel(rows: Rows, size: int) -> Rows:
    reduced = _echelon(rows)
    at = {next(c for c, v in enumerate(row) if v): row for row in reduced}
    free = [c for c in range(size) if c not in at]
    return [[-at[c][f] if c in at else Fraction(c == f) for c in range(size)] for f in free]


def _lattice(kernels: list[Rows], size: int) -> list[Rows]:
    whole = [[Fraction(a == b) for b in range(size)] for a in range(size)]
    members = {tuple(map(tuple, _echelon(space))) for space in [*kernels, whole] if space}
    for _ in range(8):
        pairs = list(product(members, repeat=2))
        sums = [_echelon([*a, *b]) for a, b in pairs]
        meets = [_echelon(_kernel([*_kernel(a, size), *_kernel(b, size)], size)) for a, b in pairs]
        grown = members | {tuple(map(tuple, space)) for space in [*sums, *meets] if space}
        if grown == members:
            return [list(space) for space in members]
        members = grown
    raise ValueError("certificate refused: the lattice of kernels does not close")


def _joint(record: Record) -> float:
    """2 volume sqrt(w) / (spread sqrt(M)) - producers w elements."""
    names = sorted({name for edge in record["edges"] for name in edge[:2]})
    weights = np.zeros((len(names), len(names)))
    for a, b, weight in record["edges"]:
        weights[[names.index(a), names.index(b)], [names.index(b), names.index(a)]] += weight * (1 + (a == b))
    spread, width = record["spread"], record["width"]
    per_charge = 2 * sqrt(width) / (spread * sqrt(record["memory_words"]))
    _require(spread >= np.linalg.eigvalsh(weights)[-1] * (1 - SLACK), "eigenvalue too small")
    if record["label"] == "recompute-safe":
        _require(record["fiber"] * per_charge >= width * (1 - SLACK), "recomputing pays at this memory")
    return float(record["copies"] * (record["volume"] * per_charge - record["producers"] * width * record["elements"]))
