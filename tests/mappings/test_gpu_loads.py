"""Loops that load, on an H100: trips as the calibration measured them, by blocks that only load, wait and store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from architectures import Architecture, EvaluatedArchitecture
from mappings.gpu.kernel import GpuKernel
from mappings.gpu.lowering import lower
from simulator.analytic import evaluate

ROOT = Path(__file__).parents[2]
KERNEL = """
gpu_kernel: loads
description: Blocks that load a tile a trip, wait for it, and store
cascade: attention
variables: {tile: tile_bytes, stored: stored_bytes}
flops: 0
bytes: blocks * trips * tile
tiles: [{}]
launches:
  - launch: loads
    grid: {x: blocks}
    warps: 4
    registers: 64
    shared: stages * tile
    stages: stages
    loops:
      - trips: trips
        together: true
        steps:
          - {load: A, rows: [0, trips], row_bytes: tile}
          - {vector: wait, issue: 1, latency: pause + barrier_latency_cycles}
          - {store: B, rows: [0, trips], row_bytes: stored}
"""


@pytest.fixture(scope="module")
def h100() -> EvaluatedArchitecture:
    return Architecture.load("h100-sxm").evaluate({})


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> GpuKernel:
    path = tmp_path_factory.mktemp("kernels") / "loads.yaml"
    path.write_text(KERNEL)
    return GpuKernel.load(str(path))


@pytest.fixture(scope="module")
def facts() -> dict[str, list[dict[str, Any]]]:
    document = yaml.safe_load((ROOT / "kernels/measurements/calibration-h100.yaml").read_text(encoding="utf-8"))
    return dict(document["facts"])


def trip_ns(
    kernel: GpuKernel, gpu: EvaluatedArchitecture, blocks: int, tile: int, stages: int, pause: float, stored: int = 0
) -> float:
    sizes = {"blocks": blocks, "tile_bytes": tile, "stages": stages, "pause": pause, "stored_bytes": stored}
    seconds = [
        float(evaluate(lower(kernel, gpu, {**sizes, "trips": trips, "word_bytes": 2})).latency_s[0])
        for trips in (1000, 2000)
    ]
    return (seconds[1] - seconds[0]) / 1000 * 1e9


@pytest.mark.parametrize("blocks", [1, 32, 132])
@pytest.mark.parametrize("kib", [8, 16, 24, 32, 48])
def test_blocks_that_wait_for_each_tile_take_their_turns(
    kernel: GpuKernel, h100: EvaluatedArchitecture, facts: dict[str, list[dict[str, Any]]], blocks: int, kib: int
) -> None:
    (fact,) = (
        fact for fact in facts["copies"] if fact["kind"] == "copy" and not fact["resident"]
        and fact["blocks"] == blocks and fact["block_bytes"] == kib * 1024
    )  # fmt: skip
    asked = fact["ask_cycles"] - kib * 1024 / 128  # addresses, beyond the pace at which copies pass
    found = trip_ns(kernel, h100, blocks, kib * 1024, 2, max(asked, 0.0) + fact["rest_cycles"])
    assert found == pytest.approx(fact["trip_cycles"] / 1.98, rel=0.13)


@pytest.mark.parametrize("blocks, kib", [(132, 8), (132, 16), (132, 32), (264, 8), (264, 16)])
def test_a_tile_that_runs_ahead_comes_as_a_tile_that_is_waited_for(
    kernel: GpuKernel, h100: EvaluatedArchitecture, facts: dict[str, list[dict[str, Any]]], blocks: int, kib: int
) -> None:
    """With three stages a tile is under way while the one before is computed; a block that does nothing else gets one
    in each turn of the section in_turn."""
    (fact,) = (
        fact for fact in facts["in_turn"]
        if not fact["resident"] and fact["blocks"] == blocks and fact["block_bytes"] == kib * 1024
    )  # fmt: skip
    assert trip_ns(kernel, h100, blocks, kib * 1024, 3, 0.0) == pytest.approx(fact["turn_ns"], rel=0.12)


@pytest.mark.parametrize("pause", [300, 1000])
def test_loads_come_later_behind_stores(
    kernel: GpuKernel, h100: EvaluatedArchitecture, facts: dict[str, list[dict[str, Any]]], pause: int
) -> None:
    """Of 32 blocks that store 8 KiB a trip, as much later as their trips got longer."""
    trips = {
        fact["stored_bytes"]: fact["trip_cycles"] / 1.98 for fact in facts["copies"]
        if fact["kind"] == "fill" and not fact["resident"] and fact["blocks"] == 32
        and (fact["pause"], fact["block_bytes"], fact["fence"]) == (pause, 24576, 0)
    }  # fmt: skip
    longer = {stored: trip_ns(kernel, h100, 32, 24576, 2, 4.0 * pause, stored) for stored in (0, 8192)}
    assert longer[8192] - longer[0] == pytest.approx(trips[8192] - trips[0], rel=0.25)
