"""The inner loop of point programs: a list of operations, carried out for a block of design points at a time.

Each register holds one number for every point of a block. A block is small enough for the registers to stay in the
processor's caches, and long enough for the choice of each operation to cost nothing; the loops over it are vectorised.
Every operation gives the value that NumPy's function of that name gives, bit for bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.compiling import compiled

BLOCK = 128
"""Points of a block: 1 KiB a register."""

OPERATIONS = (
    "add", "subtract", "multiply", "divide", "minimum", "maximum", "where", "less", "less_equal", "equal", "not_equal",
    "logical_and", "logical_or", "logical_not", "negative", "absolute", "ceil", "floor", "rint", "sqrt", "log2",
    "isfinite", "float", "floor_divide", "remainder", "power", "largest_divisor", "input", "output", "true", "false",
)  # fmt: skip
"""What a program may do. `true` and `false` mark points at which a register is not what it has to be."""
CODE = {name: number for number, name in enumerate(OPERATIONS)}

(
    ADD, SUBTRACT, MULTIPLY, DIVIDE, MINIMUM, MAXIMUM, WHERE, LESS, LESS_EQUAL, EQUAL, NOT_EQUAL, AND, OR, NOT,
    NEGATIVE, ABSOLUTE, CEIL, FLOOR, RINT, SQRT, LOG2, ISFINITE, FLOAT, FLOOR_DIVIDE, REMAINDER, POWER,
    LARGEST_DIVISOR, INPUT, OUTPUT, TRUE, FALSE,
) = range(len(OPERATIONS))  # fmt: skip

Floats = NDArray[np.float64]


def run(code: NDArray[np.int32], registers: Floats, inputs: Floats, outputs: Floats, holds: NDArray[np.bool_]) -> None:
    """Carry out a program at every point.

    code       (operations, 5): number of the operation, register of its result, registers of its operands
    registers  (registers, BLOCK): constants in place
    inputs     (inputs, points)
    outputs    (outputs, points), written
    holds      (points,), written: whether the program holds at a point
    """
    _run(code, registers, inputs, outputs, holds)


@compiled
def _run(code: Any, registers: Any, inputs: Any, outputs: Any, holds: Any) -> None:
    for start in range(0, holds.size, BLOCK):
        size = min(BLOCK, holds.size - start)
        holds[start : start + size] = True
        for line in range(code.shape[0]):
            operation = code[line, 0]
            # Views of the registers, in the loop itself: elsewhere their references would be counted.
            r, a, b = registers[code[line, 1]], registers[code[line, 2]], registers[code[line, 3]]
            if operation == ADD:
                for i in range(BLOCK):
                    r[i] = a[i] + b[i]
            elif operation == MULTIPLY:
                for i in range(BLOCK):
                    r[i] = a[i] * b[i]
            elif operation == SUBTRACT:
                for i in range(BLOCK):
                    r[i] = a[i] - b[i]
            elif operation == DIVIDE:
                for i in range(BLOCK):
                    r[i] = a[i] / b[i]
            elif operation == MAXIMUM:
                for i in range(BLOCK):
                    r[i] = a[i] if a[i] >= b[i] or a[i] != a[i] else b[i]
            elif operation == MINIMUM:
                for i in range(BLOCK):
                    r[i] = a[i] if a[i] <= b[i] or a[i] != a[i] else b[i]
            elif operation == WHERE:
                c = registers[code[line, 4]]
                for i in range(BLOCK):
                    r[i] = b[i] if a[i] != 0 else c[i]
            elif operation == INPUT:
                for i in range(size):
                    r[i] = inputs[code[line, 2], start + i]
            elif operation == OUTPUT:
                for i in range(size):
                    outputs[code[line, 1], start + i] = a[i]
            elif operation == TRUE:
                for i in range(size):
                    holds[start + i] &= a[i] != 0
            elif operation == FALSE:
                for i in range(size):
                    holds[start + i] &= a[i] == 0
            else:
                _seldom(operation, registers, code[line, 1], code[line, 2], code[line, 3])


@compiled
def _seldom(operation: int, registers: Any, result: int, first: int, second: int) -> None:
    """The operations that few lines of a program are."""
    for i in range(BLOCK):
        a, b = registers[first, i], registers[second, i]
        if operation == LESS:
            value = 1.0 if a < b else 0.0
        elif operation == LESS_EQUAL:
            value = 1.0 if a <= b else 0.0
        elif operation == EQUAL:
            value = 1.0 if a == b else 0.0
        elif operation == NOT_EQUAL:
            value = 1.0 if a != b else 0.0
        elif operation == AND:
            value = 1.0 if a != 0 and b != 0 else 0.0
        elif operation == OR:
            value = 1.0 if a != 0 or b != 0 else 0.0
        elif operation == NOT:
            value = 1.0 if a == 0 else 0.0
        elif operation == NEGATIVE:
            value = -a
        elif operation == ABSOLUTE:
            value = abs(a)
        elif operation == CEIL:
            value = np.ceil(a)
        elif operation == FLOOR:
            value = np.floor(a)
        elif operation == RINT:
            value = np.rint(a)
        elif operation == SQRT:
            value = np.sqrt(a)
        elif operation == LOG2:
            value = np.log2(a)
        elif operation == ISFINITE:
            value = 1.0 if np.isfinite(a) else 0.0
        elif operation == FLOAT:
            value = a
        elif operation == FLOOR_DIVIDE:
            value = _floor_divided(a, b)
        elif operation == REMAINDER:
            value = _remainder(a, b)
        elif operation == POWER:
            value = a**b
        else:
            value = _largest_divisor(a, b)
        registers[result, i] = value


@compiled
def _remainder(a: float, b: float) -> float:
    """As Python and NumPy define it: with the sign of the divisor."""
    if b == 0:
        return math.nan
    rest: float = np.fmod(a, b)
    if rest != 0:
        return rest + b if (b < 0) != (rest < 0) else rest
    return math.copysign(0.0, b)


@compiled
def _floor_divided(a: float, b: float) -> float:
    """NumPy's: the quotient is exact where the remainder says that it is whole."""
    if b == 0:
        return a / b
    rest: float = np.fmod(a, b)
    quotient = (a - rest) / b
    if rest != 0 and (b < 0) != (rest < 0):
        quotient -= 1.0
    if quotient == 0:
        return math.copysign(0.0, a / b)
    whole: float = np.floor(quotient)
    return whole + 1.0 if quotient - whole > 0.5 else whole


@compiled
def _largest_divisor(n: float, limit: float) -> float:
    """The largest divisor of a whole number that is at most `limit`; 1 where there is none."""
    if not (1 <= n <= 2.0**40) or not limit >= 1:
        return 1.0
    whole = int(n)
    top = int(min(limit, n))
    root = int(math.sqrt(n))
    if top <= root:
        while whole % top != 0:
            top -= 1
        return float(top)
    # Above the root divisors are rare: their partners below it are tried from the smallest that fits on.
    for partner in range(-(-whole // top), root + 1):
        if whole % partner == 0:
            return float(whole // partner)
    while root > 1 and whole % root != 0:
        root -= 1
    return float(root)
