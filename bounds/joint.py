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

Around an input there are no free visits, and nothing is subtracted.

*Phases.* No element is consumed before it is complete, so that the words of T in a segment are divided into those that
are produced and those that are consumed, but for an element that becomes complete there, which is charged once more.
With sqrt(a) for the first and sqrt(1 - a) for the others lambda is the largest over all shares a; see docs/bounds.md,
section 5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, prod

import numpy as np
from numpy.typing import NDArray

from bounds.problem import Access, Problem, Statement

Floats = NDArray[np.float64]
SHARES = 1000


@dataclass(frozen=True)
class Joint:
    """All statements around one class: an intermediate, or an input that several of them read.

    edges      (node, node, weight, phase) for each statement; phase 0 produces and 1 consumes, or all are 0
    spread     lambda: the largest eigenvalue of the weighted adjacency matrix, over all shares of the phases
    volume     operations of one copy, all statements together
    free       charges of each element of T that may be no I/O
    rebuild    further ones with each time that an element is made again, by at least `fiber` operations
    limit      largest M at which recomputing T cannot pay
    """

    tensor: str
    kind: str
    width: float
    edges: tuple[tuple[str, str, float, int], ...]
    spread: float
    batch: float
    volume: float
    free: int
    rebuild: int
    elements: float
    fiber: float
    charged: frozenset[str]

    @property
    def limit(self) -> float:
        """Largest fast memory at which one more rebuild of an element costs more I/O than it saves."""
        return (2 * self.fiber / (self.spread * self.rebuild)) ** 2 / self.width if self.rebuild else inf

    def words(self, memory: Floats) -> Floats:
        """The bound of all copies, for arrays of fast memory sizes."""
        charges = 2 * self.volume * np.sqrt(self.width) / (self.spread * np.sqrt(memory))
        return np.asarray(self.batch * (charges - self.free * self.width * self.elements))


def join(problem: Problem, tensor: str, shares: dict[str, float]) -> tuple[Joint, ...]:
    """The joint counts around a class; none when a statement near it has another form."""
    accesses = [(s, a) for s in problem.statements for a in (s.output, *s.operands) if a.tensor == tensor]
    around = list(dict.fromkeys(statement for statement, _ in accesses))
    producers = [s for s in around if s.output.tensor == tensor]
    value = problem.classes[tensor]
    inner = value.kind == "intermediate" and bool(producers) and len(producers) < len(around)
    if value.chunked or not (inner or (value.kind == "input" and len(around) > 1)):
        return ()
    edges = [_edge(problem, statement, tensor, shares) for statement in around]
    if any(edge is None for edge in edges):
        return ()
    nodes = {name for edge in edges if edge for name in edge[:2]}
    allowed = {s.output.tensor for s in around if problem.classes[s.output.tensor].kind == "output"}
    if any(problem.classes[name].kind != "input" and name not in allowed for name in nodes):
        return ()
    batch = [loop for loop in around[0].loops if all(_indexes_all(problem, loop, s) for s in around)]
    copies = float(prod(problem.extents[loop] for loop in batch))
    found = tuple((*edge, 0) for edge in edges if edge)
    whole = Joint(
        tensor=tensor,
        kind=value.kind,
        width=value.width * shares.get(tensor, 1.0),
        edges=found,
        spread=_spread(found),
        batch=copies,
        volume=sum(problem.volume(s.loops) for s in around) / copies,
        free=0,
        rebuild=0,
        elements=value.elements / copies,
        fiber=0.0,
        charged=frozenset(nodes | {tensor}),
    )
    return _around_intermediate(problem, whole, around, producers) if inner else (whole,)


def _around_intermediate(
    problem: Problem, whole: Joint, around: list[Statement], producers: list[Statement]
) -> tuple[Joint, ...]:
    """With elements that may be made again: all together, and in phases where that says more."""
    tensor, found, copies = whole.tensor, whole.edges, whole.batch
    fibers = {s.name: float(prod(problem.extents[loop] for loop in s.reduced)) for s in producers}
    needs = {frozenset(a.needs or fibers) for s in around for a in s.operands if a.tensor == tensor}
    together = needs == {frozenset(fibers)}
    plain = replace(
        whole,
        free=1 if together else len(producers),
        rebuild=1,
        elements=problem.volume(producers[0].output.loops) / copies,
        fiber=sum(fibers.values()) if together else min(fibers.values()),
    )
    kinds = _kinds(needs, frozenset(fibers))
    phased = tuple((*edge[:3], int(s not in producers)) for s, edge in zip(around, found, strict=True))
    spread = _spread(phased)
    if not kinds or spread > 0.99 * plain.spread:
        return (plain,)
    fiber = min(sum(fibers[name] for name in kind) for kind in kinds)
    return plain, replace(plain, edges=phased, spread=spread, free=2 * len(kinds), rebuild=2, fiber=fiber)


def _kinds(needs: set[frozenset[str]], producers: frozenset[str]) -> list[frozenset[str]]:
    """Producers that each kind of elements has beyond those of the kind before; none unless the kinds are a chain.

    A kind is what some consumer needs: scores made by one producer, then those made by it and another one.
    """
    chain = sorted(needs, key=len)
    if chain[-1] != producers or any(not a < b for a, b in pairwise(chain)):
        return []
    return [b - a for a, b in pairwise([frozenset[str](), *chain])]


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


def _spread(edges: tuple[tuple[str, str, float, int], ...]) -> float:
    """The largest eigenvalue for SHARES shares of the two phases, each cell at the corner where both are largest."""
    names = sorted({name for edge in edges for name in edge[:2]})
    share = np.arange(1, SHARES + 1) / SHARES
    matrix = np.zeros((SHARES, len(names), len(names)))
    for a, b, weight, phase in edges:
        felt = weight * np.sqrt(share[:: 1 - 2 * phase])
        matrix[:, names.index(a), names.index(b)] += felt
        matrix[:, names.index(b), names.index(a)] += felt
    return float(np.max(np.linalg.eigvalsh(matrix)))
