"""Top-k engines: hardware that finds the k largest of n values. Quick-select, simulated and in expectation; a sorter.

Quick-select (Hoare, "Find", CACM 1961) compares all candidates with a random pivot, keeps the side where the k-th
largest lies, and begins again, until the pivot is the k-th largest. The engine reads `parallelism` candidates a cycle
from a FIFO, compares them in two arrays (above the pivot, below it), and zero eliminators pack what passed into two
FIFOs. One pass over s candidates takes ceil(s / parallelism) cycles and `pass_cycles` more to drain that pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from einsum.errors import SpecError, nearest

Array = NDArray[np.float64]
Algorithm = Literal["quick-select", "batcher"]


@dataclass(frozen=True)
class Selection:
    """What an engine did with one set of values.

    kept            places of the k largest, in the order of the values; ties go to the earlier place
    pass_sizes      candidates of each pass
    cycles          of all passes
    """

    kept: NDArray[np.intp]
    pass_sizes: tuple[int, ...]
    cycles: int


@dataclass(frozen=True)
class Work:
    """What selections take on average: arrays of one shape."""

    passes: Array
    candidates: Array
    cycles: Array


def quick_select(
    values: ArrayLike,
    k: int,
    parallelism: int,
    *,
    pass_cycles: int = 3,
    fifo_rows: int | None = None,
    rng: np.random.Generator | None = None,
) -> Selection:
    """Select the k largest of `values`, (n,), as the engine does, with pivots drawn by `rng` (seed 0 without one).

    fifo_rows   rows of `parallelism` values that each FIFO holds; unbounded when omitted

    Candidates equal to the pivot leave the race together, so equal values need fewer passes. SpecError for k outside
    1..n, values that are not numbers, and more values than a FIFO holds.
    """
    candidates = np.asarray(values, dtype=np.float64)
    if candidates.ndim != 1 or np.isnan(candidates).any():
        raise SpecError("a selection needs a list of numbers")
    _check_sizes(candidates.size, k, parallelism)
    if fifo_rows is not None and candidates.size > fifo_rows * parallelism:
        held = fifo_rows * parallelism
        raise SpecError(f"{candidates.size} values do not fit into a FIFO of {fifo_rows} x {parallelism} = {held}")
    rng = rng or np.random.default_rng(0)
    whole, wanted, sizes = candidates, k, []
    while True:
        sizes.append(candidates.size)
        pivot = candidates[rng.integers(candidates.size)]
        above, below = eliminate(candidates, candidates > pivot), eliminate(candidates, candidates < pivot)
        equal = candidates.size - above.size - below.size
        if above.size >= wanted:
            candidates = above
        elif above.size + equal >= wanted:
            break
        else:
            candidates, wanted = below, wanted - above.size - equal
    surely = np.flatnonzero(whole > pivot)
    tied = np.flatnonzero(whole == pivot)[: k - surely.size]
    cycles = sum(-(-size // parallelism) + pass_cycles for size in sizes)
    return Selection(np.sort(np.concatenate([surely, tied])), tuple(sizes), cycles)


def eliminate(row: Array, passed: NDArray[np.bool_]) -> Array:
    """What a zero eliminator makes of a row: the values that passed, moved together in their order.

    Value i moves left by the number of gaps before it, one power of two after the other, as the layers of the
    hardware's shifter do (log2 of the row's length layers).
    """
    values, valid = np.where(passed, row, 0.0), passed.copy()
    shift = np.cumsum(~passed)
    for layer in range(int(row.size).bit_length()):
        moves = valid & ((shift >> layer) & 1 == 1)
        places = np.flatnonzero(moves)
        targets = places - (1 << layer)
        moved, moved_shift = values[places], shift[places]
        valid[places] = False
        values[targets], shift[targets], valid[targets] = moved, moved_shift, True
    return np.asarray(values[valid])


def expected_quick_select(n: ArrayLike, k: ArrayLike, parallelism: ArrayLike, pass_cycles: ArrayLike = 3.0) -> Work:
    """Mean passes, candidates and cycles to find the k-th of n distinct values; the arguments broadcast.

    Number the values by rank. Quick-select visits the interval i..j around k if the ranks i-1 and j+1 beside it become
    pivots before any rank inside: with probability 2 / ((s+1)(s+2)) for s = j - i + 1 ranks when both neighbours
    exist, 1 / (s+1) with one, and 1 for the whole. The sum over all intervals is exact; with s - 1 for the cost it is
    Knuth's count of comparisons ("Mathematical analysis of algorithms", IFIP 1971).
    """
    sizes, ranks, widths, drains = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in
                                                         (n, k, parallelism, pass_cycles)))  # fmt: skip
    cases, place = np.unique(np.stack([sizes, ranks, widths], axis=-1).reshape(-1, 3), axis=0, return_inverse=True)
    found = np.array([_expected(int(size), int(rank), int(width)) for size, rank, width in cases]).reshape(-1, 3)
    passes, candidates, rows = (found[place.reshape(-1), column].reshape(sizes.shape) for column in range(3))
    return Work(passes, candidates, rows + passes * drains)


def visits(n: int, k: int) -> Array:
    """Expected passes over exactly s = 1..n candidates while the k-th of n distinct values is found, (n,)."""
    size = np.arange(1, n + 1, dtype=np.float64)
    lowest, highest = np.maximum(2, k - size + 1), np.minimum(k, n - size)
    inside = np.maximum(highest - lowest + 1, 0)
    ends = ((size >= k) & (size < n)).astype(np.float64) + ((size >= n - k + 1) & (size < n))
    expected = inside * 2 / ((size + 1) * (size + 2)) + ends / (size + 1)
    expected[-1] += 1
    return np.asarray(expected)


def _expected(n: int, k: int, parallelism: int) -> tuple[float, float, float]:
    """(passes, candidates, rows of `parallelism` candidates); nothing to do for n = 0."""
    if n == 0:
        return 0.0, 0.0, 0.0
    _check_sizes(n, k, parallelism)
    expected, size = visits(n, k), np.arange(1, n + 1)
    return float(expected.sum()), float(expected @ size), float(expected @ -(-size // parallelism))


def expected_on_values(values: ArrayLike, k: int, parallelism: int) -> tuple[float, float, float]:
    """Mean (passes, candidates, rows of `parallelism` candidates) to find the k largest of given values, (n,).

    Exact over the pivots. Equal values form groups, sorted from the largest. The groups a..b around the k-th value,
    with W values together, are a pass of their own if the groups beside them, of u and v values, give pivots before any
    inside does: with probability uv / (W+u+v) x (1 / (W+u) + 1 / (W+v)), u / (W+u) if only one exists, and 1 for all.
    """
    candidates = np.asarray(values, dtype=np.float64)
    _check_sizes(candidates.size, k, parallelism)
    counts = np.unique(-candidates, return_counts=True)[1].astype(np.float64)
    upto = np.concatenate([[0.0], np.cumsum(counts)])
    target = int(np.searchsorted(upto[1:], k))
    first, last = np.arange(target + 1)[:, np.newaxis], np.arange(target, counts.size)[np.newaxis, :]
    size = upto[last + 1] - upto[first]
    left, right = np.where(first > 0, counts[first - 1], 0.0), np.append(counts[1:], 0.0)[last]
    both = left * right / (size + left + right) * (1 / (size + left) + 1 / (size + right))
    one = np.maximum(left, right) / (size + np.maximum(left, right))
    alone = (first == 0).astype(np.float64) + (last == counts.size - 1)
    chance = np.where(alone == 0, both, np.where(alone == 1, one, 1.0))
    return float(chance.sum()), float((chance * size).sum()), float((chance * np.ceil(size / parallelism)).sum())


def expected_on_softmax(
    n: ArrayLike, k: ArrayLike, parallelism: ArrayLike, pass_cycles: ArrayLike, deviation: ArrayLike, bits: ArrayLike,
    draws: int = 8,
) -> Work:  # fmt: skip
    """Mean work to find the k largest probabilities of n, where equal ones leave the race together.

    The probabilities are the softmax of n normal scores of a standard deviation, rounded to so many bits; the mean is
    over the pivots, exactly, and over some draws of the scores (seed 0).
    """
    arguments = (n, k, parallelism, deviation, bits, pass_cycles)
    spread = np.broadcast_arrays(*(np.asarray(each, dtype=np.float64) for each in arguments))
    cases, place = np.unique(np.stack(spread[:5], axis=-1).reshape(-1, 5), axis=0, return_inverse=True)
    found = []
    for size, rank, width, sigma, levels in cases:
        rng = np.random.default_rng(0)
        scores = [sigma * rng.standard_normal(int(size)) for _ in range(draws if size else 0)]
        drawn = [np.round(_softmax(each) * 2**levels) for each in scores]
        works = [expected_on_values(values, int(rank), int(width)) for values in drawn]
        found.append(np.mean(works, axis=0) if works else np.zeros(3))
    table = np.array(found)[place.reshape(-1)].reshape(*spread[0].shape, 3)
    passes, candidates, rows = np.moveaxis(table, -1, 0)
    return Work(passes, candidates, rows + passes * spread[5])


def batcher_comparators(n: ArrayLike) -> Array:
    """Compare-exchanges of Batcher's odd-even merge sort of n values, n rounded up to a power of two.

    (p^2 - p + 4) 2^(p-2) - 1 for n = 2^p (Knuth, The Art of Computer Programming 3, 5.3.4).
    """
    power = np.ceil(np.log2(np.maximum(np.asarray(n, dtype=np.float64), 1.0)))
    return np.asarray(np.where(power > 0, (power**2 - power + 4) * 2.0 ** (power - 2) - 1, 0.0))


def batcher_stages(n: ArrayLike) -> Array:
    """Stages that must follow one another in that network: p (p + 1) / 2 for n = 2^p."""
    power = np.ceil(np.log2(np.maximum(np.asarray(n, dtype=np.float64), 1.0)))
    return np.asarray(power * (power + 1) / 2)


def expected_batcher(n: ArrayLike, k: ArrayLike, parallelism: ArrayLike, pass_cycles: ArrayLike = 0.0) -> Work:
    """A full sort on `parallelism` compare-exchange elements that work through Batcher's network stage by stage.

    The time does not depend on k. A stage of c compare-exchanges takes c / parallelism cycles, so all of them take the
    network's total over the parallelism, and at least one cycle a stage, besides `pass_cycles` a stage.
    """
    sizes, _ranks, widths, drains = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in
                                                          (n, k, parallelism, pass_cycles)))  # fmt: skip
    stages, comparators = batcher_stages(sizes), batcher_comparators(sizes)
    return Work(stages, comparators, np.maximum(comparators / widths, stages) + stages * drains)


ALGORITHMS: Mapping[Algorithm, Callable[..., Work]] = {
    "quick-select": expected_quick_select,
    "batcher": expected_batcher,
}
"""Mean work of an engine by its algorithm."""

DISTRIBUTIONS: Mapping[str, Callable[[np.random.Generator, int], Array]] = {
    "uniform": lambda rng, n: rng.random(n),
    "normal": lambda rng, n: rng.standard_normal(n),
    "softmax": lambda rng, n: _softmax(rng.standard_normal(n)),
    "softmax-12bit": lambda rng, n: np.round(_softmax(rng.standard_normal(n)) * 4096),
}
"""What values may be drawn from: also the softmax of normal scores, and that in 12 bits, where many are equal."""


def simulate_mean(
    distribution: str, n: int, k: int, parallelism: int, *, pass_cycles: int = 3, samples: int = 200, seed: int = 0
) -> Work:
    """Mean work of `quick_select` on values drawn from a named distribution."""
    if distribution not in DISTRIBUTIONS:
        raise SpecError(f"unknown distribution '{distribution}'{nearest(distribution, DISTRIBUTIONS)}")
    rng = np.random.default_rng(seed)
    draw: Any = DISTRIBUTIONS[distribution]
    found = [quick_select(draw(rng, n), k, parallelism, pass_cycles=pass_cycles, rng=rng) for _ in range(samples)]
    means = [np.mean(each) for each in zip(*((len(s.pass_sizes), sum(s.pass_sizes), s.cycles) for s in found),
                                           strict=True)]  # fmt: skip
    return Work(*(np.asarray(mean) for mean in means))


def _softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())


def _check_sizes(n: int, k: int, parallelism: int) -> None:
    if not 1 <= k <= n:
        raise SpecError(f"cannot select {k} of {n} values")
    if parallelism < 1:
        raise SpecError(f"an engine compares at least 1 value a cycle, found {parallelism}")
