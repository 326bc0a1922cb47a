"""One extended Einsum: an output, a body of maps over inputs, a reduction over the ranks that the output lacks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from einsum.access import Access
from einsum.body import Body, Map, is_product, operations, reads
from einsum.conditions import Condition, Kept
from einsum.expressions import Expression


@dataclass(frozen=True)
class Einsum:
    """`output = reduction(reduced) body where conditions`, evaluated at every point of `ranks` that is kept.

    ranks       the iteration space: ranks of the output, then the reduced ones; a top-k's new rank is not iterated
    reduced     ranks that the reduction combines
    reduction   a key of `body.REDUCTIONS`, or None for a map
    conditions  clauses that a point must satisfy; points that do not are not computed, their outputs stay 0
    keep        for topk_mask: how many points are kept
    initial     for an iterative output: its value before the first iteration
    """

    output: Access
    body: Body
    ranks: tuple[str, ...]
    reduced: tuple[str, ...] = ()
    reduction: str | None = None
    conditions: tuple[Condition, ...] = ()
    keep: Expression | None = None
    initial: Body | None = None

    @property
    def name(self) -> str:
        """The output tensor; a cascade produces each tensor once."""
        return self.output.tensor

    @cached_property
    def inputs(self) -> tuple[Access, ...]:
        """The accesses of the body and of run-time conditions, in order, each once."""
        kept = [condition.access for condition in self.conditions if isinstance(condition, Kept)]
        found: list[Access] = []
        for access in (*reads(self.body), *kept):
            if access not in found:
                found.append(access)
        return tuple(found)

    @property
    def ops(self) -> dict[str, int]:
        """Operations per iteration point by kind: add, sub, mul, mac, div, exp, max, ..."""
        return operations(self.body, self.reduction)

    def with_conditions(self, *conditions: Condition) -> Einsum:
        """The same Einsum over fewer points."""
        new = tuple(condition for condition in conditions if condition not in self.conditions)
        return replace(self, conditions=self.conditions + new)

    def __str__(self) -> str:
        text = f"{self.output} = "
        implicit = self.reduction == "sum" and isinstance(self.body, Map) and is_product(self.body)
        if self.reduction is not None and not implicit:
            arguments = [*self.reduced, *([str(self.keep)] if self.keep is not None else [])]
            text += f"{self.reduction}({', '.join(arguments)}) "
        text += str(self.body)
        if self.conditions:
            text += " where " + " and ".join(str(condition) for condition in self.conditions)
        return text
