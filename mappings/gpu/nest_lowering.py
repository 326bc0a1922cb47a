"""A nest with a grid on a GPU: from loops, holds and Einsums to launches of thread blocks, and on to the tile program.

The nest is bound and checked as on any machine; then each phase becomes a launch in the form of `kernel.py`, the same
that descriptions of compiled kernels have, so that one lowering and one evaluator serve both. docs/gpu.md says what is
derived from what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from architectures import EvaluatedArchitecture
from architectures.gpu import Gpu
from einsum.cascade import Cascade
from einsum.errors import SpecError
from mappings.gpu.block_parts import BLOCK_LEVELS
from mappings.gpu.kernel import GridLaunch
from mappings.gpu.lowering import lower_launches
from mappings.gpu.nest_launch import NestLaunch
from mappings.lowering import base_extents, bound, word_bytes
from mappings.mask import Mask
from mappings.program import TileProgram
from mappings.schema import Branch, Grid, Node, Select

ASSUMPTIONS = (
    "instructions of a thread block are counted from the Einsums, through the architecture's table",
    "thread blocks compute whole tiles, ragged ones too",
)


def has_grid(nest: Sequence[Node]) -> bool:
    """Whether a nest has loops over instances that run side by side."""
    for node in nest:
        if isinstance(node, Grid):
            return True
        inner = node.children if isinstance(node, Branch) else ()
        if isinstance(node, Select):
            inner = tuple(choice.do for choice in node.select)
        if any(has_grid(child) for child in inner):
            return True
    return False


def lower_grid(
    cascade: Cascade, machine: EvaluatedArchitecture, nest: tuple[Node, ...], env: Mapping[str, Any]
) -> TileProgram:
    """The tile program of a nest with a grid on a GPU, at one design point. SpecError for the first obstacle."""
    launches, arrays = launches_of(cascade, machine, nest, env)
    word = float(np.asarray(machine.word_bytes).flat[0])
    return lower_launches(launches, machine, {**env, **arrays, "word_bytes": word}, ASSUMPTIONS)


def launches_of(
    cascade: Cascade, machine: EvaluatedArchitecture, nest: tuple[Node, ...], env: Mapping[str, Any]
) -> tuple[tuple[GridLaunch, ...], dict[str, Any]]:
    """The launches of a nest, and the arrays over their blocks that their expressions name."""
    gpu = Gpu.of(machine)
    homes = bound(cascade, machine, nest, env, 1, BLOCK_LEVELS)
    extents = base_extents(cascade, env, 1)
    tensor_bytes = {name: float(size.flat[0]) for name, size in word_bytes(cascade, machine, env, 1).items()}
    mask = Mask.of(cascade, env)
    launches, arrays = [], {}
    for number, phase in enumerate(homes.phases):
        if not any(loop.grid for loop in phase.body.loops):
            raise SpecError(
                f"{phase.name} runs in no thread block; put the loops over the blocks of a GPU around it, with "
                "{grid: {RANK: CHUNK}, warps: N}",
                key=phase.leaves[0].key,
            )
        made = NestLaunch(phase, homes, machine, gpu, extents, tensor_bytes, mask, f"blocks_{number}")
        launches.append(made.launch())
        arrays.update(made.arrays)
    return tuple(launches), arrays
