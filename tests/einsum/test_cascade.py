"""Cascades as a whole: the library, sizes, conditions, saving, and every way to get one wrong."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from einsum import Cascade, SpecError, list_library
from einsum.cascade_file import cascade_data
from einsum.dependences import Loop
from einsum.interpreter import run

SIZES = {"B": 1, "H": 2, "P": 1000, "M": 1009, "E": 64, "F": 32}


@pytest.mark.parametrize("name", list_library("cascade"))
def test_a_library_cascade_says_what_it_is_and_survives_saving(name: str, tmp_path: Path) -> None:
    cascade = Cascade.load(name)
    assert cascade.name == name
    assert cascade.description
    assert cascade.source
    cascade.save(tmp_path / "copy.yaml")
    assert Cascade.load(tmp_path / "copy.yaml") == cascade
    assert [path.name for path in tmp_path.iterdir()] == ["copy.yaml"]


def test_a_cascade_with_conditions_survives_saving(tmp_path: Path) -> None:
    cascade = Cascade.load("attention-1pass").with_condition("m <= p", "p - m < 128")
    cascade.save(tmp_path / "copy.yaml")
    assert Cascade.load(tmp_path / "copy.yaml") == cascade


def test_ranks_partitions_and_tensors_of_the_running_form() -> None:
    cascade = Cascade.load("attention-1pass")
    assert cascade.family("m") == ("m1", "m0")
    assert cascade.base("m0") == "m"
    assert str(cascade.coordinate("m")) == "m1*M0+m0"
    assert cascade.iterative == {"m1"}
    assert cascade.tensors["BQK"].ranks == ("b", "h", "m1", "m0", "p")
    assert [tensor.name for tensor in cascade.inputs] == ["Q", "K", "V"]
    assert [tensor.name for tensor in cascade.outputs] == ["AV"]
    assert [einsum.name for einsum in cascade.consumers("RM")] == ["RM", "SLN", "PRM"]
    assert cascade.producers("Q") == ()
    assert cascade.einsum("SLD").reduced == ("m0",)


def test_sizes_follow_from_what_is_given_and_may_be_arrays() -> None:
    cascade = Cascade.load("attention-1pass")
    extents = cascade.extents(SIZES)
    assert (extents["m1"], extents["m0"], extents["m"]) == (4, 256, 1009)
    assert cascade.shape("RM", extents) == (1, 2, 5, 1000)
    assert cascade.extents({**SIZES, "M0": 100})["m1"] == 11
    lengths = np.array([256, 257, 1024])
    np.testing.assert_array_equal(cascade.extents({**SIZES, "M": lengths})["m1"], [1, 2, 4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"M": 0}, "the extent M of rank 'm' is 0"),
        ({"M": -4}, "the extent M of rank 'm' is -4"),
        ({"P": 2.5}, "the extent P of rank 'p' is 2.5"),
        ({"P": np.array([4, 0])}, "the extent P of rank 'p'"),
        ({"M0": 0}, "the extent M0 of rank 'm0' is 0, expected a whole number of at least 1"),
        ({"M0": -1}, "the extent M0 of rank 'm0' is -1"),
        ({"M": True}, "the extent M of rank 'm' is True"),
        ({"M": np.array(["a", "b"])}, "M"),
        ({"M": float("inf")}, "finite"),
        ({"M1": 7}, "'M1' is given as 7, but M / M0 makes 4"),
        ({"M": None}, "no value is given for 'M'"),
        ({"M": "long"}, "M"),
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, Any], message: str) -> None:
    given = {name: value for name, value in {**SIZES, **change}.items() if value is not None}
    with pytest.raises(SpecError) as caught:
        Cascade.load("attention-1pass").extents(given)
    assert message in str(caught.value)


def test_a_condition_restricts_the_einsums_over_its_ranks() -> None:
    causal = Cascade.load("attention-1pass").with_condition("m <= p")
    restricted = [einsum.name for einsum in causal.einsums if einsum.conditions]
    assert "BQK" in restricted
    assert "RM" in restricted  # a chunk that the mask empties is not visited
    assert "AV" not in restricted
    assert causal.without_conditions() == Cascade.load("attention-1pass")
    with pytest.raises(SpecError, match="unknown rank or variable 'q'"):
        Cascade.load("attention-1pass").with_condition("m <= q")
    with pytest.raises(SpecError, match="no Einsum iterates over all ranks of the condition 'e <= f'"):
        Cascade.load("attention-1pass").with_condition("e <= f")


def test_a_condition_may_bring_a_variable() -> None:
    window = Cascade.load("attention-3pass").with_condition("p - m < Wd and m <= p", variables={"Wd": 128})
    assert window.environment(SIZES)["Wd"] == 128
    assert window.environment({**SIZES, "Wd": 4})["Wd"] == 4


def test_heads_that_share_keys_are_a_partition_of_the_query_heads() -> None:
    data = cascade_data(Cascade.load("attention-3pass"))
    ranks = {**data["ranks"], "h": "H"}
    einsums = [text.replace("[b,h,", "[b,g,r,").replace("Q[b,g,r,", "Q[b,g*G+r,") for text in data["einsums"]]
    einsums = [text.replace("* K[b,g,r,m", "* K[b,g,m").replace("* V[b,g,r,m", "* V[b,g,m") for text in einsums]
    einsums = [text.replace("AV[b,g,r,", "AV[b,g*G+r,") for text in einsums]
    grouped = Cascade.parse({
        **data, "ranks": ranks, "einsums": einsums, "variables": {"G": 2},
        "partition": {"h": {"outer": "g", "inner": "r", "size": "G", "count": "KV"}},
        "inputs": {"Q": ["b", "h", "p", "e"], "K": ["b", "g", "m", "e"], "V": ["b", "g", "m", "f"]},
    })  # fmt: skip
    random = np.random.default_rng(0)
    q, k, v = random.random((1, 4, 3, 2)), random.random((1, 2, 5, 2)), random.random((1, 2, 5, 2))
    plain = run(Cascade.load("attention-3pass"), {"Q": q, "K": k.repeat(2, axis=1), "V": v.repeat(2, axis=1)})["AV"]
    np.testing.assert_allclose(run(grouped, {"Q": q, "K": k, "V": v}, {"H": 4})["AV"], plain)


def test_cascades_travel_between_processes() -> None:
    cascade = Cascade.load("attention-1pass").with_condition("m <= p")
    assert cascade.schedule
    assert pickle.loads(pickle.dumps(cascade)) == cascade


def test_einsums_may_be_written_in_any_order() -> None:
    data = cascade_data(Cascade.load("attention-1pass"))
    backwards = Cascade.parse({**data, "einsums": data["einsums"][::-1]})
    produced: set[str] = {"Q", "K", "V"}
    for einsum in backwards.einsums:
        assert {access.tensor for access in einsum.inputs} - {einsum.name} <= produced | {"RD", "RNV"}
        produced.add(einsum.name)
    assert any(isinstance(item, Loop) and item.rank == "m1" for item in backwards.schedule)


def test_convolutions_have_affine_inputs_of_their_own_length() -> None:
    text = """
    cascade: conv
    ranks: {p: P, w: W, x: P + W - 1}
    inputs: {I: [x], F: [w]}
    outputs: [O]
    einsums: ["O[p] = I[p+w] * F[w]"]
    """
    assert Cascade.parse(text).extents({"P": 10, "W": 3})["x"] == 12
    with pytest.raises(SpecError, match=r"'p\+w' of 'I\[p\+w\]' runs from 0 to 11.*has 11 coordinates"):
        Cascade.parse(text.replace("P + W - 1", "P + 1")).extents({"P": 10, "W": 3})


GOOD: dict[str, Any] = {
    "cascade": "running",
    "ranks": {"i": "N", "p": "P", "k": "K"},
    "iterative": ["i"],
    "inputs": {"A": ["i", "p"], "B": ["k", "p"]},
    "outputs": ["Z"],
    "einsums": ["S[i+1,p] = S[i,p] + A[i,p]", "T[p] = B[k,p] * B[k,p]", "Z[p] = S[N,p] * T[p]"],
    "initial": {"S": 0},
}


def test_the_good_example_is_good() -> None:
    assert Cascade.parse(GOOD).extents({"N": 3, "P": 2, "K": 2})


def _changed(einsum: int, text: Any) -> dict[str, Any]:
    return {"einsums": [text if position == einsum else old for position, old in enumerate(GOOD["einsums"])]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_changed(2, "Z[p] = S[N,p] * TT[p]"), "einsums[2]: unknown tensor 'TT' (did you mean 'T'?)"),
        (_changed(1, "T[p] = B[k,z] * B[k,p]"), "einsums[1]: unknown rank or variable 'z'"),
        (_changed(1, "T[q] = B[k,p] * B[k,p]"), "einsums[1]: unknown rank 'q'"),
        (_changed(1, "T[p] = B[k,p] * B[k,p] * alpha"), "unknown name 'alpha'"),
        (_changed(1, "T[p] = B[k] * B[k,p]"), "'B[k]' has 1 indices, but B[k,p] has 2"),
        (_changed(1, "T[p] = B[p,k] * B[k,p]"), "the extents do not match in 'B[p,k]': 'p' runs over P"),
        (_changed(2, "Z[p] = S[N,p] * T[p,p]"), "'T[p,p]' has 2 indices, but T[p] has 1"),
        (_changed(1, "S[p] = B[k,p] * B[k,p]"), "einsums[1]: 'S' is produced twice"),
        (_changed(1, "A[p] = B[k,p] * B[k,p]"), "inputs.A: the input 'A' is also produced"),
        (_changed(1, "T[p] = sum(k) B[k,p] * Z[p]"), "depend on each other in a circle: T -> Z -> T"),
        (_changed(1, "T[p] = B[k,p] * T[p]"), "'T' depends on itself"),
        (_changed(0, "S[i+1,p] = S[i+1,p] + A[i,p]"), "'S' depends on itself"),
        (_changed(0, "S[i+2,p] = S[i,p] + A[i,p]"), "'S[i+2,p]'"),
        (_changed(0, "S[2*i,p] = S[i,p] + A[i,p]"), "expected a rank"),
        (_changed(0, 7), "einsums[0]: expected a valid string, found 7"),
        (_changed(0, ["x"]), "einsums[0]: expected a valid string"),
        ({"initial": {}}, "einsums[0]: 'S' is iterative but has no initial value"),
        ({"initial": {"S": 0, "T": 1}}, "'T' has an initial value but is not iterative"),
        ({"initial": {"S": 0, "TT": 1}}, "initial: unknown tensor 'TT'"),
        ({"initial": {"S": "zero"}}, "unknown name 'zero'"),
        ({"iterative": []}, "writes ahead along 'i', which is not listed as iterative"),
        ({"iterative": ["j"]}, "iterative: unknown rank 'j'"),
        ({"outputs": ["Y"]}, "outputs: no Einsum produces the output 'Y'"),
        ({"outputs": []}, "outputs: "),
        ({"ranks": {"i": "N", "p": "P", "k": "K", "q": "Q"}}, "ranks.q: the rank 'q' is never used"),
        ({"ranks": {"i": "N", "p": "P"}}, "inputs.B: unknown rank 'k'"),
        ({"ranks": {"i": "N", "p": "P +", "k": "K"}}, "ranks.p: expected a number or a name, found the end"),
        ({"ranks": {"i": "N", "p": "p", "k": "K"}}, "'p' names a rank and a size"),
        ({"ranks": {"i": "N", "p": 0, "k": "K"}}, "ranks.p: the extent of rank 'p' is 0, expected a whole number"),
        ({"ranks": {"i": "N", "p": "2 * W", "k": "K"}, "variables": {"W": -1}}, "the extent 2 * W of rank 'p' is -2"),
        ({"inputs": {"A": ["i", "p"], "B": ["k", "p"], "C": ["p"]}}, "inputs.C: the input 'C' is never used"),
        ({"inputs": {"A": ["i", "p"], "B": ["k", 1]}}, "inputs.B[1]: expected a valid string, found 1"),
        ({"einsums": [*GOOD["einsums"], "W[p] = T[p]"]}, "einsums.W: 'W' is never used and is not an output"),
        ({"einsums": []}, "einsums: "),
        ({"einsum": []}, "unknown field 'einsum' (did you mean 'einsums'?)"),
        ({"partition": {"q": {"outer": "a", "inner": "c", "size": 2}}}, "partition.q: unknown rank 'q'"),
        ({"partition": {"p": {"outer": "k", "inner": "c", "size": 2}}}, "partition.p: the rank 'k' is declared twice"),
        ({"partition": {"p": {"outer": "a", "inner": "c"}}}, "partition.p: the field 'size' is missing"),
        ({"where": ["i <= q"]}, "where[0]: unknown rank or variable 'q'"),
        ({"where": "i <"}, "where[0]: expected a number or a name, found the end"),
        ({"where": ["i <= k"]}, "where[0]: no Einsum iterates over all ranks"),
        ({"where": ["KEEP[p]"]}, "where[0]: unknown tensor 'KEEP'"),
        ({"bits": {"AA": 16}}, "bits: unknown tensor 'AA'"),
        ({"cascade": ""}, "cascade: "),
        ({"cascade": 3}, "cascade: expected a valid string"),
    ],
)
def test_a_wrong_cascade_is_refused_with_its_place(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **change}))
    with pytest.raises(SpecError) as caught:
        Cascade.load(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_part_and_its_whole_do_not_mix() -> None:
    data = cascade_data(Cascade.load("attention-2pass"))
    mixed = [text.replace("K[b,h,m1*M0+m0,e]", "K[b,h,m,e]") for text in data["einsums"]]
    with pytest.raises(SpecError, match=r"einsums\[0\]: "):
        Cascade.parse({**data, "einsums": mixed})


def test_an_unknown_cascade_is_reported_with_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"unknown cascade 'atention-1pass' \(did you mean 'attention-1pass'\?\)"):
        Cascade.load("atention-1pass")


def test_saving_where_nothing_can_be_written_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be written"):
        Cascade.load("matmul").save(tmp_path / "missing" / "copy.yaml")
