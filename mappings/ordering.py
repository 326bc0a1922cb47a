"""Which step waits for which: data, the order that the mapping's branches ask for, and tiles in flight."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import numpy as np

from einsum.errors import SpecError
from mappings.masked import Space
from mappings.nest import Block, Leaf, Part, Pause, PhaseNest
from mappings.operands import Homes, is_previous
from mappings.program import Array, Dependence


class Ordering:
    """The dependences of a phase's leaves and pauses on one another."""

    def __init__(self, phase: PhaseNest, homes: Homes, space: Space) -> None:
        self.phase = phase
        self.homes = homes
        self.space = space
        self.pauses = tuple(part for part in _parts(phase.body) if isinstance(part, Pause))
        self._same: dict[str, set[str]] = {part.name: set() for part in _parts(phase.body)}
        self._earlier: dict[str, list[Dependence]] = {part.name: [] for part in _parts(phase.body)}
        for leaf in phase.leaves:
            self._data(leaf)
        self._branches(phase.body)
        self._across_tiles(phase.body)
        self._reduce()

    def before(self, part: Leaf | Pause) -> tuple[Dependence, ...]:
        """What a leaf or pause waits for."""
        return (*(Dependence(name) for name in sorted(self._same[part.name])), *self._earlier[part.name])

    def _data(self, leaf: Leaf) -> None:
        for name in leaf.einsums:
            for access in self.homes.einsum(name).inputs:
                for made in self.homes.producers(access.tensor):
                    if made not in self.phase.leaves:
                        continue
                    if is_previous(self.homes.ranks, access):
                        self._recurrence(leaf, made, access.tensor)
                    elif made is not leaf:
                        self._value(leaf, made, access.tensor)

    def _value(self, leaf: Leaf, made: Leaf, tensor: str) -> None:
        behind = leaf.lag - made.lag
        if behind < 0:
            raise SpecError(
                f"{leaf.name} (lag {leaf.lag}) reads '{tensor}' before {made.name} (lag {made.lag}) computes it",
                key=leaf.key,
            )
        if leaf.spread is not None:
            return  # its work trails the values by up to a whole loop; the loop's length hides the wait
        if behind:
            self._earlier[leaf.name].append(Dependence(made.name, behind))
        else:
            self._same[leaf.name].add(made.name)

    def _recurrence(self, leaf: Leaf, made: Leaf, tensor: str) -> None:
        """The value of the iteration before: as many tiles back as one iteration of the iterative loop has."""
        ranks = {name for rank in self.homes.ranks.iterative(tensor) for name in self.homes.ranks.names_moving(rank)}
        places = [place for place, loop in enumerate(self.space.loops) if loop.name in ranks]
        if not places:
            return
        distance: Array = np.ones((self.space.counts.shape[0], 1))
        for state in self.space.states[places[-1] + 1 :]:
            distance = distance * state.trips.max(axis=1, keepdims=True)
        self._earlier[leaf.name].append(Dependence(made.name, (distance + (leaf.lag - made.lag))[:, 0]))

    def _branches(self, part: Part) -> None:
        if not isinstance(part, Block):
            return
        for inner in part.parts:
            self._branches(inner)
        if part.kind == "sequence":
            for early, late in zip(part.parts, part.parts[1:], strict=False):
                for name in self._ends(early):
                    for follower in self._starts(late):
                        self._same[follower].add(name)

    def _across_tiles(self, body: Part) -> None:
        """No overlap of tiles in a sequence or parallel body; at most `depth` tiles in flight in a pipeline."""
        if not isinstance(body, Block):
            return
        distance: Array | int = 1
        if body.kind == "pipeline":
            if body.depth is None:
                return
            distance = body.depth[:, 0]
        else:
            for earlier in self._earlier.values():
                earlier.clear()  # the end of the tile before covers every older tile
        for follower in self._starts(body):
            for name in self._ends(body):
                self._earlier[follower].append(Dependence(name, distance))

    def _starts(self, part: Part) -> list[str]:
        """Steps of a part that wait for no other step of it in the same tile."""
        names = {inner.name for inner in _parts(part)}
        return [inner.name for inner in _parts(part) if not self._same[inner.name] & names]

    def _ends(self, part: Part) -> list[str]:
        """Steps of a part that no other step of it waits for in the same tile."""
        names = [inner.name for inner in _parts(part)]
        awaited = {name for inner in names for name in self._same[inner]}
        return [name for name in names if name not in awaited]

    def _reduce(self) -> None:
        """Leave out what follows from other dependences in the same tile."""
        try:
            order = list(TopologicalSorter(self._same).static_order())
        except CycleError as error:
            names = [str(name) for name in reversed(error.args[1])]
            raise SpecError(f"the order of steps contradicts their data: {' -> '.join(names)}", key="nest") from None
        awaited: dict[str, set[str]] = {}
        for name in order:
            before = self._same.get(name, set())
            implied = set().union(*(awaited[made] for made in before))
            awaited[name] = before | implied
            if name in self._same:
                self._same[name] = before - implied


def _parts(part: Part) -> Iterator[Leaf | Pause]:
    """Leaves and pauses in order."""
    if isinstance(part, Block):
        for inner in part.parts:
            yield from _parts(inner)
    else:
        yield part
