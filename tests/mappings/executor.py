"""Runs a mapping of a small cascade with values: tiles are copied into a buffer and back, in the order of its loops.

The slow memory holds inputs, outputs and what the nest keeps there. A value is read from the innermost tile that has
it; a value whose tile was replaced before it was read is gone, and the run fails. Words to and from the slow memory are
counted, and the buffer's words may never exceed its capacity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from tests.mappings.oracle import Box, Oracle

Element = tuple[str, tuple[int, ...]]
COMBINE: dict[str, Callable[[float, float], float]] = {"sum": lambda a, b: a + b, "max": max}


@dataclass(eq=False)
class Hold:
    """One allocation: the values that are there now, and those to write back."""

    level: str
    tensors: tuple[str, ...]
    producers: frozenset[str]
    box: tuple[Any, ...] | None = None
    words: int = 0
    values: dict[Element, float] = field(default_factory=dict)
    changed: set[Element] = field(default_factory=set)


class Executor(Oracle):
    """Executes while it walks. `functions`: Einsum -> its body on the operands' values, in order of its inputs."""

    def __init__(
        self,
        cascade: Any,
        nest: list[Any],
        sizes: Mapping[str, int],
        inputs: Mapping[str, np.ndarray[Any, Any]],
        functions: Mapping[str, Callable[..., float]],
        capacity: int,
    ) -> None:
        self.functions, self.capacity = functions, capacity
        self.moved = 0
        self.slow = {(name, at): float(v) for name, array in inputs.items() for at, v in np.ndenumerate(array)}
        self.live: dict[tuple[Any, ...], Hold] = {}
        self.last: dict[tuple[Any, ...], Element] = {}
        super().__init__(cascade, nest, sizes, {})

    def _walk(self, nodes: list[Any], box: Box, holds: Any, key: tuple[Any, ...]) -> None:
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
                        tensors = tuple(options.get("tensors", (name,)))
                        added.append((self._hold((*here, level, name), level, tensors, nodes[number + 1 :]), box))
                holds = [*holds, *added]
            elif "compute" in node:
                self._compute(node, box, holds, here)
            else:
                kind = next(kind for kind in ("sequence", "pipeline") if kind in node)
                for child, inner in enumerate(node[kind]):
                    self._walk(inner if isinstance(inner, list) else [inner], box, holds, (*here, child))
                    if "inside" not in here:  # a phase ends
                        self._leave((*here, child))

    def _hold(self, place: tuple[Any, ...], level: str, tensors: tuple[str, ...], below: list[Any]) -> Hold:
        if place not in self.live:
            self.live[place] = Hold(level, tensors, frozenset(_names(below)))
        return self.live[place]

    def _leave(self, key: tuple[Any, ...]) -> None:
        """Empty the holds of a part of the nest."""
        for place in self.live:
            if place[: len(key)] == key:
                self._write_back(self.live[place])

    def _compute(self, node: dict[str, Any], box: Box, holds: Any, key: tuple[Any, ...]) -> None:
        names = node["compute"] if isinstance(node["compute"], list) else [node["compute"]]
        einsums = [self.cascade.einsum(name) for name in names]
        if not self._ready(einsums, names, box):
            return
        local: dict[Element, float] = {}
        for hold, hold_box in holds:
            if hold.level != "DRAM":
                self._bring(hold, hold_box, {a.tensor for e in einsums for a in (*e.inputs, e.output)})
        for first in self.points(einsums[0], box):
            coordinates = dict(zip(einsums[0].ranks, first, strict=True))
            for einsum in einsums:
                point = tuple(coordinates[rank] for rank in einsum.ranks)
                operands = []
                for access in einsum.inputs:
                    at = access.tensor, self.element(access, einsum, point)
                    operands.append(local[at] if at in local else self._read(at, holds, (*key, einsum.name)))
                value = self.functions[einsum.name](*operands)
                target = einsum.name, self.element(einsum.output, einsum, point)
                self._store(target, value, einsum, holds, local)
                assert point not in self.done[einsum.name]
                self.done[einsum.name].add(point)
                self.made[target] += 1

    def _bring(self, hold: Hold, box: Box, needed: set[str]) -> None:
        """Replace the tile of a hold by the one that its loops have reached."""
        for tensor in hold.tensors:
            if tensor not in needed:
                continue
            access = self.cascade.access(tensor)
            tile = tuple(box[rank] for rank in access.ranks)
            if hold.box == tile:
                continue
            self._write_back(hold)
            hold.box, hold.values = tile, {}
            elements = [(tensor, at) for at in product(*(range(*side) for side in tile))]
            hold.words = len(elements)
            total = sum(other.words for other in self.live.values() if other.box is not None)
            assert total <= self.capacity, f"{total} words in a buffer of {self.capacity}"
            for at in elements:
                if at in self.slow:
                    hold.values[at] = self.slow[at]
                    self.moved += 1

    def _write_back(self, hold: Hold) -> None:
        outside = {t for t in hold.tensors if self._needed_outside(t, hold)}
        for at in hold.changed:
            if at[0] in outside:
                self.slow[at] = hold.values[at]
                self.moved += 1
        hold.changed, hold.values, hold.box, hold.words = set(), {}, None, 0

    def _needed_outside(self, tensor: str, hold: Hold) -> bool:
        readers = {e.name for e in self.cascade.consumers(tensor)}
        return tensor in self.outside or not readers <= hold.producers

    def _read(self, at: Element, holds: Any, reader: tuple[Any, ...]) -> float:
        own = [hold for hold, _ in holds if at[0] in hold.tensors and hold.level != "DRAM"]
        if own:
            return own[-1].values[at]
        if self.last.get((*reader, at[0])) != at:
            self.moved += 1
            self.last[(*reader, at[0])] = at
        return self.slow[at]

    def _store(self, at: Element, value: float, einsum: Any, holds: Any, local: dict[Element, float]) -> None:
        own = [hold for hold, _ in holds if at[0] in hold.tensors and hold.level != "DRAM"]
        values: dict[Element, float] = own[-1].values if own else local
        if einsum.reduction is not None and at in values:
            value = COMBINE[einsum.reduction](values[at], value)
        values[at] = value
        if own:
            own[-1].changed.add(at)
            for tensor in own[-1].tensors:
                if tensor != at[0]:  # overwritten in place
                    values.pop((tensor, at[1]), None)
                    own[-1].changed.discard((tensor, at[1]))
        if not own:
            kept = any(at[0] in hold.tensors for hold, _ in holds) or at[0] in self.outside
            assert not kept, "results go through the buffer"

    def _finish(self) -> None:
        self._leave(())
        for einsum in self.cascade.einsums:
            assert len(self.done[einsum.name]) == len(self.points(einsum, self.whole)), f"{einsum.name} is not complete"


def _names(nodes: Any) -> list[str]:
    if isinstance(nodes, list):
        return [name for node in nodes for name in _names(node)]
    found = []
    if "compute" in nodes:
        found += [nodes["compute"]] if isinstance(nodes["compute"], str) else list(nodes["compute"])
    for kind in ("sequence", "pipeline"):
        found += _names(nodes.get(kind, []))
    return found
