"""A cascade's accesses in terms of whole ranks: partitioned ranks put together again, offsets dropped.

Neither how a rank is cut into chunks nor a constant shift changes how many elements a set of points touches, so
bounds look at `K[m1*M0+m0, e]` as K[m, e], and at the partial sum RNV[m1+1, p, f] as one more word of kind (p, f).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from einsum.access import Access as CascadeAccess
from einsum.cascade import Cascade

Dimension = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class WholeAccess:
    """dimensions: affine forms over base ranks; partial: some chunk coordinate was dropped (or the index is fixed)."""

    tensor: str
    dimensions: tuple[Dimension, ...]
    partial: bool

    @property
    def loops(self) -> tuple[str, ...]:
        """The base ranks, in order of appearance."""
        return tuple(dict.fromkeys(loop for terms in self.dimensions for loop, _ in terms))

    @property
    def plain(self) -> bool:
        """Whether each dimension is one rank, no rank twice."""
        simple = all(len(terms) == 1 and terms[0][1] == 1 for terms in self.dimensions)
        return simple and len(self.loops) == len(self.dimensions)


def whole(cascade: Cascade, access: CascadeAccess, values: Mapping[str, Any]) -> WholeAccess:
    """The access over base ranks."""
    found: list[dict[str, int]] = []
    loose: dict[str, int] = {}  # parts of ranks that are an index by themselves -> their place among the dimensions
    partial = False
    for index in access.indices:
        terms = {rank: int(factor.number(values)) for rank, factor in index.terms.items()}
        form, rest = _bases(cascade, terms, values)
        if len(rest) == 1 and not form and next(iter(rest.values())) == 1:
            loose[next(iter(rest))] = len(found)
            found.append({})
            continue
        partial = partial or bool(rest) or not form
        if form:
            found.append(form)
    for rank in dict.fromkeys(cascade.base(part) for part in loose):
        family = cascade.family(rank)
        if all(part in loose for part in family):
            found[min(loose[part] for part in family)] = {rank: 1}
        else:
            partial = True
    return WholeAccess(access.tensor, tuple(tuple(form.items()) for form in found if form), partial)


def _bases(cascade: Cascade, terms: dict[str, int], values: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """Terms whose ranks are whole, or make up a whole rank; and the parts left over."""
    rest = dict(terms)
    form: dict[str, int] = {}
    for rank in dict.fromkeys(cascade.base(name) for name in terms):
        family = cascade.family(rank)
        if rank in rest:
            form[rank] = rest.pop(rank)
            continue
        if not all(part in rest for part in family):
            continue
        scale = rest[family[-1]]
        coordinate = {part: int(f.number(values)) * scale for part, f in cascade.coordinate(rank).terms.items()}
        if all(rest[part] == coordinate[part] for part in family):
            form[rank] = scale
            for part in family:
                del rest[part]
    return form, rest


def whole_ranks(cascade: Cascade, ranks: tuple[str, ...]) -> tuple[str, ...]:
    """The base ranks of an iteration space, each once."""
    return tuple(dict.fromkeys(cascade.base(rank) for rank in ranks))
