"""From a GPU kernel, an architecture and arguments to a tile program.

Each launch becomes a phase, see `launch`. Units of a multiprocessor and its way to the L2 are private resources with a
copy for each multiprocessor; L2 and DRAM are shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from architectures import EvaluatedArchitecture
from architectures.gpu import Gpu
from einsum.errors import EinsightError, SpecError
from einsum.expressions import resolve
from mappings.gpu.blocks import Env
from mappings.gpu.kernel import GpuKernel, GridLaunch
from mappings.gpu.launch import LaunchLowering
from mappings.gpu.power import energies
from mappings.gpu.reads import Left
from mappings.program import Phase, Resource, TileProgram

UNITS = ("tensor", "vector", "sfu", "shared", "port")


def environment(kernel: GpuKernel, machine: EvaluatedArchitecture, arguments: Mapping[str, Any]) -> Env:
    """Values of all names in a kernel's description: the architecture's, the arguments, and the kernel's own.

    SpecError names the kernel and what has no value.
    """
    env: Env = {**machine.variables, **arguments}
    try:
        return env | resolve(kernel.variables, env)
    except EinsightError as error:
        raise error.located(key=kernel.name) from None


def lower(kernel: GpuKernel, machine: EvaluatedArchitecture, arguments: Mapping[str, Any]) -> TileProgram:
    """The tile program of one call. `arguments` are the kernel's sizes, tile and word_bytes.

    Raises SpecError, naming the kernel, for arguments that it cannot take and blocks that do not fit.
    """
    Gpu.of(machine)
    return lower_in(kernel, machine, environment(kernel, machine, arguments))


def lower_in(kernel: GpuKernel, machine: EvaluatedArchitecture, env: Env) -> TileProgram:
    """The same for a call whose names all have values, see `environment`."""
    try:
        for complaint, condition in kernel.limits.items():
            if not condition.evaluate(env):
                raise SpecError(complaint)
        launches = [launch for launch in kernel.launches if launch.when is None or launch.when.evaluate(env)]
        return lower_launches(launches, machine, env)
    except EinsightError as error:
        raise error.located(key=kernel.name) from None


def lower_launches(
    launches: Sequence[GridLaunch], machine: EvaluatedArchitecture, env: Env, assumptions: tuple[str, ...] = ()
) -> TileProgram:
    """The tile program of launches one after another; `env` has a value for every name in them, and word_bytes."""
    gpu = replace(Gpu.of(machine), group_mma=float(env["group_mma"]))  # a mapping may do without warp groups
    phases, left = list[Phase](), Left()
    for launch in launches:
        lowered = LaunchLowering(launch, gpu, env, left)
        phases.append(lowered.phase())
        left = lowered.reads.left
    copies = dict.fromkeys(UNITS, gpu.multiprocessors)
    resources = {name: Resource(name, count) for name, count in copies.items()}
    resources |= {name: Resource(name) for name in ("DRAM", "L2")}
    one = np.ones((1, 1))
    return TileProgram(
        phases=tuple(phases),
        resources=resources,
        points=1,
        energy_j=energies(gpu, env["word_bytes"]) if gpu.power_limit_w > 0 else {},
        peak_per_s={},
        clock_hz=one * gpu.clock_hz,
        assumptions=(
            *assumptions,
            "thread blocks start in the order of their numbers",
            "energy is that of actions at the nominal clock, without what the idle GPU draws"
            if gpu.power_limit_w > 0
            else "energies of this GPU's actions are not known: none is given, and the clock is not lowered for power",
        ),
        launch_s=(gpu.launch_latency, gpu.launch_next),
    )
