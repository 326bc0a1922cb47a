"""Layered layout of a directed graph: nodes in rows, every edge downwards, few crossings (Sugiyama's method)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Edge = tuple[str, str]
_SWEEPS = 8


@dataclass(frozen=True)
class Layout:
    """Rows of node names from top to bottom, and for every edge the names along it, from row to row.

    An edge that spans several rows passes through places of its own between the nodes; their names are not nodes.
    """

    rows: tuple[tuple[str, ...], ...]
    paths: Mapping[Edge, tuple[str, ...]]


def lay_out(nodes: Sequence[str], edges: Sequence[Edge]) -> Layout:
    """Lay out an acyclic graph whose `nodes` are in topological order."""
    level = _levels(nodes, edges)
    rows: list[list[str]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for node in nodes:
        rows[level[node]].append(node)
    paths: dict[Edge, tuple[str, ...]] = {}
    for source, target in dict.fromkeys(edges):
        between = [f"{source}→{target}@{row}" for row in range(level[source] + 1, level[target])]
        for row, place in enumerate(between, level[source] + 1):
            rows[row].append(place)
        paths[source, target] = (source, *between, target)
    return Layout(tuple(map(tuple, _uncross(rows, paths))), paths)


def _levels(nodes: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """Longest distance from a node without predecessors; such a node moves down to just above its first successor."""
    level = dict.fromkeys(nodes, 0)
    for node in nodes:
        for source, target in edges:
            if source == node:
                level[target] = max(level[target], level[node] + 1)
    targets = {target for _, target in edges}
    for node in nodes:
        below = [level[target] for source, target in edges if source == node]
        if node not in targets and below:
            level[node] = min(below) - 1
    return level


def _uncross(rows: list[list[str]], paths: Mapping[Edge, tuple[str, ...]]) -> list[list[str]]:
    """Order each row by the mean place of its neighbours in the row before, going down and up; keep the best order."""
    links = [link for path in paths.values() for link in pairwise(path)]
    best, fewest = rows, _crossings(rows, links)
    for sweep in range(_SWEEPS):
        downwards = sweep % 2 == 0
        ends = [(below, above) if downwards else (above, below) for above, below in links]
        order = [list(row) for row in rows] if downwards else [list(row) for row in rows[::-1]]
        for number in range(1, len(order)):
            order[number] = _by_neighbours(order[number], order[number - 1], ends)
        rows = order if downwards else order[::-1]
        crossings = _crossings(rows, links)
        if crossings < fewest:
            best, fewest = rows, crossings
    return best


def _by_neighbours(row: list[str], before: list[str], ends: Sequence[Edge]) -> list[str]:
    place = {name: i for i, name in enumerate(before)}

    def mean(item: tuple[int, str]) -> float:
        neighbours = [place[other] for name, other in ends if name == item[1] and other in place]
        return sum(neighbours) / len(neighbours) if neighbours else item[0]

    return [name for _, name in sorted(enumerate(row), key=mean)]


def _crossings(rows: list[list[str]], links: Sequence[Edge]) -> int:
    place = {name: (number, i) for number, row in enumerate(rows) for i, name in enumerate(row)}
    spans = [(*place[above], place[below][1]) for above, below in links]
    return sum(
        row == other and (a - b) * (c - d) < 0 for i, (row, a, c) in enumerate(spans) for other, b, d in spans[:i]
    )
