"""How far the best-effort part of the mapper is from an exhaustive search, with the tolerance that was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations, product
from math import inf, prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from architectures import Architecture
from einsum import Cascade
from einsum.errors import SpecError
from mappings import Mapping as Plan
from mappings.search import find
from simulator.simulate import simulate
from tests.mappings.brute_force import Fused, Outside, Part, least_words
from tests.mappings.test_search import ATTENTION, CUTS, MATMUL, RUNS, evaluator
from tests.mappings.test_search_space import best, machine

PRODUCT = Fused((Part(("m", "n", "k"), (Outside(("m", "k")), Outside(("k", "n")), Outside(("m", "n"), True))),))
RANKS = {"A": "mk", "B": "kn", "Z": "mn"}


def three_levels(outer: int, inner: int) -> Architecture:
    memory = {"access_bits": 8, "read_energy": "1 pJ", "write_energy": "1 pJ"}
    ops = {kind: {"cycles": 1, "energy": "1 pJ"} for kind in ("mac", "mul", "exp")}
    chip = {"L2": {"capacity": outer, **memory}, "L1": {"capacity": inner, **memory}}
    return Architecture.parse(
        {"architecture": "three", "clock": "1 GHz", "word_bits": 8,
         "memories": {"DRAM": {"bandwidth": "1 GB/s", **memory}, **chip},
         "units": {"array": {"dims": {"lanes": 1}, "ops": ops}}}
    )  # fmt: skip


@examples(max_examples=12, deadline=None)
@given(
    st.sampled_from([MATMUL, ATTENTION]), st.lists(st.integers(1, 4), min_size=4, max_size=4),
    st.integers(4, 30), st.integers(3, 10),
)  # fmt: skip
def test_least_traffic_on_three_levels(cascade: Cascade, extents: list[int], outer: int, inner: int) -> None:
    """Each tile in either memory on chip: as few words as a walk over all schedules finds, and the simulator agrees."""
    sizes = dict(zip(cascade.parameters, extents, strict=False))
    known = {name.lower(): size for name, size in sizes.items()}
    if cascade is MATMUL:
        (fewest,) = least_words(PRODUCT, known, [(outer, inner)])
    else:
        words = {span: least_words(fused, known, [(outer, inner)])[0] for span, fused in RUNS.items()}
        fewest = min(sum(words[span] for span in cut) for cut in CUTS)
    if fewest == inf:
        with pytest.raises(SpecError, match="no mapping of cascade"):
            find(cascade, three_levels(outer, inner), None, "dram", sizes)
        return
    evaluate = evaluator(cascade, three_levels(outer, inner), None, sizes)
    found = find(cascade, three_levels(outer, inner), None, "dram", sizes, evaluate=evaluate)
    assert found.exact
    assert found.cost is not None
    assert found.dram_bytes == found.cost.dram_bytes == fewest


@pytest.mark.parametrize(
    ("levels", "objectives"),
    [
        (("L1",), ("latency", "energy", "edp")),
        (("L2", "L1"), ("energy",)),
        pytest.param(("L2", "L1"), ("latency", "energy", "edp"), marks=pytest.mark.slow),
    ],
)
def test_time_and_energy(levels: tuple[str, ...], objectives: tuple[str, ...]) -> None:
    """Every order, chunk, memories and places of the tiles and number of their buffers, costed by the simulator."""
    sizes = {"M": 3, "N": 1, "K": 2}
    rooms = [(5,), (8,)] if len(levels) == 1 else [(5, 3), (10, 4)]
    least = dict.fromkeys(product(rooms, objectives), inf)

    def architecture(capacities: tuple[int, ...]) -> Architecture:
        return machine({"lanes": 1}, nearer=3.0, **dict(zip(levels, capacities, strict=True)))

    copies = (1,) if objectives == ("energy",) else (1, 2)
    for taken, time, energy in _costs(sizes, levels, architecture((10**6,) * len(levels)), copies):
        for capacities, objective in least:
            value = {"latency": time, "energy": energy, "edp": time * energy}[objective]
            fits = np.all([room <= most for room, most in zip(taken, capacities, strict=True)], axis=0)
            least[capacities, objective] = min(least[capacities, objective], value[fits].min(initial=inf))
    # How far the search is from the best where its estimate of fill and drain decides (docs/mapper.md).
    latency, edp = (1.07, 1.05) if len(levels) == 1 else (1.09, 1.07)
    tolerance = {"latency": latency, "energy": 1.0, "edp": edp}
    for (capacities, objective), value in least.items():
        found = best(architecture(capacities), objective, **sizes)
        assert found.cost is not None
        assert value * (1 - 1e-9) <= found.cost.of(objective) <= tolerance[objective] * value * (1 + 1e-9)


Chain = tuple[tuple[str, int, int], ...]
"""(memory, loops around, buffers) of a tensor's tiles, outermost first."""


def _chains(levels: Sequence[str], depths: Sequence[int], copies: Sequence[int]) -> Iterator[Chain]:
    """Every way to hold a tensor: in one memory or several, each smaller tile further in; buffers of the outermost."""
    for count in range(1, len(levels) + 1):
        for chosen, places in product(combinations(levels, count), combinations(depths, count)):
            for first in copies if places[0] else (1,):
                yield tuple(zip(chosen, places, (first, 1), strict=False))


def _costs(
    sizes: dict[str, int], levels: Sequence[str], chosen: Architecture, copies: Sequence[int]
) -> Iterator[tuple[list[Any], Any, Any]]:
    """Words taken in each memory, time and energy over all chunks, of each order and way to hold the tensors."""
    extents = {name.lower(): size for name, size in sizes.items() if size > 1}
    points = product(*(range(1, size + 1) for size in extents.values()))
    chunk = dict(zip(extents, np.array(list(points), dtype=float).T, strict=True))
    settings: Any = {**sizes, **{f"{rank}0": values for rank, values in chunk.items()}}
    whole = np.ones_like(next(iter(chunk.values())))
    body = {"compute": "Z", "on": "array", "issue": "chained"}
    for order in permutations(extents):
        cuts = [[0, *(at + 1 for at, rank in enumerate(order) if rank in RANKS[tensor])] for tensor in "ABZ"]
        for held in product(*(list(_chains(levels, depths, copies)) for depths in cuts)):
            taken = dict.fromkeys(levels, 0.0 * whole)
            nest: list[Any] = []
            for depth in range(len(order) + 1):
                tile = {rank: chunk[rank] if rank in order[:depth] else size * whole for rank, size in extents.items()}
                for tensor, chain in zip("ABZ", held, strict=True):
                    for level, _, buffers in (spot for spot in chain if spot[1] == depth):
                        words = prod((tile[rank] for rank in RANKS[tensor] if rank in tile), start=whole)
                        taken[level] = taken[level] + buffers * words
                        nest.append({"keep": {level: {tensor: {"buffers": buffers}}}})
                nest += [{"for": {order[depth]: f"{order[depth]}0"}}] if depth < len(order) else []
            plan = Plan.parse({"mapping": "one", "variables": {f"{r}0": 1 for r in order}, "nest": [*nest, body]})
            result = simulate(MATMUL, chosen, plan, None, settings)
            costs = (np.broadcast_to(cost, whole.shape) for cost in (result.latency_s, result.energy_j))
            yield [taken[level] for level in levels], *costs
