"""A case in the form that is derived from its cascade: the nest that its kernel's description names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from architectures import EvaluatedArchitecture
from einsum.cascade import Cascade
from einsum.errors import EinsightError, SpecError
from einsum.expressions import Expression, resolve
from kernels.case import Case
from mappings import Mapping as NestMapping
from mappings.gpu.kernel import GpuKernel
from mappings.gpu.nest_lowering import lower_grid
from mappings.program import TileProgram

RESULT_BYTES = 2
"""Of a number that a kernel writes, at least: results of fp8 are fp16."""


def derived_program(
    case: Case, kernel: GpuKernel, machine: EvaluatedArchitecture, arguments: Mapping[str, Any], steps: tuple[str, ...]
) -> TileProgram:
    """The tile program of the nest that a description names, with the case's sizes and tile.

    `steps`: variants that are one launch of the kernel, in order. SpecError where there is no nest, or it does not fit.
    """
    knobs = {name: value for name, value in arguments.items() if name in machine.variables}
    machine = replace(machine, variables={**machine.variables, **knobs})  # a variant may do without warp groups
    env: dict[str, Any] = {**machine.variables, **arguments}
    env.update(resolve(kernel.variables, env))
    for complaint, condition in kernel.limits.items():
        if not condition.evaluate(env):
            raise SpecError(complaint)
    name = next((name for name, when in kernel.nests.items() if when.evaluate(env)), None)
    if name is None:
        raise SpecError(f"no mapping derives this form of {case.kernel} from a cascade")
    mapping = NestMapping.load(name)
    cascade = conditioned(kernel, env, mapping.header.cascade or kernel.cascade)
    if case.word_bytes < RESULT_BYTES:
        cascade = _with_words(cascade, 8 * RESULT_BYTES)
    settings = {
        **cascade_sizes(kernel, env),
        **{name: value.evaluate(env) for name, value in kernel.nest_settings.items()},
    }
    definitions = {**cascade.definitions, **mapping.variables}
    numbers: dict[str, Any] = {**machine.names(), **machine.variables}
    known = {name: value for name, value in numbers.items() if name not in definitions}
    try:
        values = resolve(definitions, {**known, **settings})
        program = lower_grid(cascade, replace(machine, word_bits=8.0 * case.word_bytes), mapping.nest, values)
    except EinsightError as error:
        raise error.located(file=mapping.file) from None
    if case.variant in steps:
        return replace(program, phases=(program.phases[steps.index(case.variant)],))
    return program


def _with_words(cascade: Cascade, bits: int) -> Cascade:
    """The cascade with outputs of so many bits."""
    outputs = {tensor.name: replace(tensor, bits=Expression.parse(bits)) for tensor in cascade.outputs}
    return replace(cascade, tensors={**cascade.tensors, **outputs})


def cascade_sizes(kernel: GpuKernel, env: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of the cascade that a description computes."""
    return {name: size.evaluate(env) for name, size in kernel.sizes.items()}


def conditioned(kernel: GpuKernel, env: Mapping[str, Any], name: str) -> Cascade:
    """The cascade of that name under the conditions of a call of a kernel."""
    cascade = Cascade.load(name)
    conditions = [text.format(**env) for text, when in kernel.where.items() if when.evaluate(env)]
    return cascade.with_condition(*conditions) if conditions else cascade
