"""Segment counting: from chi, the most operations that X words allow, to the least I/O of all operations.

Cut an execution into segments of r charged words each. Fast memory starts empty, so the first segment touches at
most r words, every later one M + r, and the last, with rho < r charges, M + rho. If the I/O were R = r (1 + k) +
rho' with rho' < rho, the segments could hold at most chi(r) + k chi(M + r) + chi(M + rho') operations; where that
is less than the volume for all rho' < rho, the I/O is at least R. Any r gives a valid bound; no convexity of chi is
needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bounds.envelope import TINY, Envelope

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Chi:
    """chi(X) of a statement: the largest over its modes, or their sum where mixing modes may help the adversary."""

    modes: tuple[Envelope, ...]
    combine: str

    def at(self, x: Floats) -> Floats:
        """chi(X)."""
        logs = np.array([mode.log_chi(x) for mode in self.modes])
        joined = np.max(logs, axis=0) if self.combine == "max" else np.logaddexp.reduce(logs, axis=0)
        return np.asarray(np.exp(np.minimum(joined, 600.0)))

    def words_needed(self, count: Floats) -> Floats:
        """A lower bound on the X with chi(X) >= count, exact for "max"; infinite when no X reaches it."""
        log_count = np.log(np.maximum(count, TINY)) - 1e-9
        if self.combine == "max":
            return np.asarray(np.min([mode.words_needed(log_count) for mode in self.modes], axis=0))
        low, high = np.full(np.shape(count), -30.0), np.full(np.shape(count), 90.0)
        for _ in range(60):
            middle = 0.5 * (low + high)
            short = np.log(np.maximum(self.at(np.exp(middle)), TINY)) < log_count
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        return np.asarray(np.exp(low))


@dataclass(frozen=True, eq=False)
class Segments:
    """What the best exact segment count says, for arrays of fast memory sizes.

    charges    least number of charged words
    length     charges of each full segment (r)
    full       number of full segments after the first (k)
    rest       charges of the last one (rho)
    """

    charges: Floats
    length: Floats
    full: Floats
    rest: Floats


def count_segments(chi: Chi, volume: float, memory: Floats) -> Segments:
    """Least charges R such that some r, k, rho with R = r (1 + k) + rho reach the volume, maximized over r.

    `full` is -1 where one segment holds everything: then R is the least X with chi(X) >= volume.
    """
    grid = np.geomspace(2.0**-6, 2.0**9, 256)
    best = _count(chi, volume, memory[:, None], memory[:, None] * grid)
    for spread, steps in ((1.08, 61), (1.004, 31)):
        around = best.length[:, None] * np.geomspace(1 / spread, spread, steps)
        best = _better(best, _count(chi, volume, memory[:, None], around))
    return best


def _better(a: Segments, b: Segments) -> Segments:
    keep = a.charges >= b.charges
    return Segments(*(np.where(keep, getattr(a, f), getattr(b, f)) for f in ("charges", "length", "full", "rest")))


def _count(chi: Chi, volume: float, memory: Floats, length: Floats) -> Segments:
    first, later = chi.at(length), chi.at(memory + length)
    alone = first >= volume * (1 - 1e-9)  # a count that reaches the volume up to rounding does reach it
    full = np.where(alone, -1.0, np.maximum(0.0, np.ceil((volume - first - later) / later - 1e-9)))
    missing = np.maximum(volume - first - full * later, 0.0)
    rest = np.where(alone, 0.0, np.clip(chi.words_needed(missing) - memory, 0.0, length))
    at_once = np.broadcast_to(chi.words_needed(np.asarray([volume])), length.shape)
    rest = np.where(alone, at_once, rest)
    length = np.where(alone, at_once, length)
    charges = np.where(alone, at_once, length * (1 + full) + rest)
    pick = np.argmax(charges, axis=1)[:, None]
    return Segments(*(np.take_along_axis(f, pick, axis=1)[:, 0] for f in (charges, length, full, rest)))
