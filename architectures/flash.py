"""NAND flash: a memory whose cost depends on how it is read.

A die senses one page in each of its planes at a time (`read_time`), and what it sensed crosses the die's channel while
it turns to the next request. Neighbouring pages lie in the planes of one die and are sensed together; a request that
needs more is spread over dies, all in flight together. Where planes sense on their own, a die serves several small
requests at a time. Everything follows from this: many requests in flight fill the channels, a few small ones wait for
their latency, and dies that are drawn twice make others wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from architectures.parts import Env, Part, optional
from architectures.quantity import (
    AREA,
    BANDWIDTH,
    COUNT,
    DURATION,
    ENERGY,
    SIZE,
    Area,
    Bandwidth,
    Count,
    Duration,
    Energy,
    Number,
    Size,
)
from architectures.queueing import Station, throughput_per_s
from einsum.errors import SpecError
from einsum.expressions import Expression

Array = NDArray[np.float64]


class Flash(Part):
    """A drive's NAND and its controller. Every number is that of one copy."""

    channels: Count
    """Buses between the controller and the dies."""
    dies: Count
    """Dies on each channel."""
    planes: Count = Expression.parse(1)
    """Planes of a die: neighbouring pages that it senses or programs together."""
    sense_units: Count = Expression.parse(1)
    """Groups of a die's planes that sense on their own; as many as planes where each plane reads independently."""
    page: Size
    """Bytes that a plane senses and programs at a time."""
    sector: Size | None = None
    """Bytes that cross the channel at least at a time (an error correction codeword); a page when omitted."""
    read_time: Duration
    """Time to sense a page."""
    program_time: Duration
    """Time to program a page."""
    channel_bandwidth: Bandwidth
    """Bytes per second of one channel."""
    queue_depth: Count
    """Requests that are in flight at most, where the reader does not say."""
    request_latency: Duration = Expression.parse(0)
    """Time of each request in software and controller, besides its pages; those of other requests overlap with it."""
    filter_bandwidth: Bandwidth | None = None
    """Bytes per second at which the controller picks wanted vectors out of pages; never a limit when omitted."""
    capacity: Size | None = None
    """What it holds; unbounded when omitted."""
    read_energy: Energy = Expression.parse(0)
    """Energy to read a page."""
    write_energy: Energy = Expression.parse(0)
    """Energy to program a page."""
    copies: Count = Expression.parse(1)
    """Drives."""
    area: Area | None = None
    """Silicon area."""

    def evaluate(self, name: str, env: Env) -> EvaluatedFlash:
        """The drive with the variables in `env`."""
        page = _whole_bytes(self.page, env, "page")
        sector = page if self.sector is None else _whole_bytes(self.sector, env, "sector")
        if np.any(np.greater(sector, page)):
            raise SpecError(f"'{self.sector}' is more than a page, '{self.page}'", key="sector")
        planes = COUNT.evaluate(self.planes, env, "planes")
        units = COUNT.evaluate(self.sense_units, env, "sense_units")
        if np.any(np.mod(planes, units)):
            message = f"'{self.sense_units}' does not divide the planes of a die, '{self.planes}', into equal groups"
            raise SpecError(message, key="sense_units")
        capacity = optional(SIZE, self.capacity, env, "capacity")
        picked = optional(BANDWIDTH, self.filter_bandwidth, env, "filter_bandwidth")
        return EvaluatedFlash(
            name=name,
            channels=COUNT.evaluate(self.channels, env, "channels"),
            dies=COUNT.evaluate(self.dies, env, "dies"),
            planes=planes,
            sense_units=units,
            page_bytes=page,
            sector_bytes=sector,
            read_time_s=DURATION.evaluate(self.read_time, env, "read_time"),
            program_time_s=DURATION.evaluate(self.program_time, env, "program_time"),
            channel_bandwidth_bytes_per_s=BANDWIDTH.evaluate(self.channel_bandwidth, env, "channel_bandwidth"),
            queue_depth=COUNT.evaluate(self.queue_depth, env, "queue_depth"),
            request_latency_s=DURATION.evaluate(self.request_latency, env, "request_latency"),
            filter_bandwidth_bytes_per_s=float("inf") if picked is None else picked,
            capacity_bytes=float("inf") if capacity is None else capacity,
            read_energy_j=ENERGY.evaluate(self.read_energy, env, "read_energy"),
            write_energy_j=ENERGY.evaluate(self.write_energy, env, "write_energy"),
            copies=COUNT.evaluate(self.copies, env, "copies"),
            area_m2=optional(AREA, self.area, env, "area"),
        )


@dataclass(frozen=True)
class EvaluatedFlash:
    """A drive with its numbers, each a float or an array with one value per design point; those of one copy."""

    name: str
    channels: Number
    dies: Number
    planes: Number
    sense_units: Number
    page_bytes: Number
    sector_bytes: Number
    read_time_s: Number
    program_time_s: Number
    channel_bandwidth_bytes_per_s: Number
    queue_depth: Number
    request_latency_s: Number
    filter_bandwidth_bytes_per_s: Number
    capacity_bytes: Number
    read_energy_j: Number
    write_energy_j: Number
    copies: Number
    area_m2: Number | None

    @property
    def bandwidth_bytes_per_s(self) -> Number:
        """Bytes per second of all channels together."""
        return self.channels * self.channel_bandwidth_bytes_per_s

    def pages(self, piece_bytes: ArrayLike) -> Array:
        """Pages of a piece that starts at a page's boundary, or lies within a page."""
        return np.ceil(np.asarray(piece_bytes, dtype=np.float64) / _column(self.page_bytes))

    def operations(self, piece_bytes: ArrayLike) -> Array:
        """Times that a die senses for such a piece: neighbouring pages lie in its planes."""
        return np.ceil(self.pages(piece_bytes) / _column(self.planes))

    def sensing(self, piece_bytes: ArrayLike) -> Array:
        """Operations of such pieces that all dies sense at a time; each takes as few groups of planes as it needs."""
        pages = self.pages(piece_bytes) / self.operations(piece_bytes)
        groups = np.ceil(pages * _column(self.sense_units / self.planes))
        return np.asarray(_column(self.channels * self.dies) * np.floor(_column(self.sense_units) / groups))

    def moved_bytes(self, piece_bytes: ArrayLike) -> Array:
        """Bytes of a piece that cross the channels: whole sectors."""
        sector = _column(self.sector_bytes)
        return np.asarray(np.ceil(np.asarray(piece_bytes, dtype=np.float64) / sector) * sector)

    def read_s(self, pieces: ArrayLike, piece_bytes: ArrayLike, in_flight: ArrayLike | None = None) -> Array:
        """Seconds to read so many pieces of a size from places of no order, (points, classes).

        in_flight   pieces that are requested at a time (threads, queue depth); the drive's queue depth when omitted
        """
        count, size = np.broadcast_arrays(np.asarray(pieces, dtype=np.float64), np.asarray(piece_bytes, np.float64))
        reads = (count > 0) & (size > 0)
        size = np.where(reads, size, 1.0)
        each = self.operations(size)
        total = np.where(reads, count, 1.0) * each
        depth = np.asarray(_column(self.queue_depth) if in_flight is None else in_flight, dtype=np.float64)
        rate = throughput_per_s(
            np.maximum(np.minimum(depth * each, total), 1.0),
            _column(self.request_latency_s),
            (
                Station(self.sensing(size), _column(self.read_time_s)),
                Station(
                    _column(self.channels),
                    self.moved_bytes(size) / each / _column(self.channel_bandwidth_bytes_per_s),
                ),
            ),
        )
        return np.where(reads, total / rate, 0.0)

    def pick_s(self, pages: ArrayLike, in_flight: ArrayLike | None = None) -> Array:
        """Seconds to read pages of no order and to pick wanted vectors out of them as they pass the controller."""
        passed = np.asarray(pages) * _column(self.page_bytes) / _column(self.filter_bandwidth_bytes_per_s)
        return np.asarray(np.maximum(self.read_s(pages, _column(self.page_bytes), in_flight), passed))

    def read_bytes_per_s(self, piece_bytes: ArrayLike, in_flight: ArrayLike | None = None) -> Array:
        """Bytes per second of many reads of pieces of a size from places of no order."""
        many = 1e9
        return np.asarray(many * np.asarray(piece_bytes) / self.read_s(many, piece_bytes, in_flight))

    def program_s(self, pages: ArrayLike) -> Array:
        """Seconds to program pages: the controller deals them out to channels, dies and planes in turn."""
        a_page = np.maximum(
            _column(self.program_time_s) / _column(self.channels * self.dies * self.planes),
            _column(self.page_bytes) / _column(self.bandwidth_bytes_per_s),
        )
        return np.asarray(np.asarray(pages, dtype=np.float64) * a_page)

    def numbers(self) -> Iterator[tuple[str, Number]]:
        """Numbers that a mapping's expressions may use, by name."""
        for number in ("channels", "dies", "planes", "sense_units", "page_bytes", "sector_bytes", "read_time_s",
                       "program_time_s", "channel_bandwidth_bytes_per_s", "bandwidth_bytes_per_s", "queue_depth",
                       "request_latency_s", "filter_bandwidth_bytes_per_s", "capacity_bytes", "copies"):  # fmt: skip
            yield number, getattr(self, number)

    def action_energies_j(self) -> Iterator[tuple[str, Number]]:
        """Energy of each action: reading and programming a page."""
        yield "read", self.read_energy_j
        yield "write", self.write_energy_j


def _whole_bytes(size: Expression, env: Env, key: str) -> Number:
    """A size of whole bytes."""
    found = SIZE.evaluate(size, env, key)
    if np.any(np.mod(found, 1)):
        raise SpecError(f"'{size}' is {np.ravel(found)[0]:g} bytes, expected a whole number of them", key=key)
    return found


def _column(value: Number) -> Array:
    """A number of the machine against tile classes: (points, 1), or a scalar."""
    array = np.asarray(value, dtype=np.float64)
    return array[:, None] if array.ndim == 1 else array
