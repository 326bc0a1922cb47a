"""A schedule as a nest: the YAML data of a mapping that a user could have written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mappings.binding import Binding, Issue
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
        level: str,
        buffers: int,
        branch: Branch,
        inner: Sequence[tuple[str, LeafSchedule] | None],
        outer: Mapping[str, int],
    ) -> None:
        """`outer`: outer rank of a partition -> coordinates of one chunk, since its loops count chunks."""
        self.schedule, self.level, self.buffers, self.branch = schedule, level, buffers, branch
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
            kept = self._kept_at(depth)
            if kept:
                nodes.append({"keep": {self.level: kept}})
        leaves = [self._leaf(place, bound[place], issue) for place in range(len(schedule.run.leaves))]
        if len(leaves) == 1:
            return [*_merged(nodes), *leaves[0]]
        children = [leaf if len(leaf) > 1 else leaf[0] for leaf in leaves]
        return [*_merged(nodes), {self.branch: children}]

    def _kept_at(self, depth: int) -> dict[str, Any]:
        schedule = self.schedule
        options = {"buffers": self.buffers} if self.buffers > 1 else {}
        kept: dict[str, Any] = {tensor: dict(options) for tensor, at in schedule.held.items() if at == depth}
        for leaf in schedule.leaves:
            kept |= {
                tensor: dict(options)
                for tensor, at in leaf.held.items()
                if at == depth and at <= len(schedule.loops) and not self._apart(tensor)
            }
        if depth == 0:
            kept = {tensor: {} for tensor in kept}
        for group, at in zip(schedule.run.inside, schedule.inside, strict=True):
            if at == depth:
                kept[group.tensors[-1]] = {"tensors": list(group.tensors)} if len(group.tensors) > 1 else {}
        return kept

    def _apart(self, tensor: str) -> bool:
        """Whether several leaves stream a tensor, each past the buffer to its unit."""
        return tensor in self.schedule.run.several and tensor not in self.schedule.held

    def _leaf(self, place: int, binding: Binding, issue: Issue) -> Nodes:
        schedule = self.schedule
        own = schedule.leaves[place]
        start = len(schedule.loops)
        options = {"buffers": self.buffers} if self.buffers > 1 else {}
        nodes = self._loops(own, start, self.level, options)
        inner = self.inner[place]
        if inner is not None:
            level, below = inner
            top: dict[str, Any] = {t: {} for t, at in below.held.items() if at == 0}
            nodes += [{"keep": {level: top}}] if top else []
            nodes += self._loops(below, 0, level, options)
        return [*nodes, self._compute(schedule.run.leaves[place], binding, issue)]

    def _loops(self, own: LeafSchedule, start: int, level: str, options: Mapping[str, Any]) -> Nodes:
        nodes: Nodes = []
        for depth, (rank, chunk) in enumerate(own.loops, start=start + 1):
            nodes.append({"for": {rank: self._chunk(rank, chunk)}})
            kept = {tensor: dict(options) for tensor, at in own.held.items() if at == depth and not self._apart(tensor)}
            if kept:
                nodes.append({"keep": {level: kept}})
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


def _merged(nodes: Nodes) -> Nodes:
    """Loops with nothing between them as one node."""
    merged: Nodes = []
    for node in nodes:
        if merged and "for" in node and "for" in merged[-1] and not set(node["for"]) & set(merged[-1]["for"]):
            merged[-1]["for"].update(node["for"])
        else:
            merged.append(node)
    return merged
