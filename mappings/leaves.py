"""The work of one leaf in one tile: cycles on its unit, operations, and the accesses that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce
from operator import mul

import numpy as np

from architectures import EvaluatedArchitecture, EvaluatedUnit
from einsum.access import Access
from einsum.einsum import Einsum
from einsum.errors import SpecError, join_key, nearest
from mappings.accounts import Account, Ledger, memory_steps
from mappings.masked import Space
from mappings.movement import InnerLoop, Shape, column, inner_loops, visits
from mappings.nest import Hold, Leaf
from mappings.operands import Gate, Homes
from mappings.program import Array, Dependence, Step
from mappings.tiles import Gather, Loop, Sizes


@dataclass
class LeafWork:
    """Lowers one leaf over a tile space."""

    leaf: Leaf
    homes: Homes
    machine: EvaluatedArchitecture
    tiles: Space
    ledger: Ledger

    def steps(self, after: tuple[Dependence, ...]) -> list[Step]:
        """The compute step, and a step for each memory port that its accesses occupy beside it."""
        account = Account()
        cycles = self._compute(account)
        for einsum in self.einsums:
            self._registers(einsum, account)
        for hold, tensor, access in self._reads():
            self._read(hold, tensor, access, account)
        for einsum in self.einsums:
            self._write(einsum, account)
        account = account.changed(self._inside[1])
        busy_s = self._inside[1](cycles) / column(self.unit.clock_hz)
        compute = Step(
            self.leaf.name, self.leaf.unit, busy_s, 0.0, after, account.traffic(), account.actions, account.work
        )
        return [compute, *memory_steps(self.leaf.name, account, self.machine, after)]

    @cached_property
    def _inside(self) -> tuple[Space, Gather]:
        return self.tiles.within(self.leaf.loops)

    @property
    def space(self) -> Space:
        """The tile space in which the leaf's work is counted: that of the tiles, or a finer one inside them."""
        return self._inside[0]

    @property
    def einsums(self) -> tuple[Einsum, ...]:
        """The Einsums of the leaf."""
        return tuple(self.homes.einsum(name) for name in self.leaf.einsums)

    @property
    def sources(self) -> list[tuple[Hold, str]]:
        """The holds that the leaf reads from, with the tensor."""
        return [(hold, tensor) for hold, tensor, _ in self._reads()]

    @cached_property
    def unit(self) -> EvaluatedUnit:
        """The unit that the leaf runs on."""
        try:
            return self.machine.unit(self.leaf.unit)
        except SpecError as error:
            raise SpecError(error.message, key=join_key(self.leaf.key, "on")) from None

    @cached_property
    def gates(self) -> tuple[Gate, ...]:
        """Loops above that the leaf does not iterate."""
        return self.homes.gates(self.leaf)

    @cached_property
    def skipped(self) -> frozenset[int]:
        """Places of the gated tile loops."""
        gated = [gate.loop for gate in self.gates]
        return frozenset(place for place, loop in enumerate(self.space.loops) if loop in gated)

    @cached_property
    def sizes(self) -> Sizes:
        """Coordinates of each base rank in a tile in which the leaf runs."""
        return self.space.worked(self.skipped)

    @cached_property
    def weight(self) -> Array:
        """1 in tile classes where the leaf runs and 0 elsewhere, or its even share where it is spread."""
        named = [gate.loop.name for gate in self.gates]
        if self.leaf.spread is not None and self.leaf.spread not in named:
            raise SpecError(
                f"{self.leaf.name} is in no loop over '{self.leaf.spread}' that it does not iterate"
                f"{nearest(self.leaf.spread, named)}",
                key=join_key(self.leaf.key, "spread"),
            )
        gated = {
            self.space.loops.index(gate.loop): "spread" if self.leaf.spread == gate.loop.name else gate.side
            for gate in self.gates
            if gate.loop in self.space.loops
        }
        return self.space.gated(gated)

    @cached_property
    def loops(self) -> tuple[Loop, ...]:
        """The leaf's own loops: passes over ranks wider than their spatial dimension, then the temporal ranks."""
        ranks = self._iteration_ranks()
        leaf, cascade = self.leaf, self.homes.cascade
        one = np.ones((1, 1))
        folds = [
            Loop(rank, self.homes.ranks.base(rank), column(self._width(rank, dim)))
            for rank, dim in leaf.spatial.items()
        ]
        outer = {part.outer: base for base, part in cascade.partitions.items()}
        temporal = self._temporal(ranks)
        steps = [
            Loop(rank, self.homes.ranks.base(rank), self.homes.ranks.chunk[outer[rank]] if rank in outer else one)
            for rank in temporal
        ]
        return (*folds, *steps)

    def _iteration_ranks(self) -> tuple[str, ...]:
        first, *others = self.einsums
        for other in others:
            if set(other.ranks) != set(first.ranks):
                raise SpecError(
                    f"{first.name} iterates {', '.join(first.ranks)} and {other.name} {', '.join(other.ranks)}; only "
                    f"Einsums over the same ranks can be computed together",
                    key=join_key(self.leaf.key, "compute"),
                )
        return first.ranks

    def _width(self, rank: str, dim: str) -> object:
        ranks = self._iteration_ranks()
        key = join_key(self.leaf.key, "spatial", rank)
        if rank not in ranks:
            raise SpecError(f"{self.leaf.name} has no rank '{rank}'{nearest(rank, ranks)}", key=key)
        if dim not in self.unit.dims:
            raise SpecError(
                f"the unit '{self.unit.name}' has no dimension '{dim}'{nearest(dim, self.unit.dims)}", key=key
            )
        if list(self.leaf.spatial.values()).count(dim) > 1:
            raise SpecError(f"two ranks are laid on the dimension '{dim}'", key=key)
        return self.unit.dims[dim]

    def _temporal(self, ranks: tuple[str, ...]) -> tuple[str, ...]:
        rest = tuple(rank for rank in ranks if rank not in self.leaf.spatial)
        if self.leaf.temporal is None:
            return rest
        key = join_key(self.leaf.key, "temporal")
        twice = next((rank for rank in self.leaf.temporal if self.leaf.temporal.count(rank) > 1), None)
        if twice:
            raise SpecError(f"the rank '{twice}' occurs twice", key=key)
        for rank in self.leaf.temporal:
            if rank not in rest:
                raise SpecError(f"{self.leaf.name} has no rank '{rank}' left to iterate{nearest(rank, rest)}", key=key)
        for rank in rest:
            size = self.homes.ranks.volume((rank,), self.sizes)
            if rank not in self.leaf.temporal and (size > 1).any():
                raise SpecError(f"the mapping of {self.leaf.name} does not cover rank '{rank}'", key=key)
        return self.leaf.temporal

    @cached_property
    def inner(self) -> tuple[InnerLoop, ...]:
        """All loops between the tile and a point: folded loops of the mapping, then the leaf's own."""
        gated = [gate.loop for gate in self.gates]
        folded = [loop for loop in self.leaf.loops if loop not in self.space.loops and loop not in gated]
        return inner_loops([*folded, *self.loops], self.sizes)

    def points(self, einsum: Einsum) -> Array:
        """Points of an Einsum that no mask leaves out, in one tile in which the leaf runs."""
        bases = frozenset(self.homes.ranks.base(rank) for rank in einsum.ranks)
        return self.homes.ranks.volume(einsum.ranks, self.sizes) * self.space.kept_share(bases)

    def _compute(self, account: Account) -> Array:
        """Book operations and the unit's work; return the cycles that the unit is busy."""
        passes = reduce(mul, (loop.trips for loop in self.inner), np.ones((1, 1)))
        cycles: Array = np.zeros(self.space.counts.shape)
        work: Array = np.zeros(self.space.counts.shape)
        for einsum in self.einsums:
            points = self.points(einsum) * self.weight
            costs = []
            for kind, count in einsum.ops.items():
                try:
                    op = self.unit.op(kind)
                except SpecError as error:
                    raise SpecError(f"{einsum.name}: {error.message}", key=self.leaf.key) from None
                costs.append(column(op.cycles) * count)
                account.act(self.leaf.unit, kind, points * count)
            if not costs:
                continue
            slots = reduce(np.maximum, costs) if self.leaf.chained else sum(costs, np.zeros((1, 1)))
            cycles = cycles + passes * self.weight * slots
            work = work + points * slots
        account.work[self.leaf.unit] = work
        return cycles

    def _registers(self, einsum: Einsum, account: Account) -> None:
        """Book the accesses to the registers of the elements: operands and partial results at every point."""
        registers = self.unit.registers
        if registers is None:
            return
        points = self.points(einsum) * self.weight
        outputs = self.homes.ranks.volume([r for r in einsum.ranks if r not in einsum.reduced], self.sizes)
        accumulated = points - outputs * self.weight if einsum.reduced else 0.0
        fills = sum(
            (points / self._stationary(access) for access in einsum.inputs if self._fetched(access)), np.zeros((1, 1))
        )
        account.act(f"{self.leaf.unit}.registers", "read", points * len(einsum.inputs) + accumulated)
        account.act(f"{self.leaf.unit}.registers", "write", points + fills)

    def _fetched(self, access: Access) -> bool:
        """Whether an operand comes into the unit's registers from elsewhere."""
        hold = self.homes.source(self.leaf, access.tensor)
        return hold is not None and hold.level != self.leaf.unit

    def _stationary(self, access: Access) -> Array:
        """Points in a row for which an element keeps an operand: trips of the innermost loops that leave it alone."""
        moved_by = self.homes.ranks.shape(access).moved_by
        kept = np.ones(self.space.counts.shape)
        settled = np.zeros(self.space.counts.shape, dtype=bool)
        for loop in reversed(self.inner):
            if loop.name in moved_by:
                settled = settled | (loop.trips > 1)
            else:
                kept = kept * np.where(settled, 1.0, loop.trips)
        return kept

    def _reads(self) -> list[tuple[Hold, str, Access]]:
        """Operands that come from holds, each tensor once for each way in which the loops move it."""
        found: dict[tuple[str, Shape], tuple[Hold, str, Access]] = {}
        for einsum in self.einsums:
            for access in einsum.inputs:
                hold = self.homes.source(self.leaf, access.tensor)
                if hold is not None:
                    latest = self.homes.ranks.iterative(access.tensor)
                    names = frozenset(name for rank in latest for name in self.homes.ranks.names_moving(rank))
                    shape = self.homes.ranks.shape(access)
                    key = access.tensor, Shape(shape.dimensions, shape.moved_by - names)
                    found.setdefault(key, (hold, access.tensor, access))
        return list(found.values())

    def _read(self, hold: Hold, tensor: str, access: Access, account: Account) -> None:
        if hold.level == self.leaf.unit:
            return  # counted point by point
        words = self._words(access)[0]
        chain = self.homes.chain(self.leaf, tensor)
        self.ledger.access(account, chain, tensor, words, 0.0)

    def _write(self, einsum: Einsum, account: Account) -> None:
        tensor = einsum.output.tensor
        hold = self.homes.target(self.leaf, tensor)
        if hold is None or hold.level == self.leaf.unit:
            return
        every, distinct = self._words(einsum.output)
        again = every - distinct if einsum.reduced else np.zeros((1, 1))
        self.ledger.access(account, self.homes.chain(self.leaf, tensor), tensor, again, every)

    def _words(self, access: Access) -> tuple[Array, Array]:
        """(words, first-visit words) that one access moves to or from the elements in one tile."""
        shape = self.homes.ranks.shape(access)
        count = visits(shape.moved_by, self.space, len(self.space.loops), self.inner, self.skipped)
        words = self.homes.ranks.moved_words(shape, count.sizes, self.inner) * self.weight
        return words * count.all, words * count.distinct
