"""A mapping: how a cascade runs on an architecture, read from YAML."""

from __future__ import annotations

import csv
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, ValidationError

from einsum.description import FromFile, write_data
from einsum.errors import EinsightError, SpecError, nearest
from einsum.expressions import Expression
from einsum.files import reason
from einsum.specfile import beside, parse_yaml, pydantic_error
from mappings.gpu.kernel import GpuKernel
from mappings.plan import PhasePlan, parse_plan
from mappings.schema import Model, Node, parse_nest


class Rows(Model):
    """Variables whose values depend on the case: a table with one row for each combination of the keys."""

    file: str = Field(description="CSV file beside the mapping, with a header; lines that begin with # are comments.")
    keys: tuple[str, ...] = Field(min_length=1, description="Columns that a case is found by: `workload` or variables.")


class Header(Model):
    """Everything of a mapping file but its nest."""

    mapping: str = Field(description="The mapping's name.")
    description: str = Field(default="", description="What it does, in a sentence or two.")
    source: str = Field(default="", description="Where it comes from.")
    cascade: str | None = Field(default=None, description="The cascade that it maps, unless the user names another.")
    architecture: str | None = Field(default=None, description="The architecture, unless the user names another.")
    variables: dict[str, Expression] = Field(
        default_factory=dict,
        description="Tile sizes and other numbers: expressions of the workload's and the cascade's variables and of "
        "the architecture's values such as `L3.capacity_bytes` or `array_2d.rows`.",
    )
    rows: Rows | None = Field(default=None, description="A table with further variables.")
    fill_drain: Literal["charged", "hidden"] = Field(
        default="charged", description="hidden: a pipeline's fill and drain overlap with the work before and after it."
    )
    linear_layers: str | None = Field(
        default=None, description="The mapping of the layer's other matrix products, for end-to-end results."
    )

    def others(self) -> dict[str, str]:
        """The descriptions that it names: library names, or files whose paths start in its own folder."""
        named = {key: getattr(self, key) for key in ("cascade", "architecture", "linear_layers")}
        return {key: name for key, name in named.items() if name is not None}


@dataclass(frozen=True)
class Table:
    """The rows of a mapping's table: column -> values, text or numbers."""

    file: str
    keys: tuple[str, ...]
    columns: MappingABC[str, tuple[Any, ...]]

    def find(self, case: MappingABC[str, Any], points: int) -> dict[str, Any]:
        """Values of the other columns for a case whose key values may be arrays of `points`; SpecError if none fits."""
        wanted = [np.broadcast_to(np.asarray(case[key]), (points,)) for key in self.keys]
        index = {tuple(row): place for place, row in enumerate(zip(*(self.columns[k] for k in self.keys), strict=True))}
        places = []
        for point in range(points):
            row = tuple(values[point].item() for values in wanted)
            if row not in index:
                raise SpecError(self._missing(row), file=self.file)
            places.append(index[row])
        names = [name for name in self.columns if name not in self.keys]
        if len(set(places)) == 1:
            return {name: self.columns[name][places[0]] for name in names}
        return {name: np.array([self.columns[name][place] for place in places]) for name in names}

    def _missing(self, row: tuple[Any, ...]) -> str:
        case = ", ".join(f"{key}={value}" for key, value in zip(self.keys, row, strict=True))
        same = [
            known[-1] for known in zip(*(self.columns[key] for key in self.keys), strict=True) if known[:-1] == row[:-1]
        ]
        if same:
            return f"no row for {case}; there are rows for {self.keys[-1]} = {', '.join(map(str, same))}"
        return f"no row for {case}{nearest(str(row[0]), [str(value) for value in self.columns[self.keys[0]]])}"


@dataclass(frozen=True)
class Mapping(FromFile):
    """A mapping file: its header, its nest, plan of phases or GPU kernel, and its table if it has one."""

    KIND: ClassVar[str] = "mapping"
    header: Header
    nest: tuple[Node, ...]
    data: MappingABC[str, Any] = field(compare=False, repr=False)
    table: Table | None = None
    file: str | None = None
    plan: PhasePlan | None = None
    kernel: GpuKernel | None = None

    @property
    def name(self) -> str:
        """The mapping's name."""
        return self.header.mapping

    @property
    def variables(self) -> dict[str, Expression]:
        """Definitions of its variables."""
        return self.header.variables

    @property
    def known_names(self) -> frozenset[str]:
        """Names that can be set from outside: variables and columns of the table."""
        return frozenset(self.variables) | frozenset(self.table.columns if self.table else ())

    @classmethod
    def parse(cls, source: str | MappingABC[str, Any], file: str | None = None) -> Mapping:
        """The mapping that YAML text or its data describes."""
        data = parse_yaml(source, file) if isinstance(source, str) else source
        try:
            bodies = [name for name in ("nest", "plan", "kernel") if name in data]
            if not bodies:
                raise SpecError(f"the field 'nest' is missing{nearest('nest', data)}")
            if len(bodies) > 1:
                raise SpecError("a mapping is a nest, a plan or a GPU kernel, found two of them", key=bodies[1])
            header = Header.model_validate({key: value for key, value in data.items() if key not in bodies})
            header = header.model_copy(update={key: beside(file, name) for key, name in header.others().items()})
            plan = parse_plan(data["plan"], "plan") if "plan" in data else None
            nest = parse_nest(data["nest"], "nest") if "nest" in data else ()
            kernel = _load_kernel(data["kernel"], file) if "kernel" in data else None
            table = None if header.rows is None else _read_table(header.rows, file)
        except ValidationError as error:
            raise pydantic_error(error, file, Header) from None
        except EinsightError as error:
            raise error.located(file=file) from None
        return cls(header, nest, data, table, file, plan, kernel)

    def save(self, path: str | Path) -> None:
        """Write the mapping as YAML (its table stays where it is); a partial file is never left behind."""
        write_data(path, self.data)


def _load_kernel(name: Any, file: str | None) -> GpuKernel:
    """The description of a GPU kernel: one of the library's, or a YAML file beside the mapping."""
    if not isinstance(name, str):
        raise SpecError(f"expected the name of a GPU kernel, found {name!r}", key="kernel")
    try:
        return GpuKernel.load(beside(file, name))
    except EinsightError as error:
        raise error if error.file else error.located(key="kernel") from None


def _read_table(rows: Rows, file: str | None) -> Table:
    """Read the table that lies beside the mapping file."""
    path = Path(rows.file) if file is None else Path(file).parent / rows.file
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    except (OSError, UnicodeDecodeError) as error:
        why = reason(error) if isinstance(error, OSError) else "not UTF-8 text"
        raise SpecError(f"the table '{rows.file}' cannot be read: {why}", key="rows.file") from None
    header, *body = csv.reader(lines)
    for key in rows.keys:
        if key not in header:
            raise SpecError(f"the table '{rows.file}' has no column '{key}'{nearest(key, header)}", key="rows.keys")
    for number, row in enumerate(body, start=1):
        if len(row) != len(header):
            raise SpecError(f"row {number} has {len(row)} values, expected {len(header)}", file=str(path))
    columns = {name: tuple(_value(row[place]) for row in body) for place, name in enumerate(header)}
    return Table(str(path), rows.keys, columns)


def _value(text: str) -> Any:
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number == int(number) else number
