"""The library's architectures hold the published numbers, typed in here from the papers' tables."""

from __future__ import annotations

import numpy as np
import pytest

from architectures import Architecture
from einsum import list_library

PICO = 1e-12
EXACT = 1e-12

# FuseMax's artifact, pJ per action: 64-bit DRAM access, 4096-bit L3 row, 16-bit register access, 16-bit operation.
COMMON = {("DRAM", "read"): 249.6, ("DRAM", "write"): 249.6}
ARITHMETIC = {"mac": 17.1645, "mul": 17.1645, "add": 8.3395, "sub": 8.3395, "max": 0.028036, "div": 36.251153}
FLAT_CLOUD = {
    **COMMON,
    ("L3", "read"): 23854.664592,
    ("L3", "write"): 27097.564592,
    ("array_1d.registers", "read"): 2.190435,
    ("array_1d.registers", "write"): 1.902435,
    ("array_2d.registers", "read"): 2.182395,
    ("array_2d.registers", "write"): 1.894395,
    **{("array_1d", op): energy for op, energy in ARITHMETIC.items()},
    ("array_1d", "exp"): 94.6475,
    **{("array_2d", op): ARITHMETIC[op] for op in ("mac", "mul")},
}
FUSEMAX = {
    **COMMON,
    ("L3", "read"): 12512.760572,
    ("L3", "write"): 15751.460572,
    ("array_1d.registers", "read"): 2.194455,
    ("array_1d.registers", "write"): 1.906455,
    ("array_2d.registers", "read"): 2.190435,
    ("array_2d.registers", "write"): 1.902435,
    **{("array_1d", op): energy for op, energy in ARITHMETIC.items()},
    ("array_1d", "exp"): 102.987,
    **{("array_2d", op): ARITHMETIC[op] for op in ("mac", "mul", "add", "sub", "max")},
    ("array_2d", "exp"): 102.987,
}


@pytest.mark.parametrize("name", list_library("architecture"))
def test_every_architecture_loads_and_names_its_source(name: str) -> None:
    architecture = Architecture.load(name)
    assert architecture.name == name
    assert architecture.description and architecture.source
    evaluated = architecture.evaluate({})
    assert evaluated.backing_store is evaluated.memory(next(iter(architecture.memories)))


@pytest.mark.parametrize(("name", "published"), [("flat-cloud", FLAT_CLOUD), ("fusemax", FUSEMAX)])
def test_action_energies_equal_the_published_table(name: str, published: dict[tuple[str, str], float]) -> None:
    energies = Architecture.load(name).evaluate({}).action_energies_j()
    assert set(energies) == set(published), "the operations of each array too"
    for action, picojoule in published.items():
        assert energies[action] == pytest.approx(picojoule * PICO, rel=EXACT), action


@pytest.mark.parametrize(
    ("name", "buffer", "words_2d", "exp_cycles"), [("flat-cloud", 32, 4, 1), ("fusemax", 16, 10, 6)]
)
def test_sizes_rates_and_cycles_are_the_published_ones(name: str, buffer: int, words_2d: int, exp_cycles: int) -> None:
    machine = Architecture.load(name).evaluate({})
    assert machine.clock_hz == 940e6
    assert machine.word_bits == 16
    assert machine.memories["DRAM"].bandwidth_bytes_per_s == 400 * 2**30
    assert machine.memories["DRAM"].access_bits == 64
    assert machine.memories["L3"].capacity_bytes == buffer * 2**20
    assert machine.memories["L3"].access_bits == 4096
    assert dict(machine.units["array_2d"].dims) == {"columns": 256, "rows": 256}
    assert dict(machine.units["array_1d"].dims) == {"lanes": 256}
    registers = machine.units["array_2d"].registers
    assert registers is not None and registers.words == words_2d
    cycles = {kind: op.cycles for kind, op in machine.units["array_1d"].ops.items()}
    assert cycles == {"mac": 1, "mul": 1, "add": 1, "sub": 1, "max": 1, "div": 1, "exp": exp_cycles}


def test_buffer_energy_is_exact_at_both_published_sizes_and_grows_with_the_size() -> None:
    sizes = np.array([8, 16, 24, 32, 64]) * 2.0**20
    for name in ("flat-cloud", "fusemax"):
        buffer = Architecture.load(name).evaluate({"buffer": sizes}).memories["L3"]
        for energy, published in (
            (buffer.read_energy_j, (12512.760572, 23854.664592)),
            (buffer.write_energy_j, (15751.460572, 27097.564592)),
        ):
            assert isinstance(energy, np.ndarray)
            assert energy[[1, 3]] == pytest.approx(np.array(published) * PICO, rel=EXACT)
            assert (np.diff(energy) > 0).all()


def test_array_side_and_operation_costs_can_be_swept() -> None:
    machine = Architecture.load("fusemax").evaluate({"W": np.array([16, 512]), "exp_macs": np.array([4, 8])})
    array = machine.units["array_2d"]
    assert np.array_equal(array.elements, [16**2, 512**2])
    assert np.array_equal(machine.units["array_1d"].elements, [16, 512])
    assert np.array_equal(array.op("exp").cycles, [4, 8])
    assert array.op("exp").energy_j == pytest.approx(np.array([4, 8]) * 17.1645 * PICO, rel=EXACT)
    assert Architecture.load("flat-cloud").evaluate({"exp_cycles": 9}).units["array_1d"].op("exp").cycles == 9
