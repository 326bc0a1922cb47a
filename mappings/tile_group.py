"""Tiles of a phase that run as one stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mappings.program import Array, TileOrder


@dataclass(frozen=True)
class TileGroup:
    """Tiles of some of a phase's classes.

    classes  which, in the order in which `counts` and `order` number them
    counts   tiles of each, (points, those classes)
    order    their sequence
    repeat   times that the group runs, (points,)
    last     the class of the last tile, (points,)
    """

    name: str
    classes: NDArray[np.intp]
    counts: Array
    order: TileOrder
    repeat: Array | int = 1
    last: NDArray[np.intp] | int = -1
