"""Pruning schedules: which share of tokens and heads each layer keeps, and the trace of a run that keeps to it.

The rule of SpAtten (HPCA 2021, arXiv 2012.09852): the layers in front keep everything; behind them the share that is
kept falls linearly from r_start to r_end, where r_start + r_end is twice the average. What a layer drops is gone in all
later ones. Of the keys that are left, each head fetches the values of a fixed share, those most probable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from einsum.errors import SpecError
from einsum.expressions import Expression
from workloads.traces import MOST_BITS, HeadTrace

Share = Annotated[float, Field(gt=0, le=1)]
Bits = Annotated[int, Field(ge=1, le=MOST_BITS)]


class Section(BaseModel):
    """Base of the parts of a schedule: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, arbitrary_types_allowed=True)


class KeepRatio(Section):
    """The share that each layer keeps."""

    front: Annotated[float, Field(ge=0, le=1)]
    """Share of the layers, from the first, that keep everything."""
    average: Share
    """Average share that the other layers keep."""
    start: Share
    """Share that the first of them keeps; the last keeps twice the average less this."""

    @model_validator(mode="after")
    def _check_end(self) -> KeepRatio:
        if not 0 < 2 * self.average - self.start <= self.start:
            end = 2 * self.average - self.start
            raise SpecError(
                f"the last layer would keep a share of {end:g} (2 x average - start), expected more than 0 and at "
                f"most the start, {self.start:g}",
                key="start",
            )
        return self

    def ratios(self, layers: int) -> NDArray[np.float64]:
        """Share that each of the layers keeps, (layers,)."""
        front = min(round(self.front * layers), layers)
        falling = np.linspace(self.start, 2 * self.average - self.start, layers - front)
        if layers - front == 1:
            falling = np.array([self.average])
        return np.concatenate([np.ones(front), falling])


class Quantization(Section):
    """Bits of what is fetched: keys and values in a most significant plane, keys also in a least significant one."""

    key: Bits
    """Bits of a key's element in the plane that is always fetched."""
    increment: Bits = 4
    """Bits in the plane that is fetched when the probabilities are flat."""
    value: Bits
    """Bits of a value's element."""
    query: Bits = 16
    """Bits of a query's element."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Largest probability below which the second plane is fetched."""
    requantized: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the heads' steps that need it."""


class PruningSchedule(Section):
    """How a model runs under pruning; sizes are expressions of the workload's variables."""

    heads: Expression
    """Heads of a layer."""
    head_dim: Expression
    """Elements of a key."""
    context: Expression
    """Tokens at the start."""
    generated: Expression = Expression.parse(0)
    """Tokens that are generated, one query each; with none the context itself is processed, one query for each."""
    tokens: KeepRatio
    """Tokens that the layers keep."""
    head_keep: KeepRatio
    """Heads that the layers keep."""
    values: Share = 1.0
    """Share of a head's keys whose values it fetches."""
    bits: Quantization
    """Widths of what is fetched."""

    def trace(self, layers: int, sizes: Mapping[str, Any], file: str | None = None) -> HeadTrace:
        """The trace of a run with the sizes that the workload's variables have.

        Heads that are alike share a row. Steps that need the second plane are spread evenly over the run.
        """
        heads, dim, context, generated = (
            _whole(expression, sizes, name, least)
            for name, expression, least in (
                ("heads", self.heads, 1),
                ("head_dim", self.head_dim, 1),
                ("context", self.context, 1),
                ("generated", self.generated, 0),
            )
        )
        step, layer = (
            grid.reshape(-1) for grid in np.meshgrid(np.arange(max(generated, 1)), np.arange(layers), indexing="ij")
        )
        length = context + (1 + step if generated else 0 * step)
        ratio = self.tokens.ratios(layers)
        keys = _floor(ratio[layer] * length)
        kept_next = _floor(np.append(ratio[1:], ratio[-1])[layer] * length)
        alive = _floor(self.head_keep.ratios(layers)[layer] * heads)
        columns = {
            "iteration_id": step,
            "layer_id": layer,
            "head_id": np.zeros_like(step),
            "embedding_length_D": np.full_like(step, dim),
            "sentence_length_L": length,
            "key_fetch_num": keys,
            "value_fetch_num": _floor(self.values * keys),
            "quant_key_bit": np.full_like(step, self.bits.key),
            "quant_query_bit": np.full_like(step, self.bits.query),
            "quant_value_bit": np.full_like(step, self.bits.value),
            "auto_requant_thres": np.full(step.shape, self.bits.threshold),
            "auto_requant_incre": np.full_like(step, self.bits.increment),
            "if_accumulate_importance": np.ones_like(step),
            "if_rescale_previous_importance": np.zeros_like(step),
            "topk": np.where(kept_next < keys, kept_next, -1),
            "query_num": np.ones_like(step) if generated else keys,
        }
        return HeadTrace.of(_by_decision(columns, alive, self.bits.requantized), file)


def _by_decision(columns: Mapping[str, Any], alive: NDArray[np.float64], requantized: float) -> dict[str, Any]:
    """Split the heads of each layer: with and without the second plane, and the last one, behind which tokens go."""
    planned = np.round(np.cumsum(alive) * requantized)
    second = np.minimum(np.diff(planned, prepend=0.0), alive)
    selects = (columns["topk"] > 0).astype(np.float64)
    last_second = np.minimum(second, selects) * (second >= alive)
    parts = [
        (second - last_second, 1.0, 0.0),
        (alive - second - (selects - last_second), 0.0, 0.0),
        (last_second, 1.0, 1.0),
        (selects - last_second, 0.0, 1.0),
    ]
    count = np.stack([part[0] for part in parts], axis=1)
    rows, kind = np.nonzero(count > 0)
    flags = np.array([part[1:] for part in parts])[kind]
    split = {name: np.asarray(values, dtype=np.float64)[rows] for name, values in columns.items()}
    split["topk"] = np.where(flags[:, 1] > 0, split["topk"], -1.0)
    split["head_id"] = (np.cumsum(count, axis=1) - count)[rows, kind]
    return {**split, "if_requant": flags[:, 0], "if_topk": flags[:, 1], "count": count[rows, kind]}


def _floor(values: Any) -> NDArray[np.float64]:
    """Whole numbers of at least 1, as top-k counts are; a share of exactly one more is not lost to rounding."""
    return np.asarray(np.maximum(np.floor(np.asarray(values) + 1e-9), 1.0))


def _whole(expression: Expression, sizes: Mapping[str, Any], name: str, least: int) -> int:
    value = expression.evaluate(sizes)
    if not isinstance(value, int | float) or value % 1 or value < least:
        raise SpecError(f"expected one whole number of at least {least}, found {value!s:.60}", key=f"pruning.{name}")
    return int(value)
