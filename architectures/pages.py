"""Pages that a reader touches: a memory that is read by whole pages, and vectors that lie in them one after another.

A layout says how many vectors (a token's key, a channel of all tokens, a bundle of weights) a page holds, or how many
pages a vector takes. For a given set the count is exact; for a set known only by its size it is the expectation over
sets of that size, drawn evenly or in clusters.
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

    def expected(self, vectors: ArrayLike, kept: ArrayLike, latest: ArrayLike = 0, clustering: ArrayLike = 0) -> Array:
        """Expected pages that `kept` of the vectors touch: the `latest` ones, and the others drawn.

        clustering  0: every set is equally likely. Above 0: vectors of a page are kept together more often than that,
                    with this correlation (intraclass: 1 when pages are kept as a whole)

        The arguments broadcast. A page fills by Polya's urn: of s vectors none is among k of n with probability
        prod (n - k + i c) / (n + i c), i = 0 .. s - 1. With c = -1 that is the even draw, C(n - s, k) / C(n, k); with
        c > 0 the number of a page's kept vectors is beta-binomial with correlation c / (n + c) (Johnson and Kotz, Urn
        Models, 1977). Pages that the latest vectors share with older ones count once.
        """
        arrays = (np.asarray(value, dtype=np.float64) for value in (vectors, kept, latest, clustering, self.per_page))
        n, k, w, together, per = np.broadcast_arrays(*arrays)
        k = np.clip(k, 0, n)
        w = np.clip(w, 0, k)
        old, drawn = n - w, k - w
        full = np.floor(old / per)
        taken = np.where(w > 0, np.ceil(n / per) - full, 0.0)
        rest = np.where(w > 0, 0.0, old - full * per)  # vectors of a last page that no latest vector takes
        whole = full * (1 - _missed(old, drawn, np.where(full > 0, per, 0.0), together))
        part = np.where(rest > 0, 1 - _missed(old, drawn, rest, together), 0.0)
        return np.asarray((taken + whole + part) * self.pages_each)


def _missed(n: Array, k: Array, size: Array, together: Array) -> Array:
    """Probability that none of `size` neighbours is among k of n, whose places have the correlation `together`."""
    joined = np.minimum(together, 1 - 1e-12)
    added = joined * n / (1 - joined) - 1
    none = np.ones(np.broadcast_shapes(n.shape, k.shape, size.shape))
    for place in range(int(size.max(initial=0.0))):
        free, all_of_them = n - k + place * added, n + place * added
        chance = np.where(free > 0, free, 0.0) / np.where(all_of_them > 0, all_of_them, 1.0)
        none = np.where(place < size, none * chance, none)
    return none
