"""What thread blocks find in the L2 because another read it before, by how much is read in between.

The L2 drops what was used least recently. Bytes that a block asks for are there if what all blocks asked for since the
byte was used last has room: the reuse distance of a stack (Mattson et al. 1970), here the mean number of distinct
bytes in as much time (Denning 1968). Where the L2 has parts, each of which is beside a part of the memory and of the
multiprocessors, a byte that is asked for from another part lies in both (measured: `distances` of
calibration-h100.yaml).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv

from mappings.gpu.cache import Access, distinct_bytes
from mappings.program import Array

ROWS_LOOKED_AT = 4
"""Rows of what a block reads in the mean whose uses are followed; those between are alike."""
USES_LOOKED_AT = 128
"""Uses whose reuse distance is counted, of those that may be too far apart."""


@dataclass(frozen=True)
class Kept:
    """What an L2 of `capacity` bytes keeps, in sets of `ways` lines.

    `parts`: parts of the L2 that keep copies of what lies in others.
    """

    capacity: float
    ways: float
    parts: float

    def lost(self, between: Array | float) -> Array:
        """The part that is gone when so many bytes, copies included, were used in between: in whose set as many lines
        were as it has, when each falls into any set (Smith 1978; measured, distances, scattered)."""
        return np.asarray(gammainc(self.ways, self.ways * np.asarray(between, dtype=np.float64) / self.capacity))

    @property
    def safe(self) -> float:
        """Bytes, copies included, that are found again but for less than 1 %."""
        return float(gammaincinv(self.ways, 0.01) / self.ways * self.capacity)

    def copies(self, readers: float) -> float:
        """Places that a byte takes that so many multiprocessors read: its own, and one in each other part that does."""
        return float(1 + (self.parts - 1) * (1 - (1 - 1 / self.parts) ** max(readers, 1.0)))


def lost_parts(accesses: Sequence[Access], in_flight: int, kept: Kept, passing_bytes: float = 0.0) -> list[float]:
    """The part of each access's bytes, those that a block is first to read left out, that come from beyond the L2.

    `in_flight` blocks run at a time, `passing_bytes` are what all blocks move besides, each byte once. Blocks start in
    launch order where others end, walk over their rows at an even pace, and take time by what they read.
    """
    known = {id(access): access for access in accesses}
    alike = {place: sum(access is other for other in accesses) for place, access in known.items()}
    asked = {place: float(access.block_bytes.sum()) for place, access in known.items()}
    least = {place: distinct_bytes(access) for place, access in known.items()}
    copies = {place: kept.copies(asked[place] / max(least[place], 1.0)) for place in known}
    passing, safe = passing_bytes * kept.copies(1), kept.safe
    again = {place: access for place, access in known.items() if asked[place] - least[place] > 1e-9 * asked[place]}
    lost = dict.fromkeys(known, 0.0)
    if again and passing + sum(alike[place] * copies[place] * least[place] for place in known) > safe:
        starts, lasts = _schedule(known.values(), alike.values(), in_flight)
        uses = [_uses(access, alike[place] * copies[place], starts, lasts) for place, access in again.items()]
        lost |= dict(zip(again, _gone(uses, passing / max(float((starts + lasts).max()), 1.0), kept), strict=True))
    return [lost[id(access)] for access in accesses]


@dataclass(frozen=True)
class _Uses:
    """Uses of rows by blocks, those at the same time as one: when (bytes that a block has asked for), the use before
    and the next of the same row (infinite where there is none), and the bytes that the row stands for, copies included;
    (uses,) each. `again`: how many uses of all are not the first of their row."""

    time: Array
    before: Array
    after: Array
    weight: Array
    again: int


def _schedule(accesses: Iterable[Access], alike: Iterable[int], in_flight: int) -> tuple[Array, Array]:
    """When blocks start, each where another ends, and how long they last, in bytes that a block asks for."""
    each = [access.block_bytes.reshape(access.ranges, -1).sum(axis=0) for access in accesses]
    lasts = np.sum([many * size for many, size in zip(alike, each, strict=True)], axis=0)
    if np.ptp(lasts) <= 1e-9 * float(lasts.max()):
        return np.arange(lasts.size) // max(in_flight, 1) * float(lasts.max()), lasts
    ends = [0.0] * min(max(in_flight, 1), lasts.size)
    starts = []
    for last in lasts.tolist():
        starts.append(ends[0])
        heapq.heapreplace(ends, ends[0] + last)
    return np.array(starts), lasts


def _uses(access: Access, copies: float, starts: Array, lasts: Array) -> _Uses:
    """When blocks read the rows that are looked at."""
    shape = (access.ranges, access.blocks)
    first = access.first.reshape(shape)
    rows = np.maximum(access.last.reshape(shape) - first, 0.0)
    apart = max(1.0, float(rows.sum(axis=0).mean()) / ROWS_LOOKED_AT)
    pace = lasts / np.maximum(rows.sum(axis=0), 1.0)
    begun = starts + (np.cumsum(rows, axis=0) - rows - first) * pace  # when row 0 would have been read
    low = np.ceil(first / apart - 0.5).astype(np.int64)
    many = np.ceil((first + rows) / apart - 0.5).astype(np.int64) - low
    # Blocks that read the same rows of the same at the same time are as one.
    parts = np.stack([part.reshape(-1) for part in (access.key.reshape(shape), low, many, begun)])
    chosen = _distinct_columns(parts[:, parts[2] > 0])
    chosen = np.flatnonzero(parts[2] > 0)[chosen]
    low, each, begun = (part.reshape(-1)[chosen] for part in (low, many, begun))
    place = np.repeat(chosen, each)
    row = np.arange(place.size) + np.repeat(low - np.cumsum(each) + each, each)
    time = np.repeat(begun, each) + (row + 0.5) * apart * np.tile(pace, access.ranges)[place]
    line = access.key[place] * (int(row.max(initial=0)) + 1) + row
    order = np.lexsort((time, line))
    line, time, place = line[order], time[order], place[order]
    fresh = np.concatenate([[True], line[1:] != line[:-1]])
    again = int(many.sum() - fresh.sum())
    alone = fresh | np.concatenate([[True], time[1:] > time[:-1]])
    line, time, weight = line[alone], time[alone], access.row_bytes[place[alone]] * apart * copies
    same = line[1:] == line[:-1]
    before = np.concatenate([[-np.inf], np.where(same, time[:-1], -np.inf)])
    after = np.concatenate([np.where(same, time[1:], np.inf), [np.inf]])
    return _Uses(time, before, after, weight, again)


def _distinct_columns(table: Array) -> NDArray[np.intp]:
    """Places of columns that are unlike each other."""
    order = np.lexsort(table)
    unlike = np.concatenate([[True], (np.diff(table[:, order], axis=1) != 0).any(axis=0)])
    return np.asarray(order[unlike[: order.size]])


def _gone(uses: Sequence[_Uses], passing: float, kept: Kept) -> list[float]:
    """The part of each set of uses, its first ones left out, that finds its row gone. `passing`: other bytes in a unit
    of time, that nobody comes back to."""
    time, after, weight = (
        np.concatenate([getattr(part, name) for part in uses]) for name in ("time", "after", "weight")
    )
    order = np.argsort(time)
    time, after, weight = time[order], after[order], weight[order]
    until = np.concatenate([[0.0], np.cumsum(weight)])
    safe, found = kept.safe, []
    for part in uses:
        again = np.flatnonzero(np.isfinite(part.before))
        since, now = part.before[again], part.time[again]
        begin, end = (np.searchsorted(time, at, side="right") for at in (since, now))
        most = until[end] - until[begin] + passing * (now - since)  # all uses in between, each counted as of other rows
        far = np.flatnonzero(most > safe)
        looked = far[np.unique(np.linspace(0, far.size - 1, USES_LOOKED_AT).astype(np.int64))] if far.size else far
        between = [
            weight[here:there][after[here:there] > at].sum()
            for here, there, at in zip(begin[looked].tolist(), end[looked].tolist(), now[looked].tolist(), strict=True)
        ]
        gone = kept.lost(np.array(between) + passing * (now - since)[looked]) if between else np.zeros(1)
        found.append(float(gone.mean()) * far.size / max(part.again, 1))
    return found
