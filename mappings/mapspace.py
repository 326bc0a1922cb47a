"""The mapper's space: runs of consecutive Einsums that stay on chip together, and what of them may share a loop.

A run is computed under loops that all its leaves share; its other loops belong to single leaves. Values that go from
one leaf of a run to another stay in the buffer; all others come from the outermost memory and go back to it. Only
legal fusion is in the space: `mappings.operands` decides which ranks the leaves of a run may share a loop over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np

from architectures import EvaluatedArchitecture
from einsum.access import Access
from einsum.cascade import Cascade
from einsum.einsum import Einsum
from einsum.errors import SpecError
from mappings.lowering import base_extents, word_bytes
from mappings.mask import Mask
from mappings.mask_counts import MaskCounts
from mappings.movement import Ranks, Shape
from mappings.nest import Binder, Hold
from mappings.operands import Homes
from mappings.program import Array
from mappings.schema import parse_nest


@dataclass(frozen=True)
class Leaf:
    """Einsums that run point by point together on one unit. `ranks`: names that its loops may have."""

    einsums: tuple[str, ...]
    ranks: tuple[str, ...]


@dataclass(frozen=True)
class Use:
    """A tensor that a leaf takes from, or leaves for, the outside of its run.

    shapes  the tiles that its accesses cut: two for `X[p,d] * X[m,d]`, since different loops move them
    """

    tensor: str
    written: bool
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Inside:
    """Tensors of a run that share one allocation in the buffer. `stored`: those also written outside."""

    tensors: tuple[str, ...]
    stored: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """Leaves that are computed together, the ranks that they may share loops over, and who uses what.

    batch   shared ranks that every tensor of the run has: nothing is ever reused over them
    shared  the other ranks that loops around all leaves may visit
    """

    leaves: tuple[Leaf, ...]
    batch: tuple[str, ...]
    shared: tuple[str, ...]
    uses: tuple[tuple[Use, ...], ...]
    inside: tuple[Inside, ...]

    @cached_property
    def several(self) -> frozenset[str]:
        """Tensors that several leaves take from outside."""
        read = [use.tensor for uses in self.uses for use in uses if not use.written]
        return frozenset(tensor for tensor in read if read.count(tensor) > 1)


class Problem:
    """A cascade with sizes on an evaluated architecture, at one design point."""

    def __init__(self, cascade: Cascade, machine: EvaluatedArchitecture, env: Mapping[str, Any]) -> None:
        """`env`: values of all variables. SpecError for conditions that no nest of loops can be costed under."""
        self.cascade = cascade
        self.machine = machine
        self.env = env
        self.binder = Binder(cascade, env, 1, dict.fromkeys([*machine.memories, *machine.units], True))
        chunk = {base: self.binder.partition_size(base) for base in cascade.partitions}
        self.ranks = Ranks(cascade, chunk, env)
        self.extents = base_extents(cascade, env, 1)
        self.bytes = {name: float(word.flat[0]) for name, word in word_bytes(cascade, machine, env, 1).items()}
        self.outer = {part.outer: base for base, part in cascade.partitions.items()}
        mask = Mask.of(cascade, env)
        self.mask = None if mask is None else MaskCounts(mask)

    def within(self, sizes: Mapping[str, Array]) -> Problem:
        """The same problem inside one tile: so many coordinates of each base rank."""
        inside = copy(self)
        inside.mask = None
        inside.extents = {base: np.asarray(size, dtype=float).reshape(1, 1) for base, size in sizes.items()}
        return inside

    def alone(self, leaf: Leaf) -> Run:
        """A run of one leaf that takes everything from outside; values of iterative ranks stay where they are."""
        uses: dict[str, Use] = {}
        for einsum in self.einsums(leaf):
            for access in einsum.inputs:
                if access.tensor not in leaf.einsums and not self.ranks.iterative(access.tensor):
                    uses.setdefault(access.tensor, self.use(access.tensor, False, leaf))
        for name in leaf.einsums:
            if not self.ranks.iterative(name) and self._leaves_run(name, set(leaf.einsums)):
                uses[name] = self.use(name, True, leaf)
        return Run((leaf,), (), (), (tuple(uses.values()),), ())

    def use(self, tensor: str, written: bool, *leaves: Leaf) -> Use:
        """A tensor with the shapes that some leaves give its tiles."""
        einsums = [einsum for leaf in leaves for einsum in self.einsums(leaf)]
        touched = [access for e in einsums for access in ((e.output,) if written else e.inputs)]
        shapes = dict.fromkeys(self.ranks.shape(access) for access in touched if access.tensor == tensor)
        return Use(tensor, written, tuple(shapes))

    def loop_names(self, einsum: Einsum) -> tuple[str, ...]:
        """Ranks that loops around an Einsum may visit: a partitioned rank only by its outer part."""
        inner = {part.inner for part in self.cascade.partitions.values()}
        return tuple(rank for rank in einsum.ranks if rank not in inner)

    def coordinates(self, rank: str) -> int:
        """Extent of a rank's base rank."""
        return int(self.extents[self.ranks.base(rank)].flat[0])

    def shape(self, tensor: str) -> Shape:
        """The tile of a tensor, as lowering cuts it: by its producer's access, or its first reader's."""
        return self.shapes(tensor)[0]

    def shapes(self, tensor: str) -> list[Shape]:
        """The tiles that the different accesses to a tensor cut, `shape` first."""
        if tensor not in self._shapes:
            self._shapes[tensor] = [*dict.fromkeys(self.ranks.shape(access) for access in self.accesses(tensor))]
        return self._shapes[tensor]

    def accesses(self, tensor: str) -> list[Access]:
        """All accesses to a tensor, its producer's first."""
        if tensor not in self._accesses:
            made = [einsum.output for einsum in self.cascade.einsums if einsum.name == tensor]
            read = [access for e in self.cascade.einsums for access in e.inputs if access.tensor == tensor]
            self._accesses[tensor] = made + read
        return self._accesses[tensor]

    @cached_property
    def _shapes(self) -> dict[str, list[Shape]]:
        return {}

    @cached_property
    def _accesses(self) -> dict[str, list[Access]]:
        return {}

    def tile_bytes(self, tensor: str, sizes: Mapping[str, Array]) -> Array:
        """Bytes that a tensor's tile takes: those of the largest tile that an access cuts."""
        first = self.ranks.words(self.shape(tensor), sizes)
        others = (self.ranks.words(shape, sizes) for shape in self.shapes(tensor)[1:])
        return np.asarray(reduce(np.maximum, others, first) * self.bytes[tensor])

    # Leaves

    def leaves(self) -> tuple[Leaf, ...]:
        """The cascade's Einsums, joined where neighbours run over the same ranks and some unit can do all of them.

        SpecError for an Einsum whose operations no unit can run.
        """
        groups: list[list[Einsum]] = []
        for einsum in self.cascade.einsums:
            if not self.units([einsum]):
                wanted = ", ".join(einsum.ops)
                raise SpecError(f"no unit of '{self.machine.name}' can run {einsum.name}, which needs {wanted}")
            if groups and self._joins(groups[-1], einsum):
                groups[-1].append(einsum)
            else:
                groups.append([einsum])
        return tuple(Leaf(tuple(e.name for e in group), self.loop_names(group[0])) for group in groups)

    def units(self, einsums: Sequence[Einsum]) -> list[str]:
        """Units that can run all operations of some Einsums."""
        needed = {kind for einsum in einsums for kind in einsum.ops}
        return [name for name, unit in self.machine.units.items() if needed <= set(unit.ops)]

    def _joins(self, group: list[Einsum], einsum: Einsum) -> bool:
        if set(group[0].ranks) != set(einsum.ranks) or not self.units([*group, einsum]):
            return False
        made = {other.name: other for other in group}
        linked = False
        for access in einsum.inputs:
            if access.tensor in made:
                linked = True
                producer = made[access.tensor]
                if producer.reduced or str(producer.output) != str(access):
                    return False
        return linked

    def einsums(self, leaf: Leaf) -> list[Einsum]:
        """The Einsums of a leaf."""
        return [self.cascade.einsum(name) for name in leaf.einsums]

    # Runs

    def run(self, leaves: tuple[Leaf, ...]) -> Run | None:
        """The run of some consecutive leaves; None where it tears a recurrence apart or cannot keep it in step."""
        names = {name for leaf in leaves for name in leaf.einsums}
        latest = {e.name: self.ranks.iterative(e.name) for e in self.cascade.einsums}
        for tensor, ranks in latest.items():
            if ranks and len({tensor in names, *(e.name in names for e in self.cascade.consumers(tensor))}) > 1:
                return None
        shared = self._shared(leaves) if len(leaves) > 1 else leaves[0].ranks
        required = {rank for name in names for rank in latest[name]}
        if required - set(shared):
            return None
        uses = tuple(self._uses(leaf, names) for leaf in leaves)
        inside = self._inside(leaves, names)
        tensors = {use.tensor for part in uses for use in part} | {t for group in inside for t in group.tensors}
        moved = [shape.moved_by for tensor in tensors for shape in self.shapes(tensor)]
        batch = tuple(
            rank
            for rank in sorted(shared, key=lambda rank: rank not in self.universal)
            if rank not in self.outer and all(rank in leaf.ranks for leaf in leaves) and all(rank in m for m in moved)
            and not any(len(d.terms) > 1 for t in tensors for d in self.shape(t).dimensions if self._has(d.terms, rank))
        )  # fmt: skip
        rest = tuple(rank for rank in shared if rank not in batch) if len(leaves) > 1 else ()
        return Run(leaves, batch, rest, uses, inside)

    @cached_property
    def universal(self) -> frozenset[str]:
        """Ranks that every tensor of the cascade has."""
        moved = [shape.moved_by for tensor in self.cascade.tensors for shape in self.shapes(tensor)]
        return frozenset(rank for rank in self.cascade.ranks if all(rank in ranks for ranks in moved))

    def _has(self, terms: tuple[tuple[float, str, str], ...], rank: str) -> bool:
        return any(base == self.ranks.base(rank) for _, _, base in terms)

    def _shared(self, leaves: tuple[Leaf, ...]) -> tuple[str, ...]:
        """Ranks that one loop around all leaves may visit: every leaf iterates them, or works on their final value."""
        iterative = self.cascade.iterative
        ranks = dict.fromkeys(rank for leaf in leaves for rank in leaf.ranks)
        common = [r for r in ranks if r in iterative or all(r in leaf.ranks for leaf in leaves)]
        return tuple(rank for rank in common if self.may_share(leaves, rank))

    def may_share(self, leaves: tuple[Leaf, ...], rank: str) -> bool:
        """Whether a loop over a rank may enclose all leaves: no value that it still reduces is consumed inside it."""
        level = list(self.machine.memories)[-1]
        unit = next(iter(self.machine.units))
        kept = [t for leaf in leaves for t in leaf.einsums]
        body = [{"compute": list(leaf.einsums), "on": unit} for leaf in leaves]
        nest = parse_nest([{"for": {rank: 1}}, {"keep": {level: kept}}, {"sequence": body}], "nest")
        phases = self.binder.phases(nest, "nest")
        store = next(iter(self.machine.memories))
        root = Hold(store, store, tuple(self.cascade.tensors), np.ones((1, 1)), False, False, False, (), "root")
        homes = Homes(self.cascade, self.ranks, phases, root)
        try:
            for leaf in homes.leaves:
                homes.gates(leaf)
        except SpecError:
            return False
        return True

    def _uses(self, leaf: Leaf, names: set[str]) -> tuple[Use, ...]:
        found: dict[str, Use] = {}
        for einsum in self.einsums(leaf):
            for access in einsum.inputs:
                if access.tensor not in names:
                    found.setdefault(access.tensor, self.use(access.tensor, False, leaf))
        for name in leaf.einsums:
            if self._leaves_run(name, names) and not self._read_elsewhere(name, leaf, names):
                found[name] = self.use(name, True, leaf)
        return tuple(found.values())

    def _leaves_run(self, tensor: str, names: set[str]) -> bool:
        outside = any(reader.name not in names for reader in self.cascade.consumers(tensor))
        return self.cascade.tensors[tensor].kind == "output" or outside

    def _read_elsewhere(self, tensor: str, leaf: Leaf, names: set[str]) -> bool:
        """Whether another leaf of the run reads a tensor, or its own leaf reads it one iteration later."""
        readers = {reader.name for reader in self.cascade.consumers(tensor)} & names
        return bool(readers - set(leaf.einsums)) or (bool(readers) and bool(self.ranks.iterative(tensor)))

    def _inside(self, leaves: tuple[Leaf, ...], names: set[str]) -> tuple[Inside, ...]:
        """Allocations for what stays in the run. A map may overwrite its operand in the pass that reads it last."""
        place = {name: index for index, leaf in enumerate(leaves) for name in leaf.einsums}
        groups: list[list[str]] = []
        for leaf in leaves:
            for name in leaf.einsums:
                if not self._read_elsewhere(name, leaf, names):
                    continue
                heir = next((g for g in groups if self._overwrites(name, g[-1], place)), None)
                if heir is None:
                    groups.append([name])
                else:
                    heir.append(name)
        return tuple(Inside(tuple(g), tuple(t for t in g if self._leaves_run(t, names))) for g in groups)

    def _overwrites(self, name: str, operand: str, place: Mapping[str, int]) -> bool:
        einsum = self.cascade.einsum(name)
        read = [access for access in einsum.inputs if access.tensor == operand]
        last = [place.get(reader.name, len(place)) for reader in self.cascade.consumers(operand)]
        steady = not self.ranks.iterative(operand) and not self.ranks.iterative(name)
        kept = self.cascade.tensors[name].kind == "intermediate" == self.cascade.tensors[operand].kind
        same = bool(read) and all(str(a).split("[", 1)[1:] == str(einsum.output).split("[", 1)[1:] for a in read)
        alone = {r.name for r in self.cascade.consumers(operand) if place.get(r.name) == place[name]} <= {name}
        return steady and kept and same and alone and not einsum.reduced and max(last) == place[name]


def breakpoints(extent: int) -> list[int]:
    """Chunk sizes that differ in their number of chunks: for every count ceil(extent / chunk) the smallest chunk.

    A larger chunk with as many chunks moves as much and takes more room. There are about 2 sqrt(extent) of them.
    """
    chunks: list[int] = []
    chunk = extent
    while chunk >= 1:
        count = -(-extent // chunk)
        smallest = -(-extent // count)
        chunks.append(smallest)
        chunk = smallest - 1
    return chunks[::-1]
