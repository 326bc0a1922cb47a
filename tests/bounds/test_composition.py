"""Compositions run word by word: transformer layers, chains of products, masked products; the results are those of the
interpreter."""

from __future__ import annotations

import re
from itertools import product as cartesian
from math import pi, prod, sqrt, tanh

import numpy as np
import pytest

from bounds.composition import composed_schedules, groups_of, held_at, streamed_operand
from bounds.heads import group_problem, heads_of
from bounds.product_schedules import Order, ProductTiling
from bounds.reader import read_problem
from einsum import Cascade
from einsum.interpreter import run
from tests.bounds.attention_runs import Attention
from tests.bounds.machine import Machine
from tests.bounds.test_attention_schedules import run_described
from tests.bounds.test_product_schedules import execute
from tests.bounds.traces import word_addresses

CHAIN = Cascade.parse(
    """
    cascade: three-products
    ranks: {i: I, j: J, k: K, l: L, n: N}
    inputs: {A: [i, k], B: [k, j], C: [j, l], D: [l, n]}
    outputs: [Z]
    einsums: ["T[i,j] = A[i,k] * B[k,j]", "U[i,l] = T[i,j] * C[j,l]", "Z[i,n] = U[i,l] * D[l,n]"]
    """
)
LAYER = Cascade.load("transformer-layer")


def gelu(x: float) -> float:
    return x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2


def addressed(tensor: str, array: np.ndarray) -> dict:
    return {(tensor, *at): float(value) for at, value in np.ndenumerate(array)}


def sizes_of(cascade: Cascade, seed: int) -> dict[str, int]:
    generator = np.random.default_rng(seed)
    return {name: int(generator.integers(1, 5)) for name in cascade.parameters}


def run_product(part, text: str, slow: dict, capacity: float) -> tuple[dict, int]:
    """A tiling as its description says: 'Z tiles i=2 l=3 n=1, D streamed'."""
    statement = part.statements[0]
    loops = {name: int(size) for name, size in re.findall(r"(\w+)=(\d+)", text)}
    streamed = re.search(r", (\w+) streamed", text).group(1)
    names = [*(access.tensor for access in statement.operands), statement.output.tensor]
    tile = {loop: loops.get(loop, 1) for loop in statement.loops}
    tiling = ProductTiling.of(part, statement)
    machine = execute(part, tiling, Order(tuple(loops), names.index(streamed)), tile, capacity, slow)
    return machine.slow, machine.words


def run_core(part, text: str, slow: dict, capacity: float) -> tuple[dict, int]:
    """Attention of every copy."""
    heads = heads_of(part)
    first, second = part.statements
    scores = first.output.loops
    (values,) = [a for a in second.operands if a.tensor != first.output.tensor]
    (queries,) = [a for a in first.operands if set(second.reduced).isdisjoint(a.loops)]
    (keys,) = [a for a in first.operands if a is not queries]
    batch = [loop for loop in scores if all(loop in a.loops for a in (queries, keys, values, second.output))]
    batch = [loop for loop in batch if not part.coupling or loop not in (part.coupling.row, part.coupling.column)]
    words, slow = 0, dict(slow)
    columns = [loop for loop in scores if loop in second.reduced]
    rows = [loop for loop in scores if loop not in columns and loop not in batch]
    out = [loop for loop in second.output.loops if loop not in batch and loop not in rows]
    for at in cartesian(*(range(part.extents[loop]) for loop in batch)):

        def words_of(access, down, across, at=at) -> list[list[tuple]]:
            fixed = dict(zip(batch, at, strict=True))
            spans = [range(part.extents[loop]) for loop in (*down, *across)]
            points = [{**fixed, **dict(zip((*down, *across), x, strict=True))} for x in cartesian(*spans)]
            found = [(access.tensor, *(point[loop] for loop in access.loops)) for point in points]
            width = prod(part.extents[loop] for loop in across)
            return [found[k : k + width] for k in range(0, len(found), width)]

        sides = ((queries, rows, first.reduced), (keys, columns, first.reduced), (values, columns, out))
        q, k, v = (np.array([[slow[word] for word in line] for line in words_of(*side)]) for side in sides)
        keep = [heads.pattern.row(i // heads.group) for i in range(heads.rows)]
        attention = Attention(q, k, v, keep, capacity, plain=heads.statistics == 0)
        run_described(attention, text)
        words += attention.machine.words
        made = words_of(second.output, rows, out)
        slow |= {
            w: x for line, own in zip(made, attention.result(), strict=True) for w, x in zip(line, own, strict=True)
        }
    return slow, words


def run_all_resident(problem, slow: dict, capacity: float) -> tuple[dict, int]:
    groups, machine = groups_of(problem), Machine(slow, capacity)
    for at, group in enumerate(groups):
        held = held_at(problem, groups, at)
        needed = [a.tensor for statement in group for a in statement.operands if a.tensor in held]
        machine.load(*[w for w in slow if w[0] in needed and w not in machine.fast])
        if len(group) > 1:
            resident_core(problem, group, machine)
        else:
            resident_product(problem, group[0], streamed_operand(problem, groups, group), machine)
        for word in list(machine.fast):
            if problem.classes[word[0]].kind == "output":
                machine.store(word)
        later = held_at(problem, groups, at + 1) if at + 1 < len(groups) else []
        machine.drop(*[word for word in machine.fast if word[0] not in later])
    return machine.slow, machine.words


def resident_product(problem, statement, streamed: str | None, machine: Machine) -> None:
    address = word_addresses(statement)
    points = list(cartesian(*(range(problem.extents[loop]) for loop in statement.loops)))
    for word in {address[-1](p) for p in points}:
        machine[word] = 0.0
    which = next((k for k, access in enumerate(statement.operands) if access.tensor == streamed), None)

    def add(p) -> None:
        operands = [machine[a(p)] for a in address[:-1]]
        operands = [gelu(x) if a(p)[0] == "FFN1" else x for a, x in zip(address, operands, strict=False)]
        machine[address[-1](p)] = machine[address[-1](p)] + np.prod(operands)

    if which is None:
        for p in points:
            add(p)
        return
    for word in {address[which](p) for p in points}:
        machine.load(word)
        for p in points:
            if address[which](p) == word:
                add(p)
        machine.drop(word)


def resident_core(problem, group, machine: Machine) -> None:
    """One row of scores at a time, three words of scratch: maximum, sum, new value."""
    first, second = group
    column = second.reduced[0]
    plain = not problem.scales.get(first.output.tensor)
    queries, keys = first.operands
    (values,) = [a for a in second.operands if a.tensor != first.output.tensor]
    rows = [loop for loop in first.output.loops if loop != column]
    width = [loop for loop in queries.loops if loop not in first.output.loops]
    out = [loop for loop in second.output.loops if loop not in rows]
    for at in cartesian(*(range(problem.extents[loop]) for loop in rows)):
        place = dict(zip(rows, at, strict=True))

        def word(access, place=place, **more):
            return (access.tensor, *({**place, **more}[loop] for loop in access.loops))

        span = range(problem.extents[column])
        for j in span:
            machine["score", j] = sum(
                machine[word(queries, **{column: j}, **dict(zip(width, x, strict=True)))]
                * machine[word(keys, **{column: j}, **dict(zip(width, x, strict=True)))]
                for x in cartesian(*(range(problem.extents[loop]) for loop in width))
            )
        machine["top",] = max(machine["score", j] for j in span)
        machine["sum",] = 0.0
        for j in span if not plain else ():
            machine["score", j] = np.exp(machine["score", j] - machine["top",])
            machine["sum",] = machine["sum",] + machine["score", j]
        if plain:
            machine["sum",] = 1.0
        machine.drop(("top",))
        for x in cartesian(*(range(problem.extents[loop]) for loop in out)):
            chosen = dict(zip(out, x, strict=True))
            machine[word(second.output, **chosen)] = (
                sum(machine["score", j] * machine[word(values, **{column: j}, **chosen)] for j in span)
                / machine["sum",]
            )
        machine.drop(("sum",), *[("score", j) for j in span])


@pytest.mark.parametrize("cascade", [LAYER, CHAIN], ids=["layer", "chain"])
@pytest.mark.parametrize("seed", range(4))
def test_a_composition_moves_its_words_and_computes_the_cascade(cascade: Cascade, seed: int) -> None:
    sizes = sizes_of(cascade, seed)
    problem = read_problem(cascade, sizes)
    stairs = composed_schedules(problem)
    assert not isinstance(stairs, str)
    generator = np.random.default_rng(seed)
    extents = cascade.extents(cascade.environment(sizes))
    inputs = {t.name: generator.normal(size=[extents[rank] for rank in t.ranks]) for t in cascade.inputs}
    (output,) = cascade.outputs
    expected = run(cascade, inputs, sizes)[output.name]
    slow = {address: value for name, array in inputs.items() for address, value in addressed(name, array).items()}
    for k in np.unique(np.linspace(0, stairs.words.size - 1, 5).astype(int)):
        text, capacity = stairs.describe(int(stairs.origin[k])), float(stairs.footprint[k])
        if text == "all activations resident":
            found, words = run_all_resident(problem, slow, capacity)
        else:
            found, words = run_with_activation(problem, text, slow, capacity)
        assert words == stairs.words[k], text
        result = np.array([found[output.name, *at] for at in np.ndindex(*expected.shape)]).reshape(expected.shape)
        assert np.allclose(result, expected), text


def run_with_activation(problem, text: str, slow: dict, capacity: float) -> tuple[dict, int]:
    total = 0
    parts = [group_problem(problem, group) for group in groups_of(problem)]
    for part, step in zip(parts, text.split("; "), strict=True):
        final = {name for name, value in part.classes.items() if value.kind == "output"}
        core = len(part.statements) > 1
        slow, words = (run_core if core else run_product)(part, step, slow, capacity)
        if final == {"FFN1"}:  # the activation is applied where the next product loads the word
            slow = {a: gelu(x) if a[0] == "FFN1" else x for a, x in slow.items()}
        total += words
    return slow, total
