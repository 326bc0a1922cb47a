"""An independent check of certificates, without engine or solver; maps, words, caps and volumes are taken as given."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from math import exp, inf, log, sqrt
from typing import Any

import numpy as np

from bounds.verify_levels import levels

Record = dict[str, Any]
Rows = Sequence[Sequence[Fraction]]
SLACK = 1e-6  # relative; the engine rounds its values down by 1e-7, and sums of floats differ in their last digits


def verify(record: Record) -> float:
    """Words proven by the certificate; ValueError when a condition fails or the value claimed is larger."""
    parts = [verify(part) for part in record.get("parts", ())]
    if "segment" in record:
        proven = record["copies"] * _segments(record)
    elif "edges" in record:
        proven = _joint(record)
    elif "prices" in record:
        proven = record["copies"] * levels(record)
    elif "unpaid" in record:
        proven = parts[0] - sum(record["unpaid"].values())
    elif "passes" in record:
        beyond = max(record["fiber"] * record["width"] - record["memory_words"], 0.0)
        inside, all_words = record["kind"] == "intermediate", record["elements"] * record["width"]
        proven = record["fibers"] * (record["passes"] - 1 + inside) * beyond + all_words * (not inside)
    else:
        proven = sum(parts) + sum(record["compulsory"].values())
    _require(record["value"] <= max(proven, 0.0) * (1 + SLACK), f"claims {record['value']}, proves {proven}")
    return float(record["value"])


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"certificate refused: {message}")


def _segments(record: Record) -> float:
    for mode, one in ((m, inequality) for m in record.get("modes", ()) for inequality in m["inequalities"]):
        _holds(mode["statement"], one["outer"])
        if "inner" in one:
            _holds(mode["operand"], one["inner"])
    length, full, rest = (record["segment"][name] for name in ("length", "full", "rest"))
    held = _chi(record, "first", length)
    for at, times, words in (("later", full, length), ("last", rest > 0, rest)):
        held += times * _chi(record, at, record["memory_words"] + words) if times else 0.0
    most = record["volume"] * (1 + SLACK)
    _require(held <= most and full >= 0 <= rest <= length * (1 + SLACK), "the segments hold more than the volume")
    return float(length * (1 + full) + rest)


def _chi(record: Record, at: str, words: float) -> float:
    """For a star, the most of kappa (X - p)^2 + sqrt(p) (X - p) / 2; kappa from the tangent of a concave logarithm."""
    if "point" not in record:
        return float((max if record["combine"] == "max" else sum)(exp(_mixture(m, at, words)) for m in record["modes"]))
    (i, j, more, outputs), (rows, columns, own_rows, own_columns) = record["point"], record["widths"]
    inputs = own_rows * i + own_columns * j + more
    slopes = [(1 / i + own_rows / inputs) / rows, (1 / j + own_columns / inputs) / columns, 1 / inputs, 1 / outputs]
    kappa, root = sqrt(i * j * inputs * outputs) * exp(max(slopes) / 2 - 2), np.linspace(0.0, 1.0, 4001)
    left = (1 - root[:-1] ** 2) * words
    return float(np.max(kappa * left**2 + root[1:] * sqrt(words) * left / 2))


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
    pairs = [(a["index"], Fraction(inequality["s"].get(name, 0))) for name, a in program["arrays"].items()]
    powers = {program["loops"].index(loop): Fraction(e) for loop, e in inequality["t"].items()}
    _require(all(e >= 0 for e in [*powers.values(), *(e for _, e in pairs)]), "negative exponent")
    blocks = [{k} for k, loop in enumerate(program["loops"]) if loop not in inequality["capped"]]
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
        pivot = next([v / row[column] for v in row] for row in rows if row[column])
        rows = [[v - row[column] * p for v, p in zip(row, pivot, strict=True)] for row in rows]
        basis = [[v - row[column] * p for v, p in zip(row, pivot, strict=True)] for row in basis] + [pivot]
    return basis


def _kernel(rows: Rows, size: int) -> Rows:
    at = {next(c for c, v in enumerate(row) if v): row for row in _echelon(rows)}
    return [[-at[c][f] if c in at else Fraction(c == f) for c in range(size)] for f in range(size) if f not in at]


def _lattice(kernels: list[Rows], size: int) -> list[Rows]:
    members = {tuple(map(tuple, _echelon(space))) for space in [*kernels, _kernel([], size)] if space}
    for _ in range(8):
        found: list[Rows] = [[*a, *b] for a, b in product(members, repeat=2)]
        found += [_kernel([*_kernel(a, size), *_kernel(b, size)], size) for a, b in product(members, repeat=2)]
        grown = members | {tuple(map(tuple, _echelon(space))) for space in found if space}
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
    width, per_charge = record["width"], 2 * sqrt(record["width"] / record["memory_words"]) / record["spread"]
    _require(record["spread"] >= np.linalg.eigvalsh(weights)[-1] * (1 - SLACK), "eigenvalue too small")
    if record["label"] == "recompute-safe":
        _require(record["fiber"] * per_charge >= width * (1 - SLACK), "recomputing pays at this memory")
    return float(record["copies"] * (record["volume"] * per_charge - record["producers"] * width * record["elements"]))
