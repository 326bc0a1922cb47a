"""What `list`, `show`, `passes` and `doctor` print with `--json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from einsight.documents.base import Document


class LibraryEntry(Document):
    """One description of the libraries."""

    kind: Literal["cascade", "architecture", "mapping", "workload"]
    """What it describes."""
    name: str
    """Its name in the library."""
    description: str
    """Its first sentence."""
    source: str
    """Where its numbers come from."""


class Description(Document):
    """One description, as `einsight show` found it."""

    kind: Literal["cascade", "architecture", "mapping", "workload"]
    """What it describes."""
    file: str
    """Where it lies."""
    data: dict[str, Any]
    """What the YAML file says; see the reference of its kind."""


class PassEinsum(Document):
    """Where one Einsum falls."""

    in_pass: int | None = Field(alias="pass")
    """The pass in which it traverses the rank; none where it does not."""
    runs_at: float
    """In pass p: p - 0.5; between passes: a whole number."""
    chain: list[str]
    """Einsums that force it there, the last one being itself."""
    reason: str
    """The same in words."""


class LiveValues(Document):
    """What has to be kept from one pass to the next."""

    tensor: str
    """The tensor."""
    after_pass: int
    """It is kept from this pass to the next."""
    words: int | str
    """Words, or an expression of the sizes that are not set."""
    per: list[str]
    """Ranks for each of whose coordinates so many words are kept."""


class RankPasses(Document):
    """The passes over one rank."""

    passes: int
    """Passes that every mapping must make."""
    traversed_by: list[str]
    """The rank, or the parts that it is cut into."""
    per_iteration: list[str]
    """Iterative ranks in each of whose iterations the passes occur."""
    einsums: dict[str, PassEinsum]
    """Einsum -> where it falls and why."""
    live: list[LiveValues]
    """What has to be kept between passes."""


class Passes(Document):
    """The passes of a cascade."""

    cascade: str
    """Its name."""
    ranks: dict[str, RankPasses]
    """Rank -> its passes."""


class Package(Document):
    """An optional part of Einsight."""

    feature: str
    """What it is for."""
    needs: str
    """The package or program."""
    found: str | None
    """Its version or place; `null` where it is missing."""
    get: str | None
    """How to get it; `null` where nothing is missing."""


class Checkup(Document):
    """What is installed."""

    version: str
    """Version of Einsight."""
    python: str
    """Version of Python."""
    processors: int
    """Processors that this process may use."""
    place: str
    """Folder of the packages."""
    library: dict[str, int]
    """Kind -> descriptions in the library."""
    features: list[Package]
    """Every optional part."""


class Spread(Document):
    """Counts over the row tiles."""

    least: int
    """The smallest."""
    mean: float
    """Their mean."""
    most: int
    """The largest."""


class TileVisits(Document):
    """What a mask leaves to a kernel that works tile by tile."""

    cascade: str
    """The cascade whose mask it is."""
    row_tile: dict[str, int]
    """Extent of the tile that stays, by rank."""
    column_tile: dict[str, int]
    """Extent of the tiles that it visits, by rank."""
    row_tiles: int
    """Row tiles in all."""
    column_tiles: int
    """Column tiles in all."""
    visited: Spread
    """Column tiles with a kept point, for a row tile."""
    whole: Spread
    """Column tiles among these whose points are all kept."""
    density: float
    """Share of the points that are kept."""
    perfectly_sparse: bool
    """Whether all visited tiles are whole."""
    speedup_bound: float
    """All column tiles over those of the busiest row tile."""
    mean_speedup: float
    """The same where row tiles share their work evenly."""
    end_to_end_bound: float | None
    """Bound for the whole of which the share given is made faster; none without a share."""
