"""Launching Triton kernels: for real, to compile only, or in Triton's CPU interpreter.

Every kernel of the project starts through `launch`, so that one place knows what was launched, which registers and how
much shared memory it uses, and whether it should only be compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Launch:
    """One launch of a compiled kernel: registers of a thread, bytes spilled, shared memory of a thread block."""

    kernel: str
    grid: tuple[int, ...]
    registers: int
    spills: int
    shared_bytes: int


_compile_only = False
_recorder: list[Launch] | None = None


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, warps: int, stages: int, **constants: Any) -> None:
    """Run `kernel` (a `triton.jit` function) over `grid` with `warps` warps and load pipelines of `stages` stages."""
    # Multiply-adds are fused whatever the Triton version's default.
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True, **constants}
    if _compile_only:
        kernel.warmup(*args, grid=grid, **options)
        return
    compiled = kernel[grid](*args, **options)
    if _recorder is not None and compiled is not None:
        _recorder.append(
            Launch(
                kernel=str(kernel.__name__),
                grid=grid,
                registers=int(compiled.n_regs or 0),
                spills=int(compiled.n_spills or 0),
                shared_bytes=int(compiled.metadata.shared),
            )
        )


@contextmanager
def compiling_only() -> Iterator[None]:
    """Inside, `launch` compiles the kernel for the current GPU into Triton's cache and starts nothing."""
    global _compile_only
    before, _compile_only = _compile_only, True
    try:
        yield
    finally:
        _compile_only = before


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Inside, every launch is appended to the list that is given (none in the interpreter, which compiles nothing)."""
    global _recorder
    launches: list[Launch] = []
    before, _recorder = _recorder, launches
    try:
        yield launches
    finally:
        _recorder = before
