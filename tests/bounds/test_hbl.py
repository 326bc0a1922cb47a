"""Hölder-Brascamp-Lieb inequalities: known exponents, and no random set of points breaks one."""

from __future__ import annotations

from fractions import Fraction
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds.engine import lower_bound
from bounds.hbl import Array, Program, fiber_caps, inequalities
from bounds.hbl import _by_programs as by_programs
from bounds.lattice import closure, echelon, kernel, meet, rank_on
from bounds.reader import read_problem
from bounds.verify import verify
from einsum import Cascade

HALF = Fraction(1, 2)


def program(loops: str, extents: dict[str, int], **maps: str | tuple[tuple[int, ...], ...]) -> Program:
    """Arrays by the loops that index them, or by an integer matrix."""
    arrays = tuple(
        Array(name, tuple(tuple(int(x == y) for y in loops) for x in m) if isinstance(m, str) else m, 1.0)
        for name, m in maps.items()
    )
    return fiber_caps(Program(tuple(loops), arrays, (((), 1.0),), {k: float(v) for k, v in extents.items()}))


EXTENTS = {"i": 5, "j": 4, "k": 6}
CONV1D = program("pw", {"p": 7, "w": 4}, I=((1, 1),), G=((0, 1),), O=((1, 0),))
PROGRAMS = {
    "matmul": program("ijk", EXTENTS, A="ik", B="kj", C="ij"),
    "conv1d": CONV1D,
    "strided": program("pw", {"p": 6, "w": 5}, I=((2, 1),), G=((0, 1),), O=((1, 0),)),
    "channels": program(
        "kpcw",
        {"k": 3, "p": 4, "c": 3, "w": 3},
        I=((0, 0, 1, 0), (0, 1, 0, 1)),
        G=((1, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)),
        O=((1, 0, 0, 0), (0, 1, 0, 0)),
    ),
    "diagonal band": program("ijk", EXTENTS, A=((1, 0, 0), (1, 1, 0)), B="jk", C="ik"),
}


def test_a_product_has_the_exponents_of_loomis_and_whitney() -> None:
    assert (HALF, HALF, HALF) in {one.s for one in inequalities(PROGRAMS["matmul"])}


def test_a_convolution_without_channels_needs_exponents_that_sum_to_two() -> None:
    """Its loops span a plane, and each array and each loop sees a line of it."""
    assert {sum(one.s) + sum(e for _, e in one.t) for one in inequalities(CONV1D) if not one.capped} == {2}


@pytest.mark.parametrize("name", PROGRAMS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=40)
def test_no_random_set_breaks_an_inequality(name: str, seed: int) -> None:
    chosen = PROGRAMS[name]
    extents = dict.fromkeys(chosen.loops, 7) | {loop: int(v) for loop, v in chosen.extents.items()}
    extents |= {loops[0]: int(cap) for loops, cap in chosen.caps if len(loops) == 1}
    generator = np.random.default_rng(seed)
    every = np.array(list(np.ndindex(*(extents[loop] for loop in chosen.loops))))
    corner = generator.integers(0, 3, len(chosen.loops))
    low = every[np.all((every >= corner) & (every < corner + generator.integers(1, 6, len(corner))), axis=1)]
    pool = low if len(low) and generator.random() < 0.5 else every
    points = pool[generator.random(len(pool)) < generator.choice([0.1, 0.5, 1.0])]
    if not len(points):
        return
    sizes = [len(np.unique(points @ np.array(array.index).T, axis=0)) for array in chosen.arrays]
    for one in inequalities(chosen):
        most = one.log_constant(chosen.extents) + sum(float(e) * log(n) for e, n in zip(one.s, sizes, strict=True))
        assert log(len(points)) <= most + 1e-9, one


def test_a_pattern_caps_rows_columns_and_pairs_but_not_rows_times_columns() -> None:
    caps = (((), 1.0), (("i",), 3.0), (("j",), 2.0), (("i", "j"), 9.0))
    arrays = (Array("V", ((0, 1, 0), (0, 0, 1)), 1.0), Array("O", ((1, 0, 0), (0, 0, 1)), 1.0))
    found = inequalities(Program(("i", "j", "l"), arrays, caps, {"l": 4.0}))
    constants = {one.capped: one.log_constant({"l": 4.0}) for one in found if not any(one.s)}
    assert constants == {("i", "j"): pytest.approx(log(9 * 4))}


def test_linear_programs_propose_the_same_corners() -> None:
    a = np.array([[1.0, 1, 0], [0, 1, 1], [1, 0, 1]])
    points = {tuple(np.round(x, 6)) for x in by_programs(a, np.ones(3), [])}
    assert points == {(0.5, 0.5, 0.5), (1, 0, 1), (1, 1, 0), (0, 1, 1)} & points
    assert (0.5, 0.5, 0.5) in points


def test_lattice_of_kernels() -> None:
    kernels = [kernel([[1, 1]], 2), kernel([[0, 1]], 2), kernel([[1, 0]], 2)]
    closed = closure(kernels, 2, 10)
    assert closed is not None
    assert len(closed) == 4  # three lines and the plane
    assert meet(kernels[0], kernels[1], 2) == ()
    assert rank_on([[1, 1]], kernels[0]) == 0
    assert echelon([[2, 4], [1, 2]]) == ((1, 2),)
    assert closure([kernel([[1, a, a * a]], 3) for a in range(6)], 3, 12) is None


def test_a_convolution_with_channels_reuses_each_word_by_the_filter_size() -> None:
    """|F| <= sqrt(|I| |G| |O| R S): the filter's loops enter by the square roots of their lengths."""
    problem = read_problem(Cascade.load("conv2d"), {"N": 1, "K": 64, "P": 56, "Q": 56, "C": 64, "R": 3, "S": 3})
    memory = np.array([256.0, 1024.0])
    found = lower_bound(problem, memory)
    volume = 64 * 56 * 56 * 64 * 9
    assert found.words == pytest.approx(2 * volume / np.sqrt(9 * memory), rel=2e-3)
    for certificate in found.certificates:
        verify(certificate)
