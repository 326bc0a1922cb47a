"""Hölder-Brascamp-Lieb inequalities: how many points a set can have, given how many points its projections have.

For a set F of points of a loop nest, arrays with index maps phi_j and loops with extents L_i,

    |F| <= cap(T) * prod_j |phi_j(F)| ** s_j * prod_i L_i ** t_i

holds when T is a set of loops whose fibers over the other loops have at most cap(T) points (T may be empty, cap 1),
and, for every subspace H of the other loops, sum_j s_j rank(phi_j | H) + sum_i t_i rank(e_i | H) >= dim H (Christ,
Demmel, Knight, Scanlon, Yelick 2013; Valdimarsson 2010: the lattice that the kernels generate under + and
intersection suffices). When each array is indexed by loops alone the subspaces along the axes suffice. Candidates
for (s, t) are proposed in floating point (by corners of the polyhedron, or by linear programs with HiGHS) and
accepted only when the conditions hold in exact rational arithmetic and a *chain* proves the inequality once more, by
the chain rule of entropy: independent linear forms x_1, x_2, ... of the loops outside T, each of which arrays and
loops of total exponent 1 or more see, given the forms before it (docs/bounds.md, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations
from math import comb, log, prod

import numpy as np
from numpy.typing import NDArray

from bounds.lattice import Space, closure, echelon, kernel, rank_on

Floats = NDArray[np.float64]
MOST_SUBSPACES = 120
MOST_CORNER_SYSTEMS = 30_000


@dataclass(frozen=True)
class Array:
    """A class as one statement touches it: integer index map (one row per dimension, one column per loop) and words.

    `words` is what each element of the projection costs in fast memory (a whole row for a rebuilt operand).
    """

    name: str
    index: tuple[tuple[int, ...], ...]
    words: float


@dataclass(frozen=True)
class Program:
    """The points counted by a theorem: loops, arrays, and fiber caps.

    caps: (loops, largest number of points of a fiber over the other loops); ((), 1) is always among them. Loops in
    `extents` may further be capped one by one through their exponents t; loops tied by a pattern are not in it.
    """

    loops: tuple[str, ...]
    arrays: tuple[Array, ...]
    caps: tuple[tuple[tuple[str, ...], float], ...]
    extents: dict[str, float]


@dataclass(frozen=True)
class Inequality:
    """One proven inequality of a program, with exact exponents; `chain` has the forms that prove it, over all loops."""

    capped: tuple[str, ...]
    cap: float
    s: tuple[Fraction, ...]
    t: tuple[tuple[str, Fraction], ...]
    chain: tuple[tuple[int, ...], ...]

    def log_constant(self, extents: dict[str, float]) -> float:
        """Logarithm of cap(T) * prod L_i ** t_i."""
        return log(self.cap) + sum(float(exponent) * log(extents[loop]) for loop, exponent in self.t)


def inequalities(program: Program) -> tuple[Inequality, ...]:
    """All useful inequalities: corners of the exponents' polyhedron for each set of capped loops, verified exactly."""
    found: dict[tuple[Fraction, ...], Inequality] = {}
    for capped, cap in program.caps:
        loops = tuple(loop for loop in program.loops if loop not in capped)
        free = tuple(loop for loop in loops if loop in program.extents)
        conditions = _conditions(program, loops, free)
        if conditions is None:
            continue
        matrix, dims = conditions
        prices = [log(program.extents[loop]) for loop in free]
        for corner in _corners(matrix, dims, len(program.arrays), prices):
            s, t = corner[: len(program.arrays)], corner[len(program.arrays) :]
            powers = {loop: e for loop, e in zip(free, t, strict=True) if e}
            known, constant = (
                found.get(s),
                log(cap) + sum(float(e) * log(program.extents[x]) for x, e in powers.items()),
            )
            if known is None or constant < known.log_constant(program.extents) - 1e-12:
                candidate = _chained(program, capped, cap, s, powers)
                found |= {s: candidate} if candidate else {}
    return tuple(found.values())


def _conditions(
    program: Program, loops: tuple[str, ...], free: tuple[str, ...]
) -> tuple[list[list[int]], list[int]] | None:
    """Rows (ranks of arrays and of capped loops on H) and dimensions of H, or None when a lattice does not close.

    Loops that no dimension ties together form blocks; the maps are block diagonal, so that each block's subspaces do.
    """
    matrix: list[list[int]] = []
    dims: list[int] = []
    for block in blocks(loops, program):
        columns = [program.loops.index(loop) for loop in block]
        maps = [[[row[c] for c in columns] for row in array.index] for array in program.arrays]
        axes = {loop: [[int(loop == other) for other in block]] for loop in block}
        single = [axes[loop] if loop in block else [] for loop in free]
        generators = [kernel(rows, len(block)) for rows in [*maps, *(rows for rows in single if rows)]]
        spaces = closure(generators, len(block), MOST_SUBSPACES)
        if spaces is None:
            return None
        matrix += [[rank_on(rows, space) for rows in [*maps, *single]] for space in spaces]
        dims += [len(space) for space in spaces]
    return matrix, dims


def _chained(
    program: Program, capped: tuple[str, ...], cap: float, s: tuple[Fraction, ...], t: dict[str, Fraction]
) -> Inequality | None:
    """The inequality with a chain that proves it, or None where none is found.

    A cap that is a product of extents becomes exponents of 1 of its loops, so that a chain can begin with them.
    """
    if set(capped) <= program.extents.keys():
        t, capped, cap = t | {loop: Fraction(1) for loop in capped}, (), 1.0
    axes = {loop: tuple(int(loop == other) for other in program.loops) for loop in program.loops}
    maps = [(list(a.index), e) for a, e in zip(program.arrays, s, strict=True) if e]
    maps += [([axes[loop]], e) for loop, e in t.items()]
    chain: list[tuple[int, ...]] = []
    for block in blocks(tuple(loop for loop in program.loops if loop not in capped), program):
        inside = [k for k, loop in enumerate(program.loops) if loop in block]
        own = [([_within(row, inside) for row in rows if any(row[k] for k in inside)], e) for rows, e in maps]
        own = [([row for row in rows if row], e) for rows, e in own]
        pool = sorted({*(row for rows, _ in own for row in rows), *(_within(axes[loop], inside) for loop in block)})
        forms = _forms(own, pool, [], set())
        if forms is None:
            return None
        at = [dict(zip(inside, form, strict=True)) for form in forms]
        chain += [tuple(form.get(k, 0) for k in range(len(program.loops))) for form in at]
    return Inequality(capped, cap, s, tuple(t.items()), tuple(chain))


def _within(row: tuple[int, ...], inside: list[int]) -> tuple[int, ...]:
    """The part of a row in some columns; nothing where it has others too, which only a capped loop can bring."""
    return tuple(row[k] for k in inside) if not any(v for k, v in enumerate(row) if k not in inside) else ()


def _forms(
    maps: list[tuple[list[tuple[int, ...]], Fraction]],
    pool: list[tuple[int, ...]],
    chosen: list[tuple[int, ...]],
    dead: set[Space],
) -> list[tuple[int, ...]] | None:
    """Forms of the pool that make a chain, by a search that tries no span of forms (`dead`) twice."""
    span = echelon(chosen)
    if len(span) == len(pool[0]) or span in dead:
        return chosen if span not in dead else None
    for form in pool:
        if len(echelon([*chosen, form])) == len(chosen):
            continue
        seen = sum(e for rows, e in maps if len(echelon([*rows, *chosen])) == len(echelon([*rows, *chosen, form])))
        found = _forms(maps, pool, [*chosen, form], dead) if seen >= 1 else None
        if found:
            return found
    dead.add(span)
    return None


def blocks(loops: tuple[str, ...], program: Program) -> list[tuple[str, ...]]:
    """The loops in groups that some array's dimension ties together."""
    found: list[set[str]] = [{loop} for loop in loops]
    for row in (row for array in program.arrays for row in array.index):
        tied = {loop for loop in loops if row[program.loops.index(loop)]}
        touched = [group for group in found if group & tied]
        found = [group for group in found if group not in touched] + [set().union(*touched)] * bool(touched)
    return [tuple(loop for loop in loops if loop in group) for group in found]


def _corners(matrix: list[list[int]], dims: list[int], arrays: int, prices: list[float]) -> list[tuple[Fraction, ...]]:
    """Corners of {x >= 0, matrix x >= dims}, exact, without those that another one dominates.

    The variables are the exponents of `arrays` arrays, then those of the loops whose log extents are `prices`.
    """
    size = arrays + len(prices)
    rows = sorted({(*row, dim) for row, dim in zip(matrix, dims, strict=True)})
    a = np.array([row[:-1] for row in rows], float).reshape(len(rows), size)
    b = np.array([row[-1] for row in rows], float)
    if not rows:
        return [(Fraction(0),) * size]
    systems = comb(len(rows) + size, size)
    points = _by_enumeration(a, b) if systems <= MOST_CORNER_SYSTEMS else _by_programs(a, b, prices)
    exact: set[tuple[Fraction, ...]] = set()
    for point in points:
        x = tuple(Fraction(float(v)).limit_denominator(64) for v in point)
        if min(x) >= 0 and all(sum(c * v for c, v in zip(row[:-1], x, strict=True)) >= row[-1] for row in rows):
            exact.add(x)
    return [
        x for x in sorted(exact) if not any(y != x and all(p <= q for p, q in zip(y, x, strict=True)) for y in exact)
    ]


def _by_enumeration(a: Floats, b: Floats) -> Floats:
    size = a.shape[1]
    full = np.vstack([a, np.eye(size)])
    right = np.concatenate([b, np.zeros(size)])
    chosen = np.array(list(combinations(range(len(full)), size)))
    systems, targets = full[chosen], right[chosen]
    regular = np.abs(np.linalg.det(systems)) > 1e-9
    points: Floats = np.linalg.solve(systems[regular], targets[regular][..., None])[..., 0]
    feasible = np.all(points >= -1e-9, axis=1) & np.all(points @ a.T >= b - 1e-9, axis=1)
    return np.unique(np.round(points[feasible], 9), axis=0)


def _by_programs(a: Floats, b: Floats, prices: list[float], directions: int = 30) -> Floats:
    """Corners that are best for some words of the arrays: log words at the arrays, log extents at the loops.

    With the same words for all arrays, then with words that differ by random factors.
    """
    from scipy.optimize import linprog

    generator = np.random.default_rng(0)
    arrays = a.shape[1] - len(prices)
    log_words = np.geomspace(0.5, 40.0, directions)[:, None] * np.ones(arrays)
    spread = np.maximum(log_words + generator.normal(0.0, 2.0, log_words.shape), 1e-3)
    costs = [np.concatenate([own, np.maximum(prices, 1e-3)]) for own in (*log_words, *spread)]
    solved = [linprog(cost, A_ub=-a, b_ub=-b, bounds=(0, None), method="highs") for cost in costs]
    return np.array([result.x for result in solved if result.status == 0]).reshape(-1, a.shape[1])


def fiber_caps(program: Program) -> Program:
    """The program with a cap for every set of loops that dimensions tie together, besides exponents for each loop."""
    tied = [loop for block in blocks(program.loops, program) if len(block) > 1 for loop in block]
    caps = tuple(
        (chosen, float(prod(program.extents[loop] for loop in chosen)))
        for count in range(len(tied) + 1)
        for chosen in combinations(tied, count)
    )
    return replace(program, caps=caps)
