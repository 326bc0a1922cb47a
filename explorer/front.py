"""The Pareto front of stored results, and points in full, ready to be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.pareto import pareto_front
from explorer.points import Cells
from explorer.store import Store

GOOD = "error IS NULL AND feasible = 1"
"""The points that may be on a front, in SQL."""
BEST = 100
"""Points that count as the best in one objective."""


FEWEST = 3
"""Points of a group's front that are shown at least."""


@dataclass(frozen=True)
class Group:
    """The front of the points that share some inputs, ordered by the first objective.

    values   the inputs that they share; none where there is one front of all points
    points   numbers of those on the front
    leaders  of those with equal objectives the first: one for each place on the front
    """

    values: Mapping[str, Any]
    points: NDArray[np.int64]
    leaders: NDArray[np.int64]


@dataclass(frozen=True)
class Front:
    """The points of a store that are best in their objectives.

    groups   one for each value of the inputs in `by`, or one of all points
    signs    objective -> 1 when it is to be made small, -1 when large
    best     for each objective the numbers of the best points, at most BEST
    by       inputs
    """

    store: Store
    groups: tuple[Group, ...]
    signs: Mapping[str, float]
    best: tuple[NDArray[np.int64], ...] = ()
    by: tuple[str, ...] = ()

    @property
    def points(self) -> NDArray[np.int64]:
        """Numbers of the points on a front, group by group."""
        return np.concatenate([np.empty(0, dtype=np.int64), *(group.points for group in self.groups)])

    @property
    def leaders(self) -> NDArray[np.int64]:
        """Of those with equal objectives the first, group by group."""
        return np.concatenate([np.empty(0, dtype=np.int64), *(group.leaders for group in self.groups)])

    def rows(self, count: int) -> list[dict[str, Any]]:
        """Some leaders in full: at most `count`, of several groups up to FEWEST each, from end to end."""
        shown = self.groups[:count]
        each = max(count // max(len(shown), 1), FEWEST)
        ends = [np.linspace(0, len(g.leaders) - 1, min(each, len(g.leaders))).astype(int) for g in shown]
        chosen = [point for g, at in zip(shown, ends, strict=True) for point in g.leaders[np.unique(at)].tolist()]
        rows = {row["point"]: row for row in full_points(self.store, np.array(chosen, dtype=np.int64))}
        return [rows[point] for point in chosen]


def read_front(store: Store) -> Front:
    """The Pareto front of a store, or one for each value of some inputs: empty without objectives."""
    about = store.about()
    signs = {
        name: 1.0 if way == "minimize" else -1.0 for objective in about["objectives"] for way, name in objective.items()
    }
    by = tuple(about.get("front_by", ()))
    if not signs:
        return Front(store, (), signs, (), by)
    found = store.read(["point", *by, *signs], GOOD)
    values = np.column_stack([found[name] * sign for name, sign in signs.items()]).astype(np.float64)
    points = found["point"].astype(np.int64)
    best = tuple(points[np.argsort(column, kind="stable")[:BEST]] for column in values.T)
    groups = []
    for places in _alike([found[name] for name in by], len(points)):
        shared = {name: _plain(found[name][places[0]]) for name in by}
        groups.append(_front_of(shared, points[places], values[places]))
    return Front(store, tuple(groups), signs, best, by)


def _front_of(shared: Mapping[str, Any], points: NDArray[np.int64], values: NDArray[np.float64]) -> Group:
    front = np.flatnonzero(pareto_front(values))
    front = front[np.lexsort(values[front].T[::-1])]
    first = np.ones(len(front), dtype=bool)
    first[1:] = (values[front][1:] != values[front][:-1]).any(axis=1)
    return Group(shared, points[front], points[front][first])


def _alike(columns: Sequence[Cells], count: int) -> list[NDArray[np.intp]]:
    """The places of points that agree in all columns, in the order of the values."""
    if not columns or not count:
        return [np.arange(count)] if count else []
    codes = np.column_stack([np.unique(cells, return_inverse=True)[1] for cells in columns])
    kinds, code = np.unique(codes, axis=0, return_inverse=True)
    return [np.flatnonzero(code.reshape(-1) == kind) for kind in range(len(kinds))]


def _plain(value: Any) -> Any:
    """The value of an input as it was written: the store reads all numbers as fractions."""
    return int(value) if isinstance(value, float) and value == int(value) else value


def full_points(store: Store, points: NDArray[np.int64]) -> list[dict[str, Any]]:
    """All inputs and quantities of some points, by name, in the order of their numbers."""
    about = store.about()
    constants = {name: value for name, value in about["constants"].items() if value is not None}
    names = ["point", *about["varying"], *about["columns"]]
    rows: list[dict[str, Any]] = []
    for part in store.chunks(names, points=points):
        rows += [{**constants, **dict(zip(names, row, strict=True))} for row in zip(*part, strict=True)]
    return rows
