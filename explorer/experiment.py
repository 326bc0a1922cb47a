"""An experiment: simulations of many points from one YAML file, the quantities wanted of each, and how to show them.

    experiment: array-sizes
    runs:
      - {mapping: [flat, fusemax-binding], workload: bert-base, set: {L: [1024, 4096], W: [128, 256]}}
    columns:
      latency: {value: latency_s, dimension: s}
      speedup: {value: baseline.latency / latency, baseline: {mapping: flat}}
    tables:
      - columns: [mapping, L, W, latency, speedup]

Every list in a run is crossed with the others. What stands in `set` is passed to the simulator as arrays, so one
evaluation covers all of a run's sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from einsum.errors import EinsightError, SpecError, nearest
from einsum.expressions import Expression
from einsum.specfile import all_beside, load_yaml, pydantic_error
from einsum.units import UNITS
from explorer.figures import Figure
from explorer.mapped import Find, Mappings, values_by_name
from explorer.part import Part
from explorer.points import Cells, Points, stack
from explorer.reference import Reference, read_reference
from explorer.settings import Setting, parse_setting

BASELINE = "baseline."


class Run(Part):
    """Simulations to make; a list in any field stands for each of its values."""

    cascade: str | list[str] | None = None
    """Library name or file of the algorithm; without one the mapping's own."""
    architecture: str | list[str] | None = None
    """Library name or file of the hardware; without one the mapping's own."""
    mapping: Mappings = None
    """Library name or file, or {find: OBJECTIVE} to have the best one found at each point."""
    workload: str | list[str] | None = None
    """Library name or file."""
    trace_file: str | list[str] | None = None
    """Per-head trace (CSV) of a run, beside the experiment; the mapping is then a plan over its rows."""
    label: str | None = None
    """What the points are called in the input `run`, where runs differ in several settings."""
    end_to_end: bool | list[bool] = False
    """Whether the linear layers around attention are included."""
    fidelity: Literal["analytic", "event"] = "analytic"
    """The evaluator."""
    settings: dict[str, Setting | list[Setting]] = Field(default_factory=dict, alias="set")
    """Values of variables of workload, mapping, cascade or architecture."""

    def models(self) -> Iterator[dict[str, Any]]:
        """The combinations of cascade, architecture, mapping, workload and scope, and of traces where there are any."""
        names = ["cascade", "architecture", "mapping", "workload", "end_to_end"]
        names += [name for name in ("trace_file",) if getattr(self, name) is not None]
        fields = [value if isinstance(value := getattr(self, name), list) else [value] for name in names]
        for values in product(*fields):
            yield dict(zip(names, values, strict=True))

    def grid(self) -> dict[str, Cells]:
        """The settings' values at every point of their product: name -> array (points,)."""
        lists = [
            [parse_setting(item, f"set.{name}") for item in (value if isinstance(value, list) else [value])]
            for name, value in self.settings.items()
        ]
        axes = [np.array(values, dtype=object if isinstance(values[0], str) else None) for values in lists]
        crossed = np.meshgrid(*axes, indexing="ij") if axes else []
        return {name: cells.reshape(-1) for name, cells in zip(self.settings, crossed, strict=True)}

    @model_validator(mode="after")
    def _refuse_empty_lists(self) -> Run:
        for name, value in {**dict(self), **self.settings}.items():
            if isinstance(value, list) and not value:
                raise SpecError("the list is empty, so there is nothing to run", key=name)
        return self


class ColumnSpec(Part):
    """A quantity wanted of every point."""

    value: Expression
    """An expression over the inputs, the simulator's results (`latency_s`, `traffic_bytes.DRAM.total.read`, ...), the
    other columns, and `baseline.NAME` for column NAME of the baseline's point."""
    dimension: str = "count"
    """What it is measured in: s, bytes, j, fraction, count, ..."""
    title: str | None = None
    """Its name in tables and figures."""
    baseline: dict[str, Setting] = Field(default_factory=dict)
    """The inputs by which this column's baseline differs from the point."""


class TableSpec(Part):
    """A table to print."""

    title: str = ""
    """What stands above it."""
    columns: tuple[str, ...]
    """Inputs and columns, from left to right; a column with a reference brings the reference and the difference."""
    where: dict[str, Setting] = Field(default_factory=dict)
    """Only the points whose inputs have these values."""


class Experiment(Part):
    """An experiment file."""

    name: str = Field(alias="experiment", pattern=r"^[\w.-]+$")
    """Its name, and that of the CSV file with its numbers."""
    description: str = ""
    """What it shows, in a sentence."""
    source: str = ""
    """Where the published values come from."""
    runs: tuple[Run, ...] = Field(min_length=1)
    """The simulations to make."""
    columns: dict[str, ColumnSpec] = Field(min_length=1)
    """Name -> a quantity wanted of every point."""
    reference: Reference | None = None
    """Values to compare with, where there are any."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Value of an input -> its name in tables and figures."""
    titles: dict[str, str] = Field(default_factory=dict)
    """Input -> its title in tables and figures."""
    tables: tuple[TableSpec, ...] = ()
    """The tables to print."""
    figures: tuple[Figure, ...] = ()
    """The figures to draw into the output folder."""
    folder: Path = Field(default=Path(), exclude=True)
    """Where the file lies; the files that it names are looked for there."""

    @staticmethod
    def load(path: str | Path) -> Experiment:
        """Read an experiment file. Raises SpecError with file and key path for anything wrong in it."""
        data = load_yaml(path)
        if isinstance(runs := data.get("runs"), list):
            data = {**data, "runs": [all_beside(path, run) for run in runs]}
        try:
            experiment = Experiment.model_validate({**data, "folder": Path(path).parent})
        except ValidationError as error:
            raise pydantic_error(error, path, Experiment) from None
        except EinsightError as error:
            raise error.located(file=str(path)) from None
        try:
            experiment.check_names()
        except EinsightError as error:
            raise error.located(file=str(path)) from None
        return experiment

    def check_names(self) -> None:
        """Raise SpecError where a table, a figure or the reference names a column that is not there."""
        inputs = {name for run in self.runs for name in (*next(run.models()), *run.settings)} | set(self.extra_inputs())
        clash = inputs & self.columns.keys()
        if clash:
            raise SpecError(f"'{min(clash)}' is an input already", key="columns")
        everything = inputs | self.columns.keys()
        for number, table in enumerate(self.tables):
            _check(table.columns, everything, f"tables[{number}].columns")
            _check(table.where, inputs, f"tables[{number}].where")
        for number, figure in enumerate(self.figures):
            _check([figure.x, figure.series, *figure.y], everything, f"figures[{number}]")
            _check(figure.where, inputs, f"figures[{number}].where")
        _check(self.titles, inputs, "titles")
        for name, column in self.columns.items():
            _check(column.baseline, inputs, f"columns.{name}.baseline")
            if column.dimension not in UNITS:
                raise SpecError(
                    f"unknown dimension '{column.dimension}'{nearest(column.dimension, UNITS)}", key=f"columns.{name}"
                )
        if self.reference:
            _check(self.reference.keys, inputs, "reference.keys")
            _check(self.reference.columns, self.columns, "reference.columns")

    def extra_inputs(self) -> tuple[str, ...]:
        """Inputs that only some experiments have: `trace_file` and `run`."""
        extra = {"trace_file": "trace_file", "run": "label"}
        return tuple(name for name, field in extra.items() if any(getattr(run, field) for run in self.runs))

    def label(self, value: Any) -> str:
        """How the value of an input is written in tables and figures."""
        return self.labels.get(str(value), f"{value:,}" if isinstance(value, int | float) else str(value))

    def title(self, column: str) -> str:
        """How a column or an input is called in tables and figures."""
        spec = self.columns.get(column)
        return (spec.title if spec else self.titles.get(column)) or column.replace("_", " ")


def _check(names: Any, known: Any, key: str) -> None:
    for name in names:
        if name not in known:
            raise SpecError(f"unknown column '{name}'{nearest(name, known)}", key=key)


@dataclass(frozen=True)
class Outcome:
    """All points of an experiment, and the reference values of the columns that have them (NaN: none)."""

    points: Points
    references: Mapping[str, Cells]

    def difference(self, column: str) -> Cells:
        """Relative difference of a column from its reference at every point."""
        reference = self.references[column]
        return np.asarray(self.points.column(column) / reference - 1)

    def table(self) -> Points:
        """The points with their references and differences as further columns, as written to CSV."""
        extra = {}
        for name, values in self.references.items():
            extra[f"{name}_reference"] = values
            extra[f"{name}_difference"] = self.difference(name)
        return self.points.with_columns(extra)


def run_experiment(experiment: Experiment, progress: Callable[[int, int], None] = lambda done, total: None) -> Outcome:
    """Simulate every point of an experiment and evaluate its columns.

    progress is called with the number of simulator calls done and wanted. Errors of the simulator carry the run's key.
    """
    calls = [(number, run, models) for number, run in enumerate(experiment.runs) for models in run.models()]
    settings = list(dict.fromkeys(name for run in experiment.runs for name in run.settings))
    tables = []
    for done, (number, run, models) in enumerate(calls):
        progress(done, len(calls))
        try:
            tables.append(_simulate(experiment, run, models, settings))
        except EinsightError as error:
            raise error if error.file else error.located(key=f"runs[{number}]") from None
    progress(len(calls), len(calls))
    points = _baseline_columns(experiment, stack(tables))
    if not experiment.reference:
        return Outcome(points, {})
    return Outcome(points, read_reference(experiment.reference, experiment.folder, points))


def _results(experiment: Experiment, run: Run, models: Mapping[str, Any], count: int) -> dict[str, Cells]:
    """The simulator's results at the points of one combination of models, by dotted name."""
    from simulator.simulate import simulate

    grid = run.grid()
    find = models["mapping"]
    if isinstance(find, Find):
        if "trace_file" in models:
            raise SpecError("the rows of a trace need the mapping of a plan; none can be found", key="mapping")
        return values_by_name(find, models, grid, run.fidelity)
    if "trace_file" in models:
        if run.end_to_end is not False:
            raise SpecError("a trace is of attention alone; leave out end_to_end", key="end_to_end")
        from simulator.trace_run import simulate_trace

        chosen = {name: models[name] for name in ("cascade", "architecture", "mapping", "workload")}
        result = simulate_trace(
            experiment.folder / models["trace_file"], **chosen, settings=grid, fidelity=run.fidelity
        )
    else:
        result = simulate(**models, settings=grid, fidelity=run.fidelity)
    return flatten(result.to_dict(), count)


def _simulate(experiment: Experiment, run: Run, models: Mapping[str, Any], settings: list[str]) -> Points:
    """One call of the simulator: the points of one combination of models, with the columns that need no baseline."""
    grid = run.grid()
    count = len(next(iter(grid.values()), [None]))
    results = _results(experiment, run, models, count)
    models = {name: str(value) if isinstance(value, Find) else value for name, value in models.items()}
    extra = {"trace_file": None, "run": run.label}
    shown = {**{name: extra[name] for name in experiment.extra_inputs()}, **models}
    inputs = {name: np.full(count, value, dtype=object) for name, value in shown.items()}
    inputs |= {name: grid.get(name, np.full(count, None)) for name in settings}
    known = {**grid, **{name: value for name, value in shown.items() if value is not None}}
    known |= results
    columns: dict[str, Cells] = {}
    for name, column in experiment.columns.items():
        if not _needs_baseline(experiment, name):
            columns[name] = _evaluate(column.value, known | columns, count, f"columns.{name}")
    return Points({**inputs, **columns}, tuple(inputs))


def _baseline_columns(experiment: Experiment, points: Points) -> Points:
    """Add the columns that compare with another point, in the order of the experiment."""
    for name, column in experiment.columns.items():
        if not _needs_baseline(experiment, name):
            continue
        try:
            rows = points.matching(column.baseline)
        except SpecError as error:
            raise error.located(key=f"columns.{name}.baseline") from None
        known = {**points.columns, **{BASELINE + other: cells[rows] for other, cells in points.columns.items()}}
        value = _evaluate(column.value, known, len(points), f"columns.{name}")
        points = points.with_columns({name: value})
    return Points({name: points.columns[name] for name in (*points.inputs, *experiment.columns)}, points.inputs)


def _needs_baseline(experiment: Experiment, name: str) -> bool:
    names = experiment.columns[name].value.names
    if any(other.startswith(BASELINE) for other in names):
        return True
    earlier = list(experiment.columns)[: list(experiment.columns).index(name)]
    return any(_needs_baseline(experiment, other) for other in names & set(earlier))


def _evaluate(expression: Expression, known: Mapping[str, Any], count: int, key: str) -> Cells:
    try:
        return np.broadcast_to(np.asarray(expression.evaluate(known)), count)
    except EinsightError as error:
        raise error.located(key=key) from None


def flatten(document: Mapping[str, Any], count: int, prefix: str = "") -> dict[str, Cells]:
    """The values of a nested result by dotted name, each as an array of `count` points; lists of other lengths are
    left out."""
    flat: dict[str, Cells] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, count, f"{prefix}{name}.")
        elif isinstance(value, int | float | str | list) and np.shape(value) in ((), (1,), (count,)):
            flat[prefix + name] = np.broadcast_to(np.asarray(value), count)
    return flat
