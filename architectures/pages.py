"""Pages that a reader touches: a memory that is read by whole pages, and vectors that lie in them one after another.

A layout says how many vectors (a token's key, a channel of all tokens, a bundle of weights) a page holds, or how many
pages a vector takes. For a given set the count is exact; for a set known only by its size it is the expectation over
sets of that size, drawn evenly or in runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """Vectors in pages: `per_page` in each page, or each in `pages_each` pages; one of the two is 1."""

    per_page: Array
    pages_each: Array

    @staticmethod
    def of(vector_bytes: ArrayLike, page_bytes: ArrayLike) -> Layout:
        """The layout of vectors of a size that do not cross pages needlessly; the arguments broadcast."""
        vector, page = np.broadcast_arrays(np.asarray(vector_bytes, np.float64), np.asarray(page_bytes, np.float64))
        return Layout(np.maximum(np.floor(page / vector), 1.0), np.ceil(vector / page))

    def pages(self, vectors: ArrayLike) -> Array:
        """Pages of so many vectors, the last one perhaps not full."""
        return np.asarray(np.ceil(np.asarray(vectors, np.float64) / self.per_page) * self.pages_each)

    def touched(self, chosen: ArrayLike) -> float:
        """Pages that a set of vectors, given by their places, touches. For one layout, not arrays of them."""
        return float(np.unique(np.asarray(chosen, np.int64) // int(self.per_page)).size * self.pages_each)

    def expected(self, vectors: ArrayLike, kept: ArrayLike, latest: ArrayLike = 0, run: ArrayLike = 0) -> Array:
        """Expected pages that `kept` of the vectors touch: the `latest` ones, and the others drawn.

        run     0: every set is equally likely. Else: mean length of the runs of neighbours in which the others come,
                at least 1; a chain of two states, which leaves a chosen vector's neighbour out with probability 1 / run

        The arguments broadcast. Drawn evenly, a page of s vectors is missed with probability C(n - s, k) / C(n, k);
        in runs with (1 - p) (1 - a)^(s - 1), where p = k / n is the chosen share and a = p / ((1 - p) run) the
        chance that a run begins. Pages that the latest vectors share with older ones count once.
        """
        arrays = (np.asarray(value, dtype=np.float64) for value in (vectors, kept, latest, run, self.per_page))
        n, k, w, length, per = np.broadcast_arrays(*arrays)
        k = np.clip(k, 0, n)
        w = np.clip(w, 0, k)
        old, drawn = n - w, k - w
        full = np.floor(old / per)
        taken = np.where(w > 0, np.ceil(n / per) - full, 0.0)
        rest = np.where(w > 0, 0.0, old - full * per)  # vectors of a last page that no latest vector takes
        whole = full * (1 - _missed(old, drawn, per, length))
        part = np.where(rest > 0, 1 - _missed(old, drawn, np.maximum(rest, 1.0), length), 0.0)
        return np.asarray((taken + whole + part) * self.pages_each)


def _missed(n: Array, k: Array, size: Array, run: Array) -> Array:
    """Probability that none of `size` given neighbours is among k of n."""
    from scipy.special import gammaln

    room = n - size - k
    possible = (room >= 0) & (k > 0)
    logs = gammaln(np.where(possible, n - size + 1, 1.0)) + gammaln(np.where(possible, n - k + 1, 1.0))
    logs = logs - gammaln(np.where(possible, n + 1, 1.0)) - gammaln(np.where(possible, room + 1, 1.0))
    even = np.where(k <= 0, 1.0, np.where(possible, np.exp(logs), 0.0))
    share = np.clip(k / np.maximum(n, 1.0), 0.0, 1.0)
    begins = np.clip(share / np.maximum((1 - share) * np.maximum(run, 1.0), 1e-300), 0.0, 1.0)
    chained = (1 - share) * (1 - begins) ** (size - 1)
    return np.asarray(np.where(run > 0, chained, even))
