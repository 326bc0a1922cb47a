"""Sizes, rates, times and energies with units, in and out."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsum.errors import SpecError
from einsum.units import UNITS, format_quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("16 MiB", "bytes", 16 * 2**20),
        ("48 KiB", "bytes", 48 * 1024),
        ("4096 bit", "bytes", 512),
        ("1.5kB", "bytes", 1500),
        ("400 GiB/s", "bytes_per_s", 400 * 2**30),
        ("1.4 GB/s", "bytes_per_s", 1.4e9),
        ("100 Gbit/s", "bytes_per_s", 12.5e9),
        ("940 MHz", "hz", 940e6),
        ("3.9 pJ", "j", 3.9e-12),
        ("3.9 pJ/bit", "j_per_byte", 8 * 3.9e-12),
        ("2 us", "s", 2e-6),
        ("2 µs", "s", 2e-6),
        ("600 mm2", "m2", 600e-6),
        ("700 W", "w", 700),
        ("989.4 TFLOP/s", "ops_per_s", 989.4e12),
        ("256 Ki", "count", 262144),
        ("1_000", "count", 1000),
        ("1e9", "count", 1e9),
        ("50 %", "fraction", 0.5),
        (7, "bytes", 7),
        (2.5, "s", 2.5),
    ],
)
def test_quantities_become_si(text: str | float, dimension: str, value: float) -> None:
    assert parse_quantity(text, dimension) == value


@pytest.mark.parametrize(
    ("text", "dimension", "message"),
    [
        ("16 MiBs", "bytes", "unknown unit 'MiBs'"),
        ("16 mib", "bytes", "did you mean 'MiB'"),
        ("fast", "hz", "a frequency such as '940 MHz'"),
        ("", "bytes", "a size such as"),
        ("1e999", "bytes", "out of range"),
        ("1e99999999999", "bytes", "out of range"),
        (math.inf, "bytes", "finite"),
        (math.nan, "s", "finite"),
        (10**400, "s", "finite"),
        (True, "count", "expected a number, found True"),
        (None, "s", "a time such as"),
        ("3 GiB", "hz", "known: Hz, kHz"),
        ("3", "lightyears", "unknown dimension"),
    ],
)
def test_what_is_not_a_quantity_is_refused_in_one_sentence(text: Any, dimension: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_quantity(text, dimension)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (16 * 2**20, "bytes", "16 MiB"),
        (512, "bytes", "512 B"),
        (1.4e9, "bytes_per_s", "1.4 GB/s"),
        (2e-6, "s", "2 us"),
        (3.9e-12, "j", "3.9 pJ"),
        (0, "s", "0 s"),
        (600e-6, "m2", "600 mm2"),
        (0.25, "fraction", "25 %"),
        (65536, "count", "65,536"),
        (math.inf, "s", "inf"),
    ],
)
def test_quantities_are_shown_in_a_readable_unit(value: float, dimension: str, text: str) -> None:
    assert format_quantity(value, dimension) == text


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(UNITS)), st.floats(min_value=1e-14, max_value=1e15))
def test_what_is_shown_reads_back_as_the_value(dimension: str, value: float) -> None:
    shown = format_quantity(value, dimension, digits=9).replace(",", "")
    tolerance = 0.5 if dimension == "count" and float(value).is_integer() else 1e-6
    assert math.isclose(parse_quantity(shown, dimension), value, rel_tol=tolerance)
