"""Which Einsum needs which, and in what order they can run: a schedule of Einsums and of loops over iterative ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from einsum.access import Access
from einsum.body import reads
from einsum.einsum import Einsum
from einsum.errors import SpecError


@dataclass(frozen=True)
class Dependence:
    """Einsum `consumer` reads what Einsum `producer` writes (positions in the cascade).

    delays: iterative rank -> iterations between writing and reading. `X[i+1] = f(X[i])` has delay 1 on i. Ranks that
    the read does not step along (a final value `X[N]`) are absent: such a read waits for the whole loop.
    """

    producer: int
    consumer: int
    access: Access
    delays: Mapping[str, int]


@dataclass(frozen=True)
class Loop:
    """Iterations of one rank, from 0 upwards; all of `body` runs in each."""

    rank: str
    body: tuple[int | Loop, ...]


Schedule = tuple[int | Loop, ...]


def dependences(einsums: Sequence[Einsum], iterative: Set[str]) -> list[Dependence]:
    """All reads of produced tensors, initial values included."""
    producers = {einsum.name: position for position, einsum in enumerate(einsums)}
    found = []
    for position, einsum in enumerate(einsums):
        for access in einsum.inputs:
            if access.tensor in producers:
                producer = producers[access.tensor]
                delays = _delays(einsums[producer].output, access, iterative)
                found.append(Dependence(producer, position, access, delays))
        for access in reads(einsum.initial) if einsum.initial is not None else ():
            if access.tensor in producers:
                found.append(Dependence(producers[access.tensor], position, access, {}))
    return found


def _delays(output: Access, access: Access, iterative: Set[str]) -> dict[str, int]:
    delays = {}
    for written, read in zip(output.indices, access.indices, strict=False):
        write_step, read_step = written.step, read.step
        if write_step and read_step and write_step[0] == read_step[0] and write_step[0] in iterative:
            delays[write_step[0]] = write_step[1] - read_step[1]
    return delays


def schedule(einsums: Sequence[Einsum], iterative: Set[str]) -> Schedule:
    """An order in which every value is there when it is read, as close to the written order as possible.

    Einsums that depend on each other in a circle run inside a loop over an iterative rank that delays the circle.
    SpecError names the tensors of a circle that no such rank delays.
    """
    edges = dependences(einsums, iterative)
    return _ordered(einsums, tuple(range(len(einsums))), edges, iterative)


def flatten(order: Schedule) -> list[int]:
    """The positions of all Einsums in the order in which they first run."""
    found: list[int] = []
    for item in order:
        found += flatten(item.body) if isinstance(item, Loop) else [item]
    return found


def _ordered(
    einsums: Sequence[Einsum], nodes: tuple[int, ...], edges: Sequence[Dependence], iterative: Set[str]
) -> Schedule:
    inside = [edge for edge in edges if edge.producer in nodes and edge.consumer in nodes]
    result: list[int | Loop] = []
    for group in _groups(nodes, inside):
        within = [edge for edge in inside if edge.producer in group and edge.consumer in group]
        result.append(_loop(einsums, group, within, iterative) if within else group[0])
    return tuple(result)


def _loop(
    einsums: Sequence[Einsum], group: tuple[int, ...], edges: Sequence[Dependence], iterative: Set[str]
) -> Loop:
    """The loop that runs a circle of Einsums."""
    for rank in sorted(iterative):
        steps = [edge.delays.get(rank) for edge in edges]
        common = all(rank in einsums[position].ranks for position in group)
        if common and all(step is not None and step >= 0 for step in steps) and any(steps):
            remaining = [edge for edge, step in zip(edges, steps, strict=True) if step == 0]
            return Loop(rank, _ordered(einsums, group, remaining, iterative - {rank}))
    names = [einsums[position].name for position in group]
    if len(names) == 1:
        raise SpecError(f"'{names[0]}' depends on itself, with no iterative rank between", key=f"einsums[{group[0]}]")
    chain = " -> ".join([*names, names[0]])
    raise SpecError(f"the Einsums depend on each other in a circle: {chain}", key=f"einsums[{group[0]}]")


def _groups(nodes: tuple[int, ...], edges: Sequence[Dependence]) -> list[tuple[int, ...]]:
    """Strongly connected groups in an order that respects the edges; of the ready ones the earliest comes first."""
    position = {node: place for place, node in enumerate(nodes)}
    reach = np.eye(len(nodes), dtype=bool)
    for edge in edges:
        reach[position[edge.producer], position[edge.consumer]] = True
    for middle in range(len(nodes)):  # Warshall's closure; cascades have tens of Einsums
        reach |= reach[:, middle : middle + 1] & reach[middle : middle + 1, :]
    together = reach & reach.T
    waiting = {int(row.argmax()) for row in together}
    done: set[int] = set()
    order = []
    while waiting:
        ready = (first for first in sorted(waiting) if set(np.flatnonzero(reach[:, first] & ~together[first])) <= done)
        first = next(ready)
        members = np.flatnonzero(together[first])
        order.append(tuple(nodes[member] for member in members))
        done.update(int(member) for member in members)
        waiting.discard(first)
    return order
