"""The YAML form of a nest, and what its mistakes are told as."""

from __future__ import annotations

from typing import Any

import pytest

from einsum.errors import SpecError
from mappings.schema import Branch, Compute, Keep, Loops, Select, Stage, Stall, parse_nest

PRODUCT = {"compute": "Z", "on": "grid"}


def mistake(data: Any) -> str:
    with pytest.raises(SpecError) as caught:
        parse_nest(data, "nest")
    return str(caught.value)


def test_every_kind_of_node() -> None:
    nodes = parse_nest(
        [
            {"for": {"m": "R", "n": 4}},
            {"keep": {"L3": {"Q": 2, "K": "rolling", "scores": {"tensors": ["QK", "A"], "overflow": "spill"}}}},
            {"stage": {"L3": "V"}},
            {"pipeline": [PRODUCT, [{"for": {"k": 1}}, {"stall": "R", "on": "grid"}]], "depth": 4},
            {"select": [{"when": "M > 1", "do": [PRODUCT]}]},
        ],
        "nest",
    )
    loops, keep, stage, branch, select = nodes
    assert isinstance(loops, Loops)
    assert {rank: str(chunk) for rank, chunk in loops.ranks.items()} == {"m": "R", "n": "4"}
    assert isinstance(keep, Keep)
    kept = keep.keep["L3"]
    assert [(entry.tensors, str(entry.buffers), entry.overflow) for entry in kept.values()] == [
        (("Q",), "2", "error"),
        (("K",), "rolling", "error"),
        (("QK", "A"), "1", "spill"),
    ]
    assert isinstance(stage, Stage) and stage.stage["L3"]["V"].tensors == ("V",)
    assert isinstance(branch, Branch) and branch.kind == "pipeline" and str(branch.depth) == "4"
    (product,), (inner, stall) = branch.children
    assert isinstance(product, Compute) and product.compute == ("Z",) and product.temporal is None
    assert isinstance(inner, Loops) and isinstance(stall, Stall) and stall.on == "grid"
    assert isinstance(select, Select) and str(select.select[0].when) == "M > 1"


def test_tensors_as_a_list_or_a_single_name() -> None:
    for given in (["Q", "K"], {"Q": 1, "K": None}):
        (node,) = parse_nest([{"keep": {"L3": given}}], "nest")
        assert isinstance(node, Keep) and [entry.tensors for entry in node.keep["L3"].values()] == [("Q",), ("K",)]
    (node,) = parse_nest({"keep": {"L3": "Q"}}, "nest")
    assert isinstance(node, Keep) and list(node.keep["L3"]) == ["Q"]


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        ([], "nest", "the nest is empty, expected loops, keeps and computed Einsums"),
        (["Z"], "nest[0]", "expected a node such as {compute: Z, on: UNIT}, found text 'Z'"),
        ([PRODUCT, 3], "nest[1]", "found 3"),
        ([{"comptue": "Z", "on": "grid"}], "nest[0]", "found comptue, on (did you mean 'compute'?)"),
        ([{"for": {"m": 1}, "keep": {"L1": ["A"]}}], "nest[0]", "found for, keep"),
        ([{**PRODUCT, "spatail": {}}], "nest[0]", "unknown field 'spatail' (did you mean 'spatial'?)"),
        ([{"compute": "Z"}], "nest[0]", "'on' is missing"),
        ([{"for": ["m"]}], "nest[0].for", "found ['m']"),
        ([{"for": {"m": "2 *"}}], "nest[0].for.m", "of '2 *'"),
        ([{"keep": {}}], "nest[0].keep", "expected levels with tensors"),
        ([{"keep": {"L1": None}}], "nest[0].keep.L1", "expected tensor names"),
        ([{"keep": {"L1": {"A": {"bufers": 2}}}}], "nest[0].keep.L1.A", "'bufers' (did you mean 'buffers'?)"),
        ([{"keep": {"L1": {"A": {"overflow": "spil"}}}}], "nest[0].keep.L1.A.overflow", "expected 'error' or 'spill'"),
        ([{**PRODUCT, "issue": "chain"}], "nest[0].issue", "expected 'serial' or 'chained', found 'chain'"),
        ([{**PRODUCT, "lag": -1}], "nest[0].lag", "found -1"),
        ([{"sequence": []}], "nest[0].sequence", "expected a list of nests, found []"),
        ([{"sequence": [[]]}], "nest[0].sequence[0]", "the nest is empty"),
        ([{"pipeline": [PRODUCT], "deph": 2}], "nest[0]", "unknown field 'deph' (did you mean 'depth'?)"),
        ([{"sequence": [PRODUCT], "depth": 2}], "nest[0]", "only a pipeline has a depth, found it in a sequence"),
        ([{"parallel": [[{"for": {"m": 1}}, {"x": 1}]]}], "nest[0].parallel[0][1]", "found x"),
        ([{"select": []}], "nest[0].select", "expected a list of alternatives with 'when' and 'do', found []"),
        ([{"select": [{"if": "M > 1"}]}], "nest[0].select[0]", "expected an alternative with 'when' and 'do'"),
        ([{"select": [{"when": "M >", "do": [PRODUCT]}]}], "nest[0].select[0].when", "of 'M >'"),
    ],
)
def test_mistakes_are_told_with_their_place(data: Any, place: str, message: str) -> None:
    text = mistake(data)
    assert text.startswith(f"{place}: ")
    assert message in text


def test_a_node_of_no_kind_is_told_all_of_them() -> None:
    for kind in ("for", "keep", "stage", "compute", "stall", "sequence", "parallel", "pipeline", "select"):
        assert kind in mistake([{}])
