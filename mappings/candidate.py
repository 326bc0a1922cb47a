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
    tiles: float = 0.0
    """Tiles that have to be told apart to cost the mapping, under a mask."""


def shortlist(candidates: Sequence[Candidate], objective: str) -> list[Candidate]:
    """Candidates worth a full evaluation: those with the least estimated time, and those with the least traffic.

    Under a mask those with too many tiles are left out while there are others.
    """
    few = [candidate for candidate in candidates if candidate.tiles <= MOST_TILES]
    candidates = few or sorted(candidates, key=lambda c: c.tiles)[:1]
    fast = sorted(candidates, key=lambda c: (c.estimate_s, c.moved_bytes))
    frugal = sorted(candidates, key=lambda c: (c.moved_bytes, c.estimate_s))
    most = {"latency": SHORTLIST, "energy": SHORTLIST // 4, "dram": 0}.get(objective, SHORTLIST // 2)
    return list({id(c): c for c in (*fast[:most], *frugal[: SHORTLIST - most])}.values())
