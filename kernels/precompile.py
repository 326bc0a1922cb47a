"""Compile the kernels of many cases side by side into Triton's cache, before anything is timed."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable
from dataclasses import replace

from kernels.case import Case

MAX_PROCESSES = 32


def precompile(cases: Iterable[Case], processes: int | None = None) -> int:
    """Compile for the current GPU; the number of kernels that failed (measuring them says why).

    Cases that differ only in their sizes share a kernel, unless a size decides how it is aligned. Libraries' kernels,
    whose cases have no warps, are compiled already.
    """
    todo = list({kernel_key(case): case for case in cases if case.warps}.values())
    processes = min(processes or os.cpu_count() or 1, MAX_PROCESSES, len(todo))
    if processes < 1:
        return 0
    # A fresh interpreter for each worker: a CUDA context does not survive a fork.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return sum(pool.imap_unordered(_fails, todo, chunksize=1))


def kernel_key(case: Case) -> Case:
    """A small case that compiles to the same kernels."""
    alike = replace(case, batch=1)
    if case.kernel == "block_sparse" or (case.kernel == "unfused" and case.variant == ""):
        return alike  # constants of these kernels follow from the lengths
    q_len = case.q_len if case.q_len == 1 else 16 + (case.q_len % 16 > 0)
    kv_len = 16 + (case.kv_len % 16 > 0)
    if "softmax" in (case.kernel, case.variant) and case.block_n < case.kv_len:  # rows that are read twice
        kv_len += 65536
    head_dim = case.head_dim
    if case.kernel == "matmul":
        head_dim = case.block_k + (head_dim % case.block_k > 0) * 16 + (head_dim % 16 > 0)
    return replace(
        alike, heads=1, kv_heads=1, q_len=q_len, kv_len=kv_len, head_dim=head_dim, window=int(case.window > 0),
        splits=min(case.splits, 1),
    )  # fmt: skip


def _fails(case: Case) -> bool:
    """Compile one case; whether that went wrong."""
    from kernels.families import family
    from kernels.launch import compiling_only

    kernels = family(case.kernel)
    if kernels.unsupported(case) is not None:
        return True
    try:
        with compiling_only():
            kernels.run(case, kernels.make_inputs(case, "meta", 0))
    except Exception:  # the compiler's errors have no common type; the measuring run meets and reports them again
        return True
    return False
