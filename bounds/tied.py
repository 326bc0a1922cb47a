"""Which pair of ranks the conditions of a cascade tie, and which Einsums the bounds leave out for their conditions.

A problem has one pattern of (row, column) pairs. Einsums under conditions of another form stay outside, and so does
whatever is computed from them: how many of their points there are is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from einsum.cascade import Cascade
from einsum.conditions import Comparison
from einsum.einsum import Einsum


@dataclass(frozen=True)
class Tied:
    """The pair of ranks with its conditions; None and nothing where there is none.

    outside   Einsum -> why it is left out
    """

    pair: frozenset[str] | None
    conditions: tuple[Comparison, ...]
    outside: dict[str, str]

    @classmethod
    def of(cls, cascade: Cascade, extents: Mapping[str, int]) -> Tied:
        """Read the conditions that are known before run time. The first pair of ranks counts, other pairs do not;
        conditions between ranks of a single point keep it, or nothing is computed at all."""
        pair: frozenset[str] | None = None
        conditions: dict[Comparison, None] = {}
        outside: dict[str, str] = {}
        for einsum in cascade.einsums:
            source = next((access.tensor for access in einsum.inputs if access.tensor in outside), None)
            if source is not None:
                outside[einsum.name] = f"it is computed from {source}"
                continue
            own, reason = _own(cascade, einsum, extents)
            ties = {ranks for ranks, _ in own} | ({pair} if pair else set())
            if not reason and len(ties) > 1:
                first, second = (" and ".join(sorted(ranks)) for ranks in sorted(ties, key=sorted)[:2])
                reason = f"conditions tie {first} and others {second}; bounds cover one pair of ranks"
            if reason:
                outside[einsum.name] = reason
            elif own:
                pair = own[0][0]
                conditions |= dict.fromkeys(condition for _, condition in own)
        return cls(pair, tuple(conditions), outside)


def _own(
    cascade: Cascade, einsum: Einsum, extents: Mapping[str, int]
) -> tuple[list[tuple[frozenset[str], Comparison]], str]:
    """The comparisons of an Einsum with the pairs that they tie, and why it is left out, if it is."""
    found: list[tuple[frozenset[str], Comparison]] = []
    for condition in einsum.conditions:
        if not isinstance(condition, Comparison):
            continue
        ranks = frozenset(cascade.base(name) for name in condition.names if name in cascade.ranks)
        if all(extents[rank] == 1 for rank in ranks):
            continue
        if len(ranks) != 2 or not all(name == cascade.base(name) for name in ranks & condition.names):
            return found, f"its condition '{condition}' does not tie two whole ranks"
        found.append((ranks, condition))
    return found, ""
