"""The thread blocks of a launch, and the values of a block's names for each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from einsum.expressions import Expression
from mappings.gpu.kernel import GridLaunch
from mappings.program import Array

Env = dict[str, Any]


@dataclass(frozen=True)
class Blocks:
    """The grid of one launch: blocks in launch order, and the values of a block's names for each of them."""

    count: int
    shape: tuple[int, int, int]
    env: Env
    _means: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, launch: GridLaunch, env: Env) -> Blocks:
        """Evaluate the grid and the names that depend on a block's place in it."""
        sizes = [int(launch.grid[axis].number(env)) if axis in launch.grid else 1 for axis in ("x", "y", "z")]
        count = sizes[0] * sizes[1] * sizes[2]
        inside: Env = dict(env)
        # One axis for each coordinate: what depends on x alone is evaluated once for each x.
        for name, size, axes in zip(("x", "y", "z"), sizes, ((1, 1, -1), (1, -1, 1), (-1, 1, 1)), strict=True):
            if name in launch.names:
                inside[name] = np.arange(size).reshape(axes)
        inside["blocks_x"], inside["blocks_y"] = sizes[0], sizes[1]
        for name, expression in launch.block.items():
            inside[name] = expression.evaluate(inside)
        return cls(count, (sizes[2], sizes[1], sizes[0]), inside)

    def array(self, expression: Expression) -> Array:
        """An expression's value for each block, (blocks,)."""
        return self.full(expression.evaluate(self.env))

    def full(self, value: Any) -> Array:
        """A value with an entry for each block, (blocks,)."""
        return np.broadcast_to(np.asarray(value, dtype=np.float64), self.shape).reshape(-1)

    def first(self, expression: Expression, count: int) -> Array:
        """An expression's value for each of the first `count` blocks."""
        values = np.broadcast_to(np.asarray(expression.evaluate(self.env), dtype=np.float64), self.shape)
        values = values[: -(-count // (self.shape[1] * self.shape[2]))]
        if values.shape[0] == 1:
            values = values[:, : -(-count // self.shape[2])]
        return values.reshape(-1)[:count]

    def mean(self, expression: Expression) -> float:
        """An expression's mean over the blocks; loops of a launch often say the same."""
        if expression.text not in self._means:
            value = expression.evaluate(self.env)
            self._means[expression.text] = (
                float(value) if isinstance(value, (int, float)) else float(np.mean(np.asarray(value, dtype=np.float64)))
            )
        return self._means[expression.text]


class LoopOrder:
    """Tiles of a block: its loops one after another."""

    def __init__(self, trips: Array) -> None:
        self.trips = trips

    def __call__(self, point: int, instance: int, limit: int | None = None) -> Any:
        """See `program.TileOrder`."""
        trips = self.trips[min(instance, len(self.trips) - 1)]
        return np.repeat(np.arange(trips.size, dtype=np.int32), trips.astype(np.int64))[:limit]
