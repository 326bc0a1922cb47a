"""One mapping in the making, and which of many are worth a full evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

SHORTLIST = 16
MOST_TILES = 100_000


@dataclass(frozen=True)
class Candidate:
    """A mapping in the making: the cascade's variables that it sets, its traffic and time by estimate, and its nest.

    `write` makes the nest, which most candidates never need.
    """

    write: Callable[[], list[Any]] = field(compare=False, repr=False)
    variables: Mapping[str, int]
    moved_bytes: float
    exact: bool
    description: str
    estimate_s: float = inf
    estimate_j: float | None = None
    """Energy of the accesses, where it was estimated."""
    tiles: float = 0.0
    """Tiles that have to be told apart to cost the mapping, under a mask."""


def shortlist(candidates: Sequence[Candidate], objective: str) -> list[Candidate]:
    """Candidates worth a full evaluation: the least estimated time, and the least traffic (at least one).

    Under a mask those with too many tiles are left out while there are others.
    """
    few = [candidate for candidate in candidates if candidate.tiles <= MOST_TILES]
    candidates = few or sorted(candidates, key=lambda c: c.tiles)[:1]
    weighed = sorted(
        (c for c in candidates if c.estimate_j is not None),
        key=lambda c: ranking(objective, c.estimate_j or 0.0, c.estimate_s),
    )
    others = [c for c in candidates if c.estimate_j is None]
    fast = sorted(others, key=lambda c: (c.estimate_s, c.moved_bytes))
    frugal = sorted(others, key=lambda c: (c.moved_bytes, c.estimate_s))
    most = {"latency": SHORTLIST, "energy": SHORTLIST // 4, "dram": 0}.get(objective, SHORTLIST // 2)
    chosen = (*fast[:most], *frugal[: max(SHORTLIST - most, 1)], *weighed[:SHORTLIST])
    return list({id(c): c for c in chosen}.values())


def ranking(objective: str, energy_j: Any, latency_s: Any) -> Any:
    """What an objective makes small, for numbers or arrays; the other cost decides between equals."""
    if objective == "energy":
        return energy_j * (1 + 1e-6 * latency_s)
    if objective == "latency":
        return latency_s * (1 + 1e-6 * energy_j)
    return energy_j * latency_s
