"""Statements that share an intermediate, counted together: the bound for small memories.

Take an intermediate class T and statements that all have T and two further arrays each (inputs or final outputs),
with |F| <= sqrt(t a b) for each: t, a, b words of a segment. With the arrays as nodes and the statements as edges
of weight 1/sqrt(w_a w_b), the operations of a segment are at most sqrt(t) * lambda / 2 * (X - w t), lambda the
largest eigenvalue of the adjacency matrix, so

    chi(X) = lambda X ** 1.5 / (3 sqrt(3 w)),      charges >= 2 volume sqrt(w) / (lambda sqrt(M))      (X = 3 M).

Charged are reads of inputs and the starts of visits of outputs and of T. A visit of T with neither read nor write
is free; it executes at least one whole fiber of one of the pi producers. Beyond the first pi free visits of an
element each costs `fiber` more operations, so a bound without "computed once" holds while 2 fiber sqrt(w) / (lambda
sqrt(M)) >= w. Producers that every consumer needs together count as one with all their products, because a visit in
which a consumer finds no complete element would be for nothing:

    Q >= 2 volume sqrt(w) / (lambda sqrt(M)) - pi w |T|.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from bounds.problem import Access, Problem, Statement

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Joint:
    """All statements around one intermediate class.

    edges      (node, node, weight) for each statement
    spread     the largest eigenvalue lambda of the weighted adjacency matrix
    pull       positive entries v with A v <= lambda v (but for rounding), which prove the eigenvalue
    volume     operations of one copy, all statements together
    unpaid     pi w |T| of one copy
    limit      largest M at which recomputing T cannot pay
    """

    tensor: str
    width: float
    edges: tuple[tuple[str, str, float], ...]
    spread: float
    pull: dict[str, float]
    batch: float
    volume: float
    producers: int
    elements: float
    fiber: float
    charged: frozenset[str]

    @property
    def limit(self) -> float:
        """Largest fast memory at which one more rebuild of an element costs more I/O than it saves."""
        return (2 * self.fiber / self.spread) ** 2 / self.width

    def words(self, memory: Floats) -> Floats:
        """The bound of all copies, for arrays of fast memory sizes."""
        charges = 2 * self.volume * np.sqrt(self.width) / (self.spread * np.sqrt(memory))
        return np.asarray(self.batch * (charges - self.producers * self.width * self.elements))


def join(problem: Problem, tensor: str, shares: dict[str, float]) -> Joint | None:
    """The joint count around an intermediate class, or None when a statement near it has another form."""
    accesses = [(s, a) for s in problem.statements for a in (s.output, *s.operands) if a.tensor == tensor]
    around = list(dict.fromkeys(statement for statement, _ in accesses))
    producers = [s for s in around if s.output.tensor == tensor]
    value = problem.classes[tensor]
    if not producers or len(producers) == len(around) or value.kind != "intermediate" or value.chunked:
        return None
    edges = [_edge(problem, statement, tensor, shares) for statement in around]
    if any(edge is None for edge in edges):
        return None
    nodes = {name for edge in edges if edge for name in edge[:2]}
    allowed = {s.output.tensor for s in around if problem.classes[s.output.tensor].kind == "output"}
    if any(problem.classes[name].kind != "input" and name not in allowed for name in nodes):
        return None
    batch = [loop for loop in around[0].loops if all(_indexes_all(problem, loop, s) for s in around)]
    copies = float(prod(problem.extents[loop] for loop in batch))
    found = tuple(edge for edge in edges if edge)
    spread, pull = _largest_eigenvalue(found)
    names = {s.name for s in producers}
    together = all(set(a.needs) >= names or not a.needs for s in around for a in s.operands if a.tensor == tensor)
    fibers = [float(prod(problem.extents[loop] for loop in s.reduced)) for s in producers]
    return Joint(
        tensor=tensor,
        width=problem.classes[tensor].width * shares.get(tensor, 1.0),
        edges=found,
        spread=spread,
        pull=pull,
        batch=copies,
        volume=sum(problem.volume(s.loops) for s in around) / copies,
        producers=1 if together else len(producers),
        elements=problem.volume(producers[0].output.loops) / copies,
        fiber=sum(fibers) if together else min(fibers),
        charged=frozenset(nodes | {tensor}),
    )


def _edge(
    problem: Problem, statement: Statement, tensor: str, shares: dict[str, float]
) -> tuple[str, str, float] | None:
    """The statement's two other arrays and 1/sqrt of their widths, when each loop is in two of the three."""
    accesses = [statement.output, *statement.operands]
    others = [access for access in accesses if access.tensor != tensor]
    coupling = problem.coupling
    if len(accesses) != 3 or len(others) != 2 or not all(access.projective for access in accesses):
        return None
    for loop in statement.loops:
        if sum(loop in access.loops for access in accesses) < 2:
            return None
    if coupling and {coupling.row, coupling.column} & set(statement.reduced) and statement.output.tensor == tensor:
        return None
    widths = [problem.classes[a.tensor].width * shares.get(a.tensor, 1.0) for a in others]
    return others[0].tensor, others[1].tensor, 1.0 / float(np.sqrt(widths[0] * widths[1]))


def _indexes_all(problem: Problem, loop: str, statement: Statement) -> bool:
    coupling = problem.coupling
    tied = coupling is not None and loop in (coupling.row, coupling.column)
    accesses: list[Access] = [statement.output, *statement.operands]
    return not tied and all(loop in access.loops for access in accesses)


def _largest_eigenvalue(edges: tuple[tuple[str, str, float], ...]) -> tuple[float, dict[str, float]]:
    """The eigenvalue lambda of the matrix A, and v = (lambda' I - A)^-1 1 for a lambda' just above it."""
    names = sorted({name for edge in edges for name in edge[:2]})
    matrix = np.zeros((len(names), len(names)))
    for a, b, weight in edges:
        matrix[names.index(a), names.index(b)] += weight
        matrix[names.index(b), names.index(a)] += weight
    largest = float(np.max(np.linalg.eigvalsh(matrix)))
    pull = np.linalg.solve(largest * (1 + 1e-7) * np.eye(len(names)) - matrix, np.ones(len(names)))
    return largest, dict(zip(names, (pull / pull.max()).tolist(), strict=True))
