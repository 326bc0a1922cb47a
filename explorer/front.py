"""The Pareto front of stored results, and points in full, ready to be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.pareto import pareto_front
from explorer.store import Store

GOOD = "error IS NULL AND feasible = 1"
"""The points that may be on a front, in SQL."""
BEST = 100
"""Points that count as the best in one objective."""


@dataclass(frozen=True)
class Front:
    """The points of a store that are best in their objectives, ordered by the first objective.

    points   their numbers
    leaders  of those with equal objectives the first: one for each place on the front
    signs    objective -> 1 when it is to be made small, -1 when large
    best     for each objective the numbers of the best points, at most BEST
    """

    store: Store
    points: NDArray[np.int64]
    leaders: NDArray[np.int64]
    signs: Mapping[str, float]
    best: tuple[NDArray[np.int64], ...] = ()

    def rows(self, count: int) -> list[dict[str, Any]]:
        """At most `count` of the leaders, from one end of the front to the other, in full."""
        places = np.unique(np.linspace(0, len(self.leaders) - 1, min(count, len(self.leaders))).astype(int))
        chosen = self.leaders[places]
        rows = {row["point"]: row for row in full_points(self.store, chosen)}
        return [rows[point] for point in chosen.tolist()]


def read_front(store: Store) -> Front:
    """The Pareto front of a store: empty without objectives."""
    signs = {
        name: 1.0 if way == "minimize" else -1.0
        for objective in store.about()["objectives"]
        for way, name in objective.items()
    }
    if not signs:
        return Front(store, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), signs)
    found = store.read(["point", *signs], GOOD)
    values = np.column_stack([found[name] * sign for name, sign in signs.items()]).astype(np.float64)
    front = np.flatnonzero(pareto_front(values))
    order = np.lexsort(values[front].T[::-1])
    points = found["point"].astype(np.int64)
    best = tuple(points[np.argsort(column, kind="stable")[:BEST]] for column in values.T)
    front = front[order]
    first = np.ones(len(front), dtype=bool)
    first[1:] = (values[front][1:] != values[front][:-1]).any(axis=1)
    return Front(store, points[front], points[front][first], signs, best)


def full_points(store: Store, points: NDArray[np.int64]) -> list[dict[str, Any]]:
    """All inputs and quantities of some points, by name, in the order of their numbers."""
    about = store.about()
    constants = {name: value for name, value in about["constants"].items() if value is not None}
    names = ["point", *about["varying"], *about["columns"]]
    rows: list[dict[str, Any]] = []
    for part in store.chunks(names, points=points):
        rows += [{**constants, **dict(zip(names, row, strict=True))} for row in zip(*part, strict=True)]
    return rows
