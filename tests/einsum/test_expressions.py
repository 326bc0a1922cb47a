"""Expressions: meaning, arrays in place of numbers, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsum.errors import SpecError
from einsum.expressions import Expression, resolve


def value(text: str, **env: Any) -> Any:
    return Expression.parse(text).evaluate(env)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("-2 ** 2", -4),
        ("2 ** -1", 0.5),
        ("2 ** 3 ** 2", 512),
        ("7 // 2 + 7 % 4", 6),
        ("-7 // 2", -4),
        ("8 / 4", 2.0),
        ("1 < 2 < 3", True),
        ("1 < 3 < 2", False),
        ("not 1 > 2 and (2 >= 2 or 1 / 0)", True),
        ("3 if 1 > 2 else 4 if false else 5", 5),
        ("16 MiB", 2**24),
        ("16MiB / 4 KiB", 4096.0),
        ("400 GiB/s", 400 * 2**30),
        ("3.9 pJ * 2", 7.8e-12),
        ("4096 bit", 512),
        ("256 Ki", 2**18),
        ("1e9", 10**9),
        ("1_000", 1000),
        ("'fp16' == 'fp16'", True),
        ("min(3, 1, 2) + max(1, 5)", 6),
        ("ceil(2.1) + floor(2.9) + round(2.5) + abs(-1)", 3 + 2 + 2 + 1),
        ("ceil_div(1009, 256)", 4),
        ("sqrt(16) + log2(1024)", 14.0),
        ("where(2 > 1, 10, 1 / 0)", 10),
        ("largest_divisor(96, 40)", 32),
        ("largest_divisor(97, 40)", 1),
    ],
)
def test_an_expression_means_what_it_says(text: str, expected: float) -> None:
    result = value(text)
    assert result == expected
    assert type(result) is type(expected)


def test_names_may_have_dots_and_are_listed() -> None:
    expression = Expression.parse("L3.capacity_bytes // (word * M0)")
    assert expression.names == {"L3.capacity_bytes", "word", "M0"}
    assert expression.evaluate({"L3.capacity_bytes": 2**20, "word": 2, "M0": 256}) == 2048


def test_a_unit_is_only_a_unit_behind_a_number() -> None:
    assert value("2 * s", s=5) == 10
    assert value("64 B", B=7) == 64
    assert value("M / 2", M=8) == 4
    with pytest.raises(SpecError, match="unexpected 'M'"):
        Expression.parse("2 M")


def test_integers_are_exact_and_integer_arrays_do_not_overflow() -> None:
    assert value("a * a", a=2**62 + 1) == (2**62 + 1) ** 2
    assert value("a * a * a", a=np.array([2**30, 3]))[0] == 2.0**90


def test_arrays_broadcast() -> None:
    rows, columns = np.array([1, 2])[:, None], np.array([10, 20, 30])
    np.testing.assert_array_equal(value("a * b + 1", a=rows, b=columns), rows * columns + 1)
    np.testing.assert_array_equal(value("'a' if kind == 'x' else 'b'", kind=np.array(["x", "y"])), np.array(["a", "b"]))
    with pytest.raises(SpecError, match=r"different lengths: a .2,., b .3,."):
        value("a + b", a=np.zeros(2), b=np.zeros(3))


def test_a_branch_that_a_point_does_not_take_cannot_fail_there() -> None:
    points = np.array([0.0, 2.0])
    np.testing.assert_array_equal(value("1 / a if a > 0 else 7", a=points), [7, 0.5])
    np.testing.assert_array_equal(value("a > 0 and 1 / a > 0.1", a=points), [False, True])
    np.testing.assert_array_equal(value("where(a == 0, 1, largest_divisor(a, 1))", a=points), [1, 1])
    with pytest.raises(SpecError, match="division by zero"):
        value("1 / a", a=points)


_NUMBERS = st.integers(-20, 20)
_LEAVES = st.one_of(_NUMBERS.map(str), st.sampled_from(["a", "b", "c"]))
_TEXTS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%", "/"]), inner).map(lambda t: f"({' '.join(t)})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} if {t[1]} < {t[2]} else {t[0]})"),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
        inner.map(lambda t: f"-{t}"),
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(_TEXTS, st.lists(st.tuples(_NUMBERS, _NUMBERS, _NUMBERS), min_size=1, max_size=4))
def test_arrays_give_what_each_point_gives_and_python_agrees(text: str, points: list[tuple[int, int, int]]) -> None:
    expression = Expression.parse(text)
    singles: list[Any] = []
    for point in points:
        env = dict(zip("abc", point, strict=True))
        try:
            expected = eval(text, {"min": min, "max": max}, dict(env))  # Python as the oracle, in the test only
        except ZeroDivisionError:
            with pytest.raises(SpecError, match="division by zero"):
                expression.evaluate(env)
            singles.append(None)
            continue
        singles.append(expression.evaluate(env))
        assert math.isclose(singles[-1], expected, rel_tol=1e-12)
    arrays = {name: np.array(column) for name, column in zip("abc", zip(*points, strict=True), strict=True)}
    if None in singles:
        with pytest.raises(SpecError, match="division by zero"):
            expression.evaluate(arrays)
    else:
        np.testing.assert_allclose(np.broadcast_to(expression.evaluate(arrays), len(points)), singles, rtol=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 6000))
def test_largest_divisor_is_the_largest(n: int, limit: int) -> None:
    assert value("largest_divisor(n, k)", n=n, k=limit) == max(d for d in range(1, n + 1) if n % d == 0 and d <= limit)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("1 +", 4, "expected a number or a name, found the end"),
        ("(1 + 2", 7, "expected ')'"),
        ("1 + 2)", 6, "unexpected ')'"),
        ("a $ b", 3, "unexpected character '$'"),
        ("sqroot(2)", 1, "did you mean 'sqrt'"),
        ("__import__('os')", 1, "unknown function '__import__'"),
        ("a.b.__class__(1)", 1, "unknown function"),
        ("where(1, 2)", 1, "where takes 3 arguments"),
        ("1 if 2", 7, "expected 'else'"),
        ("1e9999", 1, "out of range"),
        ("lambda: 0", 7, "unexpected ':'"),
        ("[1]", 1, "expected a number or a name"),
        ("(" * 100 + "1" + ")" * 100, 61, "nested more than"),
        ("-" * 200 + "1", None, "nested more than"),
        ("1" + "+1" * 900, None, "more than 200 operators"),
        ("not " * 200 + "1", None, "nested more than"),
    ],
)
def test_a_mistake_is_pointed_at(text: str, column: int | None, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        Expression.parse(text)
    assert message in str(caught.value)
    assert column is None or caught.value.column == column


def test_an_unknown_name_is_reported_with_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"unknown name 'capasity'.*did you mean 'capacity'.*in '2 \* capasity'"):
        value("2 * capasity", capacity=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "division by zero"),
        ("1 % a", "division by zero"),
        ("ceil_div(1, a)", "division by zero"),
        ("0 ** -1", "zero to a negative power"),
        ("sqrt(-1)", "negative"),
        ("log2(a)", "not positive"),
        ("1e300 * 1e300 * 1.5", "not a finite number"),
        ("10 ** 100000", "out of range"),
        ("(-8) ** 0.5", "out of range"),
        ("'a' + 1", "text 'a' stands where a number is expected"),
        ("'a' < 'b'", "cannot be compared"),
        ("'a' == 1", "compared with a number"),
        ("min()", "at least one argument"),
        ("largest_divisor(2.5, 1)", "whole number"),
        ("largest_divisor(4, 0)", "limit of at least 1"),
        ("nan_input + 1", "not a finite number"),
    ],
)
def test_a_value_that_does_not_exist_is_reported(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        value(text, a=0, nan_input=math.nan)
    assert message in str(caught.value)


def test_a_tower_of_powers_is_refused() -> None:
    with pytest.raises(SpecError):
        value("9 ** 9 ** 9 ** 9")


def test_other_things_than_text_and_numbers_are_refused() -> None:
    sources: list[Any] = [None, [1], {"a": 1}, math.inf, math.nan, "", "x" * 5000]
    for source in sources:
        with pytest.raises(SpecError):
            Expression.parse(source)


def test_equality_is_by_meaning_and_the_text_is_kept() -> None:
    assert Expression.parse("a+b") == Expression.parse("a + b")
    assert Expression.parse(5) == Expression.parse("5")
    assert str(Expression.parse(" a +b ")) == "a +b"
    assert Expression.parse(2.5).plain() == 2.5
    assert Expression.parse("16 MiB").plain() == "16 MiB"


def test_definitions_resolve_in_order_of_need_and_given_names_win() -> None:
    definitions = {name: Expression.parse(text) for name, text in {"M1": "ceil_div(M, M0)", "M0": "W // 2"}.items()}
    assert resolve(definitions, {"M": 100, "W": 16}) == {"M": 100, "W": 16, "M0": 8, "M1": 13}
    assert resolve(definitions, {"M": 100, "M0": 10})["M1"] == 10
    np.testing.assert_array_equal(resolve(definitions, {"M": np.array([100, 200]), "M0": 10})["M1"], [10, 20])


def test_a_long_chain_of_definitions_resolves() -> None:
    definitions = {f"v{i}": Expression.parse(f"v{i + 1} + 1") for i in range(3000)}
    assert resolve(definitions, {"v3000": 0})["v0"] == 3000


def test_definitions_in_a_circle_and_unknown_names_are_named() -> None:
    circle = {name: Expression.parse(text) for name, text in {"a": "b + 1", "b": "c", "c": "a"}.items()}
    with pytest.raises(SpecError, match="a -> b -> c -> a"):
        resolve(circle, {})
    with pytest.raises(SpecError, match=r"unknown name 'M00'.*did you mean 'M0'"):
        resolve({"M1": Expression.parse("M00 + 1"), "M0": Expression.parse(1)}, {})


def test_pydantic_models_hold_expressions() -> None:
    from pydantic import BaseModel, ValidationError

    class Memory(BaseModel):
        capacity: Expression

    assert Memory.model_validate({"capacity": "2 * L"}).capacity.evaluate({"L": 4}) == 8
    assert Memory.model_validate({"capacity": 12}).model_dump() == {"capacity": 12}
    with pytest.raises(ValidationError, match="expected a number or a name, found the end"):
        Memory.model_validate({"capacity": "2 *"})
