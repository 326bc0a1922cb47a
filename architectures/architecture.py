"""Architectures as YAML describes them: memories, arrays of processing elements, what their actions cost.

Every number is an expression of the architecture's variables, so that one description stands for a family of designs:
`architecture.evaluate({"W": np.array([128, 256])})` gives the numbers of two of them at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from architectures.evaluated import (
    UNIT_NAMES,
    Device,
    EvaluatedArchitecture,
    EvaluatedMemory,
    EvaluatedSelector,
    EvaluatedUnit,
)
from architectures.flash import Flash
from architectures.links import Link, Route
from architectures.parts import Env, Instruction, Memory, Selector, Unit, located, optional
from architectures.quantity import AREA, COUNT, FREQUENCY, Area, Count, Frequency, Number
from einsum.description import Description
from einsum.errors import EinsightError, SpecError, nearest
from einsum.expressions import Expression, resolve
from einsum.specfile import beside, find_spec, load_yaml, parse_yaml

MOST_ANCESTORS = 8
"""Descriptions that may build on one another; more are taken for a circle."""


class Architecture(Description):
    """A machine: memories from the outermost inwards, and the units that compute on what they hold."""

    name: str = Field(alias="architecture", min_length=1)
    """Its name."""
    description: str = ""
    """What it is, in a sentence."""
    source: str = ""
    """Where its numbers come from."""
    variables: dict[str, Expression] = Field(default_factory=dict)
    """Names with default values, for use in every expression here; each can be set from outside."""
    clock: Frequency
    """The clock of every unit that has none of its own."""
    word_bits: Count
    """Bits of one word of a tensor, where the tensor does not say."""
    memories: dict[str, Memory] = Field(min_length=1)
    """Memories, outermost first; the first is the backing store that holds every tensor."""
    units: dict[str, Unit] = Field(default_factory=dict)
    """Compute units."""
    instructions: dict[str, Instruction] = Field(default_factory=dict)
    """GPUs: what an operation of an Einsum, or a part of a loop, takes of the threads that run it, by kind."""
    selectors: dict[str, Selector] = Field(default_factory=dict)
    """Top-k engines."""
    flash: dict[str, Flash] = Field(default_factory=dict)
    """Flash drives."""
    links: dict[str, Link] = Field(default_factory=dict)
    """Links between parts."""
    paths: dict[str, Route] = Field(default_factory=dict)
    """Ways over links and memories."""
    mapping: str | None = None
    """The mapping that runs on it unless another one is named."""
    area: Area | None = None
    """Silicon area of the whole; the sum over its parts when omitted, if each of them gives its own."""
    KIND: ClassVar[str] = "architecture"

    @classmethod
    def parse(cls, source: str | Mapping[str, Any], file: str | None = None) -> Self:
        """The architecture in YAML text or its data; with `like: NAME` it is that one, except for what it says itself.

        `NAME` is an architecture of the library, or a file whose path starts in the folder of this one. Variables and
        parts are replaced one by one, by name.
        """
        return super().parse(_completed(parse_yaml(source, file) if isinstance(source, str) else source, file), file)

    def check(self) -> None:
        """SpecError for a value that is out of range with the default values of the variables."""
        self.evaluate({})

    def evaluate(self, env: Env) -> EvaluatedArchitecture:
        """All numbers, with the variables that `env` sets in place of their defaults; arrays evaluate elementwise.

        Names in `env` that are not variables of this architecture are ignored. SpecError names the file and the key
        of a value that is out of range, and the first design point where it is.
        """
        try:
            with located("variables"):
                values = resolve(self.variables, {name: env[name] for name in self.variables if name in env})
            clock_hz = FREQUENCY.evaluate(self.clock, values, "clock")
            word_bits = COUNT.evaluate(self.word_bits, values, "word_bits")
            memories, units = {}, {}
            for name, memory in self.memories.items():
                with located("memories", name):
                    memories[name] = memory.evaluate(name, values, word_bits)
            for name, unit in self.units.items():
                with located("units", name):
                    units[name] = unit.evaluate(name, values, clock_hz, word_bits)
            instructions = {}
            for name, instruction in self.instructions.items():
                with located("instructions", name):
                    instructions[name] = instruction.evaluate(values)
            selectors = {}
            for name, selector in self.selectors.items():
                with located("selectors", name):
                    selectors[name] = selector.evaluate(name, values, clock_hz)
            devices: dict[str, Device] = {}
            for section, found in (("flash", self.flash), ("links", self.links)):
                for name, device in found.items():
                    with located(section, name):
                        devices[name] = device.evaluate(name, values)
            parts: tuple[EvaluatedMemory | EvaluatedUnit | EvaluatedSelector, ...]
            parts = (*memories.values(), *units.values(), *selectors.values())
            whole = None if devices else _total_area(parts)
            area_m2 = optional(AREA, self.area, values, "area") if self.area else whole
        except EinsightError as error:
            raise error.located(file=self._file) from None
        return EvaluatedArchitecture(
            self.name,
            values,
            clock_hz,
            word_bits,
            memories,
            units,
            area_m2,
            self._file,
            selectors,
            devices,
            {name: tuple(route.over) for name, route in self.paths.items()},
            instructions,
        )

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        """Every name can be written in an expression and stands for one thing."""
        for section in ("variables", "memories", "units", "selectors", "flash", "links", "paths"):
            for name in getattr(self, section):
                _check_identifier(name, section)
        self._check_system()
        for name, unit in self.units.items():
            if name in self.memories:
                raise SpecError(f"the name '{name}' is taken by a memory", key=f"units.{name}")
            if name in self.selectors:
                raise SpecError(f"the name '{name}' is taken by a unit", key=f"selectors.{name}")
            for dim in unit.dims:
                _check_identifier(dim, f"units.{name}.dims")
                if dim in UNIT_NAMES:
                    raise SpecError(f"a spatial dimension cannot be called '{dim}'", key=f"units.{name}.dims")
            for kind in unit.ops:
                _check_identifier(kind, f"units.{name}.ops")
        for name in self.selectors.keys() & self.memories.keys():
            raise SpecError(f"the name '{name}' is taken by a memory", key=f"selectors.{name}")
        return self

    def _check_system(self) -> None:
        """Drives, links and paths have names of their own, and paths lead over parts that there are."""
        taken = {*self.memories, *self.units, *self.selectors}
        for section in ("flash", "links", "paths"):
            for name in getattr(self, section):
                if name in taken:
                    raise SpecError(f"the name '{name}' is taken by another part", key=f"{section}.{name}")
                taken.add(name)
        passed = {*self.memories, *self.links}
        for name, route in self.paths.items():
            for place, hop in enumerate(route.over):
                if hop in route.over[:place]:
                    raise SpecError(f"the path passes '{hop}' twice", key=f"paths.{name}.over[{place}]")
                if hop not in passed:
                    message = f"'{hop}' is neither a link nor a memory{nearest(hop, passed)}"
                    raise SpecError(message, key=f"paths.{name}.over")


def _completed(data: Mapping[str, Any], file: str | None, ancestors: int = 0) -> Mapping[str, Any]:
    """The description with everything that it takes over from the one that it is like."""
    if "like" not in data:
        return data
    name = data["like"]
    if not isinstance(name, str):
        raise SpecError(f"expected the name of an architecture, found {name!r:.60}", file=file, key="like")
    if ancestors == MOST_ANCESTORS:
        raise SpecError(f"more than {MOST_ANCESTORS} architectures build on one another", file=file, key="like")
    try:
        path = find_spec("architecture", beside(file, name))
    except SpecError as error:
        raise error.located(file=file, key="like") from None
    merged = dict(_completed(load_yaml(path), str(path), ancestors + 1))
    for key, value in data.items():
        if key != "like":
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = {**merged[key], **value} if both else value
    return merged


def _total_area(parts: Iterable[EvaluatedMemory | EvaluatedUnit | EvaluatedSelector]) -> Number | None:
    total: Number = 0.0
    for part in parts:
        if part.area_m2 is None:
            return None
        copies = 1.0 if isinstance(part, EvaluatedSelector) else part.copies
        total = total + part.area_m2 * copies
    return total


def _check_identifier(name: str, key: str) -> None:
    if not name.isidentifier() or not name.isascii():
        raise SpecError(f"the name '{name}' is not made of letters, digits and '_'", key=key)
    try:
        usable = Expression.parse(name).names == {name}
    except SpecError:
        usable = False
    if not usable:
        raise SpecError(f"the name '{name}' has a meaning of its own in expressions", key=key)
