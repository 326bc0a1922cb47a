"""Small attention problems for tests: patterns of all kinds, their inputs, and the plain result."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bounds.attention_schedules import Heads
from bounds.pattern import Blocks, Intervals
from bounds.problem import Access, Coupling, Problem, Statement, ValueClass


@dataclass(frozen=True)
class Case:
    heads: Heads
    seed: int

    @property
    def keys(self) -> list[list[int]]:
        """The keys of each stacked row."""
        return [self.heads.pattern.row(i // self.heads.group) for i in range(self.heads.rows)]

    def inputs(self):
        generator = np.random.default_rng(self.seed)
        heads = self.heads
        shapes = ((heads.rows, heads.d), (heads.columns, heads.d), (heads.columns, heads.dv))
        q, k, v = (2 * generator.normal(size=shape) for shape in shapes)
        v[:, : heads.shared] = k[:, : heads.shared]
        return q, k, v

    def expected(self, plain: bool = False) -> np.ndarray:
        q, k, v = self.inputs()
        scores = q @ k.T
        kept = np.zeros(scores.shape, bool)
        for i, row in enumerate(self.keys):
            kept[i, row] = True
        if plain:
            return np.where(kept, scores, 0.0) @ v
        weights = np.exp(np.where(kept, scores, -np.inf) - np.where(kept, scores, -np.inf).max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True) @ v


def random_case(seed: int, most: int = 9) -> Case:
    """Dense, causal, window, band or block pattern; grouped queries; widths that differ."""
    generator = np.random.default_rng(seed)
    rows, columns = (int(n) for n in generator.integers(1, most + 1, 2))
    kind = ("dense", "causal", "window", "band", "blocks")[int(generator.integers(5))]
    d, dv = (int(n) for n in generator.integers(1, 5, 2))
    if generator.random() < 0.4:
        dv = d
    if kind == "dense":
        pattern = Intervals.dense(rows, columns)
    elif kind == "blocks":
        block_rows, block_columns = (int(n) for n in generator.integers(1, 4, 2))
        shape = (-(-rows // block_rows), -(-columns // block_columns))
        kept = generator.random(shape) < 0.5
        kept[int(generator.integers(shape[0])), int(generator.integers(shape[1]))] = True
        pattern = Blocks.build(kept, rows, columns, block_rows, block_columns)
    else:
        reach = int(generator.integers(1, most))
        left, right = {"causal": (None, 0), "window": (reach - 1, 0), "band": (reach, reach)}[kind]
        pattern = Intervals.band(rows, rows if kind == "causal" else columns, left, right)
    return Case(Heads(pattern, d, dv, group=int(generator.integers(1, 4)) if generator.random() < 0.3 else 1), seed)


def latent_case(seed: int, most: int = 9) -> Case:
    """The same with values that are the first words of the keys."""
    case = random_case(seed, most)
    heads = replace(case.heads, d=max(case.heads.d, case.heads.dv), shared=case.heads.dv)
    return Case(heads, seed)


def attention_problem(heads: Heads) -> Problem:
    """The problem that a cascade of attention would be read as, for these heads."""
    plain = Access.plain
    size = {
        "b": heads.copies,
        "g": heads.group,
        "p": heads.pattern.rows,
        "m": heads.columns,
        "e": heads.d,
        "f": heads.dv,
    }
    copies = heads.copies
    classes = (
        ValueClass("Q", "input", copies * heads.rows * heads.d),
        ValueClass("K", "input", copies * heads.columns * heads.d),
        ValueClass("V", "input", copies * heads.columns * heads.dv),
        ValueClass("S", "intermediate", copies * heads.pairs),
        ValueClass("O", "output", copies * heads.rows * heads.dv),
    )
    statements = (
        Statement("S", plain("S", "bgpm"), (plain("Q", "bgpe"), plain("K", "bme"))),
        Statement("O", plain("O", "bgpf"), (plain("S", "bgpm"), plain("V", "bmf"))),
    )
    return Problem(
        "attention",
        size,
        {value.name: value for value in classes},
        statements,
        Coupling("p", "m", heads.pattern),
        statistics={"max": ("b", "g", "p")},
    )
