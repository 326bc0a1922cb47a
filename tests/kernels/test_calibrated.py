"""The architecture that a calibration describes, against the one that was described from the same facts by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from architectures import Architecture
from einsum.errors import SpecError
from einsum.specfile import load_yaml
from kernels.calibrated import architecture, write_architecture
from kernels.case import Case
from kernels.predict import predict

MEASUREMENTS = Path(__file__).parents[2] / "kernels/measurements"


@pytest.mark.parametrize("gpu", ["h100", "h200"])
def test_a_calibration_describes_the_gpu_that_it_is_of(gpu: str, tmp_path: Path) -> None:
    facts = load_yaml(MEASUREMENTS / f"calibration-{gpu}.yaml")
    write_architecture(facts, tmp_path / "mine.yaml", "h100-sxm", "calibration")
    mine, known = (Architecture.load(name).evaluate({}) for name in (str(tmp_path / "mine.yaml"), f"{gpu}-sxm"))
    for name in (
        "multiprocessors", "clock_hz", "registers_per_multiprocessor", "shared_memory", "dram_read_bandwidth",
        "dram_write_bandwidth", "dram_copy_bandwidth", "dram_first_latency", "l2_latency", "l2_bandwidth", "sfu_lanes",
        "fp32_lanes",
    ):  # fmt: skip
        assert float(mine.variables[name]) == pytest.approx(float(known.variables[name]), rel=0.06), name
    # An H200 is described with the launch of an H100, which its own section says is 0.5 us too long.
    assert float(mine.variables["launch_latency"]) == pytest.approx(
        float(known.variables["launch_latency"]), abs=0.6e-6
    )
    assert float(mine.variables["memory_capacity"]) == pytest.approx(float(known.variables["memory_capacity"]), rel=0.1)
    case = Case("flash_attention", batch=4, heads=16, kv_heads=16, q_len=4096, kv_len=4096, head_dim=128)
    assert predict(case, mine).time_s == pytest.approx(predict(case, known).time_s, rel=0.06)


def test_a_fact_that_is_not_there_is_named() -> None:
    facts: dict[str, Any] = copy.deepcopy(load_yaml(MEASUREMENTS / "calibration-h100.yaml"))
    facts["facts"]["memory"] = [row for row in facts["facts"]["memory"] if row["kind"] != "fill"]
    with pytest.raises(SpecError, match=r"facts\.memory: the calibration has no 'bytes_per_s' of kind fill"):
        architecture(facts, "mine", "h100-sxm", "calibration")
