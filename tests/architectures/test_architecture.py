"""Architectures: what a description means, and one clear sentence for every mistake in it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from architectures import Architecture, Memory, OpCost, Registers, Unit
from einsum import SpecError, list_library

SMALL = """
architecture: small
variables: {W: 8, buffer: 1 MiB, exp_cycles: 6}
clock: 1 GHz
word_bits: 16
memories:
  DRAM: {bandwidth: 100 GB/s, access_bits: 64, read_energy: 249.6 pJ, write_energy: 250 pJ}
  L3: {capacity: buffer, read_energy: "10 pJ * buffer / 1 MiB", latency: 5 ns, copies: 2, area: 3 mm2}
units:
  array:
    dims: {columns: W, rows: 2 * W}
    registers: {words: 4, read_energy: 1 pJ, write_energy: 2 pJ}
    ops: {mac: {energy: 17 pJ}, exp: {cycles: exp_cycles}}
  vector: {dims: {lanes: W}, clock: 500 MHz, ops: {max: {}}, area: 1 mm2}
"""


def small(*changes: tuple[str, str]) -> str:
    """The small architecture as YAML text, with pieces of text replaced."""
    text = SMALL
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def refusal(old: str, new: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        Architecture.parse(small((old, new)), file="small.yaml")
    return caught.value


def test_every_number_is_in_si_units() -> None:
    machine = Architecture.parse(SMALL).evaluate({})
    dram, buffer = machine.memories["DRAM"], machine.memories["L3"]
    assert (dram.bandwidth_bytes_per_s, dram.access_bits, dram.access_bytes) == (100e9, 64, 8)
    assert (dram.read_energy_j, dram.write_energy_j) == pytest.approx((249.6e-12, 250e-12))
    assert (buffer.capacity_bytes, buffer.latency_s, buffer.copies) == (2**20, 5e-9, 2)
    assert (machine.clock_hz, machine.word_bits, machine.word_bytes) == (1e9, 16, 2)
    array = machine.units["array"]
    assert dict(array.dims) == {"columns": 8, "rows": 16}
    assert array.elements == 128
    assert array.op("exp").cycles == 6
    assert array.op("mac").energy_j == pytest.approx(17e-12)


def test_what_is_left_out_never_limits_and_costs_nothing() -> None:
    machine = Architecture.parse(SMALL).evaluate({})
    dram, buffer = machine.memories["DRAM"], machine.memories["L3"]
    assert dram.unbounded and not buffer.unbounded
    assert dram.capacity_bytes == buffer.bandwidth_bytes_per_s == dram.read_bandwidth_bytes_per_s == math.inf
    assert buffer.write_energy_j == dram.latency_s == 0
    assert buffer.access_bits == 16, "one word"
    assert machine.units["array"].op("mac").cycles == 1
    assert machine.units["vector"].registers is None


def test_a_unit_has_the_common_clock_unless_it_has_its_own() -> None:
    units = Architecture.parse(SMALL).evaluate({}).units
    assert (units["array"].clock_hz, units["vector"].clock_hz) == (1e9, 5e8)


def test_the_first_memory_is_the_backing_store() -> None:
    machine = Architecture.parse(SMALL).evaluate({})
    assert list(machine.memories) == ["DRAM", "L3"]
    assert machine.backing_store.name == "DRAM"


def test_area_is_known_only_when_every_part_gives_its_own() -> None:
    assert Architecture.parse(SMALL).evaluate({}).area_m2 is None
    complete = small(("DRAM: {", "DRAM: {area: 0, "), ("    dims: {columns", "    area: 10 mm2\n    dims: {columns"))
    assert Architecture.parse(complete).evaluate({}).area_m2 == pytest.approx((2 * 3 + 10 + 1) * 1e-6)
    total = small(("clock: 1 GHz", "area: 20 mm2\nclock: 1 GHz"))
    assert Architecture.parse(total).evaluate({}).area_m2 == pytest.approx(20e-6)


def test_variables_set_from_outside_win_over_their_defaults() -> None:
    machine = Architecture.parse(SMALL).evaluate({"W": 4, "not_of_this_architecture": 7})
    assert dict(machine.units["array"].dims) == {"columns": 4, "rows": 8}
    assert "not_of_this_architecture" not in machine.variables
    assert Architecture.parse(SMALL).known_names == {"W", "buffer", "exp_cycles"}


@given(st.lists(st.tuples(st.integers(1, 512), st.integers(1, 2**30)), min_size=1, max_size=8))
@settings(max_examples=25)
def test_arrays_evaluate_elementwise(points: list[tuple[int, int]]) -> None:
    architecture = Architecture.parse(SMALL)
    sides, buffers = (np.array(values) for values in zip(*points, strict=True))
    together = architecture.evaluate({"W": sides, "buffer": buffers})
    for index, (side, buffer) in enumerate(points):
        alone = architecture.evaluate({"W": side, "buffer": buffer})
        for name, value in alone.names().items():
            assert np.broadcast_to(together.names()[name], len(points))[index] == value
        for action, energy in alone.action_energies_j().items():
            assert np.broadcast_to(together.action_energies_j()[action], len(points))[index] == energy


def test_mapping_expressions_see_dotted_names() -> None:
    names = Architecture.parse(SMALL).evaluate({}).names()
    assert names["L3.capacity_bytes"] == 2**20
    assert names["array.rows"] == 16
    assert names["array.elements"] == 128
    assert names["array.ops.exp.cycles"] == 6
    assert names["array.registers.words"] == 4
    assert names["architecture.word_bytes"] == 2


def test_every_action_has_its_energy() -> None:
    energies = Architecture.parse(SMALL).evaluate({}).action_energies_j()
    assert energies["DRAM", "read"] == pytest.approx(249.6e-12)
    assert energies["array", "mac"] == pytest.approx(17e-12)
    assert energies["array.registers", "write"] == pytest.approx(2e-12)
    assert energies["array", "exp"] == 0


def test_a_description_survives_saving_and_loading(tmp_path: Path) -> None:
    for name in (*list_library("architecture"), "small"):
        architecture = Architecture.parse(SMALL) if name == "small" else Architecture.load(name)
        architecture.save(tmp_path / "copy.yaml")
        copy = Architecture.load(tmp_path / "copy.yaml")
        assert copy.data() == architecture.data()
        assert copy.evaluate({}).names() == architecture.evaluate({}).names()
        assert copy.evaluate({}).action_energies_j() == architecture.evaluate({}).action_energies_j()


@pytest.mark.parametrize("model", [Architecture, Memory, Unit, OpCost, Registers], ids=lambda model: model.__name__)
def test_every_field_says_what_it_is(model: type[BaseModel]) -> None:
    assert not [name for name, field in model.model_fields.items() if not field.description]


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ("buffer: 1 MiB", "buffer: -1 MiB", "memories.L3.capacity", ["'buffer' is -1 MiB", "a size above 0"]),
        ("buffer: 1 MiB", "buffer: 0", "memories.L3.capacity", ["0 B", "a size above 0"]),
        ("W: 8", "W: 0", "units.array.dims.columns", ["'W' is 0", "whole number above 0"]),
        ("W: 8", "W: 2.5", "units.array.dims.columns", ["2.5", "whole number"]),
        ("clock: 1 GHz", "clock: 0", "clock", ["0 Hz", "a clock frequency above 0"]),
        ("clock: 500 MHz", "clock: -500 MHz", "units.vector.clock", ["-500 MHz", "above 0"]),
        ("word_bits: 16", "word_bits: -16", "word_bits", ["-16", "above 0"]),
        ("bandwidth: 100 GB/s", "bandwidth: 0 GB/s", "memories.DRAM.bandwidth", ["0 B/s", "above 0"]),
        ("249.6 pJ", "-1 pJ", "memories.DRAM.read_energy", ["-1 pJ", "at least 0"]),
        ("latency: 5 ns", "latency: -5 ns", "memories.L3.latency", ["-5 ns", "at least 0"]),
        ("copies: 2", "copies: 1.5", "memories.L3.copies", ["1.5", "whole number"]),
        ("words: 4", "words: -4", "units.array.registers.words", ["-4"]),
        ("cycles: exp_cycles", "cycles: -exp_cycles", "units.array.ops.exp.cycles", ["'-exp_cycles' is -6"]),
        ("area: 1 mm2", "area: -1 mm2", "units.vector.area", ["-1 mm2", "at least 0"]),
        ("W: 8", "W: .nan", "variables.W", ["finite", "nan"]),
        ("W: 8", "W: .inf", "variables.W", ["finite", "inf"]),
        ("capacity: buffer", "capacity: 1 / 0", "memories.L3.capacity", ["division by zero"]),
        ("capacity: buffer", "capacity: [1]", "memories.L3.capacity", ["a list"]),
        ("capacity: buffer", "capacity: true", "memories.L3.capacity", ["a size", "True"]),
        ("capacity: buffer", "capacity: W > 1", "memories.L3.capacity", ["a size", "True"]),
        ("capacity: buffer", "capacity: \"'big'\"", "memories.L3.capacity", ["a size", "big"]),
        ("capacity: buffer", "capacity: 1 GHz", "memories.L3.capacity", ["unknown unit 'GHz'", "a size such as"]),
        ("capacity: buffer", "capacity: 1 mib", "memories.L3.capacity", ["unknown unit 'mib'", "'MiB'"]),
        ("clock: 1 GHz", "clock: 1 GB/s", "clock", ["unknown unit 'GB/s'", "a frequency such as"]),
        ("capacity: buffer", "capacity: bufer", "memories.L3.capacity", ["unknown variable 'bufer'", "'buffer'"]),
        ("dims: {lanes: W}", "dims: {lanes: W if W > 1 else V}", "units.vector.dims.lanes", ["'V'"]),
        ("exp_cycles: 6", "exp_cycles: 6 * Q", "variables.exp_cycles", ["unknown name 'Q'"]),
        ("W: 8", "W: buffer, buffer: W", None, ["occurs twice"]),
        ("exp_cycles: 6", "exp_cycles: slow, slow: exp_cycles", "variables.exp_cycles", ["exp_cycles -> slow"]),
        ("capacity: buffer", "capcity: buffer", "memories.L3", ["unknown field 'capcity'", "'capacity'"]),
        ("{max: {}}", "{max: {cycle: 1}}", "units.vector.ops.max", ["unknown field 'cycle'", "'cycles'"]),
        ("word_bits: 16", "word_bit: 16", None, ["unknown field 'word_bit'", "'word_bits'"]),
        ("clock: 1 GHz\n", "", None, ["'clock'", "missing"]),
        ("ops: {max: {}}", "ops: {}", "units.vector.ops", ["at least 1 item"]),
        ("  vector:", "  L3:", "units.L3", ["taken by a memory"]),
        ("  vector:", "  a-b:", "units", ["'a-b'", "letters"]),
        ("{W: 8", "{W: 8, if: 3", "variables", ["'if'", "meaning of its own"]),
        ("{lanes: W}", "{clock_hz: W}", "units.vector.dims", ["'clock_hz'"]),
        ("L3: {", "L3: 5\n  L2: {", "memories.L3", ["Memory"]),
    ],
)
def test_a_mistake_is_named_with_its_file_and_key(old: str, new: str, key: str | None, words: list[str]) -> None:
    error = refusal(old, new)
    assert error.file == "small.yaml"
    assert error.key == key
    assert "\n" not in str(error) and str(error).startswith("small.yaml: ")
    for word in words:
        assert word in error.message


def test_a_bad_design_point_is_named() -> None:
    with pytest.raises(SpecError, match="'W' is -1 at design point 2") as caught:
        Architecture.parse(SMALL, file="small.yaml").evaluate({"W": np.array([4, 8, -1, -2])})
    assert (caught.value.file, caught.value.key) == ("small.yaml", "units.array.dims.columns")


@pytest.mark.parametrize("value", [math.nan, math.inf, "wide", True, np.array([1.0, math.nan])])
def test_a_value_from_outside_must_be_a_number(value: object) -> None:
    with pytest.raises(SpecError) as caught:
        Architecture.parse(SMALL).evaluate({"W": value})
    assert caught.value.key == "units.array.dims.columns"


def test_unknown_parts_are_named_with_the_nearest() -> None:
    machine = Architecture.parse(SMALL).evaluate({})
    with pytest.raises(SpecError, match="no memory 'L2'"):
        machine.memory("L2")
    with pytest.raises(SpecError, match=r"no unit 'aray' \(did you mean 'array'"):
        machine.unit("aray")
    with pytest.raises(SpecError, match=r"'vector' cannot run 'exp' \(it runs max\)"):
        machine.unit("vector").op("exp")
    assert machine.memory("L3") is machine.memories["L3"]


def test_an_unknown_architecture_is_named_with_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"unknown architecture 'fusemx' \(did you mean 'fusemax'"):
        Architecture.load("fusemx")
    with pytest.raises(SpecError, match="no such architecture file"):
        Architecture.load("nowhere/machine.yaml")


def test_an_architecture_can_be_like_another_one(tmp_path: Path) -> None:
    base, child, path = Architecture.load("spatten"), Architecture.load("spatten-eighth"), tmp_path / "mine.yaml"
    assert list(child.memories) == list(base.memories)
    assert child.variables.keys() == base.variables.keys()
    assert child.evaluate({}).units["query_key"].elements == 64
    assert child.evaluate({}).memories["HBM"].bandwidth_bytes_per_s == 64e9
    path.write_text(
        "architecture: mine\nlike: spatten-eighth\nvariables: {multipliers: 8}\nunits: {extra: {ops: {add: {}}}}\n"
    )
    mine = Architecture.load(path)
    assert mine.evaluate({}).units["query_key"].elements == 8
    assert [*mine.units] == [*base.units, "extra"]
    assert mine.name == "mine"
    assert Architecture.parse(mine.data()).data() == mine.data()
    (tmp_path / "next.yaml").write_text("architecture: next\nlike: mine.yaml\n")
    assert Architecture.load(tmp_path / "next.yaml").evaluate({}).units["query_key"].elements == 8


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ("spaten", "like: unknown architecture 'spaten' .did you mean 'spatten'"),
        ("[spatten]", "like: expected the name of an architecture, found"),
        ("missing.yaml", "like: there is no such architecture file"),
    ],
)
def test_what_an_architecture_is_like_has_to_exist(like: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Architecture.parse(f"architecture: mine\nlike: {like}\n")


def test_architectures_that_build_on_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "circle.yaml"
    path.write_text(f"architecture: circle\nlike: {path}\n")
    with pytest.raises(SpecError, match="like: more than 8 architectures build on one another"):
        Architecture.load(path)
