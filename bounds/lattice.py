"""Subspaces of Q^n in exact arithmetic: kernels, sums, intersections, and the lattice that some of them generate."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

Space = tuple[tuple[Fraction, ...], ...]
"""A subspace as its reduced row echelon basis, which is unique."""


def echelon(rows: Sequence[Sequence[int | Fraction]]) -> Space:
    """Reduced row echelon basis of the span of `rows`."""
    work = [[Fraction(v) for v in row] for row in rows]
    basis: list[list[Fraction]] = []
    for column in range(len(work[0]) if work else 0):
        pivot = next((row for row in work if row[column]), None)
        if pivot is None:
            continue
        work.remove(pivot)
        pivot = [v / pivot[column] for v in pivot]
        work = [[v - row[column] * p for v, p in zip(row, pivot, strict=True)] for row in work]
        basis = [[v - row[column] * p for v, p in zip(row, pivot, strict=True)] for row in basis] + [pivot]
    return tuple(tuple(row) for row in basis)


def kernel(rows: Sequence[Sequence[int | Fraction]], size: int) -> Space:
    """The x of Q^size with rows x = 0."""
    reduced = echelon([row for row in rows if any(row)])
    pivots = [next(c for c, v in enumerate(row) if v) for row in reduced]
    vectors = []
    for free in (c for c in range(size) if c not in pivots):
        vector = [Fraction(0)] * size
        vector[free] = Fraction(1)
        for row, pivot in zip(reduced, pivots, strict=True):
            vector[pivot] = -row[free]
        vectors.append(vector)
    return echelon(vectors)


def meet(a: Space, b: Space, size: int) -> Space:
    """Intersection: what is orthogonal to both orthogonal complements."""
    return kernel([*kernel(a, size), *kernel(b, size)], size)


def rank_on(rows: Sequence[Sequence[int]], space: Space) -> int:
    """Dimension of the image of `space` under the linear map `rows`."""
    images = [[sum((c * v for c, v in zip(row, vector, strict=True)), Fraction(0)) for row in rows] for vector in space]
    return len(echelon([image for image in images if any(image)]))


def closure(generators: Sequence[Space], size: int, most: int) -> list[Space] | None:
    """The lattice under + and intersection that the generators and the whole space generate, without the zero space.

    None when it has more than `most` members.
    """
    whole = echelon([[int(a == b) for a in range(size)] for b in range(size)])
    members = {space for space in [*generators, whole] if space}
    frontier = list(members)
    while frontier:
        new: set[Space] = set()
        for a in frontier:
            for b in list(members):
                new |= {echelon([*a, *b]), meet(a, b, size)} - members
        new = {space for space in new if space}
        members |= new
        if len(members) > most:
            return None
        frontier = list(new)
    return sorted(members, key=lambda space: (len(space), space))
