"""Calibration kernels that wait: barriers, reductions, chains of products, flags, blocks that follow one another; tiles
of short rows; the clock while the tensor cores work."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from kernels.launch import launch

UNROLL = 16


@triton.jit(do_not_specialize=["rounds"])
def _turns(values_ptr, rounds, BLOCK_N: tl.constexpr, UNROLL: tl.constexpr):
    places = tl.arange(0, BLOCK_N)
    x = tl.load(values_ptr + places)
    for _ in tl.range(0, rounds):
        for _ in tl.static_range(UNROLL):
            x = tl.fma(x, 0.5, 0.25)
    if tl.max(x, 0) > 1e30:  # never so, but the compiler cannot know
        tl.store(values_ptr + places, x)


def turns(values: Any, rounds: int, *, blocks: int, warps: int) -> None:
    """`blocks` thread blocks of `warps` warps, each a chain of `rounds` x UNROLL multiply-adds; values (fp32)."""
    launch(_turns, (blocks,), values, rounds, BLOCK_N=32 * warps, UNROLL=UNROLL, warps=warps, stages=1)


@triton.jit(do_not_specialize=["rounds"])
def _barriers(sink_ptr, rounds):
    for turn in tl.range(0, rounds):
        tl.debug_barrier()
        tl.store(sink_ptr + tl.program_id(0), turn)
        tl.debug_barrier()


def barriers(sink: Any, rounds: int, *, blocks: int, warps: int) -> None:
    """Twice `rounds` barriers of a thread block, one after another; sink (int32) has an element for each block."""
    launch(_barriers, (blocks,), sink, rounds, warps=warps, stages=1)


@triton.jit(do_not_specialize=["rounds"])
def _reductions(values_ptr, rounds, BLOCK_N: tl.constexpr):
    places = tl.arange(0, BLOCK_N)
    x = tl.load(values_ptr + places)
    for _ in tl.range(0, rounds):
        x = x * 0.5 + tl.max(x, 0)
    tl.store(values_ptr + places, x)


def reductions(values: Any, rounds: int, *, block_n: int, warps: int) -> None:
    """`rounds` maxima over a vector of block_n, each needing the one before; one thread block."""
    launch(_reductions, (1,), values, rounds, BLOCK_N=block_n, warps=warps, stages=1)


@triton.jit(do_not_specialize=["rounds"])
def _chained_products(x_ptr, b_ptr, rounds, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    rows, columns = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    x = tl.load(x_ptr + rows[:, None] * BLOCK_N + columns[None, :])
    b = tl.load(b_ptr + columns[:, None] * BLOCK_N + columns[None, :])
    for _ in tl.range(0, rounds):
        x = tl.dot(x, b).to(x.dtype)
    tl.store(x_ptr + rows[:, None] * BLOCK_N + columns[None, :], x)


def chained_products(x: Any, b: Any, rounds: int, *, warps: int) -> None:
    """x = x b, `rounds` times, one thread block: every product needs the one before, rounded to x's dtype.

    x (block_m, block_n), b (block_n, block_n), both fp16.
    """
    launch(_chained_products, (1,), x, b, rounds, BLOCK_M=x.shape[0], BLOCK_N=b.shape[0], warps=warps, stages=1)


@triton.jit(do_not_specialize=["rounds"])
def _flags(flag_ptr, sink_ptr, rounds):
    total = 0
    for _ in tl.range(0, rounds):
        total += tl.atomic_add(flag_ptr, 0, sem="acquire")
        tl.debug_barrier()
    tl.store(sink_ptr, total)


def flags(flag: Any, sink: Any, rounds: int, *, warps: int) -> None:
    """Read a flag `rounds` times by an atomic with acquire semantics, a barrier after each; one thread block."""
    launch(_flags, (1,), flag, sink, rounds, warps=warps, stages=1)


@triton.jit
def _store_tiles(target_ptr, rows, columns, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    tiles_n = tl.cdiv(columns, BLOCK_N)
    row = tl.program_id(0) // tiles_n * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(0) % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    values = (row[:, None] + column[None, :]).to(tl.float16)
    tl.store(target_ptr + row.to(tl.int64)[:, None] * columns + column[None, :], values, mask=inside)


@triton.jit
def _load_tiles(source_ptr, sink_ptr, rows, columns, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    tiles_n = tl.cdiv(columns, BLOCK_N)
    row = tl.program_id(0) // tiles_n * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(0) % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    values = tl.load(source_ptr + row.to(tl.int64)[:, None] * columns + column[None, :], mask=inside, other=0.0)
    answer = tl.max(tl.max(values, 1), 0)
    if answer > 60000.0:  # as in _turns
        tl.store(sink_ptr, answer)


def store_tiles(target: Any, *, block_m: int, block_n: int, warps: int) -> None:
    """Write a matrix (fp16) tile by tile: rows of block_n elements, a thread block for each tile."""
    rows, columns = target.shape
    grid = (triton.cdiv(rows, block_m) * triton.cdiv(columns, block_n),)
    launch(_store_tiles, grid, target, rows, columns, BLOCK_M=block_m, BLOCK_N=block_n, warps=warps, stages=1)


def load_tiles(source: Any, sink: Any, *, block_m: int, block_n: int, warps: int) -> None:
    """Read a matrix (fp16) tile by tile, likewise."""
    rows, columns = source.shape
    grid = (triton.cdiv(rows, block_m) * triton.cdiv(columns, block_n),)
    launch(_load_tiles, grid, source, sink, rows, columns, BLOCK_M=block_m, BLOCK_N=block_n, warps=warps, stages=1)


@triton.jit
def _nanoseconds():
    return tl.inline_asm_elementwise("mov.u64 $0, %globaltimer;", "=l", [], dtype=tl.int64, is_pure=False, pack=1)


@triton.jit
def _cycles():
    return tl.inline_asm_elementwise("mov.u64 $0, %clock64;", "=l", [], dtype=tl.int64, is_pure=False, pack=1)


@triton.jit(do_not_specialize=["rounds", "pause"])
def _clocked_products(
    a_ptr, b_ptr, c_ptr, clock_ptr, rounds, pause, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    rows, columns, steps = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    a = tl.load(a_ptr + rows[:, None] * BLOCK_K + steps[None, :])
    b = tl.load(b_ptr + columns[:, None] * BLOCK_K + steps[None, :])
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    idle = rounds * 1e-9  # of a value that the compiler does not know: 0.5 would stay what it is
    began_ns, began = _nanoseconds(), _cycles()
    for _ in tl.range(0, rounds):
        for _ in tl.static_range(UNROLL):
            total = tl.dot(a, tl.trans(b), total)
        for _ in tl.range(0, pause):
            idle = tl.fma(idle, 0.5, 0.25)
    if idle > 2.0:
        total += idle
    base = c_ptr + tl.program_id(0).to(tl.int64) * BLOCK_M * BLOCK_N
    tl.store(base + rows[:, None] * BLOCK_N + columns[None, :], total)
    tl.store(clock_ptr + 2 * tl.program_id(0), _cycles() - began)
    tl.store(clock_ptr + 2 * tl.program_id(0) + 1, _nanoseconds() - began_ns)


def clocked_products(
    a: Any, b: Any, c: Any, clock: Any, rounds: int, *, pause: int, block_m: int, block_n: int, block_k: int,
    warps: int, unroll: int,
) -> None:  # fmt: skip
    """As `products`, with `pause` dependent multiply-adds after every `unroll` products.

    clock (blocks, 2) int64 takes each thread block's cycles and nanoseconds.
    """
    launch(
        _clocked_products, (c.shape[0],), a, b, c, clock, rounds, pause, BLOCK_M=block_m, BLOCK_N=block_n,
        BLOCK_K=block_k, UNROLL=unroll, warps=warps, stages=1,
    )  # fmt: skip


@triton.jit(do_not_specialize=["rounds"])
def _mixture(values_ptr, rounds, BLOCK_N: tl.constexpr, UNROLL: tl.constexpr):
    places = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    x = tl.load(values_ptr + places)
    total = x * 0.0
    highest = x
    for _ in tl.range(0, rounds):
        for _ in tl.static_range(UNROLL):
            x = tl.exp2(tl.fma(x, -0.5, 0.25))
            total += x
            highest = tl.maximum(highest, x)
            total = total * 0.99
    tl.store(values_ptr + places, total + highest)


def mixture(values: Any, rounds: int, *, block_n: int, warps: int) -> None:
    """For each of `values` (fp32), `rounds` x UNROLL times: a multiply-add, exp2, a sum, a maximum and a product, as an
    online softmax does for a score; a thread block for each block_n of them."""
    grid = (values.numel() // block_n,)
    launch(_mixture, grid, values, rounds, BLOCK_N=block_n, UNROLL=UNROLL, warps=warps, stages=1)
