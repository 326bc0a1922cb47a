"""Schedules of one sum of products: tiles of every loop, an order of the tiles' loops, and one operand streamed.

A tile of each array stays in fast memory while the loops inside its innermost own loop run; one array of the tile
is streamed word by word (one word of space, no reuse between tiles). An output element that is visited v times is
written v times and read v - 1 times. Words and footprint are exact for ragged tiles, strides and dilations
included: the tile of a dimension a x + c y with bx, by values has bx by - (bx - c')+ (by - a')+ elements, a' =
a/gcd, c' = c/gcd.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import gcd, prod

import numpy as np
from numpy.typing import NDArray

from bounds.problem import Access, Problem, Statement
from bounds.staircase import Staircase
from bounds.tiles import breakpoints, thinned

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_TILINGS = 400_000
REFINEMENTS = 3
MOST_REFINED, MOST_VALUES, FEW_LOOPS_VALUES = 150, 128, 1024
MOST_ORDERS = 5_040


@dataclass(frozen=True)
class Order:
    """Tile loops from the outermost to the innermost, and the array that is streamed."""

    loops: tuple[str, ...]
    streamed: int

    def repeats(self, own: tuple[str, ...], array: int) -> tuple[str, ...]:
        """Loops whose tiles the array is loaded for anew, besides its own."""
        if array == self.streamed:
            return tuple(loop for loop in self.loops if loop not in own)
        inner = max((self.loops.index(loop) for loop in own), default=-1)
        return tuple(loop for loop in self.loops[: inner + 1] if loop not in own)


@dataclass(frozen=True, eq=False)
class ProductTiling:
    """Closed forms for a statement: arrays are the operands in order, then the output."""

    accesses: tuple[Access, ...]
    widths: tuple[float, ...]
    extents: dict[str, int]

    @classmethod
    def of(cls, problem: Problem, statement: Statement) -> ProductTiling | None:
        """The tiling of a statement; None where its domain is masked or its output index is not plain."""
        coupling = problem.coupling
        if not statement.output.projective or (coupling and {coupling.row, coupling.column} <= set(statement.loops)):
            return None
        accesses = (*statement.operands, statement.output)
        widths = tuple(problem.classes[access.tensor].width for access in accesses)
        return cls(accesses, widths, {loop: problem.extents[loop] for loop in statement.loops})

    def orders(self) -> list[Order]:
        """Orders that differ in what is reused; those that reuse less than another are left out."""
        loops = tuple(loop for loop, extent in self.extents.items() if extent > 1) or tuple(self.extents)[:1]
        best: dict[tuple[frozenset[str], ...], Order] = {}
        for count, order in enumerate(permutations(loops)):
            if count >= MOST_ORDERS:
                break
            for streamed in range(len(self.accesses)):
                chosen = Order(order, streamed)
                own = [tuple(loop for loop in access.loops if loop in loops) for access in self.accesses]
                key = tuple(frozenset(chosen.repeats(mine, k)) for k, mine in enumerate(own))
                best.setdefault((frozenset([str(streamed)]), *key), chosen)
        keys = list(best)
        return [
            best[key]
            for key in keys
            if not any(
                o != key and o[0] == key[0] and all(a <= b for a, b in zip(o[1:], key[1:], strict=True)) for o in keys
            )
        ]

    def words(self, order: Order, tile: dict[str, Ints]) -> Floats:
        """Words moved, for arrays of tile sizes that broadcast."""
        total: Floats = np.zeros(())
        for k, access in enumerate(self.accesses):
            own = tuple(loop for loop in access.loops if loop in order.loops)
            visits = self._visits(order, own, k, tile)
            size = prod((self._summed(terms, tile) for terms in access.dimensions), start=np.ones((), np.int64))
            moved = size * visits if k + 1 < len(self.accesses) else size * (2 * visits - 1)
            total = total + moved * self.widths[k]
        return np.asarray(total)

    def footprint(self, order: Order, tile: dict[str, Ints]) -> Floats:
        """Words of fast memory."""
        total: Floats = np.zeros(())
        for k, access in enumerate(self.accesses):
            size = prod((distinct_values(terms, tile) for terms in access.dimensions), start=np.ones((), np.int64))
            total = total + (np.minimum(size, 1) if k == order.streamed else size) * self.widths[k]
        return np.asarray(total)

    def _visits(self, order: Order, own: tuple[str, ...], array: int, tile: dict[str, Ints]) -> Ints:
        """How often each element is loaded: the trips of loops that move a later loop of the array's own."""
        visits = np.ones((), np.int64)
        for place, loop in enumerate(order.loops):
            if loop in own:
                continue
            later = [self._count(other, tile) > 1 for other in order.loops[place + 1 :] if other in own]
            moved = np.any(np.broadcast_arrays(*later), axis=0) if later else np.zeros((), bool)
            visits = visits * np.where(moved | (array == order.streamed), self._count(loop, tile), 1)
        return visits

    def _count(self, loop: str, tile: dict[str, Ints]) -> Ints:
        return np.asarray(-(-self.extents[loop] // tile[loop]))

    def _summed(self, terms: tuple[tuple[str, int], ...], tile: dict[str, Ints]) -> Ints:
        """Elements of one dimension, summed over the tiles of its loops: full tiles and the ragged last."""
        cases: list[tuple[dict[str, Ints], Ints]] = [({}, np.ones((), np.int64))]
        for loop, _ in terms:
            full = self.extents[loop] // tile[loop]
            rest = self.extents[loop] - full * tile[loop]
            cases = [
                case
                for sizes, times in cases
                for case in (({**sizes, loop: tile[loop]}, times * full), ({**sizes, loop: rest}, times * (rest > 0)))
            ]
        return np.asarray(sum(times * distinct_values(terms, sizes) for sizes, times in cases))


def distinct_values(terms: tuple[tuple[str, int], ...], tile: Mapping[str, Ints | int]) -> Ints:
    """Number of values of the affine form over a tile; exact for one or two terms, at most the span for more."""
    sizes = [np.asarray(tile[loop]) for loop, _ in terms]
    steps = [abs(step) for _, step in terms]
    if len(terms) == 1:
        return sizes[0]
    if len(terms) == 2:
        shared = gcd(*steps)
        a, c = steps[0] // shared, steps[1] // shared
        return np.asarray(sizes[0] * sizes[1] - np.maximum(0, sizes[0] - c) * np.maximum(0, sizes[1] - a))
    span = sum(step * np.maximum(0, size - 1) for size, step in zip(sizes, steps, strict=True)) + 1
    return np.asarray(np.minimum(span, prod(sizes[1:], start=sizes[0])) * (prod(sizes[1:], start=sizes[0]) > 0))


def product_schedules(problem: Problem, statement: Statement) -> Staircase | None:
    """The staircase of the tilings of one statement, or None where the closed forms do not cover it.

    Tile sizes are sampled where there are many loops; then, of the tilings that no other beats, one tile size at a
    time takes all values that matter.
    """
    tiling = ProductTiling.of(problem, statement)
    if tiling is None:
        return None
    loops = list(tiling.extents)
    sizes = [breakpoints(tiling.extents[loop]) for loop in loops]
    most = max(2, int(MOST_TILINGS ** (1 / max(1, sum(size.size > 1 for size in sizes)))))
    grid = _coarse(sizes, most)
    orders = tiling.orders()
    tiles = dict.fromkeys(orders, grid)
    found = _best(tiling, statement, tiles)
    for _ in range(REFINEMENTS if any(size.size > most for size in sizes) else 0):
        chosen, kept = _chosen(found, orders), _chosen(found, orders, len(found.steps))
        tiles = {order: np.concatenate([kept[order], _varied(own, sizes)]) for order, own in chosen.items()}
        tiles = {**kept, **tiles}
        found = _best(tiling, statement, tiles)
    return found.stairs


def _coarse(sizes: Sequence[Ints], most: int) -> Ints:
    """Combinations of at most `most` sizes of each loop; of three loops also, where these are not all, of the ends of
    one and more of the other two, since one loop mostly runs inside or outside of all tiles."""
    chosen = [[thinned(size, most) for size in sizes]]
    open_loops = [k for k, size in enumerate(sizes) if size.size > 1]
    if len(open_loops) == 3 and any(size.size > most for size in sizes):
        finer = int((MOST_TILINGS / 2) ** (1 / 2))
        chosen += [[thinned(size, 2 if k == ends else finer) for k, size in enumerate(sizes)] for ends in open_loops]
    grids = [np.stack([part.ravel() for part in np.meshgrid(*each, indexing="ij")], axis=1) for each in chosen]
    return np.unique(np.concatenate(grids), axis=0) if len(grids) > 1 else grids[0]


@dataclass(frozen=True, eq=False)
class _Found:
    """The staircase of tilings with the order and the tile sizes of each of its steps."""

    stairs: Staircase
    steps: tuple[tuple[Order, Ints], ...]


def _best(tiling: ProductTiling, statement: Statement, tiles: Mapping[Order, Ints]) -> _Found:
    loops, parts, kept = list(tiling.extents), [], []
    for order, sizes in tiles.items():
        tile = {loop: sizes[:, k] for k, loop in enumerate(loops)}
        space, words = (np.broadcast_to(f(order, tile), sizes.shape[:1]) for f in (tiling.footprint, tiling.words))
        part = Staircase.of(space, words, str)
        kept += [(order, sizes[k]) for k in part.origin]
        parts.append(Staircase(part.footprint, part.words, np.arange(part.words.size), str))
    space, words = (np.concatenate([getattr(part, f) for part in parts]) for f in ("footprint", "words"))
    stairs = Staircase.of(space, words, lambda k: _described(statement, loops, *kept[k]))
    return _Found(stairs, tuple(kept[k] for k in stairs.origin))


def _chosen(found: _Found, orders: Sequence[Order], most: int = MOST_REFINED) -> dict[Order, Ints]:
    """The tilings of at most so many steps of a staircase, evenly spaced, by order."""
    picked = np.unique(np.linspace(0, len(found.steps) - 1, most).astype(int))
    own = {order: [found.steps[k][1] for k in picked if found.steps[k][0] is order] for order in orders}
    return {order: np.array(sizes) for order, sizes in own.items() if sizes}


def _varied(tiles: Ints, sizes: Sequence[Ints]) -> Ints:
    """The tilings with each single tile size replaced by all that matter."""
    found = [tiles]
    for k, size in enumerate(sizes):
        values = thinned(size, MOST_VALUES if len(sizes) > 3 else FEW_LOOPS_VALUES)
        changed = np.repeat(tiles, values.size, axis=0)
        changed[:, k] = np.tile(values, len(tiles))
        found.append(changed)
    return np.unique(np.concatenate(found), axis=0)


def _described(statement: Statement, loops: Sequence[str], order: Order, sizes: Ints) -> str:
    streamed = [*(access.tensor for access in statement.operands), statement.output.tensor][order.streamed]
    tile = dict(zip(loops, sizes.tolist(), strict=True))
    return f"{statement.name} tiles {' '.join(f'{loop}={tile[loop]}' for loop in order.loops)}, {streamed} streamed"
