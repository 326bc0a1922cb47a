"""The engine's bounds: leading constants, closed forms, worked cases, labels, and the traps that a bound must avoid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bounds.attention_schedules import Heads, best_schedules
from bounds.engine import compulsory, lower_bound
from bounds.joint import join
from bounds.named_schedules import named_schedule
from bounds.pattern import Intervals
from bounds.problem import Access, FiberPasses, Problem, Statement, ValueClass
from bounds.product_schedules import product_schedules
from bounds.reader import read_problem
from bounds.schedules import find_schedules
from bounds.verify import verify
from einsum import Cascade
from tests.bounds.cases import attention_problem, random_case
from tests.bounds.test_soundness import latent_problem, product


def dense(n: int, d: int, dv: int | None = None, **other: int) -> Heads:
    return Heads(Intervals.dense(n, n), d, dv or d, **other)


def bound(heads: Heads, memory: float, label: str = "recompute-safe") -> float:
    return float(lower_bound(attention_problem(heads), np.array([float(memory)]), label).words[0])


@pytest.mark.parametrize("m", [4, 6, 8, 16])
def test_attention_in_a_large_memory_has_the_constant_four(m: float) -> None:
    n, d = 131072, 128
    assert bound(dense(n, d), m * d * d) == pytest.approx(4 * n * n / m, rel=2e-3)


@pytest.mark.parametrize("m", [0.05, 0.25, 1.0, 2.0, 3.9])
def test_attention_in_a_small_memory_has_the_joint_bound(m: float) -> None:
    n, d = 65536, 128
    assert bound(dense(n, d), m * d * d) == pytest.approx(n * n * (4 / np.sqrt(m) - 1), rel=1e-6)


@pytest.mark.parametrize(("d", "dv"), [(128, 64), (64, 128), (192, 128), (576, 512)])
def test_widths_that_differ_have_their_own_constant(d: int, dv: int) -> None:
    n, w = 131072, min(d, dv)
    memory = 9 * max(d, dv) ** 2
    assert bound(dense(n, d, dv), memory) == pytest.approx(n * n * dv * (d + w) ** 2 / (w * memory), rel=5e-3)


@pytest.mark.parametrize(("d", "shared"), [(64, 64), (72, 64)])
def test_values_inside_the_keys_have_their_own_constant(d: int, shared: int) -> None:
    """E d (d + d_v)/M to leading order: a column's words are those of its key alone."""
    n, memory = 2**18, 256.0 * d * d
    found = lower_bound(latent_problem(replace(dense(n, d), dv=shared), shared), np.array([memory]))
    assert found.theorems[0] == "star segments"
    assert found.words[0] == pytest.approx(2 * n * n * d**1.5 * shared**0.5 / memory, rel=0.06)


def test_the_two_regimes_meet_at_four_d_squared() -> None:
    n, d = 65536, 64
    below, above = (bound(dense(n, d), 4 * d * d * f) for f in (0.999, 1.001))
    assert below == pytest.approx(above, rel=5e-3) == pytest.approx(n * n, rel=5e-3)


@pytest.mark.parametrize(
    ("heads", "memory", "words"),
    [
        (dense(4096, 64), 98304, 2850816),
        (dense(8192, 128), 16384, 201326592),
        (dense(512, 64), 81920, 131072),
        (Heads(Intervals.band(4096, 4096, None, 0), 128, 128), 114688, 4869676),
        (Heads(Intervals.dense(1, 32768), 128, 128, group=8), 16384, 8390656),
    ],
)
def test_worked_cases(heads: Heads, memory: int, words: int) -> None:
    assert bound(heads, memory) == pytest.approx(words, rel=0.01)


def test_masks_scale_with_the_pairs_they_keep() -> None:
    n, d, w = 65536, 64, 4096
    memory = 8 * d * d
    causal = Heads(Intervals.band(n, n, None, 0), d, d)
    window = Heads(Intervals.band(n, n, w - 1, 0), d, d)
    assert bound(causal, memory) == pytest.approx(2 * n * n * d * d / memory, rel=5e-3)
    assert bound(window, memory) == pytest.approx(4 * window.pairs * d * d / memory, rel=5e-2)


def test_heads_add_and_groups_stack() -> None:
    n, d = 8192, 64
    memory = 6 * d * d
    assert bound(dense(n, d, copies=12), memory) == pytest.approx(12 * bound(dense(n, d), memory), rel=1e-6)
    stacked = Heads(Intervals.dense(4 * n, n), d, d)
    grouped = Heads(Intervals.dense(n, n), d, d, group=4)
    assert bound(grouped, memory) == pytest.approx(bound(stacked, memory), rel=1e-3)


def test_gaps_of_attention() -> None:
    n, d = 131072, 128
    m = np.array([0.01, 0.05, 0.25, 0.5, 1, 1.5, 2, 3, 4, 8, 16, 32])
    memory = m * d * d
    gap = best_schedules(dense(n, d)).at(memory)[0] / lower_bound(attention_problem(dense(n, d)), memory).words
    assert np.all(gap[m >= 4] <= 1.05)
    assert np.all(gap < 1.35)  # 4/3 asymptotically; ragged tiles add what is left at finite sizes


def test_asymptotic_gap_is_at_most_four_thirds() -> None:
    d, n = 4096, 2**19
    memory = d * d * np.array([2.0**-6, 2.0**-4, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0])
    u = d / np.sqrt(memory)
    best = np.where(u <= 1, 4 * u**2, np.where(u <= 2, (1 + u) ** 2, 4 * u + 1))  # tiles of any real size
    lower = lower_bound(attention_problem(dense(n, d)), memory).words / n**2
    assert np.all(best / lower <= 4 / 3 + 2e-3)


# Products


@pytest.mark.parametrize("memory", [100.0, 1000.0, 10000.0])
def test_a_matrix_product_has_the_constant_two(memory: float) -> None:
    m, n, k = 3000, 2500, 2000
    found = lower_bound(product(m, n, k), np.array([memory])).words[0]
    assert found == pytest.approx(2 * m * n * k / np.sqrt(memory), rel=5e-3)


def test_adding_the_output_to_the_leading_term_would_be_unsound() -> None:
    """2mnk/sqrt(S) + mn exceeds what schedules need when k is small; the engine's bound does not."""
    for m, n, k, memory in ((4096, 4096, 64, 8192), (1000, 1000, 1, 100)):
        problem = product(m, n, k)
        stairs = product_schedules(problem, problem.statements[0])
        assert stairs is not None
        best = stairs.at(np.array([float(memory)]))[0][0]
        assert best < 2 * m * n * k / np.sqrt(memory) + m * n
        assert lower_bound(problem, np.array([float(memory)])).words[0] <= best


def test_bounds_of_the_two_products_of_attention_are_not_added() -> None:
    """Each product's own bound counts the scores' traffic: their sum exceeds a schedule that runs."""
    heads, memory = dense(4096, 64), 4 * 64**2
    best = best_schedules(heads).at(np.array([float(memory)]))[0][0]
    single = lower_bound(product(4096, 4096, 64), np.array([float(memory)])).words[0]
    assert 2 * single > best
    assert bound(heads, memory) <= best


def test_classes_with_their_own_width_are_charged_at_it() -> None:
    problem = product(512, 512, 512)
    wide = replace(problem, classes={n: replace(v, width=2.0) for n, v in problem.classes.items()})
    memory = np.array([300.0, 3000.0])
    assert lower_bound(wide, 2 * memory).words == pytest.approx(2 * lower_bound(problem, memory).words, rel=1e-3)
    output = replace(problem, classes=problem.classes | {"C": replace(problem.classes["C"], width=2.0)})
    assert np.all(lower_bound(output, memory).words >= lower_bound(problem, memory).words)


def test_the_same_tensor_twice_is_not_charged_twice() -> None:
    """X X^T: one word serves as row and as column."""
    plain = Access.plain
    n, k, memory = 400, 64, 500.0
    classes = {"X": ValueClass("X", "input", n * k), "C": ValueClass("C", "output", n * n)}
    gram = Problem(
        "gram",
        {"i": n, "j": n, "k": k},
        classes,
        (Statement("C", plain("C", "ij"), (plain("X", "ik"), plain("X", "jk"))),),
    )
    found, full = (
        lower_bound(gram, np.array([memory])).words[0],
        lower_bound(product(n, n, k), np.array([memory])).words[0],
    )
    assert found == pytest.approx(full / 2, rel=0.02)


# Labels


def test_bounds_never_increase_with_memory() -> None:
    for seed in range(8):
        problem = attention_problem(random_case(seed).heads)
        memory = np.arange(6.0, 60.0)
        for label in ("any-algorithm", "recompute-safe", "no-recompute"):
            assert np.all(np.diff(lower_bound(problem, memory, label).words) <= 1e-9)


def test_narrower_labels_give_larger_bounds() -> None:
    problem = attention_problem(dense(2048, 64))
    memory = np.geomspace(100, 10**6, 12)
    found = [lower_bound(problem, memory, label).words for label in ("any-algorithm", "recompute-safe", "no-recompute")]
    assert np.all(found[0] <= found[1] + 1e-6)
    assert np.all(found[1] <= found[2] + 1e-6)
    assert np.all(found[0] == sum(compulsory(problem).values()))


def test_the_joint_bound_is_recompute_safe_only_up_to_four_d_squared() -> None:
    problem = attention_problem(dense(2048, 64))
    (joint,) = join(problem, "S", {})
    assert joint.limit == pytest.approx(4 * 64**2)
    above = lower_bound(problem, np.array([5.0 * 64**2]))
    assert "joint" not in above.theorems[0]


def test_passes_that_spill_are_charged_once_per_pass() -> None:
    heads = dense(64, 1)
    problem = replace(attention_problem(heads), passes=(FiberPasses("S", "m", 64.0, 64.0, 3),))
    memory = np.array([32.0])
    found = lower_bound(problem, memory, "no-recompute")
    assert found.words[0] == pytest.approx(64 * 3 * 32 + 4 * 64, rel=1e-6)
    assert found.theorems[0] == "passes + compulsory"
    verify(found.certificates[0])


def test_products_that_share_an_input_are_bounded_as_the_product_of_both() -> None:
    layer = read_problem(
        Cascade.load("transformer-layer"), {"B": 1, "H": 12, "P": 512, "E": 64, "F": 64, "D": 768, "S": 3072}
    )
    memory = np.array([256.0, 4096.0])
    found = lower_bound(layer, memory, "no-recompute")
    gap = find_schedules(layer, recompute=False).best.at(memory)[0] / found.words
    assert np.all((gap > 1) & (gap < 1.2))
    for certificate in found.certificates:
        verify(certificate)


def test_a_cut_product_is_bounded_as_two() -> None:
    """Two chained products whose intermediate is small: both are bounded, less two visits of the intermediate."""
    plain = Access.plain
    size = {"i": 600, "j": 40, "k": 600, "l": 600}
    names = {
        "A": ("input", "ik"),
        "B": ("input", "kj"),
        "T": ("intermediate", "ij"),
        "C": ("input", "jl"),
        "Z": ("output", "il"),
    }
    classes = {n: ValueClass(n, kind, size[x[0]] * size[x[1]]) for n, (kind, x) in names.items()}
    statements = (
        Statement("T", plain("T", "ij"), (plain("A", "ik"), plain("B", "kj"))),
        Statement("Z", plain("Z", "il"), (plain("T", "ij"), plain("C", "jl"))),
    )
    problem = Problem("chain", size, classes, statements)
    found = lower_bound(problem, np.array([100.0]), "no-recompute")
    separate = 2 * (2 * 600 * 40 * 600 / np.sqrt(100))
    assert found.words[0] >= separate - 2 * 600 * 40 - 1e-3 * separate
    assert found.words[0] <= separate


def test_named_schedules_stay_above_the_bound_on_a_grid() -> None:
    for heads in (dense(1024, 64), Heads(Intervals.band(1024, 1024, None, 0), 64, 32), dense(300, 16, group=3)):
        memory = np.geomspace(200, 10**6, 40)
        lower = lower_bound(attention_problem(heads), memory).words
        for name in ("flash-attention-1", "flash-attention-2", "flat", "unfused"):
            traffic = named_schedule(name, heads, memory)
            assert np.all((traffic.words >= lower) | ~traffic.fits)
