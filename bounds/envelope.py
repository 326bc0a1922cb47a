"""The most operations that X words allow: chi(X), as a lower envelope of monomials, each with its exponents.

With sum_j w_j |phi_j(F)| <= X, an inequality with exponents s (sigma = sum s > 0) gives, by weighted AM-GM,

    |F| <= K * (X / sigma) ** sigma * prod_j (s_j / w_j) ** s_j,          K = cap(T) * prod_i L_i ** t_i.

Any weighted geometric mean of inequalities is one too (a *mixture*), so for each X the best mixture is a convex
program in the weights. It is solved at anchors along X; every mixture found there is valid at all X, so the
envelope is sound however well the solver did, and exact at the anchors up to its precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TINY = 1e-300
PRECISION = 2e-4


@dataclass(frozen=True, eq=False)
class Envelope:
    """chi(X): exp of the least of the lines offset + slope * log X; line k mixes inequalities with weights[k]."""

    weights: Floats
    offsets: Floats
    slopes: Floats

    @classmethod
    def build(
        cls, exponents: Floats, constants: Floats, words: Floats, span: tuple[float, float], anchors: int = 72
    ) -> Envelope:
        """The envelope of inequalities (rows of `exponents`, log K in `constants`) for X in about the span.

        `words` holds the words of each array's elements.
        """
        smallest, largest = span
        log_x = np.linspace(np.log(max(smallest, 1e-3)), np.log(max(largest, 2.0)), anchors)
        mixed = _best_mixtures(exponents, constants, words, log_x)
        weights = np.unique(np.round(np.vstack([np.eye(len(exponents)), mixed]), 12), axis=0)
        weights = weights / weights.sum(axis=1, keepdims=True)
        s = weights @ exponents
        slopes = s.sum(axis=1)
        offsets = weights @ constants + _entropy(s, words)
        return cls(weights, offsets, slopes)

    def log_chi(self, x: Floats) -> Floats:
        """Logarithm of chi at X > 0."""
        log_x = np.log(np.maximum(x, TINY))
        result = np.full(np.shape(x), np.inf)
        for offset, slope in zip(self.offsets, self.slopes, strict=True):
            np.minimum(result, offset + slope * log_x, out=result)
        return result

    def words_needed(self, log_count: Floats) -> Floats:
        """Least X with chi(X) >= exp(log_count); infinite when no X has."""
        log_x = np.full(np.shape(log_count), -np.inf)
        for offset, slope in zip(self.offsets, self.slopes, strict=True):
            if slope > 0:
                np.maximum(log_x, (log_count - offset) / slope, out=log_x)
            else:
                log_x = np.where(log_count > offset + 1e-12, np.inf, log_x)
        return np.asarray(np.exp(np.minimum(log_x, 700.0)))

    def line_at(self, x: float) -> int:
        """The mixture that is active at X."""
        return int(np.argmin(self.offsets + self.slopes * np.log(max(x, TINY))))


def _entropy(s: Floats, words: Floats) -> Floats:
    """sum_j s_j log(s_j / w_j) - sigma log sigma."""
    sigma = s.sum(axis=-1)
    terms = s * np.log(np.maximum(s, TINY) / words)
    total: Floats = terms.sum(axis=-1) - sigma * np.log(np.maximum(sigma, TINY))
    return total


def _best_mixtures(exponents: Floats, constants: Floats, words: Floats, log_x: Floats, rounds: int = 120) -> Floats:
    """Weights of the mixture with the least log chi at each anchor: pairwise Frank-Wolfe, all anchors at once.

    An anchor is done when the duality gap, which bounds how far log chi is from its least value, is below PRECISION.
    """
    at_corner = constants + _entropy(exponents, words) + np.outer(log_x, exponents.sum(axis=1))
    weights = np.eye(len(exponents))[np.argmin(at_corner, axis=1)]
    todo = np.arange(len(log_x))
    for _ in range(rounds):
        own = weights[todo]
        start = own @ exponents
        gradient = _slope(start, log_x[todo], words) @ exponents.T + constants
        toward = np.argmin(gradient, axis=1)
        rows = np.arange(len(todo))
        open_gap = np.sum(own * gradient, axis=1) - gradient[rows, toward] > PRECISION
        if not open_gap.any():
            break
        todo, own, start, gradient, toward = (part[open_gap] for part in (todo, own, start, gradient, toward))
        rows = np.arange(len(todo))
        away = np.argmax(np.where(own > 1e-12, gradient, -np.inf), axis=1)
        most = own[rows, away]
        step = _line_search(
            start, exponents[toward] - exponents[away], constants[toward] - constants[away], most, log_x[todo], words
        )
        weights[todo, away] -= step
        weights[todo, toward] += step
    return np.asarray(np.maximum(weights, 0.0))


def _line_search(start: Floats, direction: Floats, shift: Floats, most: Floats, log_x: Floats, words: Floats) -> Floats:
    """The step in 0..most along the direction where log chi, which is convex, is least: by bisection of its slope."""
    low, high = np.zeros(len(most)), most.copy()
    for _ in range(18):
        middle = 0.5 * (low + high)
        rising = _slope(start + middle[:, None] * direction, log_x, words)
        downhill = (rising * direction).sum(axis=1) + shift < 0
        low, high = np.where(downhill, middle, low), np.where(downhill, high, middle)
    return np.where(high == most, most, low)


def _slope(s: Floats, log_x: Floats, words: Floats) -> Floats:
    """Gradient of log chi in s: the logarithm of each array's share of X, in elements."""
    sigma = np.maximum(s.sum(axis=1), 1e-30)
    share = np.maximum(s, 1e-30) / sigma[:, None] / words
    gradient: Floats = log_x[:, None] + np.log(share)
    return gradient
