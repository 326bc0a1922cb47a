"""Numbers of a description: an expression with the dimension and the range that its value must have.

A field's rule is declared once, in its annotation (`capacity: Size`). It serves when the file is read, where a plain
number must carry a unit of the right dimension, and when the expression is evaluated, where the value must be in range
at every design point.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from einsum.errors import SpecError, nearest
from einsum.evaluation import Constant
from einsum.expressions import Expression
from einsum.symbols import as_array
from einsum.units import format_quantity, parse_quantity

Number: TypeAlias = float | NDArray[np.float64]
"""A value at one design point, or an array with one value for each."""

_NUMBER_AND_UNIT = re.compile(r"\s*[\d.][\d_.]*(?:[eE][-+]?\d+)?\s*[A-Za-z%/]+\d?\s*")


@dataclass(frozen=True)
class Quantity:
    """What a number must be.

    dimension  a key of `einsum.units.UNITS`
    meaning    what it is, for messages, such as "a size"
    zero       0 is in range; a negative value never is
    whole      only whole numbers are in range
    bare       numbers that can be meant where no unit stands, and the unit that was forgotten otherwise
    """

    dimension: str
    meaning: str
    zero: bool = False
    whole: bool = False
    bare: tuple[float, float, str] = (0.0, inf, "")

    def parse(self, source: Any) -> Expression:
        """Read a number, text with a unit or an expression; SpecError when a plain number has the wrong unit."""
        try:
            expression = Expression.parse(source)
        except SpecError:
            if isinstance(source, str) and _NUMBER_AND_UNIT.fullmatch(source):
                parse_quantity(source, self.dimension)  # its refusal names the units there are
            raise
        if isinstance(expression.root, Constant):
            if isinstance(expression.root.value, bool | str):
                raise SpecError(f"expected {self.meaning}, found {expression.root.value!r}")
            value = parse_quantity(expression.text, self.dimension)
            least, most, unit = self.bare
            if unit and value > 0 and not least <= value <= most and not re.search("[A-DF-Za-df-z]", expression.text):
                si = format_quantity(1.0, self.dimension).split()[-1]
                raise SpecError(
                    f"{self.meaning} of {expression.text} without a unit: write '{expression.text} {unit}', "
                    f"or '{expression.text} {si}' if that is meant"
                )
        return expression

    def evaluate(self, expression: Expression, env: Mapping[str, Any], key: str) -> Number:
        """The value in SI units, a float or a float array; SpecError at `key` when a point is out of range."""
        try:
            unknown = sorted(expression.names - set(env))  # in branches that are not taken as well
            if unknown:
                raise SpecError(f"unknown variable '{unknown[0]}' in '{expression}'{nearest(unknown[0], env)}")
            value = as_array(expression.evaluate(env))
            if value.dtype.kind not in "iuf":
                raise SpecError(f"'{expression}' is {value.reshape(-1)[0].item()!r}, expected {self.meaning}")
            self._check_range(value, expression)
        except SpecError as error:
            raise error.located(key=key) from None
        return float(value) if value.ndim == 0 else value.astype(np.float64)

    def _check_range(self, value: NDArray[Any], expression: Expression) -> None:
        wrong = value < 0 if self.zero else value <= 0
        if self.whole:
            wrong = wrong | (value % 1 != 0)
        if not np.any(wrong):
            return
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        found = format_quantity(float(value[first]), self.dimension, digits=6)
        shown = found if isinstance(expression.root, Constant) else f"'{expression}' is {found}"
        point = f" at design point {', '.join(map(str, first))}" if first else ""
        least = "above 0" if not self.zero else "of at least 0"
        raise SpecError(f"{shown}{point}, expected {self.meaning} {least}")

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            self.parse, serialization=core_schema.plain_serializer_function_ser_schema(Expression.plain)
        )


SIZE = Quantity("bytes", "a size")
BANDWIDTH = Quantity("bytes_per_s", "a bandwidth", bare=(1e4, inf, "GB/s"))
FREQUENCY = Quantity("hz", "a clock frequency", bare=(1e4, inf, "MHz"))
DURATION = Quantity("s", "a time", zero=True)
ENERGY = Quantity("j", "an energy", zero=True, bare=(0.0, 1e-3, "pJ"))
AREA = Quantity("m2", "an area", zero=True)
COUNT = Quantity("count", "a whole number", whole=True)
CYCLES = Quantity("count", "a number of cycles", zero=True)
POSITIVE = Quantity("count", "a number")

Size = Annotated[Expression, SIZE]
Bandwidth = Annotated[Expression, BANDWIDTH]
Frequency = Annotated[Expression, FREQUENCY]
Duration = Annotated[Expression, DURATION]
Energy = Annotated[Expression, ENERGY]
Area = Annotated[Expression, AREA]
Count = Annotated[Expression, COUNT]
Cycles = Annotated[Expression, CYCLES]
Positive = Annotated[Expression, POSITIVE]
