"""Phases that are evaluated together take the time that each takes alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from architectures import Architecture
from einsum import Cascade
from mappings import Mapping
from mappings.program import TileProgram
from simulator.alike import alike
from simulator.analytic import evaluate, phase_time
from simulator.simulate import Design
from simulator.trace_run import trace_program
from workloads import HeadTrace, Workload

TRACE = Path(__file__).parents[2] / "docs/examples/data/gpt2-small-wikitext2.csv"


def program(trace: HeadTrace) -> TileProgram:
    mapping = Mapping.load("spatten-pipeline")
    settings = {"topk_parallelism": np.array([1, 16, 64])}
    cascade = Cascade.load("attention-spatten")
    return trace_program(Design(cascade, Architecture.load("spatten"), mapping, None, settings), trace)


@pytest.mark.parametrize("trace", [HeadTrace.load(TRACE), Workload.load("bert-base").head_trace({"L": 40})])
def test_together_is_as_alone(trace: HeadTrace) -> None:
    run = program(trace)
    assert len(list(alike(run))) < len(run.phases)
    result = evaluate(run)
    for phase, found in zip(run.phases, result.phases, strict=True):
        alone = phase_time(phase, run)
        assert found.latency_s == pytest.approx(alone.latency_s, rel=1e-12)
        assert found.bound_by.tolist() == alone.bound_by.tolist()
