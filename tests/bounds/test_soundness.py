"""No schedule beats the bound: templates at all tile sizes, named schedules, brute-force orders, exact search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bounds.attention_schedules import Heads, best_schedules
from bounds.engine import lower_bound
from bounds.named_schedules import SCHEDULES, named_schedule
from bounds.pattern import Intervals
from bounds.problem import Access, Problem, Statement, ValueClass
from bounds.product_schedules import product_schedules
from bounds.reader import read_problem
from bounds.verify import verify
from einsum import Cascade
from tests.bounds.cases import attention_problem, random_case
from tests.bounds.exact import attention_sums, least_io, matmul_sums
from tests.bounds.traces import attention_traces, backward_trace, least_words, statement_traces


def memories(generator: np.random.Generator, smallest: int, largest: float, count: int = 4) -> np.ndarray:
    """Random sizes, tiny ones often."""
    return np.unique(np.round(np.exp(generator.uniform(np.log(smallest), np.log(max(largest, smallest + 1)), count))))


def check_attention(seed: int, most: int) -> None:
    generator = np.random.default_rng([seed, 1])
    case = random_case(seed, most)
    heads = replace(case.heads, copies=int(generator.integers(1, 3)))
    problem = attention_problem(heads)
    total = sum(value.elements for value in problem.classes.values())
    memory = memories(generator, 6, total)
    bound = lower_bound(problem, memory)
    best, _ = best_schedules(heads).at(memory)
    assert np.all(bound.words <= best * (1 + 1e-9))
    once = lower_bound(problem, memory, "no-recompute")
    for name in SCHEDULES:  # none of them computes a score twice
        traffic = named_schedule(name, heads, memory)
        assert np.all((once.words <= traffic.words * (1 + 1e-9)) | ~traffic.fits), name
    small = attention_problem(replace(heads, copies=1))
    per_head = lower_bound(small, memory)
    for trace in attention_traces(small, generator, 2):
        for k in generator.choice(memory.size, size=min(2, memory.size), replace=False):
            assert per_head.words[k] <= least_words(trace, {"O"}, int(memory[k]))
    assert all(
        verify(certificate) <= words * (1 + 1e-6) for certificate, words in zip(bound.certificates, best, strict=True)
    )


def product_problem(generator: np.random.Generator) -> Problem:
    """A matrix product, a batched or grouped one, a convolution in one or two dimensions, of random small sizes."""
    plain = Access.plain
    size = {loop: int(n) for loop, n in zip("bghmnkpqrstc", generator.integers(1, 7, 12), strict=True)}
    step = int(generator.integers(1, 3))
    forms = (
        (plain("A", "mk"), plain("B", "kn"), plain("C", "mn")),
        (plain("A", "bmk"), plain("B", "bkn"), plain("C", "bmn")),
        (plain("A", "gmk"), plain("B", "kn"), plain("C", "gmn")),
        (Access("A", ((("p", step), ("r", 1)),)), plain("B", "r"), plain("C", "p")),
        (Access("A", ((("c", 1),), (("p", 1), ("r", step)))), plain("B", "kcr"), plain("C", "kp")),
    )
    *operands, output = forms[int(generator.integers(len(forms)))]
    statement = Statement("C", output, tuple(operands))
    points = np.array(list(np.ndindex(*(size[loop] for loop in statement.loops))))
    classes = {}
    for access in (*operands, output):
        rows = np.array([[dict(terms).get(loop, 0) for loop in statement.loops] for terms in access.dimensions])
        used = len(np.unique(points @ rows.T, axis=0))
        classes[access.tensor] = ValueClass(access.tensor, "output" if access is output else "input", used)
    return Problem("product", {loop: size[loop] for loop in statement.loops}, classes, (statement,))


def check_product(seed: int) -> None:
    generator = np.random.default_rng([seed, 2])
    problem = product_problem(generator)
    total = sum(value.elements for value in problem.classes.values())
    memory = memories(generator, 3, total + 1)
    bound = lower_bound(problem, memory)
    stairs = product_schedules(problem, problem.statements[0])
    assert stairs is not None
    best, _ = stairs.at(memory)
    assert np.all(bound.words <= best * (1 + 1e-9))
    for trace in statement_traces(problem, problem.statements[0], generator, 2):
        for k in range(memory.size):
            assert bound.words[k] <= least_words(trace, {"C"}, int(memory[k]))
    for certificate in bound.certificates:
        verify(certificate)


def latent_problem(heads: Heads, shared: int) -> Problem:
    """Attention whose values are the first `shared` words of its keys; scores are the sum of two products."""
    whole, plain, rest = attention_problem(heads), Access.plain, heads.d - shared
    classes = whole.classes | {
        "Q": ValueClass("Q", "input", heads.rows * shared),
        "R": ValueClass("R", "input", heads.rows * rest),
        "C": ValueClass("C", "input", heads.columns * shared),
        "T": ValueClass("T", "input", heads.columns * rest),
    }
    producers = (
        Statement("S", plain("S", "bgpm"), (plain("Q", "bgpf"), plain("C", "bmf"))),
        *([Statement("S2", plain("S", "bgpm"), (plain("R", "bgpr"), plain("T", "bmr")))] if rest else []),
    )
    needs = tuple(s.name for s in producers)
    consumer = Statement("O", plain("O", "bgpf"), (plain("S", ("b", "g", "p", "m"), needs), plain("C", "bmf")))
    used = {name: v for name, v in classes.items() if name not in {"K", "V"} and v.elements}
    return replace(whole, extents=whole.extents | {"r": rest}, classes=used, statements=(*producers, consumer))


def check_latent(seed: int) -> None:
    generator = np.random.default_rng([seed, 4])
    heads = random_case(seed, 9).heads
    shared = int(generator.integers(1, 4))
    heads = replace(heads, dv=shared, d=shared + int(generator.integers(0, 3)))
    problem = latent_problem(heads, shared)
    memory = memories(generator, 6, sum(value.elements for value in problem.classes.values()))
    bound, once = (lower_bound(problem, memory, label) for label in ("recompute-safe", "no-recompute"))

    def known(word: tuple) -> tuple:
        return ("K", *word[1:]) if word[0] == "V" else word

    for trace in attention_traces(attention_problem(heads), generator, 2):
        again = any(word[0] == "S" and word[-1] for operands, _ in trace for word in operands)
        moved = [(tuple(map(known, operands)), target) for operands, target in trace]
        for k in range(memory.size):
            words = least_words(moved, {"O"}, int(memory[k]))
            assert bound.words[k] <= words
            assert again or once.words[k] <= words
    for certificate in (*bound.certificates, *once.certificates):
        verify(certificate)


def check_shared_input(seed: int) -> None:
    """Two products that read the same matrix: any order of the product with both matrices side by side."""
    generator = np.random.default_rng([seed, 6])
    m, k, first, second = (int(n) for n in generator.integers(1, 8, 4))
    plain = Access.plain
    sizes = {"X": m * k, "A": k * first, "B": k * second, "O": m * first, "P": m * second}
    classes = {n: ValueClass(n, "output" if n in "OP" else "input", size) for n, size in sizes.items()}
    statements = (
        Statement("O", plain("O", "ma"), (plain("X", "mk"), plain("A", "ka"))),
        Statement("P", plain("P", "nb"), (plain("X", "nk"), plain("B", "kb"))),
    )
    problem = Problem("both", {"m": m, "n": m, "k": k, "a": first, "b": second}, classes, statements)
    memory = memories(generator, 3, m * k)
    bound = lower_bound(problem, memory)
    whole = product(m, first + second, k)
    for trace in statement_traces(whole, whole.statements[0], generator, 3):
        for at in range(memory.size):
            assert bound.words[at] <= least_words(trace, {"C"}, int(memory[at]))
    for certificate in bound.certificates:
        verify(certificate)


@pytest.mark.parametrize("seed", range(30))
def test_no_schedule_of_products_that_share_an_input_beats_the_bound(seed: int) -> None:
    check_shared_input(seed)


def check_backward(seed: int) -> None:
    generator = np.random.default_rng([seed, 5])
    rows, columns = (int(n) for n in generator.integers(2, 6, 2))
    d, dv = (int(n) for n in generator.integers(2, 9, 2))
    size = {"B": 1, "H": 1, "P": rows, "M": columns, "E": d, "F": dv}
    problem = read_problem(Cascade.load("attention-backward"), size)
    memory = memories(generator, 6, rows * d, 3)
    bound, once = (lower_bound(problem, memory, label) for label in ("recompute-safe", "no-recompute"))
    values = sum(v.elements for name, v in problem.classes.items() if name in {"GM", "SD", "DL"})  # not in the trace
    for _ in range(2):
        trace = backward_trace(rows, columns, d, dv, generator)
        again = any(word[0] == "S" and word[-1] for operands, _ in trace for word in operands)
        for k in range(memory.size):
            words = least_words(trace, {"DQ", "DK", "DV"}, int(memory[k])) + values
            assert bound.words[k] <= words
            assert again or once.words[k] <= words
    for certificate in (*bound.certificates, *once.certificates):
        verify(certificate)


@pytest.mark.parametrize("seed", range(20))
def test_no_backward_pass_beats_the_bound(seed: int) -> None:
    check_backward(seed)


@pytest.mark.parametrize("seed", range(60))
def test_no_schedule_of_keys_that_hold_the_values_beats_the_bound(seed: int) -> None:
    check_latent(seed)


@pytest.mark.parametrize("seed", range(160))
def test_no_attention_schedule_beats_the_bound(seed: int) -> None:
    check_attention(seed, most=9)


@pytest.mark.parametrize("seed", range(50))
def test_no_schedule_of_a_product_beats_the_bound(seed: int) -> None:
    check_product(seed)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(40))
def test_no_schedule_beats_the_bound_on_five_thousand_problems(part: int) -> None:
    for seed in range(1000 + 100 * part, 1100 + 100 * part):
        check_attention(seed, most=14 if seed % 4 == 0 else 9)
    for seed in range(1000 + 30 * part, 1030 + 30 * part):
        check_product(seed)
        check_latent(seed)
    for seed in range(1000 + 10 * part, 1010 + 10 * part):
        check_backward(seed)
        check_shared_input(seed)


def product(m: int, n: int, k: int) -> Problem:
    plain = Access.plain
    classes = {
        "A": ValueClass("A", "input", m * k),
        "B": ValueClass("B", "input", k * n),
        "C": ValueClass("C", "output", m * n),
    }
    statement = Statement("C", plain("C", "mn"), (plain("A", "mk"), plain("B", "kn")))
    return Problem("product", {"m": m, "n": n, "k": k}, classes, (statement,))


def check_exact_product(m: int, n: int, k: int, memory: int) -> None:
    least = least_io(*matmul_sums(m, n, k), memory)
    assert lower_bound(product(m, n, k), np.array([float(memory)])).words[0] <= least
    assert least >= m * k + k * n + m * n


def check_exact_attention(rows: int, columns: int, d: int, dv: int, causal: bool, memory: int) -> None:
    pattern = Intervals.band(rows, columns, None, 0) if causal else Intervals.dense(rows, columns)
    keys = [pattern.row(i) for i in range(pattern.rows)]
    least = least_io(*attention_sums(keys, pattern.columns, d, dv), memory)
    assert lower_bound(attention_problem(Heads(pattern, d, dv)), np.array([float(memory)])).words[0] <= least


@pytest.mark.parametrize(
    ("m", "n", "k", "memory"), [(1, 1, 3, 3), (2, 2, 1, 3), (2, 2, 1, 4), (2, 1, 2, 3), (2, 1, 2, 4)]
)
def test_exact_search_of_products_agrees(m: int, n: int, k: int, memory: int) -> None:
    check_exact_product(m, n, k, memory)


@pytest.mark.slow
@pytest.mark.parametrize(("m", "n", "k"), [(2, 2, 2), (2, 1, 3), (3, 2, 1)])
@pytest.mark.parametrize("memory", [3, 4, 5])
def test_exact_search_of_larger_products_agrees(m: int, n: int, k: int, memory: int) -> None:
    check_exact_product(m, n, k, memory)


@pytest.mark.parametrize(
    ("rows", "columns", "d", "dv", "causal"), [(1, 2, 1, 1, False), (2, 2, 1, 1, True), (1, 2, 2, 1, False)]
)
@pytest.mark.parametrize("memory", [3, 4])
def test_exact_search_of_attention_agrees(rows: int, columns: int, d: int, dv: int, causal: bool, memory: int) -> None:
    check_exact_attention(rows, columns, d, dv, causal, memory)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns", "d", "dv"), [(2, 2, 1, 1), (2, 1, 1, 2), (1, 2, 2, 1), (1, 3, 1, 1)])
@pytest.mark.parametrize("memory", [3, 4, 5, 6])
def test_exact_search_of_larger_attention_agrees(rows: int, columns: int, d: int, dv: int, memory: int) -> None:
    check_exact_attention(rows, columns, d, dv, False, memory)
