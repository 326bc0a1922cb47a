"""Draw a measurement plan at random: shapes that users have, a few tiles for each, from a seed.

    python tests/tools/draw_plan.py NAME SEED [FAMILY] > kernels/library/NAME.yaml

What is drawn depends on the seed alone, so that a plan can be written before anybody has seen a measurement.
Tiles are those that a tuner would try: the shared memory holds them, and a thread's part of the accumulators fits.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

SHARED_BYTES = 227 * 1024
ACCUMULATORS = 160
"""Registers of a thread that results of products may take."""
TILES = 5
PATTERN_BLOCK = 128
"""Queries and keys of a block of the patterns, which tiles have to divide."""
Row = dict[str, Any]


def _choices(draw: random.Random, **values: list[Any]) -> Row:
    return {name: draw.choice(options) for name, options in values.items()}


def _flash(draw: random.Random) -> Row:
    shape = _choices(
        draw, dtype=["fp16", "fp16", "bf16"], causal=[False, True], head_dim=[64, 64, 128, 128, 96, 80, 256],
        q_len=[700, 1024, 1900, 2048, 3072, 4000, 4096, 6144, 9000, 12288],
    )  # fmt: skip
    heads = draw.choice([4, 8, 12, 16, 20, 24, 32, 40])
    shape |= {
        "heads": heads,
        "kv_heads": draw.choice([one for one in (heads, heads, heads // 4, 4) if not heads % one]),
    }
    shape["batch"] = max(1, min(8, round(2e9 / (heads * shape["q_len"] ** 2))))
    if draw.random() < 0.2:
        shape["window"] = draw.choice([256, 500, 1024, 3000])
    return shape


def _flash_tile(draw: random.Random, shape: Row) -> Row | None:
    tile = _choices(
        draw, block_m=[32, 64, 64, 128, 128, 256], block_n=[16, 32, 64, 64, 128], warps=[4, 8], stages=[2, 3, 4]
    )
    width = 1 << (shape["head_dim"] - 1).bit_length()
    held = tile["block_m"] * (width + tile["block_n"]) / (32 * tile["warps"])
    shared = (tile["block_m"] + 2 * tile["stages"] * tile["block_n"]) * width * 2
    fits = 16 * tile["warps"] <= 2 * tile["block_m"] and held <= ACCUMULATORS and shared <= SHARED_BYTES
    return tile if fits else None


def _matmul(draw: random.Random) -> Row:
    if draw.random() < 0.2:  # few rows, as in a decode
        return _choices(draw, q_len=[4, 16, 32, 64], kv_len=[2560, 4096, 6144, 11008], head_dim=[2048, 4096, 8192])
    sizes = [384, 768, 1024, 1280, 2048, 2304, 3000, 3584, 4096, 5000, 6400]
    shape = _choices(
        draw, dtype=["fp16", "fp16", "bf16", "fp8"], q_len=sizes, kv_len=sizes, head_dim=[64, 192, *sizes, 9216]
    )
    work = shape["q_len"] * shape["kv_len"] * shape["head_dim"]
    return shape | {"batch": max(1, min(32, round(3e9 / work)))}


def _matmul_tile(draw: random.Random, shape: Row) -> Row | None:
    few = shape["q_len"] < 64
    tile = _choices(
        draw, block_m=[16, 32, 64] if few else [64, 128, 128, 256],
        block_n=[32, 64, 128] if few else [64, 128, 128, 256], block_k=[32, 64, 64, 128],
        warps=[4, 8], stages=[2, 3, 4, 5],
    )  # fmt: skip
    word = 1 if shape.get("dtype") == "fp8" else 2
    shared = tile["stages"] * (tile["block_m"] + tile["block_n"]) * tile["block_k"] * word
    results = tile["block_m"] * tile["block_n"] / (32 * tile["warps"])
    fits = shared <= SHARED_BYTES and results <= ACCUMULATORS and (few or 16 * tile["warps"] <= tile["block_m"])
    return tile if fits else None


def _unfused(draw: random.Random) -> Row:
    shape = _choices(
        draw, variant=["", "qk", "pv", "pv"], head_dim=[64, 128], heads=[8, 12, 16, 32], causal=[False, True],
        q_len=[640, 1000, 1536, 2048, 3072, 5120, 7000],
    )  # fmt: skip
    return shape | {"batch": max(1, min(16, round(4e8 / (shape["heads"] * shape["q_len"] ** 2))))}


def _unfused_tile(draw: random.Random, shape: Row) -> Row | None:
    tile = _choices(draw, block_m=[32, 64, 128, 256], block_n=[32, 64, 128, 256], warps=[4, 8], stages=[2, 3, 4])
    widest = max(tile["block_n"], shape["head_dim"])
    shared = tile["stages"] * (tile["block_m"] + shape["head_dim"]) * tile["block_n"] * 2
    fits = tile["block_m"] * widest / (32 * tile["warps"]) <= ACCUMULATORS and shared <= SHARED_BYTES
    return tile if fits and 16 * tile["warps"] <= 2 * tile["block_m"] else None


def _decode(draw: random.Random) -> Row:
    kernel = draw.choice(["flash_decode", "lean_decode"])
    heads = draw.choice([8, 16, 24, 32, 64])
    grouped = [one for one in (heads, heads // 4, heads // 8) if one]
    shape = {"kernel": kernel, "heads": heads, "kv_heads": draw.choice(grouped), "q_len": 1, "block_m": 16}
    shape |= _choices(draw, head_dim=[64, 128], kv_len=[1500, 4096, 9000, 20000, 65536])
    return shape | {"batch": max(1, min(64, round(1e8 / (shape["kv_heads"] * shape["kv_len"] * shape["head_dim"]))))}


def _decode_tile(draw: random.Random, shape: Row) -> Row | None:
    tile = _choices(draw, block_n=[32, 64, 128, 256], warps=[2, 4], stages=[2, 3, 4])
    tile["splits"] = draw.choice([132, 264] if shape["kernel"] == "lean_decode" else [1, 2, 4, 8, 16])
    fits = 2 * tile["stages"] * tile["block_n"] * shape["head_dim"] * 2 <= SHARED_BYTES
    return tile if fits and tile["block_n"] * shape["head_dim"] / (32 * tile["warps"]) <= 2 * ACCUMULATORS else None


def _linear(draw: random.Random) -> Row:
    shape = _choices(draw, head_dim=[64, 128], heads=[8, 16, 24, 40], q_len=[1024, 2500, 5120, 10240])
    return shape | {"causal": True, "batch": max(1, round(60000 / (shape["heads"] * shape["q_len"] / 8)))}


def _linear_tile(draw: random.Random, shape: Row) -> Row | None:
    tile = _choices(draw, block_m=[32, 64, 128], block_n=[32, 64], warps=[4, 8], stages=[1, 2, 3])
    held = (tile["block_m"] * (tile["block_n"] + tile["block_m"]) + shape["head_dim"] * tile["block_n"]) / 32
    shared = tile["stages"] * tile["block_m"] * (2 * shape["head_dim"] + tile["block_n"]) * 2
    fits = held / tile["warps"] <= ACCUMULATORS and shared <= SHARED_BYTES
    return tile if fits and 16 * tile["warps"] <= 2 * tile["block_m"] else None


def _sparse(draw: random.Random) -> Row:
    patterns = ["local-4+global-1@128", "local-3+random-3@128", "stride-6+local-2@128"]
    return _choices(
        draw, pattern=patterns, causal=[False, True], head_dim=[64, 128], heads=[8, 16, 24], q_len=[3072, 6144, 10240]
    )


def _softmax(draw: random.Random) -> Row:
    shape = _choices(draw, dtype=["fp16", "fp32"], kv_len=[128, 500, 800, 2048, 3000, 6144, 12288, 40000])
    return shape | {"q_len": round(draw.choice([8e6, 4e7, 1e8]) / shape["kv_len"])}


def _softmax_tile(draw: random.Random, shape: Row) -> Row | None:
    tile = _choices(draw, block_m=[1, 1, 2, 4], block_n=[128, 256, 1024, 2048, 4096, 8192], warps=[2, 4, 8], stages=[2])
    numbers = tile["block_m"] * tile["block_n"] / (32 * tile["warps"])
    return tile if 4 <= numbers <= 64 and tile["block_n"] < 2 * shape["kv_len"] else None


def _backward(draw: random.Random) -> Row:
    shape = _choices(
        draw, dtype=["fp16", "fp16", "bf16"], causal=[False, True], head_dim=[64, 64, 128, 128, 96, 80],
        q_len=[384, 640, 700, 1024, 1900, 2048, 3072, 4096, 6144],
    )  # fmt: skip
    heads = draw.choice([4, 8, 12, 16, 20, 24, 32])
    shape |= {"heads": heads, "kv_heads": draw.choice([heads, heads, heads, heads // 4])}
    shape["batch"] = max(1, min(8, round(4e8 / (heads * shape["q_len"] ** 2))))
    return shape


def _backward_tile(draw: random.Random, shape: Row) -> Row | None:
    tile = _choices(draw, block_m=[32, 64, 64, 128], block_n=[64, 128, 128], warps=[4, 8, 8], stages=[1, 2, 2, 3])
    width = 1 << (shape["head_dim"] - 1).bit_length()
    held = 2 * tile["block_n"] * width + 2 * tile["block_m"] * tile["block_n"] + tile["block_m"] * width
    shared = ((2 * tile["block_n"] + 2 * tile["stages"] * tile["block_m"]) * 2 + 4 * tile["block_m"]) * width
    return tile if held / (32 * tile["warps"]) <= 256 and shared <= SHARED_BYTES else None


Drawn = tuple[int, Callable[[random.Random], Row], Callable[[random.Random, Row], Row | None]]
ALONE: dict[str, Drawn] = {"flash_attention_backward": (11, _backward, _backward_tile)}
"""Families of plans of their own, so that older plans stay what their seeds say."""
FAMILIES: dict[str, Drawn] = {
    "flash_attention": (20, _flash, _flash_tile),
    "matmul": (16, _matmul, _matmul_tile),
    "unfused": (12, _unfused, _unfused_tile),
    "decode": (10, _decode, _decode_tile),
    "linear_attention": (6, _linear, _linear_tile),
    "block_sparse": (5, _sparse, _flash_tile),
    "softmax": (6, _softmax, _softmax_tile),
}
"""Family -> shapes drawn, and how a shape and a tile of it are drawn."""


def rows(seed: int, alone: str | None = None) -> Iterator[Row]:
    """The rows of a plan: `TILES` different tiles for each shape."""
    draw = random.Random(seed)
    for family, (shapes, new_shape, new_tile) in ({alone: ALONE[alone]} if alone else FAMILIES).items():
        for _ in range(shapes):
            shape = {"kernel": family, **new_shape(draw)}
            tiles: list[Row] = []
            for _ in range(400):
                tile = new_tile(draw, shape)
                if tile is not None and tile not in tiles:
                    tiles.append(tile)
                if len(tiles) == TILES:
                    break
            yield from (
                {**shape, **tile} for tile in tiles if "pattern" not in shape or tile["block_m"] <= PATTERN_BLOCK
            )


def main(name: str, seed: int, alone: str | None = None) -> None:
    """Print the plan."""
    print(f"plan: {name}")
    print(f"description: Shapes and tiles drawn at random by tests/tools/draw_plan.py, seed {seed}.")
    print("timing: {target_ms: 60, min_repetitions: 10, max_repetitions: 100}\nrows:")
    for row in rows(seed, alone):
        print("  - {" + ", ".join(f"{key}: {_text(value)}" for key, value in row.items()) + "}")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or '""'


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
