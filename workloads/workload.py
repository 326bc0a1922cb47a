"""Workloads as YAML describes them: the sizes of a model's layer, and the matrix products around its attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from einsum.description import Description
from einsum.errors import EinsightError, SpecError
from einsum.expressions import Expression, resolve
from workloads.pruning import PruningSchedule
from workloads.traces import HeadTrace

Size: TypeAlias = int | NDArray[np.float64]
"""A size: an exact integer at one design point, or an array with one value for each."""


@dataclass(frozen=True)
class LinearSize:
    """The sizes of one matrix product."""

    name: str
    rows: Size
    inner: Size
    columns: Size


class LinearLayer(BaseModel):
    """One matrix product of a layer: (rows x inner) times (inner x columns)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(min_length=1)
    """Its name, such as FFN1."""
    rows: Expression
    """Rows of the left matrix and of the result: all tokens of the batch."""
    inner: Expression
    """Columns of the left matrix and rows of the weights."""
    columns: Expression
    """Columns of the weights and of the result."""

    def sizes(self, values: Mapping[str, Any], key: str) -> LinearSize:
        """The sizes with the variables' `values`; errors name the field under `key`."""
        return LinearSize(
            name=self.name,
            rows=_evaluate(self.rows, values, f"{key}.rows"),
            inner=_evaluate(self.inner, values, f"{key}.inner"),
            columns=_evaluate(self.columns, values, f"{key}.columns"),
        )


class Workload(Description):
    """A model at a size: the extents of one attention layer, and what else the layer computes."""

    name: str = Field(alias="workload", min_length=1)
    """Its name."""
    description: str = ""
    """What it is, in a sentence."""
    source: str = ""
    """Where its numbers come from."""
    layers: int | None = Field(default=None, ge=1)
    """Layers of the whole model; everything else describes one of them."""
    variables: dict[str, Expression]
    """Sizes by name, whole numbers of at least 1, with their defaults; each can be set from outside."""
    properties: dict[str, Expression] = Field(default_factory=dict)
    """Numbers of the model and of its data that are no sizes, such as how close together the tokens lie that it attends
    to. They replace what a plan or its cascade takes by default; each can be set from outside."""
    linear_layers: tuple[LinearLayer, ...] = ()
    """The matrix products of one layer outside its attention."""
    pruning: PruningSchedule | None = None
    """What a run keeps of its tokens and heads, where it prunes them."""
    KIND: ClassVar[str] = "workload"

    def check(self) -> None:
        """SpecError for a size that is wrong with the default values of the variables."""
        self.linear_sizes({})
        self.property_values({})

    @property
    def known_names(self) -> frozenset[str]:
        """The variables and properties that can be set from outside."""
        return super().known_names | self.properties.keys()

    def resolve(self, overrides: Mapping[str, Any]) -> dict[str, Size]:
        """The sizes of all variables, with `overrides` (numbers or arrays) in place of their defaults.

        Names in `overrides` that are not variables of this workload are ignored. SpecError names the key of a size that
        is not a whole number of at least 1, and the first design point where it is not: with the file one of its own,
        as `set.NAME` one of `overrides`.
        """
        given = {name: overrides[name] for name in self.variables if name in overrides}
        try:
            for name, value in given.items():
                _size(value, name)
        except EinsightError as error:
            raise error.located(key="set") from None
        try:
            values = resolve(self.variables, given)
            return {name: _size(values[name], name) for name in self.variables}
        except EinsightError as error:
            raise error.located(file=self._file, key="variables") from None

    def property_values(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The properties, with `overrides` in place of their defaults and of those of the variables.

        SpecError names the file and the key of one that is no finite number.
        """
        given = {name: overrides[name] for name in self.properties if name in overrides}
        try:
            values = resolve(self.properties, {**self.resolve(overrides), **given})
            for name in self.properties:
                value = np.asarray(values[name])
                if value.dtype.kind not in "iuf" or not np.isfinite(value).all():
                    raise SpecError(f"expected a number, found {values[name]!r}", key=name)
        except EinsightError as error:
            raise error.located(file=self._file, key=None if error.file else "properties") from None
        return {name: values[name] for name in self.properties}

    def linear_sizes(self, overrides: Mapping[str, Any]) -> tuple[LinearSize, ...]:
        """The sizes of the linear layers, with `overrides` in place of the variables' defaults."""
        values = self.resolve(overrides)
        try:
            return tuple(layer.sizes(values, f"linear_layers[{i}]") for i, layer in enumerate(self.linear_layers))
        except EinsightError as error:
            raise error.located(file=self._file) from None

    def head_trace(self, overrides: Mapping[str, Any]) -> HeadTrace:
        """The trace of a run by the pruning schedule, with `overrides` (one design point) in place of the defaults."""
        if self.pruning is None or self.layers is None:
            missing = "layers" if self.layers is None else "pruning"
            raise SpecError(f"the workload '{self.name}' has no '{missing}', so it gives no trace", file=self._file)
        try:
            return self.pruning.trace(self.layers, self.resolve(overrides), f"the schedule of '{self.name}'")
        except EinsightError as error:
            raise error.located(file=self._file) from None

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        twice = self.properties.keys() & self.variables.keys()
        if twice:
            raise SpecError(f"'{min(twice)}' is a variable already", key=f"properties.{min(twice)}")
        names = [layer.name for layer in self.linear_layers]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise SpecError(f"the name '{name}' occurs twice", key=f"linear_layers[{index}].name")
        return self


def _evaluate(expression: Expression, values: Mapping[str, Any], key: str) -> Size:
    try:
        value = expression.evaluate(values)
    except SpecError as error:
        raise error.located(key=key) from None
    return _size(value, key)


def _size(value: Any, key: str) -> Size:
    """A value that must be a whole number of at least 1 at every design point."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        wrong = ~((value >= 1) & (value % 1 == 0))
        if not wrong.any():
            return value.astype(np.float64)
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        found = f"{value[first]:g} at design point {', '.join(map(str, first))}"
    elif isinstance(value, int | float) and not isinstance(value, bool) and value >= 1 and value % 1 == 0:
        return int(value)
    else:
        found = repr(value)
    raise SpecError(f"expected a whole number of at least 1, found {found}", key=key)
