"""From names and settings to a Result: the one entry point of simulation."""

from __future__ import annotations

from collections.abc import Mapping as MappingABC
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from architectures import Architecture
from architectures.gpu import Gpu
from einsum.cascade import Cascade
from einsum.errors import EinsightError, SpecError, join_key, refuse_unknown
from einsum.expressions import resolve
from mappings import Mapping, Phase, Step, TileProgram
from mappings.lowering import lower, needs_single_points
from mappings.nest import StructureVaries
from mappings.plan_lowering import lower_plan
from simulator.analytic import evaluate
from simulator.result import Result, merge_points
from workloads import HeadTrace, Workload

Settings = MappingABC[str, Any]


@dataclass(frozen=True)
class Design:
    """The descriptions that one simulation reads, and the values that its user sets."""

    cascade: Cascade
    architecture: Architecture
    mapping: Mapping
    workload: Workload | None
    settings: Settings

    @property
    def points(self) -> int:
        """Design points: the common length of the arrays among the settings."""
        lengths = {name: np.size(value) for name, value in self.settings.items() if np.ndim(value) > 0}
        distinct = {length for length in lengths.values() if length != 1}
        if len(distinct) > 1:
            shown = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise SpecError(f"the arrays among the settings have different lengths: {shown}")
        if 0 in lengths.values():
            raise SpecError("an array among the settings is empty")
        return max(distinct, default=1)

    @property
    def scalar(self) -> bool:
        """Whether no setting is an array."""
        return all(np.ndim(value) == 0 for value in self.settings.values())

    def known_names(self) -> set[str]:
        """Every name that a setting may have."""
        known = {*self.architecture.known_names, *self.mapping.known_names, *self.cascade.variables}
        return known | {*self.cascade.parameters, *(self.workload.known_names if self.workload else ())}

    def at(self, places: NDArray[np.intp]) -> Design:
        """The same design at some of its points."""
        chosen = {
            name: np.asarray(value)[places] if np.size(value) > 1 else value for name, value in self.settings.items()
        }
        return replace(self, settings=chosen)

    def environment(self) -> dict[str, Any]:
        """Values of all variables: settings win over the mapping's table, that over definitions."""
        env: dict[str, Any] = {}
        if self.workload is not None:
            env.update(self.workload.resolve(self.settings))
            env["workload"] = self.workload.name
        machine = self.architecture.evaluate(self.settings)
        env.update(machine.names())
        env.update(machine.variables)
        env.update(self.settings)
        if self.mapping.table is not None:
            env = {**self._row(env), **env}
        definitions = {**self.cascade.definitions, **self.mapping.variables}
        given = {name: value for name, value in env.items() if name not in definitions or name in self.settings}
        given.update(
            {name: env[name] for name in self.cascade.variables if name in env and name not in self.mapping.variables}
        )
        try:
            return resolve(definitions, given)
        except EinsightError as error:
            inside = error.key is not None and error.key in self.mapping.variables
            message = error.message
            if inside and "unknown name" not in message:
                message = f"no legal mapping at these sizes: {message}"
            file = self.mapping.file if inside else None
            raise SpecError(message, file=file, key=join_key("variables", error.key)) from None

    def _row(self, env: MappingABC[str, Any]) -> dict[str, Any]:
        table = self.mapping.table
        assert table is not None
        columns = [name for name in table.columns if name not in table.keys]
        if all(name in self.settings for name in columns):
            return {}
        for key in table.keys:
            if key not in env:
                raise SpecError(f"the mapping's table needs '{key}', which nothing sets", file=table.file)
        return table.find(env, self.points)


def design(
    cascade: str | Path | Cascade | None,
    architecture: str | Path | Architecture | None,
    mapping: str | Path | Mapping,
    workload: str | Path | Workload | None,
    settings: Settings | None = None,
) -> Design:
    """Load what is given by name. The mapping names the cascade and the architecture that are not given."""
    plan = mapping if isinstance(mapping, Mapping) else Mapping.load(mapping)
    cascade = cascade if cascade is not None else plan.header.cascade
    architecture = architecture if architecture is not None else plan.header.architecture
    for kind, value in (("cascade", cascade), ("architecture", architecture)):
        if value is None:
            raise SpecError(f"the mapping names no {kind}, so one has to be given", file=plan.file)
    assert cascade is not None and architecture is not None
    chosen = Design(
        cascade if isinstance(cascade, Cascade) else Cascade.load(cascade),
        architecture if isinstance(architecture, Architecture) else Architecture.load(architecture),
        plan,
        workload if workload is None or isinstance(workload, Workload) else Workload.load(workload),
        dict(settings or {}),
    )
    refuse_unknown(chosen.settings, chosen.known_names())
    given = {*chosen.settings, *chosen.mapping.known_names}
    given |= chosen.workload.known_names if chosen.workload else set()
    missing = [name for name in chosen.cascade.parameters if name not in given]
    if missing:
        source = f"workload '{chosen.workload.name}' has no" if chosen.workload else "nothing gives the"
        sizes = "size" if len(missing) == 1 else "sizes"
        raise SpecError(
            f"{source} {sizes} {', '.join(missing)} of cascade '{chosen.cascade.name}'; name a workload that does, or "
            "set them"
        )
    return chosen


def build_program(chosen: Design) -> TileProgram:
    """The tile program of a design; `mappings.nest.StructureVaries` when its points differ in structure."""
    if chosen.mapping.kernel is not None:
        return kernel_program(chosen)
    if chosen.mapping.plan is not None:
        return plan_program(chosen)
    if runs_in_blocks(chosen):
        return grid_program(chosen)
    env = chosen.environment()
    machine = chosen.architecture.evaluate(chosen.settings)
    try:
        return lower(
            chosen.cascade,
            machine,
            chosen.mapping.nest,
            env,
            chosen.points,
            hidden_fill=chosen.mapping.header.fill_drain == "hidden",
        )
    except EinsightError as error:
        raise error.located(file=chosen.mapping.file) from None


def plan_program(chosen: Design, trace: HeadTrace | None = None) -> TileProgram:
    """The tile program of a design whose mapping is a plan of phases, some of them perhaps over the rows of a trace."""
    machine, workload = chosen.architecture.evaluate(chosen.settings), chosen.workload
    sizes: dict[str, Any] = {} if workload is None else {**workload.resolve(chosen.settings)}
    facts = {} if workload is None else workload.property_values(chosen.settings)
    if workload is not None and workload.layers is not None:
        sizes["layers"] = workload.layers
    given = {**sizes, **machine.names(), **machine.variables, **facts, **chosen.settings}
    own = chosen.mapping.variables
    names = {*given, *own, *chosen.cascade.definitions}
    defaults = {name: each for name, each in chosen.cascade.definitions.items()
                if name not in given and each.names <= names}  # fmt: skip
    set_already = {*chosen.settings, *facts}
    definitions = {name: each for name, each in {**defaults, **own}.items() if name not in set_already}
    given = {name: value for name, value in given.items() if name not in definitions}
    assert chosen.mapping.plan is not None
    try:
        return lower_plan(chosen.mapping.plan, chosen.cascade, machine, definitions, given, chosen.points, trace)
    except EinsightError as error:
        raise error.located(file=chosen.mapping.file) from None


def runs_in_blocks(chosen: Design) -> bool:
    """Whether a design's nest runs as thread blocks of a GPU."""
    from mappings.gpu.nest_lowering import has_grid

    return "multiprocessors" in chosen.architecture.variables and has_grid(chosen.mapping.nest)


def grid_program(chosen: Design) -> TileProgram:
    """The tile program of a nest in thread blocks of a GPU at one design point."""
    from mappings.gpu.nest_lowering import lower_grid

    chosen = _plain(chosen)
    try:
        machine, env = chosen.architecture.evaluate(chosen.settings), chosen.environment()
        return lower_grid(chosen.cascade, machine, chosen.mapping.nest, env)
    except EinsightError as error:
        raise error.located(file=chosen.mapping.file) from None


def _plain(chosen: Design) -> Design:
    """A design at one point with plain numbers: a grid of thread blocks is enumerated."""
    settings = {
        name: value.item() if isinstance(value, np.ndarray) else value for name, value in chosen.settings.items()
    }
    return replace(chosen, settings=settings)


def kernel_program(chosen: Design) -> TileProgram:
    """The tile program of a GPU kernel at one design point; the mapping's variables are its arguments."""
    from mappings.gpu.lowering import lower as lower_kernel

    chosen = _plain(chosen)
    assert chosen.mapping.kernel is not None
    machine = chosen.architecture.evaluate(chosen.settings)
    env = chosen.environment()
    arguments = {name: env[name] for name in chosen.mapping.variables}
    Gpu.of(machine)  # refuses what is none
    try:
        _refuse_other_sizes(chosen, {**machine.variables, **arguments})
        return lower_kernel(chosen.mapping.kernel, machine, arguments)
    except EinsightError as error:
        raise error.located(file=chosen.mapping.file) from None


def _refuse_other_sizes(chosen: Design, arguments: dict[str, Any]) -> None:
    """SpecError for a size of the cascade that the kernel does not have, such as values of another width than keys.

    An argument that is set itself, such as the heads of keys, goes before the cascade's size.
    """
    kernel = chosen.mapping.kernel
    assert kernel is not None
    env = chosen.environment()
    known = {**arguments, **resolve(kernel.variables, arguments)}
    for name in sorted(set(chosen.cascade.parameters) & set(kernel.sizes)):
        runs = kernel.sizes[name].evaluate(known)
        if runs != env[name] and not kernel.sizes[name].names & set(chosen.settings):
            raise SpecError(f"the kernel runs {name} = {kernel.sizes[name]} = {runs:g}, found {name} = {env[name]:g}")


def simulate(
    cascade: str | Path | Cascade | None = None,
    architecture: str | Path | Architecture | None = None,
    mapping: str | Path | Mapping = "",
    workload: str | Path | Workload | None = None,
    settings: Settings | None = None,
    *,
    where: Sequence[str] = (),
    end_to_end: bool = False,
    fidelity: Literal["analytic", "event"] = "analytic",
    trace: str | Path | None = None,
) -> Result:
    """Cost of a cascade on an architecture under a mapping.

    settings    values for variables of workload, architecture, mapping and cascade; a number, text, or an array with
                one value per design point. With arrays the result's values are arrays.
    where       further conditions on the cascade, such as `m <= p` for a causal mask
    end_to_end  add the layer's other matrix products (the workload's linear layers)
    fidelity    analytic: steady states, all points at once; event: tile by tile, one point after another
    trace       file for a timeline in Chrome trace format (event fidelity, one point)

    A plan with phases over a trace is simulated over the run that the workload's pruning schedule gives.

    Raises EinsightError (SpecError for bad input), one sentence each.
    """
    plan = mapping if isinstance(mapping, Mapping) else Mapping.load(mapping)
    if plan.plan is not None and plan.plan.traced:
        from simulator.trace_run import simulate_trace

        if where or end_to_end:
            raise SpecError("a plan over a trace takes neither conditions nor linear layers", file=plan.file)
        return simulate_trace(
            None,
            mapping=plan,
            architecture=architecture,
            workload=workload,
            cascade=cascade,
            settings=settings,
            fidelity=fidelity,
            timeline=trace,
        )
    chosen = design(cascade, architecture, plan, workload, settings)
    if where:
        chosen = replace(chosen, cascade=chosen.cascade.with_condition(*where))
    if plan.kernel is not None and (where or end_to_end):
        raise SpecError("a GPU kernel takes no further conditions and no linear layers", file=plan.file)
    check_timeline(trace, fidelity, chosen.points)
    result = merge_points(_evaluated(chosen, np.arange(chosen.points), end_to_end, fidelity, trace), chosen.points)
    return result.point(0) if chosen.scalar else result


def check_timeline(file: str | Path | None, fidelity: str, points: int) -> None:
    """SpecError if a timeline is asked for, but not of one design point in the event evaluator."""
    if file is not None and fidelity != "event":
        raise SpecError("a trace needs the event simulation: choose fidelity event")
    if file is not None and points > 1:
        raise SpecError(f"a trace shows one design point, found {points}")


def _evaluated(
    chosen: Design, places: NDArray[np.intp], end_to_end: bool, fidelity: str, trace: str | Path | None
) -> list[tuple[NDArray[np.intp], Result]]:
    """Results by groups of points whose programs have the same structure."""
    if chosen.points > 1 and _one_by_one(chosen):
        single = [np.array([point]) for point in range(chosen.points)]
        return [part for at in single for part in _evaluated(chosen.at(at), places[at], end_to_end, fidelity, trace)]
    if chosen.mapping.plan is not None and chosen.points > _FEW_POINTS:
        most = _points_at_once(chosen)
        if chosen.points > most:
            parts = np.split(np.arange(chosen.points), np.arange(most, chosen.points, most))
            return [got for at in parts for got in _evaluated(chosen.at(at), places[at], end_to_end, fidelity, trace)]
    try:
        program = build_program(chosen)
        if end_to_end:
            program = with_linear_layers(program, chosen)
    except StructureVaries as varies:
        groups = split_by_structure(chosen, varies)
        return [
            part
            for group in groups
            for part in _evaluated(chosen.at(group), places[group], end_to_end, fidelity, trace)
        ]
    if fidelity == "analytic":
        result = evaluate(program)
    else:
        from simulator.event import evaluate_events

        result = evaluate_events(program, trace=trace)
    return [(places, result)]


def _one_by_one(chosen: Design) -> bool:
    """Whether the points of a design have to be evaluated one after another."""
    if chosen.mapping.plan is not None:
        return False
    return chosen.mapping.kernel is not None or needs_single_points(chosen.cascade) or runs_in_blocks(chosen)


_FEW_POINTS = 16
_MOST_CLASSES = 1 << 16


def _points_at_once(chosen: Design) -> int:
    """Design points of a plan whose tile classes (one for each token, say) stay in the processor's caches together."""
    ends = [build_program(chosen.at(np.array([point]))) for point in (0, chosen.points - 1)]
    classes: int = max(stream.counts.shape[1] for end in ends for phase in end.phases for stream in phase.streams)
    return max(_FEW_POINTS, _MOST_CLASSES // classes)


def split_by_structure(chosen: Design, varies: StructureVaries) -> list[NDArray[np.intp]]:
    """The points of a design in groups that agree on a condition."""
    value = np.broadcast_to(np.asarray(varies.condition.evaluate(chosen.environment())).reshape(-1), (chosen.points,))
    return [np.flatnonzero(value == kind) for kind in np.unique(value)]


def with_linear_layers(program: TileProgram, chosen: Design) -> TileProgram:
    """The program followed by the layer's other matrix products, on the same architecture."""
    if chosen.workload is None or not chosen.workload.linear_layers:
        raise SpecError("end to end needs a workload with linear layers")
    if chosen.mapping.header.linear_layers is None:
        raise SpecError("the mapping names no mapping for linear layers", file=chosen.mapping.file, key="linear_layers")
    plan = Mapping.load(chosen.mapping.header.linear_layers)
    phases, resources = list(program.phases), dict(program.resources)
    for layer in chosen.workload.linear_sizes(chosen.settings):
        sizes = {"M": layer.rows, "K": layer.inner, "N": layer.columns}
        machine = {name: value for name, value in chosen.settings.items() if name in chosen.architecture.known_names}
        product = design(None, chosen.architecture, plan, None, {**machine, **sizes})
        part = build_program(product)
        phases += [_named_after(layer.name, phase) for phase in part.phases]
        resources.update(part.resources)
    return replace(program, phases=tuple(phases), resources=resources)


def _named_after(layer: str, phase: Phase) -> Phase:
    """A phase whose name, steps and tensors say which layer they belong to."""

    def renamed(step: Step) -> Step:
        return replace(
            step,
            name=f"{layer}.{step.name}",
            after=tuple(replace(dependence, step=f"{layer}.{dependence.step}") for dependence in step.after),
            traffic={(level, f"{layer}.{tensor}"): moved for (level, tensor), moved in step.traffic.items()},
        )

    streams = tuple(replace(stream, steps=tuple(map(renamed, stream.steps))) for stream in phase.streams)
    return replace(phase, name=layer, streams=streams)
