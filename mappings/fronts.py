"""Tables of ways to run something, (bytes moved, room in each memory): fronts of the best of them, and sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MOST_CELLS = 1_000_000
FIRST_SLACK, LAST_SLACK = 0.01, 2.0


@dataclass(frozen=True)
class Front:
    """For each row (a choice of the shared tiles): ways to run some leaves that no other way beats.

    moved  (rows, ways) what is to be small; unused ways are infinite
    room   (levels, rows, ways) bytes taken in each memory
    way    (rows, ways) the number of the way in the table that the front was made of
    """

    moved: Floats
    room: Floats
    way: NDArray[np.int64]


def front(moved: Floats, room: Floats, most: int | None = None) -> Front:
    """The ways of each row, infinite ones left out, that no other way of the row beats in bytes and in all rooms.

    `most`: of a row with more ways, those go that take not much less room than another that moves no more.
    """
    moved = np.broadcast_to(moved, room.shape[1:])
    keys = (*room[::-1], moved) if len(room) > 1 else (moved, room[0])
    order = np.lexsort(keys, axis=-1)
    moved = np.take_along_axis(moved, order, axis=1)
    room = np.take_along_axis(room, order[None], axis=2)
    if len(room) > 1:
        from mappings.front_engine import unbeaten

        better, slack = unbeaten(moved, room, 0.0), FIRST_SLACK
        while most is not None and slack < LAST_SLACK and better.sum(axis=1).max() > most:
            better = unbeaten(np.where(better, moved, np.inf), room, slack)
            slack *= 2
    else:
        best = np.minimum.accumulate(moved, axis=1)
        better = np.ones(moved.shape, dtype=bool)
        better[:, 1:] = moved[:, 1:] < best[:, :-1]
        better &= np.isfinite(room[0]) & np.isfinite(moved)
    width = max(int(better.sum(axis=1).max(initial=0)), 1)
    slot = np.cumsum(better, axis=1) - 1
    rows, columns = np.nonzero(better)
    shape = (moved.shape[0], width)
    packed = Front(np.full(shape, np.inf), np.full((len(room), *shape), np.inf), np.zeros(shape, dtype=np.int64))
    at = (rows, slot[rows, columns])
    packed.moved[at] = moved[rows, columns]
    packed.room[:, at[0], at[1]] = room[:, rows, columns]
    packed.way[at] = order[rows, columns]
    return packed


def joined(first: Front, second: Front, room_left: Floats, moved_left: Floats, most: int | None = None) -> Front:
    """The front of running two groups of leaves, one way each; a way's number is first's place x width + second's.

    room_left   (levels, rows, 1): ways that take more are left out
    moved_left  (rows, 1): so are ways that do not move less
    """
    rows, width = first.moved.shape[0], second.moved.shape[1]
    step = max(1, MOST_CELLS // max(first.moved.shape[1] * width, 1))
    parts = []
    for start in range(0, rows, step):
        at = slice(start, start + step)
        moved = first.moved[at, :, None] + second.moved[at, None, :]
        room = first.room[:, at, :, None] + second.room[:, at, None, :]
        moved = moved.reshape(moved.shape[0], -1)
        room = room.reshape(*room.shape[:2], -1)
        out = (moved >= moved_left[at]) | (room > room_left[:, at]).any(axis=0)
        parts.append(front(np.where(out, np.inf, moved), np.where(out, np.inf, room), most))
    return parts[0] if len(parts) == 1 else _stacked(parts)


def _stacked(parts: Sequence[Front]) -> Front:
    """Fronts of some rows each, below one another."""
    width = max(part.moved.shape[1] for part in parts)

    def padded(values: NDArray[np.generic], fill: float) -> NDArray[np.generic]:
        wider = [(0, 0)] * (values.ndim - 1) + [(0, width - values.shape[-1])]
        return np.pad(values, wider, constant_values=fill)

    return Front(
        np.concatenate([padded(part.moved, np.inf) for part in parts]),
        np.concatenate([padded(part.room, np.inf) for part in parts], axis=1),
        np.concatenate([padded(part.way, 0) for part in parts]),
    )


@np.errstate(invalid="ignore")  # infinite ways less infinite ways
def all_joined(
    tables: Sequence[tuple[Floats, Floats]], room_left: Floats, moved_left: Floats, most: int | None = None
) -> tuple[Front, Callable[[int, int], list[int]]]:
    """One front of (moved, room) tables, one way of each, and a function that finds each table's way again.

    Ways that cannot end within `room_left`, (levels, rows, 1), or below `moved_left`, (rows, 1), are dropped early.
    See `front` for `most`.
    """
    least_moved = [moved.min(axis=1, keepdims=True) for moved, _ in tables]
    least_room = [room.min(axis=2, keepdims=True) for _, room in tables]
    moved_left = moved_left - sum(least_moved, np.zeros((1, 1)))
    room_left = room_left - sum(least_room, np.zeros((1, 1, 1)))
    fronts = []
    for (moved, room), least, smallest in zip(tables, least_moved, least_room, strict=True):
        out = ~(moved < moved_left + least) | (room > room_left + smallest).any(axis=0)
        fronts.append(front(np.where(out, np.inf, moved), np.where(out, np.inf, room), most))
    stages = [fronts[0]]
    moved_now, room_now = moved_left + least_moved[0], room_left + least_room[0]
    for place, following in enumerate(fronts[1:], start=1):
        moved_now, room_now = moved_now + least_moved[place], room_now + least_room[place]
        stages.append(joined(stages[-1], following, room_now, moved_now, most))

    def trail(row: int, way: int) -> list[int]:
        found: list[int] = []
        for stage, following in zip(reversed(stages[1:]), reversed(fronts[1:]), strict=True):
            way, last = divmod(int(stage.way[row, way]), following.moved.shape[1])
            found.append(int(following.way[row, last]))
        return [int(fronts[0].way[row, way]), *reversed(found)]

    return stages[-1], trail
