"""The compiled inner loop of fronts over several memories. It brings in numba; import it where it is used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from einsum.compiling import compiled


@compiled
def unbeaten(moved: NDArray[np.float64], room: NDArray[np.float64], slack: float) -> NDArray[np.bool_]:
    """Which ways of each row no other way of the row beats; of equal ways the first stays.

    With `slack` a way is also beaten by one that moves no more and takes, relatively, so little more room.

    moved  (rows, ways) ascending in each row, infinite for ways that are out
    room   (levels, rows, ways); ways that move as much are ordered by it, level by level
    """
    levels, rows, ways = room.shape
    kept = np.zeros((rows, ways), dtype=np.bool_)
    places = np.empty(ways, dtype=np.int64)
    for row in range(rows):
        count = 0
        for way in range(ways):
            if not np.isfinite(moved[row, way]):
                continue
            beaten = False
            for place in range(count - 1, -1, -1):
                other = places[place]
                beaten = True
                for level in range(levels):
                    if room[level, row, other] > room[level, row, way] * (1.0 + slack):
                        beaten = False
                        break
                if beaten:
                    break
            if not beaten:
                kept[row, way] = True
                places[count] = way
                count += 1
    return kept
