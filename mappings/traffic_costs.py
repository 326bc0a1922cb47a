"""What a tile's traffic costs in closed form, for arrays of tile sizes: energy, time of each port, time that waits.

The counts are those of lowering (`mappings.movement`), loops of one iteration included; only in ragged last chunks,
where a loop may have one iteration less than elsewhere, a reload can be counted that is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import mul

import numpy as np

from architectures import EvaluatedArchitecture
from mappings.binding import Binding, Issue, bindings
from mappings.dominance import Spot
from mappings.mapspace import Leaf, Problem, Use
from mappings.movement import Shape, inner_loops
from mappings.program import Array
from mappings.tiles import Loop


@dataclass
class Bill:
    """Costs of some traffic: arrays of one shape.

    energy_j  of all accesses
    port_s    of each port with a finite bandwidth, in `Prices.ports`' order
    wait_s    time of transfers that nothing overlaps
    """

    energy_j: Array
    port_s: list[Array]
    wait_s: Array

    def __add__(self, other: Bill) -> Bill:
        ports = [one + two for one, two in zip(self.port_s, other.port_s, strict=True)]
        return Bill(self.energy_j + other.energy_j, ports, self.wait_s + other.wait_s)


@dataclass(frozen=True)
class Prices:
    """Prices of accesses to the memories of a machine, the outermost first."""

    machine: EvaluatedArchitecture

    @cached_property
    def energies(self) -> list[tuple[float, float]]:
        """Joules for each byte read and written, of each memory."""
        return [
            (float(m.read_energy_j) / float(m.access_bytes), float(m.write_energy_j) / float(m.access_bytes))
            for m in self.machine.memories.values()
        ]

    @cached_property
    def ports(self) -> list[tuple[int, float, float]]:
        """Ports with a finite bandwidth: number of the memory, seconds for each byte read and written."""
        found = []
        for number, memory in enumerate(self.machine.memories.values()):
            both, read, write = (
                1 / float(rate)
                for rate in (
                    memory.bandwidth_bytes_per_s,
                    memory.read_bandwidth_bytes_per_s,
                    memory.write_bandwidth_bytes_per_s,
                )
            )
            found += [(number, *cost) for cost in ((both, both), (read, 0.0), (0.0, write)) if any(cost)]
        return found

    def limited(self, memory: int) -> bool:
        """Whether a memory's bandwidth is finite."""
        return any(number == memory for number, *_ in self.ports)

    def access(self, memory: int, read_bytes: Array, write_bytes: Array) -> Bill:
        """The bill of accesses to one memory, none of them waited for."""
        read, write = self.energies[memory]
        zero = np.zeros((1, 1))
        ports = [
            read_bytes * r + write_bytes * w if number == memory else zero for number, r, w in self.ports
        ]
        return Bill(read_bytes * read + write_bytes * write, ports, zero)

    def transfer_s(self, outer: int, inner: int, moved_bytes: Array) -> Array:
        """Time to move bytes from one memory to another: that of the slower port."""
        slow = max((max(r, w) for number, r, w in self.ports if number in (outer, inner)), default=0.0)
        return moved_bytes * slow


@dataclass(frozen=True)
class Work:
    """One leaf on the unit that is fastest with whole ranks."""

    problem: Problem
    leaf: Leaf
    issue: Issue

    @cached_property
    def binding(self) -> Binding:
        """The unit, and the ranks that are laid on it."""
        return bindings(self.problem, self.leaf, {}, self.issue)[0]

    @cached_property
    def loops(self) -> list[Loop]:
        """Loops inside a tile: passes over the ranks that are laid on the unit, then the others point by point."""
        ranks, binding = self.problem.ranks, self.binding
        widths = self.problem.machine.units[binding.unit].dims
        rest = [rank for rank in self.problem.einsums(self.leaf)[0].ranks if rank not in binding.spatial]
        steps = [(rank, float(widths[dim])) for rank, dim in binding.spatial.items()] + [(rank, 1.0) for rank in rest]
        outer = self.problem.outer
        scale = {rank: float(ranks.chunk[base].flat[0]) for rank, base in outer.items()}
        return [Loop(rank, ranks.base(rank), np.full((1, 1), step * scale.get(rank, 1.0))) for rank, step in steps]

    @cached_property
    def cycle_s(self) -> float:
        """Seconds of one pass."""
        unit, slots = self.problem.machine.units[self.binding.unit], 0.0
        for einsum in self.problem.einsums(self.leaf):
            costs = [float(unit.op(kind).cycles) * count for kind, count in einsum.ops.items()]
            slots += (max(costs) if self.issue == "chained" else sum(costs)) if costs else 0.0
        return slots / float(unit.clock_hz)


class Path:
    """The loops around one leaf, outermost first, and those inside its tiles, with arrays of chunk sizes."""

    def __init__(self, work: Work, loops: Sequence[tuple[str, Array]], prices: Prices) -> None:
        """`loops`: (rank, chunks); those that the leaf does not iterate, where it waits, are passed over."""
        self.problem, self.prices, self.cycle_s = work.problem, prices, work.cycle_s
        ranks = self.problem.ranks
        own = {ranks.base(rank) for rank in work.leaf.ranks}
        self.active = [ranks.base(rank) in own for rank, _ in loops]
        around = [
            Loop(rank, ranks.base(rank), chunk) for (rank, chunk), on in zip(loops, self.active, strict=True) if on
        ]
        self.loops = inner_loops([*around, *work.loops], self.problem.extents)

    @cached_property
    def busy_s(self) -> Array:
        """Time of the leaf on its unit."""
        return reduce(mul, (loop.trips for loop in self.loops), np.ones((1, 1))) * self.cycle_s

    def hop(self, use: Use, outer: int, inner: int, spot: Spot, tile_bytes: Array) -> Bill:
        """The bill of moving a tensor's tiles between two memories, for a spot where one tile takes `tile_bytes`."""
        reads, writes = self.passed(use.tensor, use.written, use.shapes, spot.depth)
        bill = self.prices.access(outer, reads, writes) + self.prices.access(inner, writes, reads)
        alone = reads + writes if spot.buffers == 1 or spot.depth == 0 else tile_bytes
        return replace(bill, wait_s=self.prices.transfer_s(outer, inner, alone))

    def touched(self, tensor: str, written: bool, shapes: Sequence[Shape], memory: int) -> Bill:
        """The bill of the leaf's own accesses to a tensor in the memory that is nearest to it."""
        return self.prices.access(memory, *self.passed(tensor, written, shapes))

    def passed(
        self, tensor: str, written: bool, shapes: Sequence[Shape], depth: int | None = None
    ) -> tuple[Array, Array]:
        """Bytes that come down to below the first `depth` loops, or to the leaf itself, and bytes that go up.

        An unfinished result goes up at every visit, and comes back at each but the first.
        """
        loops = self.loops if depth is None else self.loops[: sum(self.active[:depth])]
        down, up = np.zeros((1, 1)), np.zeros((1, 1))
        for shape in shapes:
            again, settled = np.ones((1, 1)), np.zeros((1, 1), dtype=bool)
            for loop in reversed(loops):
                if loop.name in shape.moved_by:
                    settled = settled | (loop.trips > 1)
                else:
                    again = again * np.where(settled, loop.trips, 1.0)
            moving = [loop for loop in loops if loop.name in shape.moved_by]
            size = self.problem.ranks.moved_words(shape, self.problem.extents, moving) * self.problem.bytes[tensor]
            up = up + size * again if written else up
            down = down + size * (again - 1 if written else again)
        return down, up
