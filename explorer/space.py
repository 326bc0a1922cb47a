"""The space of a sweep: axes of values, their product, and points by number or by place in the unit cube."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from einsum.errors import SpecError
from explorer.part import Part
from explorer.points import Cells
from explorer.settings import Setting, parse_setting

Inputs = dict[str, Cells]
"""Name of an input -> its value at every point, (points,)."""

MAX_VALUES = 10_000_000
"""Values of one axis that are written out at most."""


class Range(Part):
    """Numbers from one end to the other, both included where the steps meet the end.

    Between whole ends all values are whole numbers.
    """

    start: Setting = Field(alias="from")
    """The first value."""
    stop: Setting = Field(alias="to")
    """The last value, or what no value exceeds."""
    scale: Literal["linear", "log2"] = "linear"
    """linear: equal differences; log2: equal factors."""
    step: Setting | None = None
    """The difference between neighbours, or on a log2 scale the factor. Default: 1, or 2 on a log2 scale."""
    count: int | None = Field(default=None, ge=2)
    """Number of values, in place of a step."""
    continuous: bool = False
    """Every value between the ends, for samplers that draw points; the full grid has no use for it."""

    def axis(self, name: str, key: str) -> Axis:
        """The axis of a variable. SpecError, located at `key`, for ends or steps that give no values."""
        low, high = (_number(end, f"{key}.{side}") for end, side in ((self.start, "from"), (self.stop, "to")))
        if high < low:
            raise SpecError(f"the range is empty: it goes from {low:g} to {high:g}", key=key)
        if self.scale == "log2" and low <= 0:
            raise SpecError(f"a log2 scale needs a positive start, found {low:g}", key=f"{key}.from")
        whole = low % 1 == 0 and high % 1 == 0
        if self.continuous:
            if self.step is not None or self.count is not None:
                raise SpecError("a continuous range has no step and no count", key=key)
            return Axis({}, Interval(name, low, high, self.scale == "log2", whole))
        if self.step is not None and self.count is not None:
            raise SpecError("give a step or a count, not both", key=key)
        values = self._values(low, high, whole, key)
        return Axis({name: np.unique(np.rint(values).astype(np.int64)) if whole else values})

    def _values(self, low: float, high: float, whole: bool, key: str) -> NDArray[np.float64]:
        if self.count is not None:
            if self.count > MAX_VALUES:
                raise SpecError(f"the range has more than {MAX_VALUES:,} values", key=key)
            spaced = np.geomspace if self.scale == "log2" else np.linspace
            return np.asarray(spaced(low, high, self.count), dtype=np.float64)
        if self.step is None and not whole and self.scale == "linear":
            raise SpecError("a range of fractions needs a step or a count", key=key)
        step = _number(self.step, f"{key}.step") if self.step is not None else 2.0 if self.scale == "log2" else 1.0
        smallest = 1.0 if self.scale == "log2" else 0.0
        if step <= smallest:
            raise SpecError(f"expected a step above {smallest:g}, found {step:g}", key=f"{key}.step")
        # A last value that rounding puts a hair beyond the end still counts.
        steps = math.log(high / low) / math.log(step) if self.scale == "log2" else (high - low) / step
        if steps > MAX_VALUES:
            raise SpecError(f"the range has more than {MAX_VALUES:,} values", key=key)
        numbers = np.arange(math.floor(steps + 1e-9) + 1)
        values = low * step**numbers if self.scale == "log2" else low + step * numbers
        return np.asarray(np.minimum(values, high))


def _number(value: Setting, key: str) -> float:
    number = parse_setting(value, key)
    if isinstance(number, bool | str):
        raise SpecError(f"expected a number, found {value!r}", key=key)
    return float(number)


@dataclass(frozen=True)
class Interval:
    """All numbers (or all whole numbers) between two ends, even on a linear or a logarithmic scale."""

    name: str
    low: float
    high: float
    log: bool
    whole: bool

    def at(self, unit: NDArray[np.float64]) -> Cells:
        """The values at places 0 to 1 between the ends."""
        # Whole numbers get equal shares of the unit interval, the two at the ends included.
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        values = low * (high / low) ** unit if self.log else low + (high - low) * unit
        if self.whole:
            return np.minimum(np.floor(values), self.high).astype(np.int64)
        return np.clip(values, self.low, self.high)


@dataclass(frozen=True)
class Axis:
    """Values of one input, or of several that change together; or else an interval of one input."""

    columns: Mapping[str, Cells]
    interval: Interval | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs along this axis."""
        return (self.interval.name,) if self.interval else tuple(self.columns)

    @property
    def size(self) -> int:
        """Number of values; 0 for an interval, which cannot be enumerated."""
        return 0 if self.interval else len(next(iter(self.columns.values())))

    def at(self, unit: NDArray[np.float64]) -> Inputs:
        """The values at places 0 to 1 along the axis."""
        if self.interval:
            return {self.interval.name: self.interval.at(unit)}
        places = np.minimum((unit * self.size).astype(np.int64), self.size - 1)
        return {name: values[places] for name, values in self.columns.items()}


def list_axis(columns: Mapping[str, Sequence[Setting]], key: str) -> Axis:
    """The axis of listed values; several inputs change together. SpecError for empty, unequal or repeated lists."""
    lengths = {name: len(values) for name, values in columns.items()}
    if 0 in lengths.values():
        raise SpecError("the list is empty, so there is nothing to sweep", key=key)
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise SpecError(f"lists that change together need the same length: {shown}", key=key)
    cells = {name: as_cells([parse_setting(v, key) for v in values], key) for name, values in columns.items()}
    rows = list(zip(*(values.tolist() for values in cells.values()), strict=True))
    twice = next((row for place, row in enumerate(rows) if row in rows[:place]), None) if len(rows) < 5000 else None
    if twice is not None or len(set(rows)) < len(rows):
        shown = "" if twice is None else f" {', '.join(map(str, twice))}"
        raise SpecError(f"the value{shown} is listed twice", key=key)
    return Axis(cells)


def as_cells(values: Sequence[Setting], key: str) -> Cells:
    """Values as an array of whole numbers, numbers, truth values or names; SpecError for a mixture."""
    kinds = {"text" if isinstance(v, str) else "truth" if isinstance(v, bool) else "number" for v in values}
    if len(kinds) > 1:
        raise SpecError(f"the values are of different kinds: {', '.join(map(repr, values[:6]))}", key=key)
    if kinds == {"number"} and all(float(value) % 1 == 0 and abs(float(value)) < 2**53 for value in values):
        return np.array([int(value) for value in values], dtype=np.int64)
    return np.array(values)


@dataclass(frozen=True)
class Space:
    """The product of axes. Point 0 has the first value of each; the last axis changes fastest."""

    axes: tuple[Axis, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All inputs that vary."""
        return tuple(name for axis in self.axes for name in axis.names)

    @property
    def size(self) -> int:
        """Number of points of the full grid; 0 when an axis is an interval."""
        return math.prod(axis.size for axis in self.axes)

    def grid(self, numbers: NDArray[np.int64]) -> Inputs:
        """The inputs of the grid's points with these numbers."""
        inputs: Inputs = {}
        rest = numbers
        for axis in reversed(self.axes):
            rest, place = np.divmod(rest, axis.size)
            inputs |= {name: values[place] for name, values in axis.columns.items()}
        return {name: inputs[name] for name in self.names}

    def cube(self, unit: NDArray[np.float64]) -> Inputs:
        """The inputs at places of the unit cube, (points, axes)."""
        inputs: Inputs = {}
        for number, axis in enumerate(self.axes):
            inputs |= axis.at(unit[:, number])
        return inputs


def take(inputs: Mapping[str, Any], rows: Any) -> Inputs:
    """Some rows of inputs."""
    return {name: values[rows] for name, values in inputs.items()}
