"""Pages that a reader touches: a memory that is read by whole pages, and vectors that lie in them one after another.

A layout says how many vectors (a token's key, a channel of all tokens, a bundle of weights) a page holds, or how many
pages a vector takes. For a given set the count is exact; for a set known only by its size it is the expectation over
sets of that size, drawn evenly or with neighbours alike.
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

        clustering  correlation of the scores by which vectors of a page are selected; 0: every set is equally likely,
                    1: pages are kept as a whole

        The arguments broadcast. Vectors are kept whose scores are above a threshold; scores are normal, and those of a
        page share a part of their variance (the threshold model of quantitative genetics: Dempster and Lerner, 1950).
        A page's share of kept vectors is then Phi((sqrt(c) z - threshold) / sqrt(1 - c)) for a normal z, and given
        that share its vectors are drawn evenly. Pages that the latest vectors share with older ones count once.
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
    """Probability that none of `size` neighbours is among k of n, whose scores have the correlation `together`."""
    distinct, where = np.unique(np.stack([n, k, size, together], -1).reshape(-1, 4), axis=0, return_inverse=True)
    missed = np.concatenate([_missed_by_page(*rows.T) for rows in np.array_split(distinct, len(distinct) // 1024 + 1)])
    return np.asarray(missed[where].reshape(n.shape))


def _missed_by_page(n: Array, k: Array, size: Array, together: Array) -> Array:
    """The mean over pages, a trapezoidal sum over z as fine as the steepest share asks for; arrays of one axis."""
    from scipy.special import ndtr, ndtri

    share = k / np.maximum(n, 1.0)
    common, own = np.sqrt(together), np.sqrt(np.clip(1 - together, 1e-4, 1.0))
    z = np.linspace(-8.0, 8.0, 1 + int(np.ceil(32 / own.min(initial=1.0))))[:, None]
    weights = np.exp(-(z**2) / 2)
    of_page = ndtr((common * z + ndtri(share)) / own)
    missed = (weights * _missed_evenly(n, n * of_page, size)).sum(0) / weights.sum()
    return np.where(together > 0, np.where(together < 1, missed, 1 - share), _missed_evenly(n, k, size))


def _missed_evenly(n: Array, k: Array, size: Array) -> Array:
    """C(n - size, k) / C(n, k), for real k too."""
    none = np.ones(np.broadcast_shapes(n.shape, k.shape))
    for place in range(int(size.max(initial=0.0))):
        chance = np.maximum(n - k - place, 0.0) / np.maximum(n - place, 1.0)
        none = np.where(place < size, none * chance, none)
    return none
