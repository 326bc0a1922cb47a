"""A sweep: the space of design points from one YAML file, how it is sampled, and what is wanted of each point.

sweep: array-sizes
mapping: [fusemax-architecture, fusemax-binding]
workload: bert-base
variables:
  W: [64, 128, 256]
  L: {from: 1024, to: 1Mi, scale: log2}
zips:
  - {buffer: [8 MiB, 16 MiB], dram_bandwidth: [200 GiB/s, 400 GiB/s]}
constraints: [W <= L / 4, energy <= 2 J]
columns:
  latency: {value: latency_s, dimension: s}
  energy: {value: energy_j, dimension: j}
objectives: [latency, energy]
sampler: grid
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationError

from einsum.errors import EinsightError, SpecError, nearest
from einsum.expressions import Expression
from einsum.specfile import all_beside, load_yaml, pydantic_error
from einsum.units import UNITS
from explorer.mapped import Find, Mappings
from explorer.part import Part
from explorer.settings import Setting, parse_setting
from explorer.space import Axis, Range, Space, list_axis

MODELS = ("cascade", "architecture", "mapping", "workload", "end_to_end")
"""The inputs that choose descriptions; all others set their variables."""

BATCH_POINTS = {"analytic": 4096, "event": 16}
"""Points of a batch: enough to make one evaluation worth its overhead, few enough to stay in the processor's caches.
Where mappings are found, each point is a batch."""

Models = str | list[str] | None


def _form(value: Any) -> str:
    return "is-range" if isinstance(value, dict | Range) else "is-list" if isinstance(value, list) else "is-value"


Values = Annotated[
    Annotated[Range, Tag("is-range")] | Annotated[list[Setting], Tag("is-list")] | Annotated[Setting, Tag("is-value")],
    Discriminator(_form),
]
"""A range, a list, or a single value."""
_Zipped = Annotated[
    Annotated[Setting, Tag("is-value")] | Annotated[Find, Tag("is-find")],
    Discriminator(lambda value: "is-find" if isinstance(value, dict | Find) else "is-value"),
]
ZipValues = Annotated[
    Annotated[Range, Tag("is-range")] | Annotated[list[_Zipped], Tag("is-list")] | Annotated[Setting, Tag("is-value")],
    Discriminator(_form),
]
"""The same; a list of the input `mapping` may have mappings that are found."""


class Quantity(Part):
    """A result that is stored of every point."""

    value: Expression
    """An expression over the inputs, the simulator's results (`latency_s`, `traffic_bytes.DRAM.total.read`, ...) and
    the quantities before it."""
    dimension: str = "count"
    """What it is measured in: s, bytes, j, fraction, count, ..."""
    title: str | None = None
    """Its name in tables and figures."""


class Objective(Part):
    """A quantity to make small or large."""

    minimize: str | None = None
    """The quantity to make small."""
    maximize: str | None = None
    """The quantity to make large."""

    @property
    def name(self) -> str:
        """The quantity."""
        return self.minimize or self.maximize or ""

    @property
    def sign(self) -> float:
        """1 to make it small, -1 to make it large: signed values are always to be made small."""
        return 1.0 if self.minimize else -1.0


class Grid(Part):
    """Every point of the space."""

    kind: Literal["grid"] = "grid"
    """Every point, in order; the last variable changes fastest."""


class Draw(Part):
    """Points drawn evenly over the space; those that break a constraint and repeated ones are left out."""

    kind: Literal["sobol", "latin-hypercube"]
    """A low-discrepancy sequence, or one point in each slice of every variable."""
    points: int = Field(ge=1, le=10_000_000)
    """Points to draw."""
    seed: int = Field(default=0, ge=0)
    """The same seed draws the same points."""


class Evolution(Part):
    """A search that breeds better points from good ones (NSGA-II), for spaces too large to enumerate."""

    kind: Literal["evolutionary"]
    """Non-dominated sorting (NSGA-II)."""
    points: int = Field(ge=2, le=10_000_000)
    """Points to propose in all."""
    population: int = Field(default=64, ge=4, le=100_000)
    """Points of a generation."""
    seed: int = Field(default=0, ge=0)
    """The same seed searches the same points."""


class Fronts(Part):
    """Which points are compared with each other for the Pareto front."""

    by: Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)] = ()
    """Varying inputs: one front for each of their values, such as each length; without any, one front of all points."""


def _named(value: Any, name: str) -> Any:
    return {name: value} if isinstance(value, str) else value


Sampler = Annotated[
    Annotated[Grid | Draw | Evolution, Field(discriminator="kind")],
    BeforeValidator(lambda value: {"kind": "grid", **value} if isinstance(value, dict) else _named(value, "kind")),
]


class Sweep(Part):
    """A sweep file."""

    name: str = Field(alias="sweep", pattern=r"^[\w.-]+$")
    """Its name."""
    description: str = ""
    """What it asks, in a sentence."""
    source: str = ""
    """Where its numbers come from."""
    cascade: Models = None
    """Library name or file of the algorithm, or a list of them; without one the mapping's own."""
    architecture: Models = None
    """Library name or file of the hardware, or a list of them; without one the mapping's own."""
    mapping: Mappings = None
    """Library name or file, {find: OBJECTIVE} to have the best one found at each point, or a list of these."""
    workload: Models = None
    """Library name or file, or a list of them."""
    end_to_end: bool | list[bool] = False
    """Whether the linear layers around attention are included."""
    fidelity: Literal["analytic", "event"] = "analytic"
    """The evaluator."""
    constants: dict[str, Setting] = Field(default_factory=dict, alias="set")
    """Variables of workload, architecture, mapping or cascade with one value for all points."""
    variables: dict[str, Values] = Field(default_factory=dict)
    """Variables with the values to try: each list or range is crossed with all others."""
    zips: tuple[dict[str, ZipValues], ...] = ()
    """Groups of inputs that change together: the first values of all, the second values of all, ..."""
    constraints: tuple[Expression, ...] = ()
    """Conditions on inputs (checked before a point is evaluated) and on results (after)."""
    columns: dict[str, Quantity] = Field(default_factory=dict)
    """What is stored of each point; without any: time, energy, area, traffic of the memories, utilization."""
    objectives: tuple[Annotated[Objective, BeforeValidator(lambda value: _named(value, "minimize"))], ...] = ()
    """Quantities to make small, or large with `maximize: NAME`; they define the Pareto front."""
    front: Fronts = Fronts()
    """{by: [INPUT, ...]}: one Pareto front for each value of these inputs."""
    sampler: Sampler = Grid()
    """grid, or {kind: sobol | latin-hypercube | evolutionary, points: N}."""
    batch: int | None = Field(default=None, ge=1, le=1_000_000)
    """Points that are evaluated together and stored together."""

    @staticmethod
    def load(path: str | Path) -> Sweep:
        """Read a sweep file; files that it names are looked for beside it first.

        Raises SpecError with file and key path for anything wrong in it.
        """
        try:
            return Sweep.parse(all_beside(path, load_yaml(path)))
        except ValidationError as error:
            raise pydantic_error(error, path, Sweep) from None
        except EinsightError as error:
            raise error.located(file=str(path)) from None

    @staticmethod
    def parse(data: Mapping[str, Any]) -> Sweep:
        """The sweep that plain data describes. Raises SpecError or pydantic's ValidationError."""
        sweep = Sweep.model_validate(data)
        sweep._check_names()
        space = sweep.space()
        if not space.axes:
            raise SpecError("nothing varies: give variables, zips, or lists of descriptions", key="variables")
        sweep._check_front(space)
        continuous = [name for axis in space.axes if axis.interval for name in axis.names]
        if continuous and isinstance(sweep.sampler, Grid):
            raise SpecError(
                "a grid needs a step or a count; a continuous range is for the other samplers",
                key=f"variables.{continuous[0]}",
            )
        return sweep

    def _check_front(self, space: Space) -> None:
        intervals = {name for axis in space.axes if axis.interval for name in axis.names}
        for number, name in enumerate(self.front.by):
            key = f"front.by[{number}]"
            if name not in space.names:
                raise SpecError(f"'{name}' is no input that varies{nearest(name, space.names)}", key=key)
            if name in intervals:
                raise SpecError(f"'{name}' is continuous, so no two points share its value", key=key)
        if self.front.by and isinstance(self.sampler, Evolution):
            raise SpecError("an evolutionary search looks for one front; leave this out", key="front")
        if self.front.by and self.columns and not self.objectives:
            raise SpecError("there is no front without objectives", key="front")

    @property
    def batch_points(self) -> int:
        """Points of a batch."""
        return self.batch or (1 if self.finds() else BATCH_POINTS[self.fidelity])

    def space(self) -> Space:
        """The space: descriptions outermost, then groups that change together, then single variables."""
        zipped = [self._zip(group, f"zips[{number}]") for number, group in enumerate(self.zips)]
        models = [
            list_axis({name: _texts(name, value, name)}, name)
            for name in MODELS
            if isinstance(value := getattr(self, name), list) and name not in self._zipped
        ]
        single = [_axis(name, values, f"variables.{name}") for name, values in self.variables.items()]
        return Space((*models, *zipped, *single))

    def fixed(self) -> dict[str, Setting | None]:
        """The inputs with one value for all points: descriptions, then constants."""
        chosen = {name: getattr(self, name) for name in MODELS if name not in self._zipped}
        fixed = {
            name: str(value) if isinstance(value, Find) else value
            for name, value in chosen.items()
            if not isinstance(value, list)
        }
        return {**fixed, **{name: parse_setting(value, f"set.{name}") for name, value in self.constants.items()}}

    def finds(self) -> dict[str, Find]:
        """What the input `mapping` says where a mapping is found -> how it is found."""
        listed = [self.mapping, *(group.get("mapping") for group in self.zips)]
        each = [one for value in listed for one in (value if isinstance(value, list) else [value])]
        return {str(one): one for one in each if isinstance(one, Find)}

    def input_names(self) -> tuple[str, ...]:
        """All inputs: those that vary in the order of the space, and those that do not."""
        return (*self.space().names, *self.fixed())

    @property
    def _zipped(self) -> set[str]:
        return {name for group in self.zips for name in group}

    def _zip(self, group: Mapping[str, ZipValues], key: str) -> Axis:
        columns: dict[str, list[Setting]] = {}
        for name, values in group.items():
            if isinstance(values, Range):
                axis = values.axis(name, f"{key}.{name}")
                if axis.interval:
                    raise SpecError("a continuous range cannot change together with others", key=f"{key}.{name}")
                columns[name] = axis.columns[name].tolist()
            else:
                columns[name] = _texts(name, values if isinstance(values, list) else [values], f"{key}.{name}")
        if not columns:
            raise SpecError("the group is empty", key=key)
        return list_axis(columns, key)

    def _check_names(self) -> None:
        """Every input has one place; names of quantities, dimensions and objectives make sense."""
        seen: dict[str, str] = {}
        places = [("set", list(self.constants)), ("variables", list(self.variables))]
        places += [(f"zips[{number}]", list(group)) for number, group in enumerate(self.zips)]
        for place, names in places:
            for name in names:
                if name in seen:
                    raise SpecError(f"'{name}' stands in {seen[name]} already", key=place)
                if name in MODELS and not place.startswith("zips"):
                    raise SpecError(f"'{name}' chooses a description; write it at the top of the file", key=place)
                seen[name] = place
        for name in MODELS:
            if name in seen and name in self.model_fields_set:
                raise SpecError(f"'{name}' is given twice, here and in {seen[name]}", key=name)
        if self.mapping is None and "mapping" not in seen:
            raise SpecError("the field 'mapping' is missing: the library name or file of a mapping")
        lacking = next((one for one in self.finds().values() if one.linear_layers is None), None)
        if lacking and True in (self.end_to_end if isinstance(self.end_to_end, list) else [self.end_to_end]):
            raise SpecError(
                "end_to_end needs the mapping of the linear layers: {find: ..., linear_layers: NAME}", key="mapping"
            )
        for name, column in self.columns.items():
            if name in seen or name in MODELS:
                raise SpecError(f"'{name}' is an input already", key="columns")
            if column.dimension not in UNITS:
                hint = nearest(column.dimension, UNITS)
                raise SpecError(f"unknown dimension '{column.dimension}'{hint}", key=f"columns.{name}")
        for number, objective in enumerate(self.objectives):
            if bool(objective.minimize) == bool(objective.maximize):
                message = "expected the name of a quantity, under minimize or maximize"
                raise SpecError(message, key=f"objectives[{number}]")
        if isinstance(self.sampler, Evolution) and not self.objectives:
            raise SpecError("an evolutionary search needs objectives", key="objectives")


def _axis(name: str, values: Values, key: str) -> Axis:
    if isinstance(values, Range):
        return values.axis(name, key)
    return list_axis({name: values if isinstance(values, list) else [values]}, key)


def _texts(name: str, values: Sequence[Setting | Find], key: str) -> list[Setting]:
    """The values of an input, with the text that stands for a mapping that is found."""
    for number, value in enumerate(values):
        if isinstance(value, Find) and name != "mapping":
            raise SpecError(
                f"a mapping is found for the input 'mapping' only, not for '{name}'", key=f"{key}[{number}]"
            )
    return [str(value) if isinstance(value, Find) else value for value in values]
