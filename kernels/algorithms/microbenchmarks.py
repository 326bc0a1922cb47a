"""Calibration kernels, each loading one part of a GPU: memory, special functions, FMA, tensor cores."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from kernels.launch import launch

UNROLL = 16


@triton.jit(do_not_specialize=["passes"])
def _read(source_ptr, sink_ptr, count, passes, BLOCK_N: tl.constexpr):
    """Read all of the source, `passes` times; in each pass a thread block takes another part."""
    blocks = tl.num_programs(0)
    total = tl.zeros((BLOCK_N,), tl.int32)
    for turn in tl.range(0, passes):
        block = (tl.program_id(0) + turn * 7919) % blocks
        places = block.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
        total += tl.load(source_ptr + places, mask=places < count, other=0, cache_modifier=".cg")
    answer = tl.max(total)
    if answer == 2147483647:  # never so, but the compiler cannot know: without a use the loads would go away
        tl.store(sink_ptr, answer)


def read(source: Any, sink: Any, *, block_n: int, warps: int, passes: int = 1) -> None:
    """Read `source` (int32, below 2**31 / passes) `passes` times and write nothing."""
    count = source.numel()
    launch(_read, (triton.cdiv(count, block_n),), source, sink, count, passes, BLOCK_N=block_n, warps=warps, stages=1)


@triton.jit(do_not_specialize=["chunks"])
def _stream(source_ptr, sink_ptr, chunks, BLOCK_N: tl.constexpr):
    """Each thread block reads `chunks` chunks, one after another, every num_programs-th of the source."""
    total = tl.zeros((BLOCK_N,), tl.int32)
    for turn in tl.range(0, chunks):
        chunk = (tl.program_id(0) + turn * tl.num_programs(0)).to(tl.int64)
        total += tl.load(source_ptr + chunk * BLOCK_N + tl.arange(0, BLOCK_N))
    answer = tl.max(total)
    if answer == 2147483647:  # as in _read
        tl.store(sink_ptr, answer)


def stream(source: Any, sink: Any, *, blocks: int, block_n: int, warps: int) -> int:
    """Read `source` (int32) with a fixed number of thread blocks, block_n elements each at a time; the bytes read."""
    chunks = int(source.numel()) // (blocks * block_n)
    launch(_stream, (blocks,), source, sink, chunks, BLOCK_N=block_n, warps=warps, stages=1)
    return 4 * chunks * blocks * block_n


@triton.jit(do_not_specialize=["turns", "last"])
def _take_turns(source_ptr, sink_ptr, turns, last, BLOCK_N: tl.constexpr):
    """Each thread block reads a tile and asks for the next when it is there: where a load is, hangs on the last."""
    places = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    for _ in tl.range(0, turns):
        value = tl.load(source_ptr + places, cache_modifier=".cg")
        places = (places + tl.num_programs(0) * BLOCK_N + (value == 2147483647).to(tl.int32)) & last
    answer = tl.max(places)
    if answer == 2147483647:  # as in _read
        tl.store(sink_ptr, answer)


def take_turns(source: Any, sink: Any, *, blocks: int, turns: int, block_n: int, warps: int) -> None:
    """Read `source` (int32, a power of two of zeros) round and round, `block_n` elements of each block in each turn."""
    last = int(source.numel()) - 1
    launch(_take_turns, (blocks,), source, sink, turns, last, BLOCK_N=block_n, warps=warps, stages=1)


@triton.jit(do_not_specialize=["columns"])
def _read_rows(source_ptr, sums_ptr, columns, ROWS: tl.constexpr, PIECE: tl.constexpr):
    """Each thread block reads its rows piece by piece."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS, PIECE), tl.float32)
    for first in tl.range(0, columns, PIECE):
        places = rows[:, None].to(tl.int64) * columns + (first + tl.arange(0, PIECE))[None, :]
        total += tl.load(source_ptr + places).to(tl.float32)
    tl.store(sums_ptr + rows, tl.sum(total, 1))


def read_rows(source: Any, sums: Any, *, rows: int, piece: int, warps: int) -> None:
    """Sums of the rows of `source` (fp16), `rows` of them in a thread block and `piece` of their elements at a time."""
    grid = (triton.cdiv(source.shape[0], rows),)
    launch(_read_rows, grid, source, sums, source.shape[1], ROWS=rows, PIECE=piece, warps=warps, stages=1)


@triton.jit
def _fill(target_ptr, count, value, BLOCK_N: tl.constexpr):
    places = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    tl.store(target_ptr + places, tl.full((BLOCK_N,), 0, tl.int32) + value, mask=places < count)


def fill(target: Any, value: int, *, block_n: int, warps: int) -> None:
    """Write `value` to all of `target` (int32) and read nothing."""
    count = target.numel()
    launch(_fill, (triton.cdiv(count, block_n),), target, count, value, BLOCK_N=block_n, warps=warps, stages=1)


@triton.jit(do_not_specialize=["turns", "last"])
def _add(target_ptr, turns, last, SHARING: tl.constexpr, BLOCK_N: tl.constexpr):
    """Each thread block adds to a piece of the target in each turn; SHARING of them to the same."""
    walkers = tl.num_programs(0) // SHARING
    ones = tl.full((BLOCK_N,), 1.0, tl.float32)
    for turn in tl.range(0, turns):
        piece = ((tl.program_id(0) // SHARING + turn * walkers) & last).to(tl.int64)
        tl.atomic_add(target_ptr + piece * BLOCK_N + tl.arange(0, BLOCK_N), ones, sem="relaxed")


def add(target: Any, *, blocks: int, sharing: int, turns: int, block_n: int, warps: int) -> None:
    """Add to `target` (fp32, a power of two) round and round, `block_n` elements of each block in each turn."""
    last = int(target.numel()) // block_n - 1
    launch(_add, (blocks,), target, turns, last, SHARING=sharing, BLOCK_N=block_n, warps=warps, stages=1)


@triton.jit(do_not_specialize=["rounds"])
def _write_beside(
    a_ptr, b_ptr, target_ptr, sums_ptr, rounds, SIDE: tl.constexpr, DEPTH: tl.constexpr, ROWS: tl.constexpr,
    PRODUCTS: tl.constexpr, MODE: tl.constexpr,
):  # fmt: skip
    """In each round products of tiles on chip, and another whose result is added to memory, stored, or dropped."""
    side, depth, rows = tl.arange(0, SIDE), tl.arange(0, DEPTH), tl.arange(0, ROWS)
    a = tl.load(a_ptr + side[:, None] * DEPTH + depth[None, :])
    b = tl.load(b_ptr + depth[:, None] * SIDE + side[None, :])
    few = tl.load(a_ptr + rows[:, None] * DEPTH + depth[None, :])
    total = tl.zeros((SIDE, SIDE), tl.float32)
    for turn in tl.range(0, rounds):
        for _ in tl.static_range(PRODUCTS):
            total = tl.dot(a, b, total)
        part = tl.dot(few, b)
        place = (tl.program_id(0) * 8 + turn % 8) * ROWS * SIDE
        places = target_ptr + place + rows[:, None] * SIDE + side[None, :]
        if MODE == 1:
            tl.atomic_add(places, part, sem="relaxed")
        elif MODE == 2:
            tl.store(places, part)
        else:
            total += tl.sum(part)
    out = tl.program_id(0) * SIDE * SIDE + side[:, None] * SIDE + side[None, :]
    tl.store(sums_ptr + out, total)


def write_beside(
    a: Any, b: Any, target: Any, sums: Any, rounds: int, *, blocks: int, rows: int, products: int, mode: int, warps: int
) -> None:
    """a (side, depth) times b (depth, side) `products` times in each round; `mode` 1 adds the product of `rows` of a to
    `target` (fp32, 8 x blocks x rows x side), 2 stores it, 0 does neither."""
    side, depth = a.shape
    launch(
        _write_beside, (blocks,), a, b, target, sums, rounds, SIDE=side, DEPTH=depth, ROWS=rows, PRODUCTS=products,
        MODE=mode, warps=warps, stages=1,
    )  # fmt: skip


@triton.jit(do_not_specialize=["rounds"])
def _exponentials(values_ptr, rounds, BLOCK_N: tl.constexpr, UNROLL: tl.constexpr):
    places = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    x = tl.load(values_ptr + places)
    for _ in tl.range(0, rounds):
        for _ in tl.static_range(UNROLL):
            x = tl.exp2(-x)
    tl.store(values_ptr + places, x)


@triton.jit(do_not_specialize=["rounds"])
def _multiply_adds(values_ptr, rounds, BLOCK_N: tl.constexpr, UNROLL: tl.constexpr):
    places = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    x = tl.load(values_ptr + places)
    factor = x * 0.5
    for _ in tl.range(0, rounds):
        for _ in tl.static_range(UNROLL):
            x = tl.fma(x, factor, factor)
    tl.store(values_ptr + places, x)


@triton.jit(do_not_specialize=["rounds"])
def _maxima(values_ptr, rounds, BLOCK_N: tl.constexpr, UNROLL: tl.constexpr):
    places = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    x = tl.load(values_ptr + places)
    bound = x * 0.5
    for _ in tl.range(0, rounds):
        for _ in tl.static_range(UNROLL):
            x = tl.maximum(-x, bound)
    tl.store(values_ptr + places, x)


@triton.jit(do_not_specialize=["rounds"])
def _conversions(values_ptr, rounds, BLOCK_N: tl.constexpr, UNROLL: tl.constexpr):
    places = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    x = tl.load(values_ptr + places)
    for _ in tl.range(0, rounds):
        for _ in tl.static_range(UNROLL):
            x = (x * 1.0001).to(tl.float16).to(tl.float32)
    tl.store(values_ptr + places, x)


def maxima(values: Any, rounds: int, *, block_n: int, warps: int) -> None:
    """`rounds` x UNROLL dependent FP32 maxima on each of `values` (fp32, a multiple of block_n)."""
    grid = (values.numel() // block_n,)
    launch(_maxima, grid, values, rounds, BLOCK_N=block_n, UNROLL=UNROLL, warps=warps, stages=1)


def conversions(values: Any, rounds: int, *, block_n: int, warps: int) -> None:
    """`rounds` x UNROLL multiplications, each with a conversion to fp16 and back, on each of `values`."""
    grid = (values.numel() // block_n,)
    launch(_conversions, grid, values, rounds, BLOCK_N=block_n, UNROLL=UNROLL, warps=warps, stages=1)


def exponentials(values: Any, rounds: int, *, block_n: int, warps: int) -> None:
    """`rounds` x UNROLL dependent exp2 on each of `values` (fp32, a multiple of block_n)."""
    grid = (values.numel() // block_n,)
    launch(_exponentials, grid, values, rounds, BLOCK_N=block_n, UNROLL=UNROLL, warps=warps, stages=1)


def multiply_adds(values: Any, rounds: int, *, block_n: int, warps: int) -> None:
    """`rounds` x UNROLL dependent fused multiply-adds on each of `values` (fp32, a multiple of block_n)."""
    grid = (values.numel() // block_n,)
    launch(_multiply_adds, grid, values, rounds, BLOCK_N=block_n, UNROLL=UNROLL, warps=warps, stages=1)


@triton.jit(do_not_specialize=["rounds"])
def _products(
    a_ptr, b_ptr, c_ptr, rounds, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    UNROLL: tl.constexpr,
):  # fmt: skip
    rows, columns, steps = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    a = tl.load(a_ptr + rows[:, None] * BLOCK_K + steps[None, :])
    b = tl.load(b_ptr + columns[:, None] * BLOCK_K + steps[None, :])
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for _ in tl.range(0, rounds):
        for _ in tl.static_range(UNROLL):
            total = tl.dot(a, tl.trans(b), total)
    base = c_ptr + tl.program_id(0).to(tl.int64) * BLOCK_M * BLOCK_N
    tl.store(base + rows[:, None] * BLOCK_N + columns[None, :], total)


def products(
    a: Any, b: Any, c: Any, rounds: int, *, block_m: int, block_n: int, block_k: int, warps: int, unroll: int
) -> None:
    """`rounds` x `unroll` products of one tile pair (a: block_m x block_k, b: block_n x block_k) that stays on chip.

    c (blocks, block_m, block_n) fp32 gives the grid.
    """
    launch(
        _products, (c.shape[0],), a, b, c, rounds, BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k, UNROLL=unroll,
        warps=warps, stages=1,
    )  # fmt: skip


@triton.jit(do_not_specialize=["steps"])
def _chase(next_ptr, sink_ptr, steps):
    place = tl.load(next_ptr)
    for _ in tl.range(0, steps):
        place = tl.load(next_ptr + place)
    tl.store(sink_ptr, place)


def chase(ring: Any, sink: Any, steps: int) -> None:
    """Follow `steps` links of `ring` (int32 or int64: each element holds the place of the next), one after another."""
    launch(_chase, (1,), ring, sink, steps, warps=1, stages=1)


@triton.jit
def _nothing(sink_ptr):
    if tl.program_id(0) < 0:
        tl.store(sink_ptr, 0)


def nothing(sink: Any, *, blocks: int, warps: int) -> None:
    """Start `blocks` thread blocks that end at once."""
    launch(_nothing, (blocks,), sink, warps=warps, stages=1)
