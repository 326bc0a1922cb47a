"""Runs a mapping of a small cascade with values: tiles are copied between memories in the order of its loops.

The slow memory holds inputs, outputs and what the nest keeps there. A value is read from the innermost tile that has
it; a value whose tile was replaced before it was read is gone, and the run fails. Words to and from the slow memory are
counted, and what each memory holds may never exceed its capacity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from einsum.access import Access
from einsum.body import MAPS, REDUCTIONS, Body, Literal, Read, Symbol
from einsum.conditions import Comparison
from einsum.einsum import Einsum
from tests.mappings.oracle import Box, Oracle

Element = tuple[str, tuple[int, ...]]
SLOW = "DRAM"


@dataclass(eq=False)
class Tile:
    """What is there of a tensor: the part of the ranks that the loops have cut, the values, and those to write back."""

    part: tuple[Any, ...]
    words: int
    values: dict[Element, float] = field(default_factory=dict)
    changed: set[Element] = field(default_factory=set)


@dataclass(eq=False)
class Hold:
    """One allocation of a memory. A tensor has a tile for each set of ranks that the loops around the hold cut."""

    level: str
    tensors: tuple[str, ...]
    copies: int
    scope: frozenset[str]
    tiles: dict[tuple[str, frozenset[str]], Tile] = field(default_factory=dict)

    def words(self) -> int:
        """Words that it takes: tensors of a group lie in the same place."""
        of = [sum(tile.words for (tensor, _), tile in self.tiles.items() if tensor == name) for name in self.tensors]
        return max(of) * self.copies


Holds = list[tuple[Hold, Box]]


class Executor(Oracle):
    """Executes while it walks. `capacity`: words of each memory."""

    def __init__(
        self,
        cascade: Any,
        nest: list[Any],
        sizes: Mapping[str, int],
        inputs: Mapping[str, np.ndarray[Any, Any]],
        capacity: Mapping[str, int],
    ) -> None:
        self.capacity = capacity
        self.moved = 0
        self.slow = {(name, at): float(v) for name, array in inputs.items() for at, v in np.ndenumerate(array)}
        self.live: dict[tuple[Any, ...], Hold] = {}
        self.last: dict[tuple[Any, ...], Element] = {}
        self.touched: dict[Any, frozenset[Element]] = {}
        super().__init__(cascade, nest, sizes, {})

    # What is computed.

    def points(self, einsum: Einsum, box: Box) -> list[tuple[int, ...]]:
        """Coordinates of the Einsum's ranks in a box that its conditions keep."""
        found = super().points(einsum, box)
        return [point for point in found if self._kept(einsum, point)] if einsum.conditions else found

    def _kept(self, einsum: Einsum, point: tuple[int, ...]) -> bool:
        at = {**self.values, **dict(zip(einsum.ranks, point, strict=True))}
        for base in self.sizes:
            outer, inner = (self.cascade.partitions[base].outer, self.cascade.partitions[base].inner)
            if outer in at and inner in at:
                at[base] = at[outer] * self.sizes[base] + at[inner]
        conditions = [c for c in einsum.conditions if isinstance(c, Comparison)]
        return all(bool(condition.expression.evaluate(at)) for condition in conditions if condition.names <= set(at))

    def _walk(
        self, nodes: list[Any], box: Box, holds: Any, key: tuple[Any, ...], looped: frozenset[str] = frozenset()
    ) -> None:
        for number, node in enumerate(nodes):
            here = (*key, number)
            if "for" in node:
                boxes = [box]
                for name, chunk in node["for"].items():
                    boxes = [cut for outer in boxes for cut in self._chunks(name, chunk, outer)]
                for inside in boxes:
                    self._walk(nodes[number + 1 :], inside, holds, (*here, "inside"))
                return
            if "keep" in node:
                added = []
                for level, entries in node["keep"].items():
                    named = entries if isinstance(entries, dict) else {name: {} for name in entries}
                    for name, options in named.items():
                        hold = self._hold((*here, level, name), level, name, options, nodes[number + 1 :])
                        added.append((hold, box))
                holds = [*holds, *added]
            elif "compute" in node:
                self._compute(node, box, holds, here)
            else:
                kind = next(kind for kind in ("sequence", "pipeline") if kind in node)
                for child, inner in enumerate(node[kind]):
                    self._walk(inner if isinstance(inner, list) else [inner], box, holds, (*here, child))
                    self._publish((*here, child))
                    if "inside" not in here and kind == "sequence":  # a phase ends
                        self._leave((*here, child))

    def _hold(self, place: tuple[Any, ...], level: str, name: str, options: Any, below: list[Any]) -> Hold:
        if place not in self.live:
            tensors = tuple(options.get("tensors", (name,)))
            self.live[place] = Hold(level, tensors, options.get("buffers", 1), frozenset(_names(below)))
        return self.live[place]

    def _leave(self, key: tuple[Any, ...]) -> None:
        """Empty the holds of a part of the nest, the innermost first."""
        for place in sorted(self.live, key=len, reverse=True):
            if place[: len(key)] == key:
                outer = [self.live[p] for p in self.live if p != place and self._around(p, place)]
                for at in list(self.live[place].tiles):
                    self._write_back(self.live[place], at, outer)

    def _publish(self, key: tuple[Any, ...]) -> None:
        """Pass what a part of the nest has changed on to the memories around it, for other parts to read."""
        for place in sorted(self.live, key=len, reverse=True):
            if place[: len(key)] == key:
                for (tensor, _), tile in self.live[place].tiles.items():
                    outer = [self.live[p] for p in self.live if p != place and self._around(p, place)]
                    around = [hold for hold in outer if tensor in hold.tensors and hold.level != SLOW]
                    for (name, _), target in around[-1].tiles.items() if around else ():
                        if name == tensor:
                            target.values.update({at: tile.values[at] for at in tile.changed})
                            target.changed |= tile.changed
                    tile.changed = set() if around else tile.changed

    @staticmethod
    def _around(outer: tuple[Any, ...], inner: tuple[Any, ...]) -> bool:
        """Whether the hold of one place encloses that of another: it stands before it in the same list of nodes."""
        *path, number = outer[:-2]
        return len(inner) > len(outer) - 2 and list(inner[: len(path)]) == path and inner[len(path)] > number

    def _compute(
        self, node: dict[str, Any], box: Box, holds: Holds, key: tuple[Any, ...], looped: frozenset[str] = frozenset()
    ) -> None:
        names = node["compute"] if isinstance(node["compute"], list) else [node["compute"]]
        einsums = [self.cascade.einsum(name) for name in names]
        if not self._ready(einsums, names, box):
            return
        local: dict[Element, float] = {}
        near = [(hold, at) for hold, at in holds if hold.level != SLOW]
        for place, (hold, hold_box) in enumerate(near):
            for einsum in einsums:
                for access in (*einsum.inputs, einsum.output):
                    if access.tensor in hold.tensors:
                        self._bring(hold, hold_box, einsum, access, [outer for outer, _ in near[:place]])
        orders = [self.points(einsum, box) for einsum in einsums]
        aligned = [dict(zip(einsums[0].ranks, point, strict=True)) for point in orders[0]]
        for at in aligned:
            for einsum in einsums:
                point = tuple(at[rank] for rank in einsum.ranks)
                value = self._value(einsum.body, einsum, point, near, local, key)  # Einsums of a leaf share reads
                self._store((einsum.name, self.element(einsum.output, einsum, point)), value, einsum, holds, local)
                assert point not in self.done[einsum.name]
                self.done[einsum.name].add(point)
                self.made[einsum.name, self.element(einsum.output, einsum, point)] += 1

    def _value(
        self, body: Body, einsum: Einsum, point: tuple[int, ...], near: Holds, local: Any, reader: tuple[Any, ...]
    ) -> float:
        if isinstance(body, Read):
            return self._read(body.access, einsum, point, near, local, reader)
        if isinstance(body, Literal):
            return body.value
        if isinstance(body, Symbol):
            return float(dict(zip(einsum.ranks, point, strict=True)).get(body.name, self.values.get(body.name, 0)))
        operands = [self._value(part, einsum, point, near, local, reader) for part in body.operands]
        return float(MAPS[body.function].apply(*operands))

    def _read(
        self, access: Access, einsum: Einsum, point: tuple[int, ...], near: Holds, local: Any, reader: tuple[Any, ...]
    ) -> float:
        at = access.tensor, self.element(access, einsum, point)
        if at in local:
            return float(local[at])
        if at not in self.due and self.latest(access.tensor):
            initial = next(e.initial for e in self.cascade.einsums if e.name == access.tensor)
            assert isinstance(initial, Literal)
            return initial.value
        own = [(hold, box) for hold, box in near if access.tensor in hold.tensors]
        if own:
            hold, box = own[-1]
            return hold.tiles[access.tensor, self._cut(access, box)].values[at]
        if self.last.get((*reader, str(access))) != at:
            self.moved += 1
            self.last[(*reader, str(access))] = at
        self._flush(frozenset({at}))
        return self.slow[at]

    def _store(self, at: Element, value: float, einsum: Einsum, holds: Holds, local: dict[Element, float]) -> None:
        own = [(hold, box) for hold, box in holds if at[0] in hold.tensors and hold.level != SLOW]
        tile = own[-1][0].tiles[at[0], self._cut(einsum.output, own[-1][1])] if own else None
        values: dict[Element, float] = local if tile is None else tile.values
        if einsum.reduction is not None and at in values:
            ufunc = REDUCTIONS[einsum.reduction].ufunc
            assert ufunc is not None
            value = float(ufunc(values[at], value))
        values[at] = value
        if tile is None:
            kept = any(at[0] in hold.tensors for hold, _ in holds) or at[0] in self.outside
            assert not kept, "results go through a memory on chip"
            return
        tile.changed.add(at)
        for (tensor, _), other in own[-1][0].tiles.items():
            if tensor != at[0]:  # overwritten in place
                other.values.pop((tensor, at[1]), None)
                other.changed.discard((tensor, at[1]))

    # Tiles come and go.

    def _cut(self, access: Access, box: Box) -> frozenset[str]:
        """Base ranks of an access that the loops have cut; the place on an iterative rank does not count."""
        ranks = {self.halves.get(rank, rank) for rank in set(access.ranks) - self.latest(access.tensor)}
        return frozenset(rank for rank in ranks if box[rank] != self.whole[rank])

    def _bring(self, hold: Hold, box: Box, einsum: Einsum, access: Access, outer: list[Hold]) -> None:
        """Replace a tile of a hold by the one that its loops have reached."""
        cut = self._cut(access, box)
        part = tuple(sorted((rank, *box[rank]) for rank in cut))
        elements = self.touched_by(access, einsum, box)
        at = access.tensor, cut
        if at not in hold.tiles or hold.tiles[at].part != part:
            if at in hold.tiles:
                self._write_back(hold, at, outer)
            hold.tiles[at] = Tile(part, 0)
        tile = hold.tiles[at]
        latest = {index for index, one in enumerate(self._steps_of(access.tensor)) if one}
        places = {tuple(c for place, c in enumerate(e[1]) if place not in latest) for e in elements}
        tile.words = max(tile.words, len(places))
        total = sum(other.words() for other in self.live.values() if other.level == hold.level)
        assert total <= self.capacity[hold.level], f"{total} words in {hold.level} of {self.capacity[hold.level]}"
        source, far = self._source(access.tensor, outer)
        missing = elements - set(tile.values)
        if far:
            self._flush(missing)
        for element in missing:
            if element in source:
                tile.values[element] = source[element]
                self.moved += far

    def touched_by(self, access: Access, einsum: Einsum, box: Box) -> frozenset[Element]:
        """Elements that an access touches anywhere in a box."""
        bases = {self.halves.get(rank, rank) for rank in einsum.ranks}
        key = str(access), einsum.name, tuple(sorted((rank, box[rank]) for rank in bases))
        if key not in self.touched:
            points = super().points(einsum, box)
            self.touched[key] = frozenset((access.tensor, self.element(access, einsum, point)) for point in points)
        return self.touched[key]

    def _steps_of(self, tensor: str) -> Iterator[bool]:
        for einsum in self.cascade.einsums:
            if einsum.name == tensor:
                return (bool(set(index.terms) & self.latest(tensor)) for index in einsum.output.indices)
        return iter(())

    def _source(self, tensor: str, outer: list[Hold]) -> tuple[Mapping[Element, float], bool]:
        """Where a tile comes from: the next hold outside, or the slow memory."""
        around = [hold for hold in outer if tensor in hold.tensors and hold.level != SLOW]
        if not around:
            return self.slow, True
        tiles = [tile for (name, _), tile in around[-1].tiles.items() if name == tensor]
        return {at: value for tile in tiles for at, value in tile.values.items()}, False

    def _write_back(self, hold: Hold, at: tuple[str, frozenset[str]], outer: list[Hold]) -> None:
        tile = hold.tiles.pop(at)
        around = [other for other in outer if at[0] in other.tensors and other.level != SLOW]
        if not around and not self._needed_outside(at[0], hold):
            return
        for element in tile.changed:
            if not around:
                self.slow[element] = tile.values[element]
                self.moved += 1
                continue
            for (name, _), target in around[-1].tiles.items():
                if name == at[0]:
                    target.values[element] = tile.values[element]
                    target.changed.add(element)

    def _flush(self, elements: frozenset[Element]) -> None:
        """Write back what is about to be read from the slow memory while it waits in a tile of another branch."""
        for place, hold in self.live.items():
            for (tensor, _), tile in hold.tiles.items():
                waiting = tile.changed & elements
                if not waiting or not self._needed_outside(tensor, hold):
                    continue
                enclosing = (self.live[p] for p in self.live if p != place and self._around(p, place))
                if any(tensor in outer.tensors and outer.level != SLOW for outer in enclosing):
                    continue
                self.slow.update({element: tile.values[element] for element in waiting})
                self.moved += len(waiting)
                tile.changed -= waiting

    def _needed_outside(self, tensor: str, hold: Hold) -> bool:
        readers = {e.name for e in self.cascade.consumers(tensor)}
        return tensor in self.outside or not readers <= hold.scope

    def _finish(self) -> None:
        self._leave(())
        for einsum in self.cascade.einsums:
            assert len(self.done[einsum.name]) == len(self.points(einsum, self.whole)), f"{einsum.name} is not complete"


def _names(nodes: Any) -> list[str]:
    """Einsums computed in a part of a nest."""
    if isinstance(nodes, list):
        return [name for node in nodes for name in _names(node)]
    found = []
    if "compute" in nodes:
        found += [nodes["compute"]] if isinstance(nodes["compute"], str) else list(nodes["compute"])
    for kind in ("sequence", "pipeline"):
        found += _names(nodes.get(kind, []))
    return found
