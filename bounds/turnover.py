"""Products around scores that are computed once: the leading term *and* most of the words of rows and columns.

Row words are those of a row's inputs and outputs (queries, outputs), column words those of a column's (keys, values).
Every row word has to meet every column word, in C words of fast memory. A load gains at most as many meetings as there
are words of the other side, and wastes what is missing to C. A level L splits the time into parts with more and with
fewer than L row words, so that every row word is seen above it and every column word below; both cannot be had for
nothing, because rows that come in while columns fill the memory need those columns loaded, and the other way round.
For each level there are prices for a row word and a column word that the waste pays, and the least over all levels adds
to the volume. docs/bounds.md, section 10, has the proof; the conditions are rechecked for every certificate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from bounds.pattern import Intervals, Pattern
from bounds.problem import Access, Problem, Statement
from bounds.star import multiplies_sides, sides_of

Floats = NDArray[np.float64]
LENGTHS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
EXCESSES = (1.1, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0)
LEAST_PRICE = 0.62  # price^2 > 1 - price, which the proof needs
MARGIN = 1 - 1e-9
RANGES = 96


@dataclass(frozen=True)
class Turnover:
    """Pairs of a pattern, the rows and columns of a full rectangle in it, and words of one row and one column."""

    pairs: float
    rows: float
    columns: float
    row_words: float
    column_words: float
    width: float
    copies: float
    charged: frozenset[str]

    @property
    def own(self) -> float:
        """Meetings of the words of one row and one column."""
        return self.row_words * self.column_words


@dataclass(frozen=True, eq=False)
class Waste:
    """Words proven in one memory size (for one copy): segments of `length` charges, prices of levels low..high.

    prices   one line for each range of levels: low, high, price of a row word, price of a column word
    """

    words: float
    length: float
    excess: float
    prices: Floats


def turnover(problem: Problem) -> Turnover | None:
    """All statements around the scores as rows and columns; None where one has another form."""
    hidden = [name for name, value in problem.classes.items() if value.kind == "intermediate"]
    tensor = hidden[0] if len(hidden) == 1 else ""
    around = [s for s in problem.statements if tensor in {s.output.tensor, *(a.tensor for a in s.operands)}]
    producers = [s for s in around if s.output.tensor == tensor]
    consumers = [s for s in around if s not in producers]
    renamed = _renamed(tensor, producers, consumers)
    if not renamed or problem.classes[tensor].chunked:
        return None
    whole = replace(problem, statements=(*renamed, *consumers))
    sides = sides_of(whole, tensor, renamed)
    if sides is None or not all(multiplies_sides(whole, tensor, s, sides) for s in consumers):
        return None
    return _around(whole, tensor, sides)


def _renamed(tensor: str, producers: list[Statement], consumers: list[Statement]) -> list[Statement]:
    """Producers with the loops by which consumers know the scores; none unless one consumer needs all of them."""
    needed = [a for s in consumers for a in s.operands if a.tensor == tensor]
    names = {s.name for s in producers}
    tied = any(not a.needs or set(a.needs) >= names for a in needed)
    if not producers or not tied or len({a.dimensions for a in needed}) != 1 or not needed[0].projective:
        return []
    if len(needed) != len(consumers) or not all(s.output.projective for s in producers):
        return []
    if any(set(s.reduced) & set(needed[0].loops) for s in producers):
        return []
    found = []
    for s in producers:
        new = dict(zip(s.output.loops, needed[0].loops, strict=True))
        found.append(Statement(s.name, _with(s.output, new), tuple(_with(a, new) for a in s.operands)))
    return found


def _with(access: Access, names: dict[str, str]) -> Access:
    moved = tuple(tuple((names.get(loop, loop), step) for loop, step in terms) for terms in access.dimensions)
    return replace(access, dimensions=moved)


def _around(problem: Problem, tensor: str, sides: tuple[set[str], set[str], set[str]]) -> Turnover | None:
    batch, rows, columns = sides
    coupling, size = problem.coupling, problem.extents
    if coupling and coupling.row in columns:
        rows, columns = columns, rows
    words: dict[tuple[str, bool], float] = {}
    for access in (a for s in problem.statements for a in (s.output, *s.operands) if a.tensor != tensor):
        loops = set(access.loops)
        if not loops & (rows | columns) or (loops & rows and loops & columns) or not batch <= loops:
            return None
        own = float(prod(size[loop] for loop in loops - batch - rows - columns))
        if words.setdefault((access.tensor, bool(loops & rows)), own) != own:
            return None
    used = {tensor, *(name for name, _ in words)}
    widths = {problem.classes[name].width for name in used}
    if len(used) != len(words) + 1 or len(widths) != 1:
        return None  # a word shared by a row and a column would count twice
    row_words, column_words = (sum(n for (_, by_row), n in words.items() if by_row == side) for side in (True, False))
    if coupling and not (coupling.row in rows and columns == {coupling.column}):
        return None
    if coupling:
        pattern, group = coupling.pattern, prod(size[loop] for loop in rows if loop != coupling.row)
        pairs, (high, wide) = float(pattern.pairs * group), full_rectangle(pattern, group)
    else:
        high, wide = (prod(size[loop] for loop in side) for side in (rows, columns))
        pairs = float(high * wide)
    copies = float(prod(size[loop] for loop in batch))
    return Turnover(pairs, high, wide, row_words, column_words, widths.pop(), copies, frozenset(used))


def full_rectangle(pattern: Pattern, group: int) -> tuple[int, int]:
    """Rows (stacked) and columns of a large rectangle all of whose pairs are kept, about as many of either."""
    if pattern.pairs == pattern.rows * pattern.columns:
        return pattern.rows * group, pattern.columns
    if not isinstance(pattern, Intervals):
        return 0, 0
    first = np.arange(pattern.rows, dtype=np.int64)
    past = first + 1
    stop = np.searchsorted(pattern.low + group * past, pattern.high + group * first, side="right")  # past the last row
    stop = np.maximum(stop, past)
    columns = pattern.high - pattern.low[stop - 1]
    rows = group * (stop - first)
    best = int(np.argmax(np.minimum(rows, columns)))
    return int(rows[best]), int(columns[best])


def least_words(around: Turnover, memory: float) -> Waste | None:
    """The best bound of one copy in `memory` words, over lengths of segments and excesses; None where there is none."""
    size = float(np.floor(memory / around.width))
    plain = around.own * (around.pairs / size - 1)
    waste = _levels(around, size)
    if waste and waste.words > plain * around.width:
        return waste
    length = float(np.ceil(2 * around.own))
    return Waste(plain * around.width, length, 2.0, np.zeros((0, 4))) if length <= size else None


def _levels(around: Turnover, size: float) -> Waste | None:
    trials = [(k, e) for k in LENGTHS for e in EXCESSES if e < k]
    length = np.floor(around.own * np.array([k for k, _ in trials])) / size
    excess = np.array([e for _, e in trials])
    price = 1 - excess * around.own / size / length
    usable = (price > LEAST_PRICE) & (length * (2 + 1 / np.maximum(price, LEAST_PRICE)) < 1)
    if not usable.any():
        return None
    length, excess, price = length[usable], excess[usable], price[usable]
    levels = np.linspace(0.0, 1.0, 33)
    rough = _waste(around, size, length[:, None], excess[:, None], price[:, None], levels[:-1], levels[1:], 16)[0]
    k = int(np.argmax(rough.min(axis=1)))
    levels = np.linspace(0.0, 1.0, RANGES + 1)
    found, alpha, beta = _waste(around, size, length[k], excess[k], price[k], levels[:-1], levels[1:], 64)
    fewest = min(around.rows * around.row_words, around.columns * around.column_words) / size
    waste = min(float(found.min()), float(excess[k] - 1) * fewest**2)
    words = around.own * around.pairs / size + waste * size - around.own
    prices = size * np.stack([levels[:-1], levels[1:], alpha, beta], axis=1)
    prices[-1, 1] = size
    return Waste(words * around.width, float(np.rint(length[k] * size)), float(excess[k]), prices)


def _waste(
    around: Turnover,
    size: float,
    length: Floats | float,
    excess: Floats | float,
    price: Floats | float,
    low: Floats,
    high: Floats,
    steps: int,
) -> tuple[Floats, Floats, Floats]:
    """Least waste, and the prices of rows and columns that prove it, in units of the memory, for ranges of levels.

    Prices of columns are tried in `steps` steps; the price of rows is the largest that the conditions allow.
    """
    length, excess, price = (np.asarray(v)[..., None] for v in (length, excess, price))
    low, high = low[:, None], high[:, None]
    most = 1 - 2 * length - length / price
    beta = np.linspace(0.0, MARGIN, steps) * np.maximum(np.minimum(price * (1 - high) - length, most), 0.0)
    beside = _beside(high, beta, length, price)
    alpha = np.maximum(np.minimum(np.minimum(_over(low, beta, length, price), beside), most), 0.0) * MARGIN
    risen = low - length
    fill = price * (risen - risen**2 / 2) - high * (length / 4 + beta)
    fill = fill + np.where(
        risen >= alpha + length, risen**2 / 2 - (length + alpha) * risen, -((alpha + length) ** 2) / 2
    )
    rows, columns = (n * w / size for n, w in ((around.rows, around.row_words), (around.columns, around.column_words)))
    waste = alpha * rows + beta * columns - np.maximum(alpha, beta) * length + np.maximum(fill, 0.0)
    waste = np.where(beside >= 0, waste - (alpha + beta) ** 2 / (4 * (excess - 1)), -np.inf)
    pick = np.argmax(waste, axis=-1)[..., None]
    found, alpha, beta = (np.take_along_axis(v, pick, axis=-1)[..., 0] for v in np.broadcast_arrays(waste, alpha, beta))
    return found, alpha, beta


def _over(low: Floats, beta: Floats, length: Floats, price: Floats) -> Floats:
    """The largest price of a row word that loading it below a level pays, at the lowest level of a range."""
    start, room = 1 - low + length, np.maximum(low - length, 0.0)
    left = np.clip((1 - length - beta) / (1 + price), 0.0, room)
    square = price * left**2 + (1 - left) ** 2 - start**2 - 2 * (length + beta) * (1 - left - start)
    return np.minimum(np.sqrt(np.maximum(square, 0.0)), price * room) - length


def _beside(high: Floats, beta: Floats, length: Floats, price: Floats) -> Floats:
    """The largest price of a row word that leaves a column word its price, at the highest level of a range.

    Solves price A^2 + (1 - A)^2 - high^2 - 2 (length + alpha) (1 - A - high) >= (beta + length)^2 at the worst A.
    """
    q, room = 1 + price, 1 - high
    half = room - 1 / q
    under = half**2 - (1 / q - 1 + high**2 + (beta + length) ** 2) / q
    root = q * (np.sqrt(np.maximum(under, 0.0)) - half)
    return np.where(beta > 0, np.maximum(1 - q * room, np.where(under >= 0, root, 0.0)) - length, 1.0)
