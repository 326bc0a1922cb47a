"""Predicted time and memory traffic of a case: its kernel's description, an architecture, and the evaluators.

A table says which description a kernel has; what a case calls its fields is what the description calls them. Nothing
here depends on which kernel it is, apart from that table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from architectures import EvaluatedArchitecture
from architectures.gpu import Gpu
from einsum.errors import EinsightError, SpecError
from kernels.case import Case
from kernels.patterns import block_size, kept_blocks, kept_runs
from mappings.gpu.kernel import GpuKernel
from mappings.gpu.lowering import environment, lower_in
from simulator.analytic import evaluate

DESCRIPTIONS = {
    name: name.replace("_", "-")
    for name in (
        "copy", "matmul", "softmax", "unfused", "flash_attention", "flash_decode", "lean_decode", "linear_attention",
        "block_sparse", "flash_attention_backward",
    )
}  # fmt: skip
"""Kernel -> its description in mappings/gpu/library."""
Fidelity = Literal["analytic", "event"]
Form = Literal["kernel", "nest"]
TILE = ("block_m", "block_n", "block_k", "warps", "stages", "splits")
FORMS: dict[str, dict[str, int]] = {
    "mma-sync": {"group_mma": 0},
    "warp-specialized": {"specialized": 1, "overlap": 1},
    "warp-specialized-in-turn": {"specialized": 1, "overlap": 0},
    "overlapped": {"specialized": 0, "overlap": 1},
}
"""Variant -> knobs of the mapping: products by single warps, loads by warps of their own (FlashAttention-3's warp
specialization), products of one tile beside the softmax of another."""
STEPS = ("qk", "softmax", "pv")
"""Variants that are one step of `unfused`."""


@dataclass(frozen=True)
class Prediction:
    """What a case should cost; the tile is the case's own, or the fastest of the description's where it has none.

    bound_by     the unit or memory that bounds the longest launch, or `latency`
    flops, least_bytes   operations on the tensor cores and bytes that the algorithm asks for
    roofline_s   the larger of operations over the peak rate and least bytes over the bandwidth, and the launches
    """

    time_s: float
    dram_read_bytes: float
    dram_write_bytes: float
    bound_by: str
    flops: float
    least_bytes: float
    roofline_s: float
    case: Case


@cache
def description(kernel: str) -> GpuKernel:
    """The description of a kernel."""
    return GpuKernel.load(DESCRIPTIONS[kernel])


def predict(
    case: Case, machine: EvaluatedArchitecture, fidelity: Fidelity = "analytic", form: Form = "kernel"
) -> Prediction:
    """Time and traffic of `case` on `machine`; SpecError where it cannot run, or no tile of the description can.

    fidelity  analytic: queueing network; event: every tile of every thread block (about a second for each case)
    form      kernel: the description of the compiled kernel; nest: the mapping that derives it from its cascade
    """
    kernel = description(case.kernel)
    if case.dtype == "bf16" and not machine.variables["tensor_bf16_ratio"] and kernel.flops.text != "0":
        raise SpecError(f"'{machine.name}' has no products of bf16 numbers")
    for asked in ("window", "pattern"):
        if getattr(case, asked) and asked not in kernel.takes:
            raise SpecError(f"{case.kernel} has no {asked}")
    if "pattern" in kernel.takes and not case.pattern:
        raise SpecError(f"{case.kernel} needs a pattern, such as 'local-4+global-1@128'")
    given = {name: value for name in TILE if (value := getattr(case, name))}
    known = {**machine.variables, **case.fields(), "specialized": 0, **FORMS.get(case.variant, {})}
    tiles = [
        {name: int(expression.number(known)) for name, expression in tile.items() if name != "when"}
        for tile in kernel.tiles if "when" not in tile or tile["when"].evaluate(known)
    ]  # fmt: skip
    if all(name in given for tile in tiles for name in tile if tile[name]):
        return _predict_tile(case, kernel, machine, fidelity, form)
    best: Prediction | None = None
    refused: EinsightError | None = None
    for values in dict.fromkeys(tuple({**tile, **given}.items()) for tile in tiles):
        for splits in _splits(case, machine):
            try:
                chosen = Case.from_fields({**case.fields(), **dict(values), **splits})
                found = _predict_tile(chosen, kernel, machine, fidelity, form)
            except SpecError as error:
                refused = error
                continue
            if best is None or found.time_s < best.time_s:
                best = found
    if best is None:
        raise refused or SpecError(f"{case.kernel} has no tile to choose from")
    return best


def _splits(case: Case, machine: EvaluatedArchitecture) -> list[dict[str, int]]:
    """Parts to choose from for a decode that leaves them open: up to two for each multiprocessor."""
    if case.splits or not case.kernel.endswith("decode"):
        return [{}]
    multiprocessors = int(np.max(machine.variables["multiprocessors"]))
    if case.kernel == "lean_decode":
        return [{"splits": multiprocessors * count} for count in (1, 2)]
    return [{"splits": 2**power} for power in range(8) if 2**power <= multiprocessors]


def _predict_tile(
    case: Case, kernel: GpuKernel, machine: EvaluatedArchitecture, fidelity: Fidelity, form: Form
) -> Prediction:
    arguments = arguments_of(case)
    gpu = Gpu.of(machine)
    env = environment(kernel, machine, arguments)
    if form == "nest":
        from kernels.derived import derived_program

        program = derived_program(case, kernel, machine, arguments, STEPS)
    else:
        program = lower_in(kernel, machine, env)
    if fidelity == "event":
        from simulator.event import evaluate_events

        result = evaluate_events(program)
    else:
        result = evaluate(program)
    moved = result.traffic_bytes["DRAM"]["total"]
    flops, least_bytes = kernel.flops.number(env), kernel.bytes.number(env)
    peak = gpu.multiprocessors * gpu.tensor_flops_per_cycle * env["peak_clock_hz"]
    peak *= gpu.format_ratio(env["word_bytes"]) or 1.0
    work_s = max(flops / peak, least_bytes / gpu.dram_read_bandwidth)
    return Prediction(
        time_s=float(np.max(result.latency_s)),
        dram_read_bytes=float(np.max(moved["read"])),
        dram_write_bytes=float(np.max(moved["write"])),
        bound_by=str(np.asarray(result.bound_by).reshape(-1)[0]),
        flops=flops,
        least_bytes=least_bytes,
        roofline_s=work_s + gpu.launch_latency + (len(program.phases) - 1) * gpu.launch_next,
        case=case,
    )


def arguments_of(case: Case) -> dict[str, Any]:
    """The fields of a case as arguments of its kernel's description."""
    arguments: dict[str, Any] = {name: value for name, value in case.fields().items() if name != "dtype"}
    arguments |= {"word_bytes": case.word_bytes, "overlap": 0, "specialized": 0}
    arguments |= FORMS.get(case.variant, {})
    arguments["visible_pairs"] = visible_pairs(case)
    arguments["pattern_block"] = 0
    if case.pattern:
        size = block_size(case.pattern)
        kept = kept_blocks(case.pattern, case.q_len, case.kv_len, case.causal)
        tile = np.arange(-(-case.q_len // max(case.block_m, 1)))[::-1]  # tiles start with the last queries
        row = np.minimum(tile * max(case.block_m, 1) // size, kept.shape[0] - 1)
        first, last = kept_runs(kept)
        arguments["kept_blocks"] = kept.sum(axis=1)[row].reshape(1, 1, -1)
        arguments["kept_first"], arguments["kept_last"] = (
            (runs[:, row] * size).reshape(-1, 1, 1, row.size) for runs in (first, last)
        )
        arguments["pattern_block"] = size
        arguments["visible_pairs"] = float(kept.sum()) * size * size
    return arguments


def visible_pairs(case: Case) -> float:
    """Pairs of a query and a key that it sees, under the causal mask and the window."""
    offset, end = case.kv_len - case.q_len, case.kv_len - 1  # query i stands at i + offset
    first = _sum_clipped(offset - case.window + 1, case.q_len, 0, end + 1) if case.window else 0
    last = case.q_len * end
    if case.causal:
        last = _sum_clipped(offset, case.q_len, -1, end)
    elif case.window:
        last = _sum_clipped(offset + case.window - 1, case.q_len, -1, end)
    return float(last - first + case.q_len)


def _sum_clipped(start: int, count: int, low: int, high: int) -> int:
    """Sum of `count` whole numbers from `start` on, each raised to `low` and lowered to `high`."""
    below = min(max(low - start, 0), count)
    above = min(max(start + count - 1 - high, 0), count)
    inside = count - below - above
    return below * low + above * high + inside * (start + below) + inside * (inside - 1) // 2
