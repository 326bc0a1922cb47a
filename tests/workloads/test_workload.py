"""Workloads: the sizes of models, as published, and one clear sentence for every mistake."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from einsum import SpecError, list_library
from workloads import LinearLayer, Workload

# FuseMax's table of models: model width, heads, width of a head's keys and values, feed-forward width.
PUBLISHED = {
    "bert-base": (768, 12, 64, 64, 3072),
    "transformer-xl": (1024, 16, 64, 64, 4096),
    "t5-small": (512, 8, 64, 64, 2048),
    "xlm": (2048, 16, 128, 128, 8192),
}
# Layers as the models' own papers and released configurations give them; of T5 the encoder's.
LAYERS = {"bert-base": 12, "transformer-xl": 18, "t5-small": 6, "xlm": 12}
SMALL = """
workload: small
variables: {B: 2, L: 10, P: L, M: 2 * L, D: 8}
linear_layers:
  - {name: Q, rows: B * P, inner: D, columns: D}
"""


@pytest.mark.parametrize("name", list_library("workload"))
def test_every_workload_loads_and_names_its_source(name: str) -> None:
    workload = Workload.load(name)
    assert workload.name == name
    assert workload.description and workload.source
    assert all(size >= 1 for size in workload.resolve({}).values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_extents_are_the_published_ones(name: str) -> None:
    workload = Workload.load(name)
    sizes = workload.resolve({})
    assert tuple(sizes[size] for size in "DHEFS") == PUBLISHED[name]
    assert sizes["D"] == sizes["E"] * sizes["H"]
    assert (sizes["B"], sizes["L"], sizes["P"], sizes["M"]) == (64, 1024, 1024, 1024)
    assert workload.layers == LAYERS[name]


@pytest.mark.parametrize("length", [1024, 4096, 16384, 65536, 262144, 1048576])
def test_self_attention_has_as_many_queries_and_keys_as_tokens(length: int) -> None:
    for name in PUBLISHED:
        sizes = Workload.load(name).resolve({"L": length})
        assert sizes["P"] == sizes["M"] == length
    assert Workload.load("xlm").resolve({"P": 1})["M"] == 1024


def test_linear_layers_of_bert_move_and_compute_the_published_amount() -> None:
    """FuseMax's artifact: 1,826,095,104 bytes at 1 Ki tokens, 7.5297 ms on 65,536 multipliers at 940 MHz."""
    layers = Workload.load("bert-base").linear_sizes({})
    assert [layer.name for layer in layers] == ["Q", "K", "V", "Z", "FFN1", "FFN2"]
    words = sum(x.rows * x.inner + x.inner * x.columns + x.rows * x.columns for x in layers)
    macs = sum(x.rows * x.inner * x.columns for x in layers)
    assert 2 * words == 1_826_095_104
    assert macs / 65536 / 940e6 == pytest.approx(0.0075296680851063835, rel=1e-12)


def test_sizes_stay_exact_integers_where_no_float_could_hold_them() -> None:
    workload = Workload.parse("workload: big\nvariables: {N: 2**53 + 1, M: N * N}\n")
    assert workload.resolve({})["M"] == (2**53 + 1) ** 2


def test_arrays_evaluate_elementwise() -> None:
    workload = Workload.load("t5-small")
    lengths = np.array([7, 1024, 65536])
    together = workload.resolve({"L": lengths})
    layers = workload.linear_sizes({"L": lengths})
    for index, length in enumerate(lengths):
        for name, size in workload.resolve({"L": int(length)}).items():
            assert np.broadcast_to(together[name], 3)[index] == size
        for layer, alone in zip(layers, workload.linear_sizes({"L": int(length)}), strict=True):
            assert np.broadcast_to(layer.rows, 3)[index] == alone.rows


def test_names_of_others_are_ignored_and_own_names_known() -> None:
    workload = Workload.parse(SMALL)
    assert workload.resolve({"W": 128, "L": 5}) == {"B": 2, "L": 5, "P": 5, "M": 10, "D": 8}
    assert workload.known_names == {"B", "L", "P", "M", "D"}


def test_a_description_survives_saving_and_loading(tmp_path: Path) -> None:
    for name in list_library("workload"):
        workload = Workload.load(name)
        workload.save(tmp_path / "copy.yaml")
        copy = Workload.load(tmp_path / "copy.yaml")
        assert copy.data() == workload.data()
        assert copy.linear_sizes({}) == workload.linear_sizes({})


@pytest.mark.parametrize("model", [Workload, LinearLayer], ids=lambda model: model.__name__)
def test_every_field_says_what_it_is(model: type[Workload] | type[LinearLayer]) -> None:
    assert not [name for name, field in model.model_fields.items() if not field.description]


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ("L: 10", "L: 0", "variables.L", ["at least 1", "found 0"]),
        ("L: 10", "L: -3", "variables.L", ["at least 1", "found -3"]),
        ("L: 10", "L: 1.5", "variables.L", ["whole number", "1.5"]),
        ("L: 10", "L: .nan", "variables.L", ["finite", "nan"]),
        ("L: 10", "L: .inf", "variables.L", ["finite", "inf"]),
        ("L: 10", "L: true", "variables.L", ["whole number", "True"]),
        ("D: 8", "D: \"'long'\"", "variables.D", ["whole number", "long"]),
        ("L: 10", "L: [10]", "variables.L", ["a list"]),
        ("P: L", "P: K", "variables.P", ["unknown name 'K'"]),
        ("P: L", "P: M - L + P", "variables.P", ["depends on itself", "P -> P"]),
        ("inner: D", "inner: D - 8", "linear_layers[0].inner", ["at least 1", "found 0"]),
        ("inner: D", "inner: d", "linear_layers[0].inner", ["unknown name 'd'", "'D'"]),
        ("inner: D", "iner: D", "linear_layers[0]", ["unknown field 'iner'", "'inner'"]),
        ("workload: small", "workload: small\nlayers: 0", "layers", ["greater than or equal to 1", "found 0"]),
        ("workload: small", "workload: small\nlayer: 1", None, ["unknown field 'layer'", "'layers'"]),
        ("workload: small\n", "", None, ["'workload'", "missing"]),
        ("layers:\n", f"layers:\n{SMALL.splitlines()[-1]}\n", "linear_layers[1].name", ["'Q' occurs twice"]),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_file_and_key(old: str, new: str, key: str | None, words: list[str]) -> None:
    assert old in SMALL
    with pytest.raises(SpecError) as caught:
        Workload.parse(SMALL.replace(old, new), file="small.yaml")
    error = caught.value
    assert error.file == "small.yaml"
    assert error.key == key
    assert "\n" not in str(error)
    for word in words:
        assert word in error.message


@pytest.mark.parametrize("value", [0, -1, 2.5, math.nan, math.inf, "long", np.array([4.0, math.nan])])
def test_a_size_from_outside_must_be_a_whole_number(value: object) -> None:
    with pytest.raises(SpecError, match="whole number of at least 1") as caught:
        Workload.parse(SMALL, file="small.yaml").resolve({"L": value})
    assert (caught.value.file, caught.value.key) == (None, "set.L")


def test_a_bad_design_point_is_named() -> None:
    with pytest.raises(SpecError, match="found -4 at design point 1") as caught:
        Workload.parse(SMALL).resolve({"L": np.array([4, -4, 0])})
    assert caught.value.key == "set.L"


def test_an_unknown_workload_is_named_with_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"unknown workload 'bert-bas' \(did you mean 'bert-base'"):
        Workload.load("bert-bas")


def test_properties_are_any_numbers_and_can_be_set() -> None:
    workload = Workload.parse(SMALL + "properties: {share: 1 / D, half: share / 2}\n")
    assert workload.property_values({}) == {"share": 1 / 8, "half": 1 / 16}
    assert workload.property_values({"D": 4, "half": 3})["share"] == 1 / 4
    assert workload.property_values({"share": np.array([0.5, 1.0])})["half"].tolist() == [0.25, 0.5]
    assert {"share", "half", "B"} <= workload.known_names


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ("{B: 0.5}", "properties.B: 'B' is a variable already"),
        ("{share: 1 / E}", "properties.share: unknown name 'E'"),
        ("{share: none}", "properties.share: unknown name 'none'"),
        ("{share: a, a: share}", "depends on itself"),
    ],
)
def test_a_property_that_is_no_number_is_refused(properties: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Workload.parse(SMALL + f"properties: {properties}\n")
