"""A cascade of extended Einsums: ranks, tensors and Einsums, checked as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from einsum.access import Access, Index, plus, times
from einsum.conditions import Condition
from einsum.dependences import Schedule, flatten, schedule
from einsum.einsum import Einsum
from einsum.errors import SpecError, nearest
from einsum.evaluation import Constant
from einsum.expressions import Expression, closed, resolve


@dataclass(frozen=True)
class Rank:
    """A range of coordinates from 0 to extent - 1. Along an iterative rank values depend on earlier coordinates."""

    name: str
    extent: Expression
    iterative: bool = False


@dataclass(frozen=True)
class Partition:
    """rank = outer * size + inner; the last chunk may be ragged. `count` names the number of chunks."""

    rank: str
    outer: str
    inner: str
    size: Expression
    count: str


@dataclass(frozen=True)
class Tensor:
    """ranks: one per dimension. kind: input, output or intermediate. bits: word size, if the cascade fixes it."""

    name: str
    ranks: tuple[str, ...]
    kind: str
    bits: Expression | None = None


@dataclass(frozen=True)
class Cascade:
    """The algorithm as text defines it.

    variables   defaults for names that extents, sizes and bodies use; callers override them
    ranks       base ranks and the parts that they are partitioned into
    partitions  base rank -> its partition
    statements  the Einsums as written, in an order in which they can run
    where       conditions on the whole cascade; each applies to the Einsums over its ranks
    """

    name: str
    description: str
    source: str
    variables: Mapping[str, Expression]
    ranks: Mapping[str, Rank]
    partitions: Mapping[str, Partition]
    tensors: Mapping[str, Tensor]
    statements: tuple[Einsum, ...]
    where: tuple[Condition, ...] = ()

    @staticmethod
    def load(name_or_path: str | Path) -> Cascade:
        """Read a library cascade by name, or a YAML file; SpecError names file and key of a mistake."""
        from einsum.cascade_file import load_cascade

        return load_cascade(name_or_path)

    @staticmethod
    def parse(source: str | Mapping[str, Any]) -> Cascade:
        """Build a cascade from YAML text or from the mapping that it stands for."""
        from einsum.cascade_file import parse_cascade

        return parse_cascade(source)

    def save(self, path: str | Path) -> None:
        """Write the cascade as YAML that loads to an equal cascade; a partial file is never left behind."""
        from einsum.cascade_file import save_cascade

        save_cascade(self, path)

    @cached_property
    def einsums(self) -> tuple[Einsum, ...]:
        """The Einsums in an order in which they can run, with the conditions of the whole cascade applied."""
        return tuple(
            einsum.with_conditions(*(c for c in self.where if self.restricts(c, einsum))) for einsum in self.statements
        )

    @cached_property
    def schedule(self) -> Schedule:
        """Positions of Einsums, and the loops over iterative ranks that they run in."""
        return schedule(self.einsums, self.iterative)

    @cached_property
    def order(self) -> list[int]:
        """Positions of Einsums in an order in which they can run, loops over iterative ranks opened up."""
        return flatten(self.schedule)

    @property
    def iterative(self) -> frozenset[str]:
        """Ranks along which values depend on earlier coordinates."""
        return frozenset(rank.name for rank in self.ranks.values() if rank.iterative)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Tensors that are given."""
        return tuple(tensor for tensor in self.tensors.values() if tensor.kind == "input")

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """Tensors that are the result."""
        return tuple(tensor for tensor in self.tensors.values() if tensor.kind == "output")

    def einsum(self, name: str) -> Einsum:
        """The Einsum that produces a tensor; SpecError with the nearest name."""
        for einsum in self.einsums:
            if einsum.name == name:
                return einsum
        raise SpecError(f"unknown Einsum '{name}'{nearest(name, (einsum.name for einsum in self.einsums))}")

    def producers(self, tensor: str) -> tuple[Einsum, ...]:
        """The Einsum that writes a tensor, or none for an input."""
        return tuple(einsum for einsum in self.einsums if einsum.name == tensor)

    def consumers(self, tensor: str) -> tuple[Einsum, ...]:
        """The Einsums that read a tensor."""
        return tuple(e for e in self.einsums if any(access.tensor == tensor for access in e.inputs))

    # Ranks and their partitions

    def base(self, rank: str) -> str:
        """The rank that `rank` is a part of, or itself."""
        for partition in self.partitions.values():
            if rank in (partition.outer, partition.inner):
                return self.base(partition.rank)
        return rank

    def family(self, rank: str) -> tuple[str, ...]:
        """The parts of a rank that are not partitioned further, outermost first: `m` -> (m1, m0), `p` -> (p,)."""
        if rank not in self.ranks:
            raise SpecError(f"unknown rank '{rank}'{nearest(rank, self.ranks)}")
        partition = self.partitions.get(rank)
        return (rank,) if partition is None else (*self.family(partition.outer), *self.family(partition.inner))

    def coordinate(self, rank: str) -> Index:
        """The coordinate of a rank as an affine function of its family: `m` -> `m1*M0+m0`."""
        partition = self.partitions.get(rank)
        if partition is None:
            return Index.of_rank(rank)
        outer, inner = self.coordinate(partition.outer), self.coordinate(partition.inner)
        terms = {name: times(factor.root, partition.size.root) for name, factor in outer.terms.items()}
        for name, factor in inner.terms.items():
            terms[name] = plus(terms.get(name, Constant(0)), factor.root)
        return Index({name: Expression(node, "") for name, node in terms.items()}, outer.offset)

    def restricts(self, condition: Condition, einsum: Einsum) -> bool:
        """Whether a condition applies to an Einsum: it iterates over all of the condition's ranks.

        Of a partitioned rank the outermost part is enough: a chunk is kept if any of its points is.
        """
        ranks = [name for name in condition.names if name in self.ranks]
        return all(self.family(rank)[0] in einsum.ranks or rank in einsum.ranks for rank in ranks)

    def with_condition(self, *conditions: str, variables: Mapping[str, Any] | None = None) -> Cascade:
        """The same cascade under further conditions, such as `m <= p` for a causal mask.

        Each applies to every Einsum over its ranks. `variables` gives defaults for names that the conditions bring in,
        as the width in `p - m < Wd`. SpecError when a condition applies to no Einsum or names an unknown rank.
        """
        from einsum.cascade_file import parse_where_entries
        from einsum.validation import check_cascade

        parsed = parse_where_entries(conditions, self.ranks.keys())
        new = tuple(condition for condition in parsed if condition not in self.where)
        added = {name: Expression.parse(value) for name, value in (variables or {}).items()}
        cascade = replace(self, where=self.where + new, variables={**self.variables, **added})
        check_cascade(cascade)
        return cascade

    def without_conditions(self) -> Cascade:
        """The same cascade without its cascade-wide conditions; those of single Einsums stay."""
        return replace(self, where=())

    # Sizes

    @cached_property
    def definitions(self) -> dict[str, Expression]:
        """Variables and the numbers of chunks, as expressions of each other and of what the user gives."""
        counts = {}
        for partition in self.partitions.values():
            extent = self.ranks[partition.rank].extent
            counts[partition.count] = Expression.parse(f"ceil_div({extent}, {partition.size})")
        return {**counts, **self.variables}

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names without a default that the user has to give, such as B, H, P, M, E and F; sorted."""
        named: set[str] = set()
        for rank in self.ranks.values():
            named |= rank.extent.names
        for expression in self.definitions.values():
            named |= expression.names
        return tuple(sorted(named - set(self.definitions)))

    def environment(self, env: Mapping[str, Any]) -> dict[str, Any]:
        """`env` completed with the cascade's variables and numbers of chunks; values may be arrays.

        SpecError for a missing size, with the names that `env` has.
        """
        from einsum.validation import check_size

        for name in self.parameters:
            if name not in env:
                raise SpecError(f"no value is given for '{name}' of the cascade {self.name}{_given(name, env)}")
        values = {name: value for name, value in env.items() if not self._is_count(name)}
        early = resolve(closed(self.variables, values), values)
        for partition in self.partitions.values():
            if partition.size.names <= early.keys():
                check_size(partition.size.evaluate(early), partition.inner, str(partition.size))
        resolved = resolve(self.definitions, values)
        for partition in self.partitions.values():
            wanted = env.get(partition.count)
            if wanted is not None and not np.all(np.equal(wanted, resolved[partition.count])):
                made = f"{self.ranks[partition.rank].extent} / {partition.size} makes {resolved[partition.count]}"
                raise SpecError(f"'{partition.count}' is given as {wanted}, but {made}")
        return resolved

    def _is_count(self, name: str) -> bool:
        return any(partition.count == name for partition in self.partitions.values())

    def extents(self, env: Mapping[str, Any]) -> dict[str, Any]:
        """Rank -> extent, for sizes given by the names of the extents ({'P': 512, ...}); values may be arrays.

        SpecError for sizes that are missing, not whole or below 1, and for an index that leaves its tensor.
        """
        from einsum.validation import check_ranges, check_size

        values = self.environment(env)
        extents = {}
        for rank in self.ranks.values():
            extent = rank.extent.evaluate(values)
            check_size(extent, rank.name, str(rank.extent))
            extents[rank.name] = int(extent) if isinstance(extent, float) else extent
        check_ranges(self, values, extents)
        return extents

    def slots(self, tensor: str) -> tuple[int, ...]:
        """Per dimension, how many initial values come first: 1 where the tensor is written at `i+1`, else 0."""
        producer = next((einsum for einsum in self.statements if einsum.name == tensor), None)
        if producer is None:
            return (0,) * len(self.tensors[tensor].ranks)
        steps = (index.step for index in producer.output.indices)
        return tuple(step[1] if step else 0 for step in steps)

    def shape(self, tensor: str, extents: Mapping[str, Any]) -> tuple[Any, ...]:
        """The size of each dimension of a tensor, initial values of iterative tensors included."""
        ranks = self.tensors[tensor].ranks
        return tuple(extents[rank] + extra for rank, extra in zip(ranks, self.slots(tensor), strict=True))

    def access(self, tensor: str) -> Access:
        """A tensor indexed by its own ranks."""
        return Access(tensor, tuple(Index.of_rank(rank) for rank in self.tensors[tensor].ranks))


def _given(name: str, env: Mapping[str, Any]) -> str:
    return nearest(name, env) if env else " (no sizes are given)"
