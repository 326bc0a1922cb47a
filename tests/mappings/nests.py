"""Random small nests, as YAML data, for comparing the lowering with the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from einsum import Cascade

ANY_CHUNK = (1, 2, 3, 4, 5)
UNITS = {"grid": ("rows", "columns"), "row": ("lanes",)}

MATMUL = Cascade.load("matmul")
CONVOLUTION = Cascade.parse(
    """
    cascade: convolution
    ranks: {p: P, w: W, q: Q, x: P + W - 1}
    inputs: {I: [x], G: [w, q]}
    outputs: [Z]
    einsums: ["Z[p,q] = I[p+w] * G[w,q]"]
    """
)
SIMILARITY = Cascade.parse(
    """
    cascade: similarity
    ranks: {p: P, m: P, d: D}
    inputs: {X: [p, d]}
    outputs: [S]
    einsums: ["S[p,m] = X[p,d] * X[m,d]"]
    """
)
ATTENTION = Cascade.parse(
    """
    cascade: attention
    ranks: {p: P, m: M, e: E, f: F}
    inputs: {Q: [p, e], K: [m, e], V: [m, f]}
    outputs: [AV]
    einsums:
      - QK[m,p] = Q[p,e] * K[m,e]
      - GM[p] = max(m) QK[m,p]
      - SN[m,p] = exp(QK[m,p] - GM[p])
      - SD[p] = sum(m) SN[m,p]
      - A[m,p] = SN[m,p] / SD[p]
      - AV[p,f] = A[m,p] * V[m,f]
    """
)
ONE_PASS = Cascade.load("attention-1pass")


@dataclass(frozen=True)
class Case:
    """A nest and the values of its extents and variables."""

    cascade: Cascade = field(repr=False)
    nest: list[Any]
    values: Mapping[str, int]


def loops(draw: Any, ranks: Sequence[str], most: int, chunks: Sequence[int]) -> list[Any]:
    """Up to `most` loops."""
    chosen = draw(st.lists(st.tuples(st.sampled_from(list(ranks)), st.sampled_from(chunks)), max_size=most))
    return [{"for": {rank: chunk}} for rank, chunk in chosen]


def keep(draw: Any, nest: list[Any], level: str, tensor: str) -> None:
    """Insert a hold somewhere."""
    nest.insert(draw(st.integers(0, len(nest))), {"keep": {level: [tensor]}})


def leaf(draw: Any, name: str, ranks: str, units: Sequence[str] = ("grid", "row")) -> dict[str, Any]:
    """An Einsum on a unit, its ranks laid out and ordered at random."""
    unit = draw(st.sampled_from(units))
    order = draw(st.permutations(list(ranks)))
    laid = min(draw(st.integers(0, len(UNITS[unit]))), len(order))
    dims = draw(st.permutations(UNITS[unit]))
    spatial = dict(zip(order[:laid], dims, strict=False))
    return {"compute": name, "on": unit, "spatial": spatial, "temporal": list(order[laid:])}


def extents(draw: Any, names: str, sizes: Sequence[int]) -> dict[str, int]:
    """A size for each rank."""
    return {name.upper(): draw(st.sampled_from(sizes)) for name in names}


@st.composite
def products(draw: Any) -> Case:
    """One matrix product: any loops, any holds."""
    nest = loops(draw, "mnk", 4, ANY_CHUNK)
    for tensor in "ABZ":
        for level in draw(st.sampled_from([(), ("L1",), ("L2",), ("L2", "L1")])):
            keep(draw, nest, level, tensor)
    nest.append(leaf(draw, "Z", "mnk"))
    return Case(MATMUL, nest, extents(draw, "mnk", range(1, 8)))


@st.composite
def similarities(draw: Any) -> Case:
    """A product of a tensor with itself: its two accesses are moved by different loops."""
    nest = loops(draw, "pmd", 4, ANY_CHUNK)
    for tensor in "XS":
        for level in draw(st.sampled_from([(), ("L1",), ("L2",), ("L2", "L1")])):
            keep(draw, nest, level, tensor)
    nest.append(leaf(draw, "S", "pmd"))
    return Case(SIMILARITY, nest, extents(draw, "pd", range(1, 8)))


@st.composite
def convolutions(draw: Any) -> Case:
    """A convolution, whose input tiles overlap."""
    nest = loops(draw, "pwq", 4, ANY_CHUNK)
    for tensor in "IGZ":
        for level in draw(st.sampled_from([(), ("L1",), ("L2", "L1")])):
            keep(draw, nest, level, tensor)
    nest.append(leaf(draw, "Z", "pwq"))
    return Case(CONVOLUTION, nest, extents(draw, "pwq", range(1, 7)))


EINSUMS = {"QK": "pme", "GM": "mp", "SN": "mp", "SD": "mp", "A": "mp", "AV": "mpf"}
USERS = {"Q": "pme", "K": "pme", "V": "mpf", "AV": "mpf"}
BRANCH = st.sampled_from(["sequence", "pipeline", "parallel"])


@st.composite
def branched_attention(draw: Any) -> Case:
    """Attention whose Einsums have loops of their own inside a branch."""
    nest = loops(draw, "p", 2, ANY_CHUNK)
    nest.insert(draw(st.integers(0, len(nest))), {"keep": {"L2": ["QK", "GM", "SN", "SD", "A"]}})
    for tensor in USERS:
        if draw(st.booleans()):
            keep(draw, nest, draw(st.sampled_from(["L1", "L2"])), tensor)
    children = []
    for name, ranks in EINSUMS.items():
        child = loops(draw, ranks, 3, ANY_CHUNK)
        for tensor in (name, *{"QK": "QK", "AV": "V"}.get(name, "")):
            if tensor != "K" and draw(st.booleans()):
                keep(draw, child, "L1", tensor)
        children.append([*child, leaf(draw, name, ranks)])
    nest.append({draw(BRANCH): children})
    return Case(ATTENTION, nest, extents(draw, "pmef", range(1, 7)))


@st.composite
def fused_attention(draw: Any) -> Case:
    """Attention whose Einsums share every loop; loops that an Einsum lacks gate it."""
    nest = loops(draw, "pmef", 3, ANY_CHUNK)
    for tensor in ("QK", "GM", "SN", "SD", "A"):
        keep(draw, nest, "L2", tensor)
    for tensor in USERS:
        if draw(st.booleans()):
            keep(draw, nest, draw(st.sampled_from(["L1", "L2"])), tensor)
    nest.append({draw(BRANCH): [leaf(draw, name, ranks) for name, ranks in EINSUMS.items()]})
    return Case(ATTENTION, nest, extents(draw, "pmef", range(1, 6)))


@st.composite
def one_pass_attention(draw: Any) -> Case:
    """The running form: keys in chunks, queries in chunks around and inside, the state kept around the keys' loop."""
    around = [{"for": {"b": 1, "h": 1}}, *loops(draw, "p", 1, ANY_CHUNK)]
    around.insert(draw(st.integers(0, len(around))), {"keep": {"L2": ["RM", "RD", "RNV"]}})
    inside = [{"for": {"m1": 1}}, *loops(draw, "p", 1, ANY_CHUNK)]
    inside.insert(draw(st.integers(0, len(inside))), {"keep": {"L1": ["BQK", "SLN", "LM", "SLD", "PRM", "SPD"]}})
    inside.append({"keep": {"L1": ["SLNV", "SPNV"]}})
    for state in ("RM", "RD", "RNV"):
        if draw(st.booleans()):
            inside.insert(draw(st.integers(0, len(inside))), {"keep": {"L1": [state]}})
    if draw(st.booleans()):
        keep(draw, around, "L2", "AV")
    nest = [*around, *inside]
    for tensor in "QKV":
        if draw(st.booleans()):
            keep(draw, nest, draw(st.sampled_from(["L1", "L2"])), tensor)
    scores = {"p": "columns", "m0": "rows"}
    on_grid = [{"compute": name, "on": "grid", "spatial": scores} for name in ("BQK", "LM", "SLN", "SLD", "SLNV")]
    grid = {node["compute"]: node for node in on_grid}
    order = [einsum.name for einsum in ONE_PASS.einsums]
    body = [grid.get(name, {"compute": name, "on": "row", "spatial": {"p": "lanes"}}) for name in order]
    nest.append({draw(BRANCH): body})
    values = extents(draw, "pm", range(1, 9)) | extents(draw, "bhef", (1, 2))
    return Case(ONE_PASS, nest, {**values, "M0": draw(st.sampled_from([1, 2, 3]))})


SCORES = Cascade.parse(
    """
    cascade: scores
    ranks: {g: G, p: P, m: M, e: E}
    inputs: {Q: [g, p, e], K: [g, m, e], R: [p], C: [g, m]}
    outputs: [QK]
    einsums: ["QK[g,m,p] = Q[g,p,e] * K[g,m,e] * R[p] * C[g,m]"]
    """
)
MASKS = {
    "m <= p": lambda p, m: m <= p,
    "m >= p": lambda p, m: m >= p,
    "m > p - 3": lambda p, m: m > p - 3,
    "m <= p and m > p - 2": lambda p, m: p - 2 < m <= p,
    "m // 2 == p // 2": lambda p, m: m // 2 == p // 2,
    "m // 2 <= p // 2": lambda p, m: m // 2 <= p // 2,
    "m <= p + 1 and (m > p - 2 or m < 2)": lambda p, m: m <= p + 1 and (m > p - 2 or m < 2),
    "m <= p or m > p + 2": lambda p, m: m <= p or m > p + 2,
    "p + m < 5": lambda p, m: p + m < 5,
}
"""Conditions on queries and keys, and what they say of one point."""


def kept(mask: str, case: Case) -> NDArray[np.bool_]:
    """Which (query, key) a mask keeps."""
    rows, columns = range(case.values["P"]), range(case.values["M"])
    return np.array([[bool(MASKS[mask](row, column)) for column in columns] for row in rows])


@st.composite
def masked_products(draw: Any) -> Case:
    """Scores under a mask: any loops, any holds."""
    nest = loops(draw, "gpme", 4, ANY_CHUNK)
    for tensor in ("Q", "K", "R", "C", "QK"):
        for level in draw(st.sampled_from([(), ("L1",), ("L2",), ("L2", "L1")])):
            keep(draw, nest, level, tensor)
    nest.append(leaf(draw, "QK", "gpme"))
    return Case(SCORES, nest, extents(draw, "gpme", range(1, 8)) | extents(draw, "ge", (1, 2, 4)))
