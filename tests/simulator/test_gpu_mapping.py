"""A GPU kernel as a mapping costs what the kernel's own prediction says, and can be swept like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from architectures import Architecture
from einsum.errors import SpecError
from kernels.case import Case
from kernels.predict import predict
from mappings import Mapping
from simulator.simulate import simulate

SIZES = {"B": 2, "H": 8, "P": 1024, "M": 1024, "E": 128, "F": 128}


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize(("block_m", "block_n", "warps", "stages"), [(128, 64, 8, 3), (64, 128, 4, 2)])
def test_the_mapping_is_the_kernel(block_m: int, block_n: int, warps: int, stages: int, causal: int) -> None:
    tile = {"block_m": block_m, "block_n": block_n, "warps": warps, "stages": stages}
    case = Case.from_fields(
        {"kernel": "flash_attention", "dtype": "fp16", "batch": 2, "heads": 8, "kv_heads": 8, "q_len": 1024,
         "kv_len": 1024, "head_dim": 128, "causal": bool(causal), **tile}
    )  # fmt: skip
    expected = predict(case, Architecture.load("h100-sxm").evaluate({}))
    found = simulate(mapping="flash-attention-2", settings={**SIZES, **tile, "causal": causal})
    assert found.latency_s == pytest.approx(expected.time_s, rel=1e-12)
    assert found.traffic_bytes["DRAM"]["total"]["read"] == pytest.approx(expected.dram_read_bytes, rel=1e-12)


def test_points_are_those_of_single_runs() -> None:
    blocks = np.array([64, 128, 64])
    shared = np.array([228, 228, 100]) * 1024.0
    several = simulate(
        mapping="flash-attention-2", settings={**SIZES, "stages": 2, "block_m": blocks, "shared_memory": shared}
    )
    for place, (block, size) in enumerate(zip(blocks.tolist(), shared.tolist(), strict=True)):
        alone = simulate(
            mapping="flash-attention-2", settings={**SIZES, "stages": 2, "block_m": block, "shared_memory": size}
        )
        assert several.latency_s[place] == alone.latency_s
    # With less shared memory fewer thread blocks run side by side.
    assert several.latency_s[2] > several.latency_s[0]


def test_a_block_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SpecError, match=r"flash-attention: a thread block needs .* bytes of shared memory"):
        simulate(mapping="flash-attention-2", settings={**SIZES, "shared_memory": 32768, "shared_per_block": 31744})


def test_the_kernel_of_a_mapping_may_lie_beside_it(tmp_path: Path) -> None:
    library = Path(str(Mapping.load("flash-attention-2").file)).parents[1] / "gpu" / "library"
    text = "mapping: mine\nkernel: {}\ncascade: attention-1pass\n"
    (tmp_path / "own.yaml").write_text((library / "flash-attention.yaml").read_text(encoding="utf-8"))
    (tmp_path / "mine.yaml").write_text(text.format("own.yaml"))
    assert Mapping.load(tmp_path / "mine.yaml").kernel == Mapping.load("flash-attention-2").kernel
    for wrong, sentence in (("flash-atention", "did you mean 'flash-attention'"), ("[1]", "name of a GPU kernel")):
        (tmp_path / "mine.yaml").write_text(text.format(wrong))
        with pytest.raises(SpecError, match=rf"mine.yaml: kernel: .*{sentence}"):
            Mapping.load(tmp_path / "mine.yaml")
