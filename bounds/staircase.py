"""A staircase: the least words that any of many schedules moves, as a function of the fast memory it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Staircase:
    """Schedules that no other one beats, by rising footprint and falling words; `describe(k)` names the k-th."""

    footprint: Floats
    words: Floats
    origin: Ints
    describe: Callable[[int], str]

    @classmethod
    def of(cls, footprint: ArrayLike, words: ArrayLike, describe: Callable[[int], str]) -> Staircase:
        """The staircase of schedules given by flat arrays of the same shape (footprints and words, in words)."""
        space, moved = np.ravel(np.asarray(footprint, float)), np.ravel(np.asarray(words, float))
        order = np.lexsort((moved, space))
        least = np.minimum.accumulate(moved[order])
        kept = order[np.concatenate([[True], moved[order][1:] < least[:-1]])[: order.size]]
        return cls(space[kept], moved[kept], kept.astype(np.int64), describe)

    @classmethod
    def merged(cls, parts: Sequence[Staircase]) -> Staircase:
        """The staircase of all schedules of several."""
        sizes = np.cumsum([0, *(part.footprint.size for part in parts)])

        def describe(k: int) -> str:
            which = int(np.searchsorted(sizes, k, side="right")) - 1
            return parts[which].describe(int(parts[which].origin[k - sizes[which]]))

        return cls.of(
            np.concatenate([part.footprint for part in parts]), np.concatenate([part.words for part in parts]), describe
        )

    @classmethod
    def sequence(cls, name: str, first: Staircase, second: Staircase) -> Staircase:
        """Two phases that run one after the other, each with the whole fast memory; without a name, parts of a list."""
        footprint = np.unique(np.concatenate([first.footprint, second.footprint]))
        footprint = footprint[footprint >= max(first.footprint[0], second.footprint[0])]
        picks = np.stack([first.pick(footprint), second.pick(footprint)])

        def describe(k: int) -> str:
            a, b = (part.describe(int(part.origin[pick[k]])) for part, pick in zip((first, second), picks, strict=True))
            return f"{name}: {a}, {b}" if name else f"{a}; {b}"

        return cls.of(footprint, first.words[picks[0]] + second.words[picks[1]], describe)

    def pick(self, memory: Floats) -> Ints:
        """Index of the best schedule that fits, -1 where none does."""
        return np.searchsorted(self.footprint, memory, side="right") - 1

    def at(self, memory: Floats) -> tuple[Floats, list[str]]:
        """Words of the best schedule that fits (NaN where none does), and its name."""
        pick = self.pick(memory)
        names = {k: self.describe(int(self.origin[k])) if k >= 0 else "" for k in set(pick.tolist())}
        return np.where(pick >= 0, self.words[pick], np.nan), [names[k] for k in pick.tolist()]

    def scaled(self, copies: float) -> Staircase:
        """The same schedules run `copies` times on different data."""
        return Staircase(self.footprint, self.words * copies, self.origin, self.describe)
