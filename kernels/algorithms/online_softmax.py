"""What the fused attention kernels share: guarded tile loads and the online softmax.

The online softmax (Milakov and Gimelshein, arXiv 1805.02867) keeps for every query a running maximum m, a running
denominator l and an unnormalised output; a larger maximum rescales both. Exponentials are powers of two: the scale
that is passed in holds the factor log2(e), so exp(x) is one multiply-add and one exp2.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_tile(base, rows, row_count, WIDTH: tl.constexpr, PADDED: tl.constexpr, GUARD_ROWS: tl.constexpr):
    """Rows of a row-major matrix of WIDTH columns, with zeros beyond `row_count` (if guarded) and beyond WIDTH."""
    columns = tl.arange(0, PADDED)
    pointers = base + rows[:, None] * WIDTH + columns[None, :]
    if GUARD_ROWS:
        if PADDED == WIDTH:
            return tl.load(pointers, mask=rows[:, None] < row_count, other=0.0)
        else:
            return tl.load(pointers, mask=(rows[:, None] < row_count) & (columns[None, :] < WIDTH), other=0.0)
    else:
        if PADDED == WIDTH:
            return tl.load(pointers)
        else:
            return tl.load(pointers, mask=columns[None, :] < WIDTH, other=0.0)


@triton.jit
def store_tile(base, rows, row_count, values, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Write the rows below `row_count` and the columns below WIDTH of `values` to a row-major matrix."""
    columns = tl.arange(0, PADDED)
    pointers = base + rows[:, None] * WIDTH + columns[None, :]
    inside = (rows[:, None] < row_count) & (columns[None, :] < WIDTH)
    tl.store(pointers, values.to(base.dtype.element_ty), mask=inside)


@triton.jit
def attend(q, k, v, running_max, denominator, output, scale_log2, visible, MASKED: tl.constexpr):
    """One tile of keys: scores, new maximum, rescaling of what was summed so far, accumulation of this tile.

    q (M, D), k and v (N, D), running_max and denominator (M,), output (M, D); visible (M, N) is read if MASKED.
    """
    scores = tl.dot(q, tl.trans(k))
    if MASKED:
        scores = tl.where(visible, scores, float("-inf"))
    new_max = tl.maximum(running_max, tl.max(scores, 1) * scale_log2)
    if MASKED:  # a query that has seen no key yet has the maximum -inf, and -inf - -inf is not a number
        reference = tl.where(new_max == float("-inf"), 0.0, new_max)
    else:
        reference = new_max
    weights = tl.exp2(scores * scale_log2 - reference[:, None])
    rescale = tl.exp2(running_max - reference)
    denominator = denominator * rescale + tl.sum(weights, 1)
    output = tl.dot(weights.to(v.dtype), v, output * rescale[:, None])
    return new_max, denominator, output


@triton.jit
def normalise(output, denominator):
    """The attention output; a query that sees no key gets zeros."""
    return output / tl.where(denominator > 0.0, denominator, 1.0)[:, None]
