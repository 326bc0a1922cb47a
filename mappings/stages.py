"""The YAML form of stages: what a tile does on one part of a system after another.

A loop nest says how often a tile moves by the extents of ranks. Where a trace says it row by row, or where a tile is a
whole layer's step on several devices, a mapping names the stages instead that a tile passes: what each occupies, moves
and computes, as expressions, and which stages wait for which. `mappings.plan` puts them into phases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from einsum.errors import SpecError, nearest
from einsum.expressions import Expression
from mappings.schema import Model, Names


def _as_distances(value: Any) -> Any:
    names = [value] if isinstance(value, str) else value
    return dict.fromkeys(names, 0) if isinstance(names, list) and all(isinstance(n, str) for n in names) else value


class Move(Model):
    """Bytes of a tensor that one tile moves in a memory."""

    read: Expression = Field(default=Expression.parse(0), description="Bytes read.")
    write: Expression = Field(default=Expression.parse(0), description="Bytes written.")
    pieces: Expression = Field(
        default=Expression.parse(1),
        description="Scattered pieces of equal size that the bytes lie in: each moves in whole transactions. One that "
        "is shared with other tiles counts in part.",
    )


class Selection(Model):
    """A top-k."""

    source: Expression = Field(alias="from", description="Values that it selects from.")
    keep: Expression = Field(description="Values that it selects.")


class Touch(Model):
    """Reads of a drive's whole pages: those in which sets of vectors lie, in the layout that their size gives."""

    vectors: Expression = Field(description="Vectors that lie one after another: tokens, channels, rows of weights.")
    vector_bytes: Expression = Field(description="Bytes of one vector, or of the room that is left for it.")
    kept: Expression = Field(description="Vectors that a set has.")
    latest: Expression = Field(default=Expression.parse(0), description="Of these, how many are the last ones.")
    clustering: Expression = Field(
        default=Expression.parse(0),
        description="Correlation of the scores by which vectors of a page are kept; 0: every set is equally likely.",
    )
    sets: Expression = Field(default=Expression.parse(1), description="Such sets in a tile: sequences x heads.")


class PlanStage(Model):
    """One stage: what a tile does on a memory, a unit, a top-k engine, a drive, a link, or a path over several."""

    stage: str = Field(min_length=1, description="Its name.")
    on: str | None = Field(default=None, description="The part or path that it occupies, if any.")
    when: Expression | None = Field(default=None, description="Tiles that run it; all of them when omitted.")
    computes: Names = Field(default=(), description="The Einsums of the cascade that it computes.")
    moves: dict[str, dict[str, Move]] = Field(
        default_factory=dict, description="memory -> tensor -> bytes. Those in the memory of `on` take its time."
    )
    ops: dict[str, Expression] = Field(default_factory=dict, description="operation -> how many, on the unit of `on`.")
    issue: Literal["serial", "chained"] = Field(
        default="serial",
        description="serial: kinds of operations follow one another; chained: they are stages of the unit's pipeline, "
        "and the slowest kind counts.",
    )
    select: Selection | None = Field(default=None, description="What a top-k engine selects.")
    latency: Expression | None = Field(
        default=None,
        description="Cycles of the architecture's clock from the end of its work to its result; by default the depth "
        "of the unit's pipeline or the latency of the memory.",
    )
    after: Annotated[dict[str, Expression], BeforeValidator(_as_distances)] = Field(
        default_factory=dict, description="stage that must have ended -> how many tiles earlier (0: of the same tile)."
    )
    touches: dict[str, Touch] = Field(
        default_factory=dict, description="tensor -> pages that are read from the drive of `on`, besides `moves`."
    )
    in_flight: Expression | None = Field(
        default=None, description="Pieces requested from the drive at a time; its queue depth when omitted."
    )
    spread: Expression | None = Field(
        default=None,
        description="Equal pieces of the work, such as heads, that are dealt out to the copies of `on`; the copy with "
        "the most of them takes the time. One copy does all of it when omitted.",
    )
    along: Names = Field(
        default=(), description="Stages whose output it works on while they deliver it; it ends after they did."
    )


def check_stages(stages: Sequence[PlanStage]) -> None:
    """SpecError unless names differ, dependences name stages, and what needs a part has one."""
    names = [stage.stage for stage in stages]
    for place, stage in enumerate(stages):
        key = f"stages[{place}]"
        if stage.stage in names[:place]:
            raise SpecError(f"the stage '{stage.stage}' occurs twice", key=key)
        for field in ("after", "along"):
            for other in getattr(stage, field):
                if other not in names:
                    raise SpecError(f"unknown stage '{other}'{nearest(other, names)}", key=f"{key}.{field}")
        if stage.on is None and (stage.ops or stage.select or stage.along):
            raise SpecError("a stage that computes, selects or works along others needs `on`", key=key)
        if stage.on is None and (stage.touches or stage.spread or stage.in_flight):
            raise SpecError("a stage that reads pages or spreads its work needs `on`", key=key)
