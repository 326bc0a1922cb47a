"""Where each operand lives: the chain of holds between memory and every leaf, and when each leaf is due.

Rules. An input or output is at home in the outermost memory. An intermediate needs a hold that encloses its producer
and all its consumers; without one its traffic would vanish, so that is an error. An Einsum inside a loop over a rank
that it does not iterate runs once per such loop: in its last iteration if it waits for a value that the loop completes,
in its first otherwise. A value that a loop still reduces may not be consumed by an Einsum that iterates the same loop;
a loop of one iteration leaves nothing to reduce.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from einsum.access import Access, Index
from einsum.cascade import Cascade
from einsum.einsum import Einsum
from einsum.errors import SpecError
from mappings.movement import Ranks, Shape
from mappings.nest import Hold, Leaf, PhaseNest
from mappings.tiles import Loop


@dataclass(frozen=True)
class Gate:
    """A loop over a rank that a leaf does not iterate: the leaf runs in its first or its last iteration."""

    loop: Loop
    side: Literal["first", "last"]


@dataclass(frozen=True, eq=False)
class Homes:
    """The holds of a whole mapping and who uses them. `single`: loops that have one iteration at every point."""

    cascade: Cascade
    ranks: Ranks
    phases: tuple[PhaseNest, ...]
    root: Hold
    single: frozenset[Loop] = frozenset()
    _gates: dict[Leaf, tuple[Gate, ...]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        """All leaves in order."""
        return tuple(leaf for phase in self.phases for leaf in phase.leaves)

    def chain(self, leaf: Leaf, tensor: str) -> tuple[Hold, ...]:
        """Holds of a tensor on the way to a leaf, outermost first, staging left out."""
        holds = tuple(hold for hold in leaf.holds if tensor in hold.tensors and not hold.staged)
        return holds if self.cascade.tensors[tensor].kind == "intermediate" else (self.root, *holds)

    def producers(self, tensor: str) -> tuple[Leaf, ...]:
        """Leaves that produce a tensor."""
        return self._producers.get(tensor, ())

    def consumers(self, tensor: str) -> tuple[Leaf, ...]:
        """Leaves that read a tensor."""
        return self._consumers.get(tensor, ())

    def tiles(self, tensor: str, leaves: Iterable[Leaf], loops: Iterable[Loop]) -> list[list[Shape]]:
        """The tiles of a tensor that some leaves touch below some loops, each with the shapes that accesses give it.

        Accesses that the same loops move touch the same tile; `X[p,d] * X[m,d]` needs two where a loop visits p or m.
        """
        latest = {name for rank in self.ranks.iterative(tensor) for name in self.ranks.names_moving(rank)}
        names = {loop.name for loop in loops if loop not in self.single} - latest
        found: dict[frozenset[str], dict[Shape, None]] = {}
        for leaf in leaves:
            for access in self._accesses(leaf, tensor):
                shape = self.ranks.shape(access)
                found.setdefault(shape.moved_by & names, {})[shape] = None
        return [list(shapes) for shapes in found.values()]

    def _accesses(self, leaf: Leaf, tensor: str) -> list[Access]:
        einsums = map(self.einsum, leaf.einsums)
        return [access for e in einsums for access in (*e.inputs, e.output) if access.tensor == tensor]

    def einsum(self, name: str) -> Einsum:
        """The Einsum of that name."""
        return self._einsums[name]

    def writes(self, einsum: str) -> str:
        """The tensor that an Einsum produces."""
        return self._einsums[einsum].output.tensor

    @cached_property
    def _einsums(self) -> dict[str, Einsum]:
        return {einsum.name: einsum for einsum in self.cascade.einsums}

    @cached_property
    def _producers(self) -> dict[str, tuple[Leaf, ...]]:
        return self._users(lambda einsum: (einsum.output.tensor,))

    @cached_property
    def _consumers(self) -> dict[str, tuple[Leaf, ...]]:
        return self._users(lambda einsum: tuple(access.tensor for access in einsum.inputs))

    def _users(self, tensors: Callable[[Einsum], tuple[str, ...]]) -> dict[str, tuple[Leaf, ...]]:
        """Tensor -> the leaves with an Einsum that touches it, each once."""
        users: dict[str, dict[Leaf, None]] = {}
        for leaf in self.leaves:
            for name in leaf.einsums:
                for tensor in tensors(self.einsum(name)):
                    users.setdefault(tensor, {})[leaf] = None
        return {tensor: tuple(leaves) for tensor, leaves in users.items()}

    def source(self, leaf: Leaf, tensor: str) -> Hold | None:
        """The hold that a leaf reads a tensor from; None when the leaf itself has just produced it."""
        producers = self.producers(tensor)
        iterative = bool(self.ranks.iterative(tensor))
        if leaf in producers and not (iterative and self.chain(leaf, tensor)):
            return None
        chain = self.chain(leaf, tensor)
        if chain:
            return chain[-1]
        made = producers[0] if producers else None
        where = f"computed at {made.key}" if made else "never computed"
        raise SpecError(
            f"tensor '{tensor}' ({where}) is read by {leaf.name}, but no memory that encloses both holds it; keep it "
            f"there, or in {self.root.level}",
            key=leaf.key,
        )

    def target(self, leaf: Leaf, tensor: str) -> Hold | None:
        """The hold that a leaf writes a tensor to; None when nothing outside the leaf reads it."""
        chain = self.chain(leaf, tensor)
        if chain:
            return chain[-1]
        outside = [reader for reader in self.consumers(tensor) if reader is not leaf]
        if not outside:
            return None
        raise SpecError(
            f"tensor '{tensor}' is computed by {leaf.name} and read by {outside[0].name}, but no memory that encloses "
            f"both holds it; keep it there, or in {self.root.level}",
            key=leaf.key,
        )

    def check(self) -> None:
        """SpecError unless every intermediate has a home that encloses its producer and all its consumers."""
        for name, tensor in self.cascade.tensors.items():
            if tensor.kind != "intermediate":
                continue
            for producer in self.producers(name):
                for reader in self.consumers(name):
                    if reader is producer:
                        continue
                    made, used = self.chain(producer, name), self.chain(reader, name)
                    if not any(hold in used for hold in made):
                        raise SpecError(
                            f"tensor '{name}' goes from {producer.name} to {reader.name}, but no memory that encloses "
                            f"both holds it; keep it there, or in {self.root.level}",
                            key=reader.key,
                        )
                    for hold in made:
                        if hold in used:
                            self._check_whole(hold, name, producer, reader)
        for leaf in self.leaves:
            self._check_together(leaf)

    def _check_whole(self, hold: Hold, tensor: str, producer: Leaf, reader: Leaf) -> None:
        """SpecError where a loop around a hold leaves only a part there of what the reader takes."""
        outputs = [self.einsum(name).output for name in producer.einsums if self.writes(name) == tensor]
        for loop in hold.loops:
            for access in self._accesses(reader, tensor) if loop not in self.single else ():
                if any(self._pieces(loop, access, output) for output in outputs):
                    raise SpecError(
                        f"{reader.name} reads {access}, but inside the loop over '{loop.name}' only a part of "
                        f"'{tensor}' is in {hold.level}; hold it outside that loop",
                        key=hold.key,
                    )

    def _check_together(self, leaf: Leaf) -> None:
        """SpecError where an Einsum takes a value of its own leaf at another point, or before it is complete."""
        made = {self.writes(name): self.einsum(name) for name in leaf.einsums}
        for name in leaf.einsums:
            for access in self.einsum(name).inputs:
                einsum = made.get(access.tensor)
                if einsum is None or self.ranks.iterative(access.tensor):
                    continue
                if set(einsum.ranks) != set(self.einsum(name).ranks):
                    continue  # refused as a whole where the leaf is lowered
                if einsum.reduced or str(einsum.output) != str(access):
                    raise SpecError(
                        f"{name} reads {access}, which is not complete at the point where {einsum.name} computes "
                        f"{einsum.output}; compute them one after the other",
                        key=leaf.key,
                    )

    def gates(self, leaf: Leaf) -> tuple[Gate, ...]:
        """Loops above a leaf that it does not iterate. SpecError for a consumer of an unfinished reduction."""
        if leaf not in self._gates:
            self._gates[leaf] = self._find_gates(leaf)
        return self._gates[leaf]

    def _find_gates(self, leaf: Leaf) -> tuple[Gate, ...]:
        result = []
        for loop in leaf.loops:
            unfinished = self._unfinished(leaf, loop)
            iterates = self._iterates(leaf, loop)
            if iterates and unfinished and loop not in self.single:
                raise SpecError(
                    f"{leaf.name} needs '{unfinished}' complete over rank '{loop.name}', but runs inside the loop over "
                    f"'{loop.name}' that computes it; close that loop first",
                    key=leaf.key,
                )
            if not iterates and not loop.grid:  # an instance finds nothing of another's: each computes the value
                result.append(Gate(loop, "last" if unfinished or self._waits(leaf, loop) else "first"))
        return tuple(result)

    def _iterates(self, leaf: Leaf, loop: Loop) -> bool:
        ranks = {rank for name in leaf.einsums for rank in self.einsum(name).ranks}
        return any(loop.name in self.ranks.names_moving(rank) for rank in ranks)

    def _waits(self, leaf: Leaf, loop: Loop) -> bool:
        """Whether a leaf reads, directly or not, what other leaves inside the loop compute per iteration."""
        return any(self._iterates(source, loop) for source in self._sources(leaf, loop))

    def _unfinished(self, leaf: Leaf, loop: Loop) -> str | None:
        """A tensor that the leaf depends on and that is complete only when the loop ends."""
        for reader in (leaf, *self._sources(leaf, loop)):
            for name in reader.einsums:
                for access in self.einsum(name).inputs:
                    if access.tensor in {self.writes(other) for other in reader.einsums}:
                        continue
                    if any(self._completed_by(loop, access, made) for made in self._inside(access.tensor, loop)):
                        return access.tensor
        return None

    def _completed_by(self, loop: Loop, access: Access, producer: Leaf) -> bool:
        """Whether the loop reduces what is accessed, or visits it piece by piece while the access takes all pieces."""
        moving = [einsum for einsum in map(self.einsum, producer.einsums) if einsum.output.tensor == access.tensor]
        for einsum in moving:
            if any(loop.name in self.ranks.names_moving(rank) for rank in einsum.reduced):
                return True
            if self._pieces(loop, access, einsum.output):
                return True
            last = self.ranks.iterative(access.tensor)
            if any(loop.name in self.ranks.names_moving(rank) for rank in last) and not last & set(access.ranks):
                return True
        return False

    def _pieces(self, loop: Loop, access: Access, output: Access) -> bool:
        """Whether a loop over a rank of a tensor's producer does not move an access to the tensor in step with it."""
        latest = self.ranks.iterative(access.tensor)
        return any(
            any(loop.name in self.ranks.names_moving(rank) for rank in set(made.terms) - latest)
            and not self._in_step(made, read)
            for made, read in zip(output.indices, access.indices, strict=True)
        )

    def _in_step(self, made: Index, read: Index) -> bool:
        """Whether two indices stand for the same coordinate; a partitioned rank may be written in its two parts."""
        if str(made) == str(read):
            return True
        whole = [str(self.cascade.coordinate(base)) for base in self.cascade.partitions]
        forms = {str(made), str(read)}
        return any(forms <= {base, form} for base, form in zip(self.cascade.partitions, whole, strict=True))

    def _inside(self, tensor: str, loop: Loop) -> list[Leaf]:
        return [leaf for leaf in self.producers(tensor) if loop in leaf.loops]

    def _sources(self, leaf: Leaf, loop: Loop) -> list[Leaf]:
        """Leaves inside the loop that a leaf depends on, through values of the same iteration."""
        found: list[Leaf] = []
        pending = [leaf]
        while pending:
            reader = pending.pop()
            for name in reader.einsums:
                for access in self.einsum(name).inputs:
                    for made in self._inside(access.tensor, loop):
                        if made is not leaf and made not in found and not self._previous(access, made):
                            found.append(made)
                            pending.append(made)
        return found

    def _previous(self, access: Access, producer: Leaf) -> bool:
        """Whether an access takes the value of the iteration before: the running state of an iterative rank."""
        return is_previous(self.ranks, access)


def is_previous(ranks: Ranks, access: Access) -> bool:
    """Whether an access to an iterative tensor reads the value before this iteration's update: X[i], not X[i+1]."""
    latest = ranks.iterative(access.tensor)
    return any(index.rank in latest for index in access.indices)
