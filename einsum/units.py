"""Quantities with units: the one place that reads `16 MiB` or `3.9 pJ` and writes them for people.

Values are SI throughout: bytes, bytes/s, Hz, s, J, W, m, m2, operations/s. Decimal prefixes are powers of ten (kB, MB,
GB), binary ones powers of two (KiB, MiB, GiB; IEC 80000-13).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

from einsum.errors import SpecError, nearest

_DECIMAL = {
    "f": Fraction(1, 10**15), "p": Fraction(1, 10**12), "n": Fraction(1, 10**9), "u": Fraction(1, 10**6),
    "µ": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1), "k": Fraction(10**3), "K": Fraction(10**3),
    "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12), "P": Fraction(10**15),
}  # fmt: skip
_BINARY = {"Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30), "Ti": Fraction(2**40)}
_LARGE = {prefix: factor for prefix, factor in {**_DECIMAL, **_BINARY}.items() if factor >= 1}
_METRIC = {prefix: factor for prefix, factor in _DECIMAL.items() if prefix != "K"}
_NUMBER = re.compile(r"\s*([-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*$", re.DOTALL)
_MAX_EXPONENT = 308


def _prefixed(unit: str, prefixes: Mapping[str, Fraction], scale: Fraction = Fraction(1)) -> dict[str, Fraction]:
    return {prefix + unit: factor * scale for prefix, factor in prefixes.items()}


def _size_units() -> dict[str, Fraction]:
    bit = Fraction(1, 8)
    names = {"byte": Fraction(1), "bytes": Fraction(1), "bits": bit}
    return {**_prefixed("B", _LARGE), **_prefixed("bit", _LARGE, bit), **names}


def _per(units: Mapping[str, Fraction], below: Mapping[str, Fraction]) -> dict[str, Fraction]:
    return {f"{top}/{bottom}": a / b for top, a in units.items() for bottom, b in below.items()}


def _unit_tables() -> dict[str, dict[str, Fraction]]:
    bytes_ = _size_units()
    joule = _prefixed("J", _METRIC)
    seconds = {**_prefixed("s", _METRIC), "min": Fraction(60), "h": Fraction(3600)}
    byte_or_bit = {"B": Fraction(1), "byte": Fraction(1), "bit": Fraction(1, 8)}
    operation = {"op": Fraction(1), "FLOP": Fraction(1), "MAC": Fraction(1)}
    per_second = {"s": Fraction(1)}
    rates: dict[str, Fraction] = {}
    for name in ("op", "OP", "FLOP", "MAC"):
        rates.update(_per(_prefixed(name, _LARGE), per_second))
    for name in ("FLOPS", "OPS"):
        rates.update({key: value for key, value in _prefixed(name, _LARGE).items() if key != name})
    length = {**_prefixed("m", _METRIC), "cm": Fraction(1, 100)}
    return {
        "bytes": bytes_,
        "bytes_per_s": {**_per(bytes_, per_second), "Mbps": Fraction(10**6, 8), "Gbps": Fraction(10**9, 8)},
        "hz": _prefixed("Hz", _DECIMAL),
        "s": seconds,
        "j": joule,
        "j_per_byte": _per(joule, byte_or_bit),
        "j_per_op": _per(joule, operation),
        "w": _prefixed("W", _METRIC),
        "m": length,
        "m2": {f"{unit}{square}": factor**2 for unit, factor in length.items() for square in ("2", "²")},
        "ops_per_s": rates,
        "count": _prefixed("", _LARGE),
        "fraction": {"": Fraction(1), "%": Fraction(1, 100)},
    }


UNITS: Mapping[str, Mapping[str, Fraction]] = MappingProxyType(_unit_tables())
"""dimension -> unit -> factor to SI."""

EXPRESSION_UNITS: Mapping[str, Fraction] = MappingProxyType({
    unit: factor
    for dimension, units in UNITS.items()
    if dimension not in ("count", "fraction", "m")
    for unit, factor in units.items()
} | _BINARY)
"""Units that may follow a number inside an expression. Bare decimal prefixes are left out: `2 M` must not mean 2e6."""

_DISPLAY = {
    "bytes": ("B", ("", "Ki", "Mi", "Gi", "Ti")),
    "bytes_per_s": ("B/s", ("", "k", "M", "G", "T")),
    "hz": ("Hz", ("", "k", "M", "G")),
    "s": ("s", ("p", "n", "u", "m", "")),
    "j": ("J", ("f", "p", "n", "u", "m", "", "k")),
    "j_per_byte": ("J/B", ("f", "p", "n", "u", "m", "")),
    "j_per_op": ("J/op", ("f", "p", "n", "u", "m", "")),
    "w": ("W", ("n", "u", "m", "", "k", "M")),
    "m": ("m", ("n", "u", "m", "")),
    "ops_per_s": ("op/s", ("", "k", "M", "G", "T", "P")),
}


def exact_number(digits: str) -> Fraction:
    """The exact value of decimal digits such as `1_000` or `3.9e-12`; ValueError when the exponent is absurd."""
    plain = digits.replace("_", "")
    exponent = re.search(r"[eE]([-+]?\d+)$", plain)
    if exponent and (len(exponent[1]) > 4 or abs(int(exponent[1])) > _MAX_EXPONENT):
        raise ValueError(f"the exponent of {digits} is out of range")
    return Fraction(plain)


def plain_number(value: Fraction) -> int | float:
    """An int where the value is whole and below 2**63, else the nearest float."""
    if value.denominator == 1 and abs(value.numerator) < 2**63:
        return value.numerator
    return float(value)


def parse_quantity(value: str | int | float, dimension: str) -> float:
    """The SI value of `value`, a plain number (taken as SI already) or text such as `400 GiB/s`.

    dimension is a key of UNITS. SpecError says what is wrong with the number or names the nearest unit.
    """
    if dimension not in UNITS:
        raise SpecError(f"unknown dimension '{dimension}'{nearest(dimension, UNITS)}")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise SpecError(f"expected {_expected(dimension)}, found {value!r}")
    if isinstance(value, str):
        number = _parse_text(value, dimension)
    else:
        number = float(value) if abs(value) < 10**_MAX_EXPONENT else math.inf
    if not math.isfinite(number):
        raise SpecError(f"expected a finite number, found {value!r}")
    return number


def _parse_text(text: str, dimension: str) -> float:
    match = _NUMBER.match(text)
    if len(text) > 200 or not match:
        raise SpecError(f"expected {_expected(dimension)}, found '{text[:60]}'")
    digits, unit = match.groups()
    factor = Fraction(1) if unit == "" else UNITS[dimension].get(unit)
    if factor is None:
        raise SpecError(
            f"unknown unit '{unit}' in '{text}', expected {_expected(dimension)}{_near_unit(unit, dimension)}",
            column=match.start(2) + 1,
        )
    try:
        return float(exact_number(digits) * factor)
    except (ValueError, OverflowError):
        raise SpecError(f"the number in '{text[:60]}' is out of range") from None


def _near_unit(unit: str, dimension: str) -> str:
    same = [known for known in UNITS[dimension] if known.lower() == unit.lower()]
    if same:
        return f" (did you mean '{same[0]}'?)"
    known = _EXAMPLES[dimension][1]
    return f" (known: {', '.join(known)})" if known else ""


_EXAMPLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "bytes": ("a size such as '16 MiB'", ("bit", "B", "kB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB")),
    "bytes_per_s": ("a rate such as '400 GiB/s'", ("B/s", "MB/s", "MiB/s", "GB/s", "GiB/s", "TB/s", "Gbit/s")),
    "hz": ("a frequency such as '940 MHz'", ("Hz", "kHz", "MHz", "GHz")),
    "s": ("a time such as '2 us'", ("ps", "ns", "us", "ms", "s", "min", "h")),
    "j": ("an energy such as '3.9 pJ'", ("fJ", "pJ", "nJ", "uJ", "mJ", "J")),
    "j_per_byte": ("an energy per size such as '3.9 pJ/bit'", ("pJ/bit", "pJ/B", "nJ/B", "J/B")),
    "j_per_op": ("an energy per operation such as '0.5 pJ/op'", ("fJ/op", "pJ/op", "nJ/op", "J/op")),
    "w": ("a power such as '700 W'", ("uW", "mW", "W", "kW")),
    "m": ("a length such as '5 mm'", ("nm", "um", "mm", "cm", "m")),
    "m2": ("an area such as '600 mm2'", ("um2", "mm2", "cm2", "m2")),
    "ops_per_s": ("a rate such as '989 TFLOP/s'", ("op/s", "GOP/s", "GFLOP/s", "TFLOP/s", "TFLOPS")),
    "count": ("a number", ("k", "Ki", "M", "Mi", "G", "Gi")),
    "fraction": ("a fraction such as 0.5 or '50 %'", ("%",)),
}


def _expected(dimension: str) -> str:
    return _EXAMPLES[dimension][0]


def format_quantity(value: float, dimension: str, digits: int = 4) -> str:
    """`value` (SI) for people, in the unit that leaves 1 to 1000 before the point: `16 MiB`, `2.5 us`."""
    if dimension not in UNITS:
        raise SpecError(f"unknown dimension '{dimension}'{nearest(dimension, UNITS)}")
    if not math.isfinite(value):
        return str(value)
    if dimension == "m2":
        return f"{value * 1e6:.{digits}g} mm2"
    if dimension == "fraction":
        return f"{100 * value:.{digits}g} %"
    if dimension not in _DISPLAY:
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:.{digits}g}"
    unit, prefixes = _DISPLAY[dimension]
    factors = {prefix: float({**_DECIMAL, **_BINARY}[prefix]) for prefix in prefixes}
    fitting = [prefix for prefix in prefixes if abs(value) >= factors[prefix]]
    prefix = max(fitting, key=factors.__getitem__) if fitting else min(prefixes, key=factors.__getitem__)
    if value == 0:
        prefix = ""
    scaled = value / factors[prefix]
    text = f"{scaled:.{digits}g}" if abs(scaled) < 10**digits else f"{scaled:.0f}"
    return f"{text} {prefix}{unit}"
