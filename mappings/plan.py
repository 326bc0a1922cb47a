"""The YAML form of a plan: how a whole run goes over a system of processors, links, memories and drives.

A plan has phases that follow one another, such as prefill and decode. A phase runs the same stages tile by tile (a
tile is a layer's step); its series gives each tile class a value, such as the length of the context, so that a
sum over all generated tokens is exact. `memory` says what each part has to hold: what does not fit is a result, not an
error. `mappings.plan_lowering` turns it into a tile program.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError, model_validator

from einsum.errors import SpecError, join_key
from einsum.expressions import Expression
from einsum.specfile import pydantic_error
from mappings.schema import Model
from mappings.stages import PipelineStage, StagePipeline


class Touch(Model):
    """Reads of a drive's whole pages: those in which sets of vectors lie, in the layout that their size gives."""

    vectors: Expression = Field(description="Vectors that lie one after another: tokens, channels, rows of weights.")
    vector_bytes: Expression = Field(description="Bytes of one vector, or of the room that is left for it.")
    kept: Expression = Field(description="Vectors that a set has.")
    latest: Expression = Field(default=Expression.parse(0), description="Of these, how many are the last ones.")
    run: Expression = Field(
        default=Expression.parse(0),
        description="Mean length of the runs of neighbours in which the others come; 0: every set is equally likely.",
    )
    sets: Expression = Field(default=Expression.parse(1), description="Such sets in a tile: sequences x heads.")


class PlanStage(PipelineStage):
    """A stage on a memory, a unit, a drive, a link, or a path over several of them."""

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


class Series(Model):
    """Values that tell the tile classes of a phase apart."""

    start: Expression = Field(alias="from", description="The first value.")
    count: Expression = Field(description="How many consecutive values there are.")


class PlanPhase(Model):
    """Stages that run tile by tile."""

    phase: str = Field(min_length=1, description="Its name.")
    series: dict[str, Series] = Field(default_factory=dict, max_length=1, description="variable -> its values.")
    tiles: Expression = Field(default=Expression.parse(1), description="Tiles for each value, one after another.")
    repeat: Expression = Field(default=Expression.parse(1), description="Times that the whole phase runs.")
    stages: tuple[PlanStage, ...] = Field(min_length=1, description="The stages, in the order of a tile.")

    @model_validator(mode="after")
    def _check_names(self) -> PlanPhase:
        StagePipeline(stages=self.stages)
        for place, stage in enumerate(self.stages):
            if stage.on is None and (stage.touches or stage.spread or stage.in_flight):
                raise SpecError("a stage that reads pages or spreads its work needs `on`", key=f"stages[{place}]")
        return self


class PhasePlan(Model):
    """Phases in order, and what has to be held meanwhile."""

    memory: dict[str, dict[str, Expression]] = Field(
        default_factory=dict, description="memory or drive -> tensor -> bytes that it has to hold, all copies together."
    )
    assumptions: tuple[str, ...] = Field(default=(), description="What the description takes for granted.")
    phases: tuple[PlanPhase, ...] = Field(min_length=1, description="The phases, in the order in which they run.")


def parse_plan(data: Any, key: str) -> PhasePlan:
    """A plan from YAML data; SpecError names the key path of a mistake."""
    try:
        return PhasePlan.model_validate(data)
    except ValidationError as error:
        raise pydantic_error(error, model=PhasePlan, key=key) from None
    except SpecError as error:
        raise error.located(key=join_key(key)) from None
