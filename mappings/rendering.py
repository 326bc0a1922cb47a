"""A schedule as a nest: the YAML data of a mapping that a user could have written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mappings.binding import Binding, Issue
from mappings.dominance import Spot
from mappings.leaf_tables import LeafSchedule
from mappings.mapspace import Leaf
from mappings.schedules import RunSchedule

Nodes = list[Any]
Branch = Literal["sequence", "pipeline"]


class RunWriter:
    """Writes one run's schedule. `inner`: for each leaf, what lies between its own loops and the computed Einsums."""

    def __init__(
        self,
        schedule: RunSchedule,
        branch: Branch,
        inner: Sequence[tuple[str, LeafSchedule] | None],
        outer: Mapping[str, int],
    ) -> None:
        """`outer`: outer rank of a partition -> coordinates of one chunk, since its loops count chunks."""
        self.schedule, self.branch = schedule, branch
        self.inner, self.outer = inner, outer

    def nodes(self, bound: Sequence[Binding], issue: Issue, skipped: int = 0) -> Nodes:
        """The run's nest without its `skipped` outermost loops, which lie around several runs."""
        schedule = self.schedule
        loops = [*schedule.loops, *schedule.grain]
        nodes: Nodes = []
        for depth in range(len(loops) + 1):
            if depth > skipped:
                rank, chunk = loops[depth - 1]
                nodes.append({"for": {rank: self._chunk(rank, chunk)}})
            nodes += _keeps(self.schedule.levels, self._kept_at(depth))
        leaves = [self._leaf(place, bound[place], issue) for place in range(len(schedule.run.leaves))]
        if len(leaves) == 1:
            return [*_merged(nodes), *leaves[0]]
        children = [leaf if len(leaf) > 1 else leaf[0] for leaf in leaves]
        return [*_merged(nodes), {self.branch: children}]

    def _kept_at(self, depth: int) -> list[_Kept]:
        """What lies at a depth of the shared loops."""
        schedule = self.schedule
        held = list(schedule.held.items())
        if depth <= len(schedule.loops):
            held += [entry for leaf in schedule.leaves for entry in leaf.held.items() if not self._apart(entry[0])]
        kept = {(tensor, spot): _kept(tensor, spot) for tensor, chain in held for spot in chain if spot.depth == depth}
        for group, spot in zip(schedule.run.inside, schedule.inside, strict=True):
            if spot.depth == depth:
                kept[group.tensors[-1], spot] = _kept(group.tensors[-1], spot, group.tensors)
        return list(kept.values())

    def _apart(self, tensor: str) -> bool:
        """Whether several leaves stream a tensor, each past the buffer to its unit."""
        return tensor in self.schedule.run.several and tensor not in self.schedule.held

    def _leaf(self, place: int, binding: Binding, issue: Issue) -> Nodes:
        schedule = self.schedule
        own = schedule.leaves[place]
        start = len(schedule.loops)
        nodes = self._loops(own, start, schedule.levels)
        inner = self.inner[place]
        if inner is not None:
            level, below = inner
            top = [_kept(tensor, spot) for tensor, chain in below.held.items() for spot in chain if spot.depth == 0]
            nodes += _keeps((level,), top)
            nodes += self._loops(below, 0, (level,))
        return [*nodes, self._compute(schedule.run.leaves[place], binding, issue)]

    def _loops(self, own: LeafSchedule, start: int, levels: Sequence[str]) -> Nodes:
        nodes: Nodes = []
        for depth, (rank, chunk) in enumerate(own.loops, start=start + 1):
            nodes.append({"for": {rank: self._chunk(rank, chunk)}})
            kept = [
                _kept(tensor, spot)
                for tensor, chain in own.held.items()
                for spot in chain
                if spot.depth == depth and not self._apart(tensor)
            ]
            nodes += _keeps(levels, kept)
        return nodes

    def _chunk(self, rank: str, coordinates: int) -> int:
        return max(coordinates // self.outer[rank], 1) if rank in self.outer else coordinates

    def _compute(self, leaf: Leaf, binding: Binding, issue: Issue) -> dict[str, Any]:
        names: Any = leaf.einsums[0] if len(leaf.einsums) == 1 else list(leaf.einsums)
        node = {"compute": names, "on": binding.unit}
        if binding.spatial:
            node["spatial"] = dict(binding.spatial)
        if issue == "chained":
            node["issue"] = "chained"
        return node


_Kept = tuple[int, str, dict[str, Any]]
"""Memory, name and options of what is held."""


def _kept(name: str, spot: Spot, tensors: Sequence[str] = ()) -> _Kept:
    options: dict[str, Any] = {"tensors": list(tensors)} if len(tensors) > 1 else {}
    return spot.level, name, {**options, "buffers": spot.buffers} if spot.buffers > 1 else options


def _keeps(levels: Sequence[str], kept: Sequence[_Kept]) -> Nodes:
    """The node that holds tensors in their memories; none without any."""
    entries: dict[str, Any] = {}
    for number, level in enumerate(levels):
        own = {tensor: options for at, tensor, options in kept if at == number}
        entries |= {level: own} if own else {}
    return [{"keep": entries}] if entries else []


def _merged(nodes: Nodes) -> Nodes:
    """Loops with nothing between them as one node."""
    merged: Nodes = []
    for node in nodes:
        if merged and "for" in node and "for" in merged[-1] and not set(node["for"]) & set(merged[-1]["for"]):
            merged[-1]["for"].update(node["for"])
        else:
            merged.append(node)
    return merged
