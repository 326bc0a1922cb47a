"""Pareto fronts: the points that no other point beats in one objective without losing in another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1024
_STRONG = 64


def pareto_front(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points are on the front; `values` is (points, objectives), all to be made small.

    A point is off the front when another one is at most as large in every objective and smaller in one; equal points
    are on it together. A point with a NaN is never on it.
    """
    front = np.zeros(len(values), dtype=bool)
    known = np.flatnonzero(~np.isnan(values).any(axis=1))
    if len(known) and values.shape[1]:
        front[known] = _staircase(values[known]) if values.shape[1] <= 2 else _blockwise(values[known])
    return front


def _staircase(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """One or two objectives: sorted by the first, a point is on the front when its second is below all before it."""
    first, last = values[:, 0], values[:, -1]
    order = np.lexsort((last, first))
    least = np.minimum.accumulate(last[order])
    new = np.r_[True, (last[order][1:] < least[:-1])]
    # Points equal to one on the front follow it directly.
    leader = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    equal = (first[order] == first[order][leader]) & (last[order] == last[order][leader])
    front = np.zeros(len(values), dtype=bool)
    front[order[equal]] = True
    return front


def _blockwise(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Any number of objectives. Sorted by the sum of their ranks, a point can be beaten only by points before it."""
    ranks = np.column_stack([np.unique(column, return_inverse=True)[1] for column in values.T]).astype(np.int64)
    order = np.argsort(ranks.sum(axis=1), kind="stable")
    # The first points beat most of the others: comparing with these few first spares the long comparisons.
    order = order[~_beaten(ranks[order], ranks[order[:_STRONG]])]
    front = ranks[:0]
    chosen: list[NDArray[np.intp]] = []
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        block = block[~_beaten(ranks[block], front)]
        block = block[~_beaten(ranks[block], ranks[block])]
        chosen.append(block)
        front = np.concatenate([front, ranks[block]])
    result = np.zeros(len(values), dtype=bool)
    result[np.concatenate(chosen)] = True
    return result


def _beaten(points: NDArray[np.int64], by: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of `points` are beaten by one of `by`, a block at a time to bound the memory."""
    beaten = np.zeros(len(points), dtype=bool)
    for start in range(0, len(by), _BLOCK):
        open_ = np.flatnonzero(~beaten)
        some = by[start : start + _BLOCK]
        for low in range(0, len(open_), 8 * _BLOCK):
            rows = open_[low : low + 8 * _BLOCK]
            no_larger = np.ones((len(rows), len(some)), dtype=bool)
            smaller = np.zeros((len(rows), len(some)), dtype=bool)
            for column in range(points.shape[1]):
                ours, theirs = points[rows, column, None], some[None, :, column]
                no_larger &= theirs <= ours
                smaller |= theirs < ours
            beaten[rows] = (no_larger & smaller).any(axis=1)
    return beaten
