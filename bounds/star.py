"""All statements around one intermediate over rows and columns, counted together: the bound for large memories.

T has rows i and columns j; its elements are made by producers, each from one row input and one column input, and used
by consumers, each with one further input and one output of its own. Of the consumers, those count that need all
producers. In a segment with p carried elements of T, I rows and J columns whose inputs are all there (the elements
rebuilt are at most I J), A words of the consumers' inputs and B of their outputs,

    |F| <= sum_e sqrt((p + I J) a_e b_e) <= (sqrt(p) + sqrt(I J)) sqrt(A B).

With Y = X - p words for the rest, sqrt(A B) <= Y / 2, and sqrt(I J A B) <= kappa Y^2 (`kappa`), so

    chi(X) = max over p of kappa (X - p)^2 + sqrt(p) (X - p) / 2.

docs/bounds.md, section 9, has the proof. Attention's backward pass is such a star: dQ and dK need both products.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, prod, sqrt

import numpy as np
from numpy.typing import NDArray

from bounds.chi import bisected
from bounds.problem import Problem, Statement

Floats = NDArray[np.float64]
CELLS, POINTS = 2000, 400


@dataclass(frozen=True)
class Star:
    """The consumers that are counted, and what a rebuild needs; for tensors of one word an element.

    rows, columns            inputs that a rebuild needs
    own_rows, own_columns    the part of them that consumers use as operands
    point                    (I, J, further words of the consumers' inputs, words of outputs) with one word in all,
                             where I J A B is about largest; any point gives a valid bound
    """

    tensor: str
    statements: tuple[str, ...]
    batch: float
    volume: float
    rows: float
    columns: float
    own_rows: float
    own_columns: float
    point: tuple[float, float, float, float]
    charged: frozenset[str]

    @property
    def kappa(self) -> float:
        """sqrt(I J A B) <= kappa Y^2 for all I, J, A, B within Y words.

        log(I J A B) is concave in the point's variables, so that it lies below its tangent at the point: the slopes
        over their words are at most mu, the tangent's constant is -4.
        """
        i, j, more, outputs = self.point
        inputs = self.own_rows * i + self.own_columns * j + more
        slopes = ((1 / i + self.own_rows / inputs) / self.rows, (1 / j + self.own_columns / inputs) / self.columns)
        mu = max(*slopes, 1 / inputs, 1 / outputs)
        return sqrt(i * j * inputs * outputs) * exp((mu - 4) / 2)

    def chi(self, smallest: float) -> StarChi:
        """chi for X from about `smallest` words on."""
        root = np.linspace(0.0, 1.0, CELLS + 1)
        left, carried = 1 - root[:-1] ** 2, root[1:]  # the ends of each cell where either factor is larger
        slope = np.concatenate([[0.0], np.geomspace(1e-9, 1.0, POINTS)]) / np.sqrt(smallest)
        value = np.array([np.max(self.kappa * left**2 + t * carried * left / 2) for t in slope])
        return StarChi(self.kappa, slope, value)


@dataclass(frozen=True, eq=False)
class StarChi:
    """chi(X) = X^2 phi(1 / sqrt(X)); phi is the largest of lines in its argument, hence convex and below its chords."""

    kappa: float
    slope: Floats
    value: Floats

    def at(self, x: Floats) -> Floats:
        """chi(X), rounded up; beyond the table sqrt(p) (X - p) / 2 is taken at its own largest p."""
        t = 1 / np.sqrt(np.maximum(x, 1e-300))
        phi = np.where(t <= self.slope[-1], np.interp(t, self.slope, self.value), self.kappa + t / np.sqrt(27))
        return np.asarray(np.minimum(phi * np.square(x), 1e300))

    def words_needed(self, count: Floats) -> Floats:
        """A lower bound on the X with chi(X) >= count, by bisection."""
        return bisected(self.at, np.asarray(count) * (1 - 1e-9))


def star(problem: Problem, tensor: str) -> Star | None:
    """The star around an intermediate class, or None where a statement has another form."""
    value = problem.classes[tensor]
    around = [s for s in problem.statements if tensor in {s.output.tensor, *(a.tensor for a in s.operands)}]
    producers = [s for s in around if s.output.tensor == tensor]
    names = {s.name for s in producers}
    consumers = [s for s in around if s not in producers and _needs(s, tensor) >= names]
    sources = {a.tensor for s in producers for a in s.operands}
    shared = any(a.tensor in sources for s in consumers for a in s.operands)
    if value.kind != "intermediate" or value.chunked or not producers or len(consumers) < (1 if shared else 2):
        return None  # of one consumer with words of its own `fusion` says more
    loops = {tuple(a.loops) for s in (*producers, *consumers) for a in (s.output, *s.operands) if a.tensor == tensor}
    sides = sides_of(problem, tensor, producers) if len(loops) == 1 else None
    if sides is None or not all(multiplies_sides(problem, tensor, s, sides) for s in consumers):
        return None
    batch, rows, columns = sides
    size = problem.extents
    inputs: dict[str, tuple[bool, float]] = {}
    for statement in producers:
        for access in statement.operands:
            kept = prod(size[x] for x in access.loops if x not in batch | rows | columns)
            inputs[access.tensor] = (bool(rows & set(access.loops)), float(kept))
    operands = [a.tensor for s in consumers for a in s.operands if a.tensor != tensor]
    outputs = [s.output.tensor for s in consumers]
    used = {tensor, *inputs, *operands, *outputs}
    widths = {problem.classes[name].width for name in used}
    if len(set(operands)) < len(operands) or len(set(outputs)) < len(outputs) or widths != {1.0}:
        return None
    total = {(by_row, own): 0.0 for by_row in (True, False) for own in (True, False)}
    for name, (by_row, words) in inputs.items():
        total[by_row, name in operands] += words
    own_rows, own_columns = total[True, True], total[False, True]
    whole = (own_rows + total[True, False], own_columns + total[False, False])
    copies = float(prod(size[x] for x in batch))
    return Star(
        tensor=tensor,
        statements=tuple(s.name for s in consumers),
        batch=copies,
        volume=sum(problem.volume(s.loops) for s in consumers) / copies,
        rows=whole[0],
        columns=whole[1],
        own_rows=own_rows,
        own_columns=own_columns,
        point=_best_point(*whole, own_rows, own_columns),
        charged=frozenset(used),
    )


def _needs(statement: Statement, tensor: str) -> set[str]:
    """Producers that the statement's elements of the intermediate are made by; none for two accesses of it."""
    found = [access for access in statement.operands if access.tensor == tensor]
    return set(found[0].needs) if len(found) == 1 else set()


def sides_of(problem: Problem, tensor: str, producers: list[Statement]) -> tuple[set[str], set[str], set[str]] | None:
    """Loops of copies, rows and columns, when every producer multiplies a row input by a column input."""
    tied = {problem.coupling.row, problem.coupling.column} if problem.coupling else set()
    accesses = [a for s in producers for a in (s.output, *s.operands)]
    if not all(a.projective for a in accesses) or any(len(s.operands) != 2 for s in producers):
        return None
    if any(problem.classes[a.tensor].kind != "input" for s in producers for a in s.operands):
        return None
    whole = set(producers[0].output.loops)
    batch = set.intersection(*(set(a.loops) for a in accesses)) - tied
    rows = (set(producers[0].operands[0].loops) & whole) - batch
    columns = whole - batch - rows
    for statement in producers:
        parts = [(set(a.loops) & whole) - batch for a in statement.operands]
        if sorted(map(sorted, parts)) != sorted([sorted(rows), sorted(columns)]) or set(statement.reduced) & tied:
            return None
    return (batch, rows, columns) if rows and columns else None


def multiplies_sides(problem: Problem, tensor: str, statement: Statement, sides: tuple[set[str], ...]) -> bool:
    """Whether |F| <= sqrt(T a b): an input and a final output, one of rows and one of columns, of one width."""
    batch, rows, columns = sides
    accesses = [a for a in (statement.output, *statement.operands) if a.tensor != tensor]
    if len(accesses) != 2 or not all(a.projective and batch <= set(a.loops) for a in accesses):
        return False
    kinds = {problem.classes[a.tensor].kind for a in accesses}
    parts = sorted(sorted(set(a.loops) & (rows | columns)) for a in accesses)
    rest = [set(a.loops) - batch - rows - columns for a in accesses]
    return kinds == {"input", "output"} and parts == sorted([sorted(rows), sorted(columns)]) and rest[0] == rest[1]


def _best_point(rows: float, columns: float, own_rows: float, own_columns: float) -> tuple[float, float, float, float]:
    """About where I J A B is largest: a search by numbers, since any point will do."""
    from scipy.optimize import minimize

    def negative(v: Floats) -> float:
        share = np.exp(v) / np.exp(v).sum()
        inputs = own_rows * share[0] / rows + own_columns * share[1] / columns + share[2]
        return -(log(share[0]) + log(share[1]) + log(inputs) + log(share[3]))

    found = minimize(negative, np.log([0.35, 0.35, 0.05, 0.25]), method="Nelder-Mead", options={"xatol": 1e-6})
    share = np.exp(found.x) / np.exp(found.x).sum()
    return float(share[0] / rows), float(share[1] / columns), float(share[2]), float(share[3])
