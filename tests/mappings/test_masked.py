"""Masked nests against a walk over every tile of the mask's matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures import Architecture
from einsum.cascade import Cascade
from einsum.errors import SpecError
from mappings import Mapping
from mappings.mask import Mask
from simulator.simulate import simulate

MACHINE = """
architecture: tiny
clock: 1 GHz
word_bits: 16
memories:
  DRAM: {bandwidth: 1 TB/s}
  L3: {capacity: 1 GiB}
units:
  array: {dims: {rows: 4, columns: 4}, ops: {mac: {cycles: 1, energy: 1 pJ}}}
"""
SCORES = """
cascade: scores
ranks: {b: B, p: P, m: M, e: E}
inputs: {Q: [b, p, e], K: [b, m, e]}
outputs: [QK]
einsums:
  - QK[b,m,p] = Q[b,p,e] * K[b,m,e]
"""
CAUSAL, WINDOW, BLOCKS, SHIFTED = "m <= p", "m <= p and p - m < 5", "m // 4 <= p // 4", "m >= p - 2"


def nest(order: tuple[str, str], chunks: dict[str, int], held: str) -> Mapping:
    first, second = order
    return Mapping.parse({
        "mapping": "masked",
        "nest": [
            {"for": {"b": 1, first: chunks[first]}},
            {"keep": {"L3": {held: 2}}},
            {"for": {second: chunks[second]}},
            {"compute": "QK", "on": "array", "spatial": {"p": "columns", "m": "rows"}},
        ],
    })  # fmt: skip


def kept(where: str, rows: int, columns: int) -> np.ndarray:
    p, m = np.mgrid[:rows, :columns]
    return {
        CAUSAL: m <= p,
        WINDOW: (m <= p) & (p - m < 5),
        BLOCKS: m // 4 <= p // 4,
        SHIFTED: m >= p - 2,
    }[where]


def walked(
    mask: np.ndarray, order: tuple[str, str], chunks: dict[str, int], held: str, width: int, batch: int
) -> dict[str, float]:
    """Words and operations of the nest, tile by tile; a chunk is no wider than the array."""
    sizes = {"p": mask.shape[0], "m": mask.shape[1]}
    totals = {"Q": 0.0, "K": 0.0, "QK": 0.0, "macs": 0.0}
    seen: dict[str, object] = {}
    for b in range(batch):
        for i in range(0, sizes[order[0]], chunks[order[0]]):
            for j in range(0, sizes[order[1]], chunks[order[1]]):
                start = dict(zip(order, (i, j), strict=True))
                span = {rank: min(chunks[rank], sizes[rank] - start[rank]) for rank in order}
                part = mask[start["p"] : start["p"] + span["p"], start["m"] : start["m"] + span["m"]]
                if not part.any():
                    continue
                for tensor, rank in (("Q", "p"), ("K", "m")):
                    # The held tensor stays in L3 while its chunk stays; the other comes anew for every tile, since e,
                    # which is at least 2 wide, is walked inside.
                    key = (b, start[rank])
                    if tensor != held or seen.get(tensor) != key:
                        totals[tensor] += span[rank] * width
                    seen[tensor] = key
                totals["macs"] += int(part.sum()) * width
                totals["QK"] += span["p"] * span["m"]
    return totals


@settings(max_examples=60, deadline=None)
@given(
    where=st.sampled_from([CAUSAL, WINDOW, BLOCKS, SHIFTED]),
    order=st.sampled_from([("p", "m"), ("m", "p")]),
    rows=st.integers(1, 30),
    columns=st.integers(1, 30),
    chunk=st.sampled_from([1, 2, 3, 4]),
    other=st.sampled_from([1, 2, 4]),
    width=st.integers(2, 3),
    batch=st.integers(1, 2),
)
def test_traffic_and_operations_equal_a_walk_over_the_mask(
    where: str, order: tuple[str, str], rows: int, columns: int, chunk: int, other: int, width: int, batch: int
) -> None:
    mask = kept(where, rows, columns)
    chunks = {order[0]: chunk, order[1]: other}
    held = "Q" if order[0] == "p" else "K"
    sizes = {"B": batch, "P": rows, "M": columns, "E": width}
    cascade, machine = Cascade.parse(SCORES), Architecture.parse(MACHINE)
    if not mask.any():
        with pytest.raises(SpecError, match="keeps no point"):
            simulate(cascade, machine, nest(order, chunks, held), None, sizes, where=[where])
        return
    result = simulate(cascade, machine, nest(order, chunks, held), None, sizes, where=[where])
    expected = walked(mask, order, chunks, held, width, batch)
    moved = result.traffic_bytes["DRAM"]
    assert moved["Q"]["read"][0] == pytest.approx(2 * expected["Q"])
    assert moved["K"]["read"][0] == pytest.approx(2 * expected["K"])
    assert moved["QK"]["write"][0] == pytest.approx(2 * expected["QK"])
    slots = result.utilization["array"][0] * result.latency_s[0] * 16 * 1e9
    assert slots == pytest.approx(expected["macs"])
    assert result.energy_by_component_j["array"][0] == pytest.approx(expected["macs"] * 1e-12)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([CAUSAL, WINDOW, BLOCKS, SHIFTED]), st.data())
def test_tiles_of_a_mask_are_counted_exactly(rows: int, columns: int, where: str, data: st.DataObject) -> None:
    matrix = kept(where, rows, columns)
    low = np.where(matrix.any(axis=1), matrix.argmax(axis=1), 0)
    mask = Mask.from_intervals("p", "m", columns, low[None], (low + matrix.sum(axis=1))[None])
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    height, width = data.draw(st.integers(1, rows - row)), data.draw(st.integers(1, columns - column))
    args = [np.array([value]) for value in (row, height, column, width)]
    part = matrix[row : row + height, column : column + width]
    assert mask.kept(*args)[0] == part.sum()
    assert mask.visited(*args)[0] == part.any()


@given(
    st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=12),
    st.data(),
)
def test_any_mask_falls_into_bands(matrix: list[list[bool]], data: st.DataObject) -> None:
    """Also one whose rows keep several intervals, or whose intervals move back; gaps between bands may be visited."""
    kept = np.array(matrix)
    edges = np.diff(np.pad(kept, ((0, 0), (1, 1))).astype(int), axis=1)
    pieces = [(np.flatnonzero(row > 0), np.flatnonzero(row < 0)) for row in edges]
    most = max(1, *(len(first) for first, _ in pieces))
    starts, ends = (np.array([np.pad(row[side], (0, most - len(row[side]))) for row in pieces]).T for side in (0, 1))
    mask = Mask.from_intervals("p", "m", 9, starts, ends)
    covered = np.zeros(kept.shape, dtype=int)
    for band in mask.bands:
        assert (np.diff(band.low) >= 0).all() and (np.diff(band.high) >= 0).all()
        for row in range(kept.shape[0]):
            covered[row, band.low[row] : band.high[row]] += 1
    assert (covered == kept).all()
    row, column = data.draw(st.integers(0, kept.shape[0] - 1)), data.draw(st.integers(0, 8))
    height, width = data.draw(st.integers(1, kept.shape[0] - row)), data.draw(st.integers(1, 9 - column))
    args = [np.array([value]) for value in (row, height, column, width)]
    part = kept[row : row + height, column : column + width]
    if mask.bands:
        assert mask.kept(*args)[0] == part.sum()
    assert mask.visited(*args)[0] >= part.any()


def test_a_mask_of_too_many_bands_is_refused() -> None:
    ends = np.arange(200, 0, -1)[None]
    with pytest.raises(SpecError, match="more than 64 bands of rows"):
        Mask.from_intervals("p", "m", 200, np.zeros_like(ends), ends)


def test_masks_that_differ_between_einsums_are_refused() -> None:
    line = "  - QK[b,m,p] = Q[b,p,e] * K[b,m,e]"
    text = SCORES.replace(line, f"{line} where m <= p\n{line.replace('QK', 'RK')}")
    text = text.replace("outputs: [QK]", "outputs: [QK, RK]")
    plan = {"compute": "QK", "on": "array"}, {"compute": "RK", "on": "array"}
    with pytest.raises(SpecError, match="RK is under other conditions"):
        simulate(
            Cascade.parse(text), Architecture.parse(MACHINE), Mapping.parse({"mapping": "two", "nest": list(plan)}),
            None, {"B": 1, "P": 4, "M": 4, "E": 2},
        )  # fmt: skip
