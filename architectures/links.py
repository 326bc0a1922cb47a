"""Links between the parts of a system, and the paths that data take over them.

A PCI Express link carries packets: what arrives is the raw rate of its lanes less the line code, headers and
acknowledgements. A path names the parts that data pass one after another: from peer to peer through a switch, or over
the root complex, where they are written to host memory and read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from architectures.parts import Env, Part
from architectures.quantity import (
    BANDWIDTH,
    COUNT,
    DURATION,
    ENERGY,
    POSITIVE,
    SIZE,
    Bandwidth,
    Count,
    Duration,
    Energy,
    Number,
    Positive,
    Size,
)
from einsum.errors import SpecError
from einsum.expressions import Expression


class Link(Part):
    """A serial link of packets, the same in both directions. Every number is that of one copy."""

    lanes: Count
    """Lanes side by side."""
    lane_rate: Bandwidth
    """Raw bytes per second of a lane in one direction: transfers per second over 8."""
    line_code: Positive = Expression.parse("128 / 130")
    """Share of the raw bits that are data; PCI Express from its third generation on by default."""
    payload: Size = Expression.parse(256)
    """Bytes that a packet carries at most."""
    overhead: Size = Expression.parse(26)
    """Bytes of a packet besides its payload. PCI Express: framing 4, sequence number 2, header 16, checksum 4."""
    latency: Duration = Expression.parse(0)
    """Time from sending to receiving."""
    energy: Energy = Expression.parse(0)
    """Energy of one byte of payload."""
    copies: Count = Expression.parse(1)
    """How many there are."""

    def evaluate(self, name: str, env: Env) -> EvaluatedLink:
        """The link with the variables in `env`."""
        payload = SIZE.evaluate(self.payload, env, "payload")
        carried = payload / (payload + SIZE.evaluate(self.overhead, env, "overhead"))
        raw = COUNT.evaluate(self.lanes, env, "lanes") * BANDWIDTH.evaluate(self.lane_rate, env, "lane_rate")
        code = POSITIVE.evaluate(self.line_code, env, "line_code")
        if np.any(np.greater(code, 1)):
            raise SpecError(f"'{self.line_code}' is above 1, expected a share of the raw bits", key="line_code")
        return EvaluatedLink(
            name=name,
            bandwidth_bytes_per_s=raw * code * carried,
            latency_s=DURATION.evaluate(self.latency, env, "latency"),
            energy_j=ENERGY.evaluate(self.energy, env, "energy"),
            copies=COUNT.evaluate(self.copies, env, "copies"),
        )


class Route(Part):
    """Parts that data pass one after another, each passing on what has arrived while more arrives."""

    over: tuple[str, ...] = Field(min_length=1)
    """Links, and memories that the data are written to and read from again, in order."""


@dataclass(frozen=True)
class EvaluatedLink:
    """A link with its numbers, each a float or an array with one value per design point; those of one copy.

    bandwidth_bytes_per_s  payload bytes in one direction
    energy_j               of one byte
    """

    name: str
    bandwidth_bytes_per_s: Number
    latency_s: Number
    energy_j: Number
    copies: Number

    def numbers(self) -> Iterator[tuple[str, Number]]:
        """Numbers that a mapping's expressions may use, by name."""
        for number in ("bandwidth_bytes_per_s", "latency_s", "copies"):
            yield number, getattr(self, number)

    def action_energies_j(self) -> Iterator[tuple[str, Number]]:
        """Energy of each action: moving one byte."""
        yield "move", self.energy_j
