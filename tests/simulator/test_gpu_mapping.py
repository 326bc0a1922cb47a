"""GPU kernels as mappings: the same result as the prediction of a measured row, settings, arrays, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from architectures import Architecture
from einsum.errors import SpecError
from kernels.case import Case
from kernels.predict import predict
from mappings import Mapping
from simulator.simulate import simulate


def number(value: Any) -> float:
    """A value of one design point."""
    return float(np.asarray(value).item())


SIZES: dict[str, Any] = {"B": 2, "H": 16, "P": 2048, "M": 2048, "E": 128, "F": 128}


def test_a_mapping_and_a_measured_row_get_the_same_prediction() -> None:
    case = Case("flash_attention", batch=2, heads=16, kv_heads=16, q_len=2048, kv_len=2048, head_dim=128, block_m=128,
                block_n=64, warps=8, stages=3)  # fmt: skip
    found = predict(case, Architecture.load("h100-sxm").evaluate({}))
    result = simulate(mapping="flash-attention-gpu", settings=SIZES)
    assert number(result.latency_s) == pytest.approx(found.time_s)
    assert number(result.traffic_bytes["DRAM"]["total"]["read"]) == pytest.approx(found.dram_read_bytes)
    assert number(result.energy_j) > 0


def test_settings_choose_tile_and_gpu_and_may_be_arrays() -> None:
    tiles = np.array([32, 64, 128])
    together = simulate(mapping="flash-attention-gpu", settings={**SIZES, "block_n": tiles, "stages": 2})
    alone = [simulate(mapping="flash-attention-gpu", settings={**SIZES, "block_n": n, "stages": 2}) for n in tiles]
    assert together.latency_s == pytest.approx([number(result.latency_s) for result in alone])
    older = simulate(mapping="flash-attention-gpu", architecture="a100-sxm-80gb", settings={**SIZES, "block_n": 32})
    assert number(older.latency_s) > float(np.max(together.latency_s))
    assert any("not known" in assumption for assumption in older.assumptions)


@pytest.mark.parametrize(
    "name, sizes, flops",
    [
        ("matmul-gpu", {"M": 4096, "N": 4096, "K": 4096}, 2 * 4096**3),
        ("flash-decode-gpu", {"B": 4, "H": 8, "J": 4, "M": 8192, "E": 128, "F": 128}, 0),
        (
            "flash-attention-backward-gpu",
            {"B": 2, "H": 4, "G": 4, "P": 2048, "M": 2048, "E": 128, "F": 128},
            10 * 32 * 2048**2 * 128,
        ),
    ],
)
def test_the_other_kernels_run_within_the_peak(name: str, sizes: dict[str, int], flops: float) -> None:
    result = simulate(mapping=name, settings=sizes)
    assert 1e-6 < number(result.latency_s) < 1e-2
    assert flops / number(result.latency_s) < 989.4e12


@pytest.mark.parametrize(
    "options, sizes, message",
    [
        ({"architecture": "fusemax"}, {}, "does not describe a GPU"),
        ({"where": ["m <= p"]}, {}, "further conditions"),
        ({}, {"stages": 9}, "shared memory"),
        ({}, {"block": 9}, "unknown variable 'block'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options: dict[str, Any], sizes: dict[str, int], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        simulate(mapping="flash-attention-gpu", settings={**SIZES, **sizes}, **options)
    assert "\n" not in str(caught.value)


def test_a_kernel_that_is_not_there_is_named() -> None:
    with pytest.raises(SpecError, match=r"kernel: unknown GPU kernel 'flash-atention'.*flash-attention"):
        Mapping.parse("mapping: mine\ncascade: matmul\nkernel: flash-atention\n")
    with pytest.raises(SpecError, match="found two"):
        Mapping.parse("mapping: mine\ncascade: matmul\nkernel: matmul\nnest: []\n")


def test_points_are_those_of_single_runs() -> None:
    blocks = np.array([64, 128, 64])
    shared = np.array([228, 228, 100]) * 1024.0
    several = simulate(
        mapping="flash-attention-gpu", settings={**SIZES, "stages": 2, "block_m": blocks, "shared_memory": shared}
    )
    for place, (block, size) in enumerate(zip(blocks.tolist(), shared.tolist(), strict=True)):
        alone = simulate(
            mapping="flash-attention-gpu", settings={**SIZES, "stages": 2, "block_m": block, "shared_memory": size}
        )
        assert several.latency_s[place] == alone.latency_s
    # With less shared memory fewer thread blocks run side by side.
    assert several.latency_s[2] > several.latency_s[0]


def test_a_block_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SpecError, match=r"flash-attention: a thread block needs .* bytes of shared memory"):
        simulate(mapping="flash-attention-gpu", settings={**SIZES, "shared_memory": 32768, "shared_per_block": 31744})


def test_the_kernel_of_a_mapping_may_lie_beside_it(tmp_path: Path) -> None:
    library = Path(str(Mapping.load("flash-attention-gpu").file)).parents[1] / "gpu" / "library"
    text = "mapping: mine\nkernel: {}\ncascade: attention-1pass\n"
    (tmp_path / "own.yaml").write_text((library / "flash-attention.yaml").read_text(encoding="utf-8"))
    (tmp_path / "mine.yaml").write_text(text.format("own.yaml"))
    assert Mapping.load(tmp_path / "mine.yaml").kernel == Mapping.load("flash-attention-gpu").kernel
    for wrong, sentence in (("flash-atention", "did you mean 'flash-attention'"), ("[1]", "name of a GPU kernel")):
        (tmp_path / "mine.yaml").write_text(text.format(wrong))
        with pytest.raises(SpecError, match=rf"mine.yaml: kernel: .*{sentence}"):
            Mapping.load(tmp_path / "mine.yaml")
