"""How far the best-effort part of the mapper is from an exhaustive search, with the tolerance that was measured."""

from __future__ import annotations

from itertools import permutations, product
from math import inf
from typing import Any

import numpy as np
import pytest

from architectures import Architecture
from einsum import Cascade
from mappings import Mapping as Plan
from mappings.search import find
from simulator.simulate import simulate
from tests.mappings.brute_force import Fused, Outside, Part, least_words
from tests.mappings.test_search import ATTENTION, CUTS, MATMUL, RUNS
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


@pytest.mark.parametrize(("cascade", "tolerance"), [(MATMUL, 1.45), (ATTENTION, 1.8)], ids=["product", "attention"])
def test_traffic_on_three_levels(cascade: Cascade, tolerance: float) -> None:
    """A tile may lie in either memory on chip; the mapper holds a run's tiles in one of them."""
    random = np.random.default_rng(1)
    rooms = [(10, 5), (12, 8), (24, 6), (40, 4)]
    for _ in range(4):
        sizes = {name: int(random.integers(2, 5)) for name in cascade.parameters}
        extents = {name.lower(): size for name, size in sizes.items()}
        if cascade is MATMUL:
            least = least_words(PRODUCT, extents, rooms)
        else:
            words = {span: least_words(fused, extents, rooms) for span, fused in RUNS.items()}
            least = [min(sum(words[span][place] for span in cut) for cut in CUTS) for place in range(len(rooms))]
        for (outer, inner), fewest in zip(rooms, least, strict=True):
            moved = find(cascade, three_levels(outer, inner), None, "dram", sizes).dram_bytes
            assert fewest <= moved <= tolerance * fewest


def test_time_and_energy_on_two_levels() -> None:
    """Every order, chunk, place of a tile and number of its buffers of a small product, costed by the simulator."""
    sizes = {"M": 4, "N": 1, "K": 3}
    capacities = (5, 8, 12)
    least = dict.fromkeys(product(capacities, ("latency", "energy", "edp")), inf)
    for room, time, energy in _costs(sizes):
        for capacity, objective in least:
            value = {"latency": time, "energy": energy, "edp": time * energy}[objective]
            least[capacity, objective] = min(least[capacity, objective], value[room <= capacity].min(initial=inf))
    tolerance = {"latency": 1.3, "energy": 1.03, "edp": 1.4}
    for (capacity, objective), value in least.items():
        found = best(machine({"lanes": 1}, L1=capacity), objective, **sizes)
        assert found.cost is not None
        assert value * (1 - 1e-9) <= found.cost.of(objective) <= tolerance[objective] * value


def _costs(sizes: dict[str, int]) -> Any:
    """Words of room, time and energy over all chunks, of each order, placement and buffering."""
    extents = {name.lower(): size for name, size in sizes.items()}
    ranks = [rank for rank, size in extents.items() if size > 1]
    points = product(*(range(1, extents[rank] + 1) for rank in ranks))
    chunk = dict(zip(ranks, np.array(list(points), dtype=float).T, strict=True))
    settings: Any = {**sizes, **{f"{rank}0": values for rank, values in chunk.items()}}
    chosen = machine({"lanes": 1}, L1=10**6)
    depths = range(len(ranks) + 1)
    for order, places, copies in product(permutations(ranks), product(depths, repeat=3), product((1, 2), repeat=3)):
        nest: list[Any] = []
        room: Any = np.zeros_like(chunk[ranks[0]])
        for depth in depths:
            kept = {t: {"buffers": n} for t, at, n in zip("ABZ", places, copies, strict=True) if at == depth}
            for tensor, options in kept.items():
                cut = order[:depth]
                room = room + options["buffers"] * np.prod(
                    [chunk[r] if r in cut else np.full_like(room, extents[r]) for r in RANKS[tensor]], axis=0
                )
            nest += [{"keep": {"L1": kept}}] if kept else []
            nest += [{"for": {order[depth]: f"{order[depth]}0"}}] if depth < len(ranks) else []
        variables = {f"{rank}0": 1 for rank in ranks}
        body = {"compute": "Z", "on": "array", "issue": "chained"}
        plan = Plan.parse({"mapping": "one", "variables": variables, "nest": [*nest, body]})
        result = simulate(MATMUL, chosen, plan, None, settings)
        yield room, *(np.broadcast_to(cost, room.shape) for cost in (result.latency_s, result.energy_j))
