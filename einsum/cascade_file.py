"""The YAML form of a cascade: its schema, reading and writing. `Cascade` is what it means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from einsum.body import Body, Literal
from einsum.cascade import Cascade, Partition, Rank, Tensor
from einsum.conditions import Condition
from einsum.dependences import flatten, schedule
from einsum.einsum import Einsum
from einsum.errors import SpecError, nearest
from einsum.expressions import Expression
from einsum.files import whole_file
from einsum.parser import output_name, parse_body, parse_einsum, parse_where
from einsum.specfile import SpecFile, find_spec, parse_yaml, pydantic_error
from einsum.validation import check_cascade

_STRICT = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


class PartitionFile(BaseModel):
    """A rank cut into chunks."""

    model_config = _STRICT

    outer: str = Field(description="Rank that counts the chunks.")
    inner: str = Field(description="Rank inside a chunk.")
    size: Expression = Field(description="Coordinates per chunk; the last chunk may have fewer.")
    count: str | None = Field(default=None, description="Name for the number of chunks; upper-case `outer` if absent.")


class CascadeFile(BaseModel):
    """A cascade of extended Einsums."""

    model_config = _STRICT

    cascade: str = Field(min_length=1, description="Name of the cascade.")
    description: str = Field(default="", description="What it computes, in a sentence.")
    source: str = Field(default="", description="Where the algorithm is published.")
    variables: dict[str, Expression] = Field(default={}, description="Names with default values; users override them.")
    ranks: dict[str, Expression] = Field(min_length=1, description="Rank -> extent, a name or an expression.")
    partition: dict[str, PartitionFile] = Field(default={}, description="Rank -> how it is cut into chunks.")
    iterative: list[str] = Field(default=[], description="Ranks along which values depend on earlier coordinates.")
    inputs: dict[str, list[str]] = Field(min_length=1, description="Tensor -> its ranks.")
    outputs: list[str] = Field(min_length=1, description="Tensors that are the result.")
    einsums: list[str] = Field(min_length=1, description="The Einsums, in any order.")
    initial: dict[str, str | int | float] = Field(default={}, description="Iterative tensor -> value at the start.")
    where: str | list[str] = Field(default=[], description="Conditions; each restricts the Einsums over its ranks.")
    bits: dict[str, Expression] = Field(default={}, description="Tensor -> word size in bits, where it is fixed.")


def load_cascade(name_or_path: str | Path) -> Cascade:
    """See `Cascade.load`."""
    spec = SpecFile.load(find_spec("cascade", name_or_path))
    try:
        return parse_cascade(spec.data)
    except SpecError as error:
        raise spec.located(error) from None


def parse_cascade(source: str | Mapping[str, Any]) -> Cascade:
    """See `Cascade.parse`."""
    data = parse_yaml(source) if isinstance(source, str) else dict(source)
    try:
        file = CascadeFile.model_validate(data)
    except ValidationError as error:
        raise pydantic_error(error, model=CascadeFile) from None
    return _build(file)


def _build(file: CascadeFile) -> Cascade:
    ranks, partitions = _ranks(file)
    einsums = _einsums(file, ranks.keys())
    names = {einsum.name for einsum in einsums}
    tensors = {}
    for name, dimensions in file.inputs.items():
        if name in names:
            raise SpecError(f"the input '{name}' is also produced by an Einsum", key=f"inputs.{name}")
        tensors[name] = Tensor(name, _known_ranks(dimensions, ranks, f"inputs.{name}"), "input", file.bits.get(name))
    cascade = Cascade(
        file.cascade, file.description, file.source, dict(file.variables), ranks, partitions, tensors, tuple(einsums),
        _where(file, ranks.keys()),
    )  # fmt: skip
    for einsum in einsums:
        kind = "output" if einsum.name in file.outputs else "intermediate"
        tensors[einsum.name] = Tensor(einsum.name, _dimensions(cascade, einsum), kind, file.bits.get(einsum.name))
    for name in file.outputs:
        if name not in names:
            raise SpecError(f"no Einsum produces the output '{name}'{nearest(name, names)}", key="outputs")
    for field, entries in (("initial", file.initial), ("bits", file.bits)):
        unknown = next((name for name in entries if name not in tensors), None)
        if unknown:
            raise SpecError(f"unknown tensor '{unknown}'{nearest(unknown, tensors)}", key=field)
    check_cascade(cascade)
    order = flatten(schedule(cascade.einsums, cascade.iterative))
    return replace(cascade, statements=tuple(einsums[position] for position in order))


def _ranks(file: CascadeFile) -> tuple[dict[str, Rank], dict[str, Partition]]:
    extents = dict(file.ranks)
    partitions: dict[str, Partition] = {}
    for rank, parts in file.partition.items():
        key = f"partition.{rank}"
        if rank not in extents:
            raise SpecError(f"unknown rank '{rank}'{nearest(rank, extents)}", key=key)
        for part in (parts.outer, parts.inner):
            if part in extents:
                raise SpecError(f"the rank '{part}' is declared twice", key=key)
        count = parts.count or parts.outer.upper()
        if count in (parts.outer, parts.inner) or count in extents or count in file.variables:
            raise SpecError(f"the number of chunks needs a name of its own, '{count}' is taken (set 'count')", key=key)
        partitions[rank] = Partition(rank, parts.outer, parts.inner, parts.size, count)
        extents[parts.outer] = Expression.parse(count)
        extents[parts.inner] = parts.size
    for name in file.iterative:
        if name not in extents:
            raise SpecError(f"unknown rank '{name}'{nearest(name, extents)}", key="iterative")
    named = {name for extent in extents.values() for name in extent.names} | set(file.variables)
    for rank in extents:
        if not rank.isidentifier():
            raise SpecError(f"'{rank}' is not a name of letters and digits", key="ranks")
        if rank in named:
            raise SpecError(f"'{rank}' names a rank and a size; give the size another name", key=f"ranks.{rank}")
    return {name: Rank(name, extent, name in file.iterative) for name, extent in extents.items()}, partitions


def _einsums(file: CascadeFile, ranks: Set[str]) -> list[Einsum]:
    outputs: list[str] = []
    for position, text in enumerate(file.einsums):
        with _place(f"einsums[{position}]"):
            name = output_name(text)
        if name in outputs:
            raise SpecError(f"'{name}' is produced twice", key=f"einsums[{position}]")
        outputs.append(name)
    tensors = {*outputs, *file.inputs}
    einsums = []
    for position, text in enumerate(file.einsums):
        with _place(f"einsums[{position}]"):
            einsum = parse_einsum(text, ranks, tensors)
        if einsum.name in file.initial:
            with _place(f"initial.{einsum.name}"):
                einsum = replace(einsum, initial=_initial(file.initial[einsum.name], ranks, tensors))
        einsums.append(einsum)
    return einsums


def _initial(value: str | int | float, ranks: Set[str], tensors: Set[str]) -> Body:
    return parse_body(str(value).replace(".inf", "inf"), ranks, tensors)


class _place:
    """Add a key path to the errors that a block raises."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SpecError):
            raise error.located(key=self.key) from None


def _known_ranks(names: Iterable[str], ranks: Mapping[str, Rank], key: str) -> tuple[str, ...]:
    for name in names:
        if name not in ranks:
            raise SpecError(f"unknown rank '{name}'{nearest(name, ranks)}", key=key)
    return tuple(names)


def _dimensions(cascade: Cascade, einsum: Einsum) -> tuple[str, ...]:
    """The rank of each dimension of an Einsum's output: `RM[m1+1,p]` -> (m1, p), `S[m1*M0+m0]` -> (m,)."""
    found = []
    for index in einsum.output.indices:
        step = index.step
        whole = next((rank for rank in cascade.partitions if index == cascade.coordinate(rank)), None)
        rank = step[0] if step else whole
        if rank is None:
            at = f"einsums[{cascade.statements.index(einsum)}]"
            unknown = sorted(index.variables - set(cascade.definitions) - set(cascade.parameters))
            if unknown:
                hint = nearest(unknown[0], cascade.ranks)
                raise SpecError(f"unknown rank '{unknown[0]}' in '{einsum.output}'{hint}", key=at)
            raise SpecError(f"the output '{einsum.output}' is indexed by '{index}', expected a rank", key=at)
        found.append(rank)
    return tuple(found)


def _where(file: CascadeFile, ranks: Set[str]) -> tuple[Condition, ...]:
    return parse_where_entries([file.where] if isinstance(file.where, str) else file.where, ranks)


def parse_where_entries(entries: Iterable[str], ranks: Set[str]) -> tuple[Condition, ...]:
    """Parse conditions given as separate texts; errors carry the key `where[i]`."""
    conditions: list[Condition] = []
    for position, entry in enumerate(entries):
        with _place(f"where[{position}]"):
            if not isinstance(entry, str):
                raise SpecError(f"expected a condition such as 'm <= p', found {entry!r}")
            conditions += parse_where(entry, ranks)
    return tuple(conditions)


def cascade_data(cascade: Cascade) -> dict[str, Any]:
    """The mapping that `Cascade.parse` turns back into an equal cascade."""
    parts = {part for p in cascade.partitions.values() for part in (p.outer, p.inner)}
    data: dict[str, Any] = {
        "cascade": cascade.name,
        "description": cascade.description,
        "source": cascade.source,
        "variables": {name: value.plain() for name, value in cascade.variables.items()},
        "ranks": {rank.name: rank.extent.plain() for rank in cascade.ranks.values() if rank.name not in parts},
        "partition": {
            p.rank: {"outer": p.outer, "inner": p.inner, "size": p.size.plain(), "count": p.count}
            for p in cascade.partitions.values()
        },
        "iterative": sorted(cascade.iterative),
        "inputs": {tensor.name: list(tensor.ranks) for tensor in cascade.inputs},
        "outputs": [tensor.name for tensor in cascade.outputs],
        "einsums": [str(einsum) for einsum in cascade.statements],
        "initial": {e.name: _initial_data(e.initial) for e in cascade.statements if e.initial is not None},
        "where": [str(condition) for condition in cascade.where],
        "bits": {tensor.name: tensor.bits.plain() for tensor in cascade.tensors.values() if tensor.bits is not None},
    }
    return {key: value for key, value in data.items() if value}


def _initial_data(initial: Body) -> str | float:
    finite = isinstance(initial, Literal) and math.isfinite(initial.value)
    return initial.value if finite and isinstance(initial, Literal) else str(initial)


def save_cascade(cascade: Cascade, path: str | Path) -> None:
    """See `Cascade.save`."""
    data = cascade_data(cascade)
    text = ""
    for key, value in data.items():
        # Einsums and conditions stand one to a line, other collections within one
        style = False if key in ("einsums", "where") or isinstance(value, str) else None
        entry = {key: value}
        text += yaml.safe_dump(entry, sort_keys=False, default_flow_style=style, width=10_000, allow_unicode=True)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
