"""SpAtten's pipeline against a second evaluator that goes query by query: bytes, transactions and time."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures import Architecture
from simulator.result import Result
from simulator.trace_run import simulate_trace
from tests.simulator.trace_reference import Row, layers
from workloads import HeadTrace

TRANSACTION_J = 256 * 3.92e-12


@cache
def machine() -> Architecture:
    """The library's design, except that the top-k engine of values finds all of them distinct."""
    engine = {name: value for name, value in Architecture.load("spatten").data()["selectors"]["value_selector"].items()
              if name != "score_deviation"}  # fmt: skip
    return Architecture.parse({"architecture": "distinct", "like": "spatten", "selectors": {"value_selector": engine}})


def simulated(rows: list[Row], fidelity: Any) -> Result:
    columns = {
        "iteration_id": [row.iteration for row in rows],
        "layer_id": [row.layer for row in rows],
        "head_id": range(len(rows)),
        "embedding_length_D": [row.dim for row in rows],
        "sentence_length_L": [row.length for row in rows],
        "key_fetch_num": [row.keys for row in rows],
        "value_fetch_num": [row.values for row in rows],
        "quant_key_bit": [row.key_bits for row in rows],
        "quant_value_bit": [row.value_bits for row in rows],
        "quant_query_bit": [row.query_bits for row in rows],
        "auto_requant_incre": [row.extra_bits for row in rows],
        "auto_requant_thres": [0.1] * len(rows),
        "if_requant": [row.again for row in rows],
        "if_accumulate_importance": [row.accumulate for row in rows],
        "if_rescale_previous_importance": [False] * len(rows),
        "if_topk": [row.kept > 0 for row in rows],
        "topk": [row.kept or -1 for row in rows],
        "query_num": [row.queries for row in rows],
        "count": [row.count for row in rows],
    }
    names = [*columns]
    text = [",".join(names), *(",".join(map(str, cells)) for cells in zip(*columns.values(), strict=True))]
    return simulate_trace(HeadTrace.parse(text), mapping="spatten-pipeline", architecture=machine(), fidelity=fidelity)


@st.composite
def row(draw: st.DrawFn, place: int, most_queries: int) -> Row:
    length = draw(st.integers(1, 90))
    keys = draw(st.integers(1, length))
    values = draw(st.one_of(st.just(keys), st.integers(1, keys)))
    bits = st.sampled_from([4, 6, 8, 10, 12])
    return Row(
        iteration=0, layer=place, dim=draw(st.sampled_from([16, 32, 64])), length=length, keys=keys, values=values,
        key_bits=draw(bits), value_bits=draw(bits), query_bits=draw(st.sampled_from([12, 16])),
        extra_bits=draw(st.sampled_from([2, 4])), again=draw(st.booleans()), accumulate=draw(st.booleans()),
        kept=draw(st.one_of(st.just(0), st.integers(1, length))), queries=draw(st.integers(1, most_queries)),
        count=draw(st.integers(1, 3)),
    )  # fmt: skip


@st.composite
def runs(draw: st.DrawFn, queries: int = 3) -> list[Row]:
    """Small runs; the heads of a layer share the number of queries, as those of a model do."""
    found: list[Row] = []
    for place in range(draw(st.integers(1, 3))):
        members = draw(st.lists(row(place, queries), min_size=1, max_size=3))
        found += [member._replace(queries=members[0].queries) for member in members]
    return found


@given(run=runs())
@settings(max_examples=40, deadline=None)
def test_bytes_and_transactions_are_those_of_a_count_query_by_query(run: list[Row]) -> None:
    expected = list(layers(run))
    result = simulated(run, "analytic").to_dict()
    moved = result["traffic_bytes"]["HBM"]["total"]["read"]
    assert moved == pytest.approx(sum(layer.useful_bytes for layer in expected), rel=1e-12)
    transactions = result["energy_by_component_j"]["HBM"] / TRANSACTION_J
    assert transactions == pytest.approx(sum(layer.transactions for layer in expected), rel=1e-12)


@given(run=runs())
@settings(max_examples=40, deadline=None)
def test_events_happen_when_a_play_query_by_query_says(run: list[Row]) -> None:
    expected_s = sum(layer.played_s() for layer in layers(run))
    assert simulated(run, "event").to_dict()["latency_s"] == pytest.approx(expected_s, rel=1e-9)


@given(run=runs())
@settings(max_examples=40, deadline=None)
def test_the_analytic_time_is_possible(run: list[Row]) -> None:
    expected = list(layers(run))
    found_s = simulated(run, "analytic").to_dict()["latency_s"]
    assert found_s >= sum(layer.lower_bound_s for layer in expected) * (1 - 1e-9)
    assert found_s <= sum(layer.upper_bound_s for layer in expected) * (1 + 1e-9)


def test_a_recomputation_holds_up_the_value_side_of_the_queries_behind_it() -> None:
    plain = Row(0, 0, 64, 400, 400, 80, 6, 6, 16, 4, False, True, 0, 1, 1)
    run = [plain._replace(again=True), plain]
    (layer,) = layers(run)
    played_s = layer.played_s()
    assert layer.work["softmax", 1].end_s < layer.work["softmax again", 0].end_s
    for stage in ("select", "load values work", "outputs work"):
        assert layer.work[stage, 1].start_s > layer.work["softmax again", 0].end_s
    assert simulated(run, "event").to_dict()["latency_s"] == pytest.approx(played_s, rel=1e-9)
    once, twice = (simulated([plain] * 12, "event"), simulated([plain._replace(again=True), *[plain] * 11], "event"))
    assert twice.to_dict()["cycles"] > once.to_dict()["cycles"] + 200
