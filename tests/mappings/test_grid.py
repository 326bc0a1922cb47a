"""Grids: iterations that are instances on private units, against plain counting and the event evaluator."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest

from architectures import Architecture
from einsum.cascade import Cascade
from mappings import Mapping
from simulator.result import Result
from simulator.simulate import build_program, design, simulate

CORES = 4
MACHINE = """
architecture: cores
clock: 1 GHz
word_bits: 16
memories:
  DRAM: {bandwidth: 64 GB/s}
units:
  mma: {dims: {rows: 8, columns: 8}, copies: 4, ops: {mac: {cycles: 1}}}
  alu: {dims: {lanes: 8}, copies: 4, ops: {max: {}, exp: {}, sub: {}, add: {}, mul: {}, div: {}}}
"""
BLOCKS = """
mapping: blocks
cascade: attention-1pass
variables: {Bm: 8, M0: 8}
nest:
  - grid: {b: 1, h: 1, p: Bm}
    slots: 1
  - keep: {mma: [Q], alu: [BQK, LM, SLN, SLD, SLNV, PRM, SPD, SPNV, RM, RD, RNV]}
  - for: {m1: 1}
  - sequence:
      - {compute: BQK, on: mma, spatial: {p: rows, m0: columns}}
      - {compute: LM, on: alu, spatial: {p: lanes}}
      - {compute: RM, on: alu, spatial: {p: lanes}}
      - {compute: [SLN, SLD], on: alu, spatial: {p: lanes}}
      - {compute: PRM, on: alu, spatial: {p: lanes}}
      - {compute: SPD, on: alu, spatial: {p: lanes}}
      - {compute: RD, on: alu, spatial: {p: lanes}}
      - {compute: SLNV, on: mma, spatial: {p: rows, m0: columns}}
      - {compute: SPNV, on: alu, spatial: {p: lanes}}
      - {compute: RNV, on: alu, spatial: {p: lanes}}
      - {compute: AV, on: alu, spatial: {p: lanes}}
"""
SIZES = {"B": 2, "H": 3, "P": 40, "M": 48, "E": 16, "F": 16}


def run(where: tuple[str, ...] = (), fidelity: Literal["analytic", "event"] = "analytic", **sizes: int) -> Result:
    machine, plan = Architecture.parse(MACHINE), Mapping.parse(BLOCKS)
    settings = {**SIZES, **sizes}
    return simulate(None, machine, plan, None, settings, where=where, fidelity=fidelity)


def test_every_block_loads_its_keys_and_values_anew() -> None:
    moved = run().traffic_bytes["DRAM"]
    blocks = 2 * 3 * math.ceil(40 / 8)
    assert moved["Q"]["read"] == 2 * 3 * 40 * 16 * 2
    assert moved["K"]["read"] == moved["V"]["read"] == blocks * 48 * 16 * 2
    assert moved["AV"]["write"] == 2 * 3 * 40 * 16 * 2


def test_a_block_of_one_key_tile_reuses_nothing_of_the_block_before() -> None:
    assert run(M=8).traffic_bytes["DRAM"]["K"]["read"] == 2 * 3 * 5 * 8 * 16 * 2


@pytest.mark.parametrize("where", [(), ("m <= p",)])
def test_instances_and_their_tiles_add_up(where: tuple[str, ...]) -> None:
    chosen = design(None, Architecture.parse(MACHINE), Mapping.parse(BLOCKS), None, SIZES)
    cascade: Cascade = chosen.cascade.with_condition(*where) if where else chosen.cascade
    chosen = design(cascade, chosen.architecture, chosen.mapping, None, SIZES)
    (stream,) = build_program(chosen).phases[0].streams
    instances = int(np.asarray(stream.instances)[0])
    assert instances == 2 * 3 * 5
    orders = [stream.order(0, instance) for instance in range(instances)]
    lengths = [len(order) for order in orders]
    expected = [min(math.ceil(8 * (block % 5 + 1) / 8), 6) if where else 6 for block in range(instances)]
    assert lengths == expected
    tally = np.bincount(np.concatenate(orders), minlength=stream.counts.shape[1])
    np.testing.assert_allclose(tally, stream.counts[0] * instances)


def test_blocks_come_in_waves_over_the_copies() -> None:
    """One block alone and a full set of copies take the same time where nothing shared limits them."""
    one = run(B=1, H=1, P=8).latency_s[0]
    full = run(B=1, H=CORES, P=8).latency_s[0]
    tail = run(B=1, H=CORES + 1, P=8).latency_s[0]
    assert full == pytest.approx(one, rel=1e-9)
    assert tail == pytest.approx(2 * one, rel=0.02)


@pytest.mark.parametrize("where", [(), ("m <= p",)])
def test_event_and_analytic_agree_on_many_blocks(where: tuple[str, ...]) -> None:
    sizes = {"B": 8, "H": 8, "P": 64, "M": 64}
    analytic, event = run(where, **sizes), run(where, "event", **sizes)
    assert event.latency_s[0] == pytest.approx(analytic.latency_s[0], rel=0.02)
    assert event.traffic_bytes["DRAM"]["total"]["read"][0] == analytic.traffic_bytes["DRAM"]["total"]["read"][0]
