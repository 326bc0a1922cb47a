"""How often every mapping of a cascade must traverse the fibers of a rank, which Einsum falls in which pass, and why.

A pass over a rank visits each of its coordinates; when an element must be visited again after all others of its fiber
have been, one more pass begins (Nayak et al., FuseMax, MICRO 2024, arXiv 2406.10491, section III). The count holds for
the cascade as written, whatever the mapping: Einsums of different passes cannot be fused along the rank.

The analysis assigns each tensor the time from which its elements can be read: 0 if it needs no pass, t - 1/2 if its
element at a coordinate is there as soon as pass t has reached that coordinate, t if it is there only when pass t has
ended. Every Einsum runs as early as it can. Of a partitioned rank the outermost part orders the traversal; what is
smaller than a chunk stays inside a visit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from einsum.access import Access, Index
from einsum.cascade import Cascade
from einsum.conditions import Kept
from einsum.dependences import Dependence, dependences
from einsum.einsum import Einsum
from einsum.errors import SpecError, nearest
from einsum.evaluation import Constant, Name
from einsum.expressions import Expression
from einsum.iteration import is_mask


@dataclass(frozen=True)
class LiveFiber:
    """A tensor whose whole fibers along the rank are needed again after a pass: kept on chip, spilled or recomputed.

    words  elements of one fiber, an expression of the sizes
    per    the tensor's other ranks; there is one such fiber for each of their points
    """

    tensor: str
    after_pass: int
    words: Expression
    per: tuple[str, ...]

    def __str__(self) -> str:
        each = f" for each ({', '.join(self.per)})" if self.per else ""
        return f"{self.tensor}: {self.words} words{each} from pass {self.after_pass} to pass {self.after_pass + 1}"


@dataclass(frozen=True)
class PassReport:
    """What `analyse_passes` found.

    rank            the rank, and `family`, the parts that it is traversed by
    passes          passes that every mapping makes; 0 when no Einsum iterates over the rank
    pass_of         Einsum that visits the elements of the rank -> its pass
    times           every Einsum -> when it can run: t - 1/2 during pass t, t after it, 0 before any
    chains          Einsum -> the Einsums that lead to it, each waiting for the one before
    reasons         Einsum -> one sentence, why it runs when it does
    live            fibers that outlive a pass
    per_iteration   iterative ranks outside the family: the passes are made once in each of their iterations
    """

    rank: str
    family: tuple[str, ...]
    passes: int
    pass_of: Mapping[str, int]
    times: Mapping[str, float]
    chains: Mapping[str, tuple[str, ...]]
    reasons: Mapping[str, str]
    live: tuple[LiveFiber, ...]
    per_iteration: tuple[str, ...]


def find_rank(cascade: Cascade, name: str) -> str:
    """A rank by its own name (`m`) or by that of its extent (`M`); SpecError with the nearest name."""
    if name in cascade.ranks:
        return name
    extents = {rank.name: rank.extent.root for rank in cascade.ranks.values()}
    found = [rank for rank, extent in extents.items() if isinstance(extent, Name) and extent.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise SpecError(f"'{name}' is the extent of several ranks of {cascade.name}: say which of {', '.join(found)}")
    raise SpecError(f"unknown rank '{name}' of the cascade {cascade.name}{nearest(name, cascade.ranks)}")


def analyse_passes(cascade: Cascade, rank: str) -> PassReport:
    """Count the passes over a rank (a base rank with its parts, or one part alone, such as m0 inside a chunk)."""
    return _Analysis(cascade, find_rank(cascade, rank)).report()


class _Analysis:
    """The times of all Einsums and tensors, found by going round recurrences until nothing changes."""

    def __init__(self, cascade: Cascade, rank: str) -> None:
        self.cascade = cascade
        self.rank = rank
        self.family = cascade.family(rank)
        # Ranks that move along the traversal: the outermost part and whatever it is a part of
        self.outer = {name for name in cascade.ranks if self.family[0] in cascade.family(name)}
        self.loops: set[str] = set()
        self.delays = self._delays()
        self.ready: dict[str, float] = dict.fromkeys(cascade.tensors, 0.0)
        self.time: dict[str, float] = {}
        self.forced_by: dict[str, Access | None] = {}
        self._settle()

    def _delays(self) -> dict[tuple[str, str], list[Dependence]]:
        """(producer, consumer) -> dependences."""
        found: dict[tuple[str, str], list[Dependence]] = {}
        einsums = self.cascade.einsums
        for edge in dependences(einsums, self.cascade.iterative):
            found.setdefault((einsums[edge.producer].name, einsums[edge.consumer].name), []).append(edge)
        return found

    def _settle(self) -> None:
        # Times only grow, by halves, and at most by one pass per Einsum.
        for _ in range(2 * len(self.cascade.einsums) + 2):
            before = dict(self.ready)
            for einsum in self.cascade.einsums:
                self._place(einsum)
            if before == self.ready:
                return

    def _place(self, einsum: Einsum) -> None:
        """When an Einsum can run and when its output can be read, from what it reads."""
        needed, forced_by = 0.0, None
        for access in sorted(einsum.inputs, key=lambda access: access.tensor == einsum.name):
            time = self.readable(einsum, access)
            if time > needed:
                needed, forced_by = time, access
        keeps = any(rank in self.outer for rank in einsum.output.ranks) and not self._reduces_all(einsum)
        if self.visits(einsum):
            number = math.floor(needed) + 1
            time, output = number - 0.5, number - 0.5 if keeps else float(number)
        else:
            touches = any(rank in self.outer for rank in einsum.ranks)
            time, output = needed, needed if keeps or not touches else float(math.ceil(needed))
        self.time[einsum.name], self.ready[einsum.name], self.forced_by[einsum.name] = time, output, forced_by

    def visits(self, einsum: Einsum) -> bool:
        """Whether the Einsum iterates over the elements of the rank, not only over its chunks."""
        return self._covers(einsum.ranks)

    def _covers(self, ranks: Iterable[str]) -> bool:
        return set(self.family) <= {part for rank in ranks for part in self.cascade.family(rank)}

    def _reduces_all(self, einsum: Einsum) -> bool:
        """A top-k mask keeps the rank, yet no element of it is known before all have been seen."""
        return any(rank in self.outer for rank in einsum.reduced)

    def readable(self, einsum: Einsum, access: Access) -> float:
        """From when the elements that an Einsum reads are there, as the traversal reaches them."""
        time = self.ready[access.tensor]
        edges = self.delays.get((access.tensor, einsum.name), [])
        delays = next((edge.delays for edge in edges if edge.access == access), {})
        outside = [rank for rank, delay in delays.items() if delay > 0 and rank not in self.family]
        if outside:  # the value of an earlier iteration of an enclosing loop
            self.loops.update(outside)
            return 0.0
        return time if self.in_step(einsum, access) else float(math.ceil(time))

    def in_step(self, einsum: Einsum, access: Access) -> bool:
        """Whether the access moves along the traversal, so that an element is read once it has been made."""
        for index, dimension in zip(self._indices(einsum, access), self.dimensions(access.tensor), strict=True):
            if dimension not in self.outer:
                continue
            if not index.ranks:
                return self._is_early(index)
            moving = [factor for rank, factor in index.terms.items() if rank in self.outer]
            return bool(moving) and not any(_is_negative(factor) for factor in moving)
        return True

    def _indices(self, einsum: Einsum, access: Access) -> tuple[Index, ...]:
        """The indices of an access; a clause `m in KEEP[h]` reads the mask KEEP at [h, m]."""
        if len(access.indices) == len(self.dimensions(access.tensor)):
            return access.indices
        for condition in einsum.conditions:
            if isinstance(condition, Kept) and condition.access == access and condition.member is not None:
                if is_mask(self.cascade, condition):
                    return (*access.indices, Index.of_rank(condition.member))
                return (*access.indices, Index.at(0))
        return access.indices

    def dimensions(self, tensor: str) -> tuple[str, ...]:
        return self.cascade.tensors[tensor].ranks

    def _is_early(self, index: Index) -> bool:
        """A fixed coordinate that does not grow with the rank is reached early in a pass."""
        extent = self.cascade.ranks[self.family[0]].extent.root
        return isinstance(index.offset.root, Constant) and not isinstance(extent, Constant)

    # Findings

    def report(self) -> PassReport:
        pass_of = {e.name: math.ceil(self.time[e.name]) for e in self.cascade.einsums if self.visits(e)}
        return PassReport(
            rank=self.rank,
            family=self.family,
            passes=max(pass_of.values(), default=0),
            pass_of=pass_of,
            times=dict(self.time),
            chains={einsum.name: self.chain(einsum.name) for einsum in self.cascade.einsums},
            reasons={einsum.name: self.reason(einsum) for einsum in self.cascade.einsums},
            live=tuple(self.live(max(pass_of.values(), default=0))),
            per_iteration=tuple(sorted(self.loops)),
        )

    def chain(self, name: str) -> tuple[str, ...]:
        found = [name]
        while (access := self.forced_by[found[-1]]) is not None and access.tensor in self.time:
            if access.tensor in found:
                break  # around a recurrence
            found.append(access.tensor)
        return tuple(reversed(found))

    def reason(self, einsum: Einsum) -> str:
        access = self.forced_by[einsum.name]
        time = self.time[einsum.name]
        when = "before any pass" if time == 0 else f"after pass {time:g}"
        if not time.is_integer():
            when = f"in pass {math.ceil(time)}"
        if access is None:
            return f"{when}: " + ("reads only what is given" if self.visits(einsum) else f"needs no {self.rank}")
        needed = self.readable(einsum, access)
        if not needed.is_integer():
            return f"{when}: follows {access.tensor} element by element"
        maker = self._barrier(access.tensor)
        how = f"'{maker}' needs every {self.rank} of pass {needed:g}"
        through = "" if maker.name == access.tensor else f", and {access.tensor} follows from it"
        return f"{when}: reads {access.tensor}; {how}{through}"

    def _barrier(self, tensor: str) -> Einsum:
        """The last Einsum on the way to a tensor that needs a whole fiber."""
        for name in reversed(self.chain(tensor)):
            einsum = self.cascade.einsum(name)
            waits = any(not self.in_step(einsum, access) for access in einsum.inputs)
            if self.ready[name] > self.time[name] or waits:
                return einsum
        return self.cascade.einsum(tensor)

    def live(self, passes: int) -> list[LiveFiber]:
        found = []
        for tensor in self.cascade.tensors.values():
            along = [rank for rank in tensor.ranks if set(self.cascade.family(rank)) & set(self.family)]
            readers = [
                einsum
                for einsum in self.cascade.consumers(tensor.name)
                if any(a.tensor == tensor.name and self._reads_fiber(einsum, a) for a in einsum.inputs)
            ]
            if not along or not readers:
                continue
            times = [self.time[reader.name] for reader in readers]
            first = min(times) if tensor.kind == "input" else self.time[tensor.name]
            for number in range(1, passes + 1):
                if first < number <= max(times):
                    rest = tuple(rank for rank in tensor.ranks if rank not in along)
                    found.append(LiveFiber(tensor.name, number, self._words(along), rest))
        return sorted(found, key=lambda fiber: fiber.after_pass)

    def _reads_fiber(self, einsum: Einsum, access: Access) -> bool:
        """Whether more than one fixed element of the fiber is read."""
        indices = zip(self._indices(einsum, access), self.dimensions(access.tensor), strict=True)
        return any(index.ranks for index, dimension in indices if dimension in self.outer)

    def _words(self, along: list[str]) -> Expression:
        if self._covers(along):
            along = [self.rank]
        texts = [str(self.cascade.ranks[rank].extent) for rank in along]
        return Expression.parse(texts[0] if len(texts) == 1 else " * ".join(f"({text})" for text in texts))


def _is_negative(factor: Expression) -> bool:
    root = factor.root
    return isinstance(root, Constant) and isinstance(root.value, (int, float)) and root.value < 0
