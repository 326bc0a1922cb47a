"""Point programs give what NumPy and the simulator give, at points that they hold for, and leave the others alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsum.errors import EinsightError
from einsum.expressions import Expression
from einsum.symbols import Graph, Symbols, Undecided, Untraceable, as_array, chosen, labelled
from simulator.point_engine import CODE
from simulator.point_program import PointProgram, compile_graph
from simulator.point_tracing import point_programs
from simulator.result import result_values
from simulator.simulate import design, simulate

FLOATS = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 7.0, -3.0, np.inf, -np.inf]))
PAIRS = st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=300)

UFUNCS: dict[str, Callable[..., Any]] = {
    name: getattr(np, name) for name in CODE if hasattr(np, name) and name not in ("log2", "power", "sqrt", "where")
}


def compiled(function: Callable[..., Any], **samples: Any) -> PointProgram:
    """The program of a function of arrays."""
    graph = Graph()
    inputs = {name: graph.input(np.asarray(values)) for name, values in samples.items()}
    return compile_graph(graph, list(inputs), {"result": function(**inputs)})


@pytest.mark.parametrize("name", UFUNCS)
@given(pairs=PAIRS)
@settings(max_examples=25, deadline=None)
def test_every_operation_is_numpys_bit_for_bit(name: str, pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    function = UFUNCS[name]
    operands = {"a": a, "b": b} if function.nin == 2 else {"a": a}
    found, holds = compiled(lambda **x: function(*x.values()), **operands).run(operands, len(a))
    assert holds.all()
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found["result"], function(*operands.values()).astype(float))


EXPRESSIONS = [
    "ceil_div(a, b) * b + a % b",
    "max(a, b, 3) // min(b, 5) - (a if a > b else -b)",
    "largest_divisor(a, b)",
    "(a >= b and b != 3) + (not a < 4) * 2 + (a == b or a > 30)",
    "sqrt(a) + abs(b - a) + round(a / b) + floor(a / 3)",
    "(a - 3) ** 2 + 2 ** (b - 1)",
]


@pytest.mark.parametrize("text", EXPRESSIONS)
@given(pairs=st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 60)), min_size=1, max_size=200))
@settings(max_examples=25, deadline=None)
def test_an_expression_of_a_description(text: str, pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs).T
    expression = Expression.parse(text)
    found, holds = compiled(lambda **x: expression.evaluate(x), a=a, b=b).run({"a": a, "b": b}, len(a))
    assert holds.all()
    np.testing.assert_array_equal(found["result"], expression.evaluate({"a": a, "b": b}))


def test_a_program_holds_where_questions_are_answered_as_before() -> None:
    def ragged(a: Any, b: Any) -> Any:
        return a // b if not (a % b > 0).any() else np.ceil(a / b)

    a, b = np.array([8, 12, 9, 16]), np.array([4.0])
    even = compiled(ragged, a=np.array([8, 4]), b=np.array([4, 4]))
    results, holds = even.run({"a": a, "b": np.repeat(b, 4)}, 4)
    assert holds.tolist() == [True, True, False, True]
    assert results["result"][holds].tolist() == [2, 3, 4]
    # The course that serves ragged tiles serves all.
    _, holds = compiled(ragged, a=np.array([8, 5]), b=np.array([4, 4])).run({"a": a, "b": np.repeat(b, 4)}, 4)
    assert holds.all()


def test_texts_and_places() -> None:
    def winner(a: Any, b: Any) -> Any:
        place = np.argmax(np.stack([a, b]) >= np.maximum(a, b), axis=0)
        return np.where(chosen(np.array([10.0, 20.0]), place) > 15, labelled(("A", "B"), place), "none")

    a, b = np.array([1.0, 5.0, 2.0]), np.array([4.0, 3.0, 2.0])
    found, _ = compiled(winner, a=a, b=b).run({"a": a, "b": b}, 3)
    assert found["result"].tolist() == ["B", "none", "none"]


@pytest.mark.parametrize(
    "function",
    [
        lambda a: float(a[0]),
        lambda a: np.zeros(3)[a],
        lambda a: np.sort(a),
        lambda a: np.exp(a),
        lambda a: np.maximum(np.zeros(1), a, out=np.zeros(1)),
        lambda a: np.asarray(a) + np.asarray(a),
        lambda a: np.asarray(a)[0] == 3,
        lambda a: int(a[0]),
    ],
)
def test_what_cannot_be_followed_is_refused(function: Callable[[Any], Any]) -> None:
    with pytest.raises((Untraceable, TypeError, IndexError)):
        function(Graph().input(np.array([1.0, 2.0])))


def test_a_branch_on_a_value_tells_samples_apart() -> None:
    symbols = Graph().input(np.array([1.0, 2.0, 3.0]))
    assert isinstance(symbols, Symbols) and as_array(symbols) is symbols
    with pytest.raises(Undecided) as caught:
        bool(symbols > 1.5)
    assert caught.value.values.tolist() == [False, True, True]
    assert bool(symbols > 0.5)


RANGES = {
    "L": lambda rng, n: rng.integers(1, 20_000, n).astype(float),
    "W": lambda rng, n: rng.choice([16.0, 64.0, 256.0], n),
    "buffer": lambda rng, n: 2.0 ** rng.integers(17, 25, n),
    "dram_bandwidth": lambda rng, n: rng.uniform(1e9, 1e12, n),
    "div_cycles": lambda rng, n: rng.integers(1, 9, n).astype(float),
}


@pytest.mark.parametrize(
    ("mapping", "end_to_end"),
    [("fusemax-binding", False), ("fusemax-architecture", True), ("fusemax-cascade", False), ("unfused", False)],
)
def test_programs_give_what_the_simulator_gives(mapping: str, end_to_end: bool) -> None:
    rng = np.random.default_rng(3)
    points = 400
    inputs = {name: draw(rng, points) for name, draw in RANGES.items()}
    names = ["latency_s", "energy_j", "traffic_bytes.DRAM.total.read", "utilization.array_1d", "bound_by"]
    programs = point_programs(design(None, None, mapping, "bert-base", inputs), names, end_to_end)
    left = np.arange(points)
    for program in programs:
        results, holds = program.run({name: values[left] for name, values in inputs.items()}, len(left))
        own = {name: values[left[holds]] for name, values in inputs.items()}
        if program.failure is None:
            found = result_values(simulate(mapping=mapping, workload="bert-base", settings=own, end_to_end=end_to_end))
            for name in names:
                if name == "bound_by":
                    assert (results[name][holds] == found[name]).all()
                else:
                    # Alone or in company: the classes that ragged tiles make add up in another order.
                    np.testing.assert_allclose(results[name][holds], found[name], rtol=1e-14)
        else:
            sentences = program.failure.sentences({k: v[holds] for k, v in results.items()}, int(holds.sum()))
            for place in np.unique(np.linspace(0, len(sentences) - 1, 5).astype(int)) if sentences else ():
                alone = {name: values[place] for name, values in own.items()}
                with pytest.raises(EinsightError) as caught:
                    simulate(mapping=mapping, workload="bert-base", settings=alone, end_to_end=end_to_end)
                assert str(caught.value) == sentences[place]
        left = left[~holds]
    assert len(left) <= 0.02 * points


def test_no_program_under_a_mask() -> None:
    found = design("attention-1pass", None, "fusemax-binding", "bert-base", {"L": np.array([1024.0, 2048.0])})
    masked = found.cascade.with_condition("m <= p")
    assert point_programs(replace(found, cascade=masked), ["latency_s"]) == ()
