"""An independent check of one kind of certificate, the prices of `bounds/turnover.py`; docs/bounds.md, section 10.

`prices` holds for ranges of levels, from 0 to the memory, what each row word and each column word wastes at least. A
range holds for all its levels when the conditions hold at its ends. Pairs, rows and columns are taken as given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def levels(record: Mapping[str, Any]) -> float:
    """Words proven for one copy; ValueError when a condition fails."""
    memory, length, excess = (float(record[key]) for key in ("memory_words", "length", "excess"))
    row, column = record["row_words"], record["column_words"]
    memory = np.floor(memory / record["width"])
    if not record["prices"]:  # segments twice as long as a carried score is worth waste nothing or more
        _require(2 * row * column <= length <= memory, "length of the segments")
        return float(row * column * (record["pairs"] / memory - 1) * record["width"])
    carried = excess * row * column / length  # what a carried score's word is charged, of what it wastes
    low, high, alpha, beta = np.array(record["prices"], float).T
    price = 1 - carried
    _require(excess > 1 and length <= memory and length == np.floor(length), "length of the segments")
    _require(price**2 >= 1 - price and price > 0 and length * (2 + 1 / price) <= memory, "price of unused memory")
    _require(low[0] <= 0 and high[-1] >= memory and bool(np.all(low[1:] <= high[:-1])), "levels are missing")
    paid = _paid(memory - low + length, low - length, alpha, beta, length, price, memory)
    paid &= _paid(high, memory - high, beta, alpha, length, price, memory)
    _require(bool(np.all(paid)) and min(alpha.min(), beta.min()) >= 0, "prices that nothing pays")
    risen, cut = low - length, alpha + length
    fill = price * (memory * risen - risen**2 / 2) - high * (length / 4 + beta)
    fill += np.where(risen >= cut, risen**2 / 2 - cut * risen, -(cut**2) / 2)
    rows, columns = record["rows"] * row, record["columns"] * column
    waste = alpha * rows + beta * columns - np.maximum(alpha, beta) * length + np.maximum(fill, 0.0)
    waste -= (alpha + beta) ** 2 / (4 * (excess - 1))
    least = min(float(waste.min()), (excess - 1) * min(rows, columns) ** 2)
    words = (row * column * record["pairs"] + least) / memory - row * column
    return float(words * record["width"])


def _paid(
    start: Floats, room: Floats, own: Floats, other: Floats, length: float, price: float, memory: float
) -> NDArray[np.bool_]:
    """Whether `own` is paid for each word of a batch that comes in while words of the other side leave.

    When A words (0..room) are not the other side's, the l-th of the batch wastes l + price (A - l)+ - length, and those
    of the other side, loaded from `start` to memory - A, waste their number - length - other. Least over A and the
    size of the batch.
    """
    left = np.clip((memory - length - other) / (1 + price), 0.0, np.maximum(room, 0.0))
    loaded = (memory - left) ** 2 - start**2 - 2 * (length + other) * (memory - left - start)
    enough = (price * left**2 + loaded >= (own + length) ** 2) & (own + length <= price * room)
    return np.asarray((own == 0) | (enough & (own <= memory - length * (2 + 1 / price))))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"certificate refused: {message}")
