"""An independent check of certificates, without engine or solver; docs/bounds.md has the theorems that it applies.

What the cascade was translated to is taken as given: index maps, words, caps, volumes, pairs, rows and columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import exp, floor, log, sqrt
from typing import Any

import numpy as np

Record = dict[str, Any]
SLACK = 1e-6  # relative; the engine rounds its values down by 1e-7, and sums of floats differ in their last digits


def verify(record: Record) -> float:
    """Words proven by the certificate; ValueError when a condition fails or the value claimed is larger."""
    proven = float(sum(verify(part) for part in record.get("parts", ())))
    proven += sum(record.get("compulsory", {}).values()) - sum(record.get("unpaid", {}).values())
    for kind, check in (("segment", _segments), ("edges", _joint), ("prices", _levels)):
        if kind in record:
            proven += record["copies"] * check(record)
    if "returns" in record:  # fibers in several passes: what does not fit comes back
        proven += record["copies"] * record["returns"] * max(record["fiber_words"] - record["memory_words"], 0.0)
    _require(record["value"] <= max(proven, 0.0) * (1 + SLACK), f"claims {record['value']}, proves {proven}")
    return float(record["value"])


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"certificate refused: {message}")


def _segments(record: Record) -> float:
    """Charges of segments that hold the volume: one that starts empty, full ones, and a rest."""
    length, full, rest = (record["segment"][name] for name in ("length", "full", "rest"))
    held = _chi(record, "first", length) + full * _chi(record, "later", record["memory_words"] + length)
    held += _chi(record, "last", record["memory_words"] + rest) if rest > 0 else 0.0
    fits = held <= record["volume"] * (1 + SLACK) and full >= 0 <= rest <= length * (1 + SLACK)
    _require(fits, "the segments hold more than the volume")
    return float(length * (1 + full) + rest)


def _chi(record: Record, at: str, words: float) -> float:
    """The most operations of X words: those of modes, or of a star, kappa (X - p)^2 + sqrt(p) (X - p)/2 at any p."""
    if "point" not in record:
        return float((max if record["combine"] == "max" else sum)(exp(_mixture(m, at, words)) for m in record["modes"]))
    (i, j, more, outputs), (rows, columns, own_rows, own_columns) = record["point"], record["widths"]
    inputs = own_rows * i + own_columns * j + more
    slopes = [(1 / i + own_rows / inputs) / rows, (1 / j + own_columns / inputs) / columns, 1 / inputs, 1 / outputs]
    kappa, root = sqrt(i * j * inputs * outputs) * exp(max(slopes) / 2 - 2), np.linspace(0.0, 1.0, 4001)
    left = (1 - root[:-1] ** 2) * words
    return float(np.max(kappa * left**2 + root[1:] * sqrt(words) * left / 2))


def _mixture(mode: Record, at: str, words: float) -> float:
    """log of K (X / sigma)^sigma prod (s / w)^s: inequalities of the statement, then of an operand that is rebuilt."""
    powers, constant, arrays = Counter({"statement": 1.0}), 0.0, dict[str, Record]()
    for name, program in mode["programs"].items():
        left, arrays = powers.pop(name, 0.0), arrays | program["arrays"]
        for one in program["inequalities"]:
            weight = one["weights"][at]
            left -= weight
            _require(weight >= 0, "weights of a mixture")
            constant += weight * _proven_constant(program, one)
            powers.update({array: weight * float(Fraction(e)) for array, e in one["exponents"].items()})
        _require(abs(left) < 1e-9, "weights of a mixture")
    counted = [(e, arrays[array]["words"]) for array, e in powers.items() if e > 0 and "words" in arrays[array]]
    constant += sum(e * log(arrays[array]["size"]) for array, e in powers.items() if "words" not in arrays[array])
    sigma = sum(e for e, _ in counted)
    return constant + sum(e * log(e / own) for e, own in counted) + (sigma and sigma * log(words / sigma))


def _proven_constant(program: Record, one: Record) -> float:
    """log of the cap of an inequality that its chain proves: exponents of 1 or more see each form given the earlier."""
    arrays = [(program["arrays"][name]["index"], Fraction(e)) for name, e in one["exponents"].items()]
    capped = [k for k, loop in enumerate(program["loops"]) if loop in one["capped"]]
    _require(all(e >= 0 for _, e in arrays), "negative exponent")
    _require(not any(form[k] for form in one["chain"] for k in capped), "the chain is about loops that a cap covers")
    _require(_rank(one["chain"]) == len(program["loops"]) - len(capped), "the chain does not tell all points apart")
    for k, form in enumerate(one["chain"]):
        spans = [([*index, *one["chain"][:k]], e) for index, e in arrays]
        seen = sum(e for span, e in spans if _rank([*span, form]) == _rank(span))
        _require(seen >= 1, f"the exponents are too small for form {form}")
    return next((log(cap) for loops, cap in program["caps"] if loops == one["capped"]), float("inf"))


def _rank(rows: Sequence[Sequence[int]]) -> int:
    """Exact, by elimination in whole numbers."""
    left, rank = [list(row) for row in rows], 0
    for c in range(len(rows[0]) if rows else 0):
        top = next((row for row in left if row[c]), None)
        if top:
            left = [[v * top[c] - row[c] * t for v, t in zip(row, top, strict=True)] for row in left if row is not top]
            rank += 1
    return rank


def _joint(record: Record) -> float:
    """2 volume sqrt(w) / (spread sqrt(M)) - free w elements; phases 0 and 1 have any shares of the intermediate."""
    names, share = sorted({name for edge in record["edges"] for name in edge[:2]}), np.arange(1, 1001) / 1000
    felt = np.zeros((len(share), len(names), len(names)))
    for a, b, weight, phase in record["edges"]:
        for i, j in ((names.index(a), names.index(b)), (names.index(b), names.index(a))):
            felt[:, i, j] += weight * np.sqrt(share[:: 1 - 2 * phase])
    _require(record["spread"] >= np.max(np.linalg.eigvalsh(felt)) * (1 - SLACK), "eigenvalue too small")
    enough = min(record["free"], record["rebuild"]) > max(phase for *_, phase in record["edges"])
    _require(enough or record["kind"] == "input", "elements that nothing charges")
    per_charge = 2 * sqrt(record["width"] / record["memory_words"]) / record["spread"]
    if record["label"] == "recompute-safe":
        least = record["rebuild"] * record["width"] * (1 - SLACK)
        _require(record["fiber"] * per_charge >= least, "recomputing pays at this memory")
    return float(record["volume"] * per_charge - record["free"] * record["width"] * record["elements"])


def _levels(record: Record) -> float:
    """Words proven by what row and column words waste at least, for ranges of levels (docs/bounds.md, section 10)."""
    memory, length, excess = floor(record["memory_words"] / record["width"]), record["length"], record["excess"]
    own = record["row_words"] * record["column_words"]
    if not record["prices"]:  # segments twice as long as a carried score is worth waste nothing or more
        _require(2 * own <= length <= memory, "length of the segments")
        return float(own * (record["pairs"] / memory - 1) * record["width"])
    low, high, alpha, beta = np.array(record["prices"], float).T
    price = 1 - excess * own / length  # of unused memory; the rest is charged to the words of carried scores
    _require(excess > 1 and length == floor(length) <= memory, "length of the segments")
    _require(price > 0 and price**2 >= 1 - price and length * (2 + 1 / price) <= memory, "price of unused memory")
    _require(low[0] <= 0 and high[-1] >= memory and bool(np.all(low[1:] <= high[:-1])), "levels are missing")
    paid = _paid(memory - low + length, low - length, alpha, beta, length, price, memory)
    paid &= _paid(high, memory - high, beta, alpha, length, price, memory)
    _require(bool(np.all(paid)) and min(alpha.min(), beta.min()) >= 0, "prices that nothing pays")
    risen, cut = low - length, alpha + length
    fill = price * (memory * risen - risen**2 / 2) - high * (length / 4 + beta)
    fill += np.where(risen >= cut, risen**2 / 2 - cut * risen, -(cut**2) / 2)
    rows, columns = record["rows"] * record["row_words"], record["columns"] * record["column_words"]
    waste = alpha * rows + beta * columns - np.maximum(alpha, beta) * length + np.maximum(fill, 0.0)
    least = min(np.min(waste - (alpha + beta) ** 2 / (4 * (excess - 1))), (excess - 1) * min(rows, columns) ** 2)
    return float(((own * record["pairs"] + least) / memory - own) * record["width"])


def _paid(start: Any, room: Any, own: Any, other: Any, length: float, price: float, memory: float) -> Any:
    """Whether `own` is paid for each word of a batch that comes in while words of the other side leave."""
    left = np.clip((memory - length - other) / (1 + price), 0.0, np.maximum(room, 0.0))
    loaded = (memory - left) ** 2 - start**2 - 2 * (length + other) * (memory - left - start)
    enough = (price * left**2 + loaded >= (own + length) ** 2) & (own + length <= price * room)
    return (own == 0) | (enough & (own <= memory - length * (2 + 1 / price)))
