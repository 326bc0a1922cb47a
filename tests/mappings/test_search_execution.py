"""Whatever the mapper returns runs, in its loop order and within its memories, and gives the right values.

Random cascades and sizes, every objective, machines of two and three levels, arrays of several elements, masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures import Architecture
from einsum import Cascade
from einsum.errors import SpecError
from einsum.interpreter import run
from mappings import Mapping as Plan
from mappings.search import OBJECTIVES, find
from tests.mappings.executor import Executor
from tests.mappings.test_search import evaluator

KINDS = ("mac", "mul", "add", "sub", "max", "exp", "div", "sigmoid")


def machine(levels: Sequence[int], lanes: int = 1) -> Architecture:
    """DRAM over memories of so many one-byte words each, and two units that can do everything."""
    ops = {kind: {"cycles": cycles, "energy": "1 pJ"} for cycles, kind in enumerate(KINDS, start=1)}
    access = {"access_bits": 8, "read_energy": "1 pJ", "write_energy": "1 pJ"}
    memories: dict[str, Any] = {"DRAM": {"bandwidth": "2 GB/s", **access}}
    for number, words in enumerate(levels):
        memories[f"L{len(levels) - number}"] = {"capacity": words, "bandwidth": "8 GB/s", **access}
    units = {
        "grid": {"dims": {"rows": lanes, "columns": lanes}, "ops": ops},
        "row": {"dims": {"lanes": lanes}, "ops": ops},
    }
    return Architecture.parse(
        {"architecture": "random", "clock": "1 GHz", "word_bits": 8, "memories": memories, "units": units}
    )


def executed(cascade: Cascade, plan: Plan, sizes: Mapping[str, int], levels: Sequence[int]) -> Executor:
    """Run a mapping with random values, and compare its outputs with the interpreter's."""
    random = np.random.default_rng(0)
    values = {**sizes, **{name: int(value.number({})) for name, value in plan.variables.items()}}
    extents = cascade.extents(values)
    inputs = {t.name: random.uniform(0.5, 1.5, size=cascade.shape(t.name, extents)) for t in cascade.inputs}
    expected = run(cascade, inputs, values)
    known = {**cascade.environment(values)}
    capacity = {f"L{len(levels) - number}": words for number, words in enumerate(levels)}
    done = Executor(cascade, list(plan.data["nest"]), known, inputs, capacity)
    for tensor in cascade.outputs:
        found = [done.slow.get((tensor.name, at), 0.0) for at in np.ndindex(expected[tensor.name].shape)]
        np.testing.assert_allclose(found, expected[tensor.name].ravel(), rtol=1e-9)
    return done


@st.composite
def cascades(draw: Any) -> Cascade:
    """A few Einsums over three ranks: maps, row statistics, their use, products with new inputs; some renamed."""
    inputs: dict[str, list[str]] = {"X": ["a", "b"]}
    made: dict[str, list[str]] = dict(inputs)
    lines: list[str] = []
    for number in range(draw(st.integers(1, 4))):
        name = f"T{number}"
        source = draw(st.sampled_from(sorted(made)[-3:]))
        ranks = made[source]
        kind = draw(st.sampled_from(["map", "reduce", "use", "product", "product", "self"]))
        read = f"{source}[{','.join(ranks)}]"
        if kind == "reduce" and len(ranks) > 1:
            gone = draw(st.sampled_from(ranks))
            kept = [rank for rank in ranks if rank != gone]
            lines.append(f"{name}[{','.join(kept)}] = {draw(st.sampled_from(['sum', 'max']))}({gone}) {read}")
        elif kind == "use":
            others = [other for other in made if set(made[other]) <= set(ranks) and other != source]
            kept = list(ranks)
            if others:
                other = draw(st.sampled_from(sorted(others)))
                sign = draw(st.sampled_from(["-", "*", "/"]))
                lines.append(f"{name}[{','.join(kept)}] = {read} {sign} {other}[{','.join(made[other])}]")
            else:
                lines.append(f"{name}[{','.join(kept)}] = sigmoid({read})")
        elif kind == "product":
            inner = draw(st.sampled_from(ranks))
            free = next(rank for rank in "abcd" if rank not in ranks)
            kept = [*(rank for rank in ranks if rank != inner), free]
            inputs[f"W{number}"] = [inner, free]
            lines.append(f"{name}[{','.join(kept)}] = {read} * W{number}[{inner},{free}]")
        elif kind == "self" and len(ranks) > 1 and not any(len(rank) > 1 for rank in ranks):
            first, last = ranks[0], ranks[-1]
            twin = first + first
            again = f"{source}[{','.join([twin, *ranks[1:]])}]"
            kept = [*(rank for rank in ranks if rank != last), twin]
            lines.append(f"{name}[{','.join(kept)}] = {read} * {again}")
        else:
            kept = list(ranks)
            lines.append(f"{name}[{','.join(kept)}] = sigmoid({read})")
        made[name] = kept
    text = " ".join(lines)
    used = {rank: rank[0].upper() for rank in ("a", "b", "c", "d", "aa", "bb", "cc", "dd")
            if any(rank in ranks for ranks in (*made.values(), *inputs.values()))}  # fmt: skip
    outputs = [name for name in made if name not in inputs and text.count(f"{name}[") == 1]
    return Cascade.parse({"cascade": "random", "ranks": used, "inputs": inputs, "outputs": outputs, "einsums": lines})


@settings(max_examples=50, deadline=None)
@given(cascades(), st.sampled_from(OBJECTIVES), st.data())
def test_random_cascades(cascade: Cascade, objective: Any, data: st.DataObject) -> None:
    """With one element in each unit the words that pass the slow memory are counted too."""
    sizes = {name: data.draw(st.integers(1, 4), label=name) for name in cascade.parameters}
    levels = data.draw(st.sampled_from([(5,), (9,), (16,), (40,), (30, 8), (60, 20)]), label="levels")
    lanes = data.draw(st.sampled_from([1, 1, 2]), label="lanes")
    chosen = machine(levels, lanes)
    try:
        found = find(cascade, chosen, None, objective, sizes, evaluate=evaluator(cascade, chosen, None, sizes))
    except SpecError as error:
        assert "no mapping of cascade" in error.message
        return
    for one in found.front or (found,):
        done = executed(cascade, one.mapping, sizes, levels)
        assert one.cost is not None
        assert one.dram_bytes == pytest.approx(one.cost.dram_bytes)
        if lanes == 1:
            assert done.moved == one.dram_bytes
        assert one.dram_bytes >= one.compulsory_bytes * (1 - 1e-12)
