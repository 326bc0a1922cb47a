"""The YAML form of a pipeline of stages, for runs whose sizes are known only at run time.

A loop nest says how often a tile moves by the extents of ranks; here a trace says it, row by row. The pipeline names
the stages that one tile (one query of one head) passes, what each occupies, moves and computes, as expressions of the
trace's columns, and which stages wait for which. `mappings.stage_lowering` turns it into the same tile program.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from einsum.errors import SpecError, join_key, nearest
from einsum.expressions import Expression
from einsum.specfile import pydantic_error
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


class PipelineStage(Model):
    """One stage: what a tile does on one resource."""

    stage: str = Field(min_length=1, description="Its name.")
    on: str | None = Field(default=None, description="The memory, unit or top-k engine that it occupies, if any.")
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
    along: Names = Field(
        default=(), description="Stages whose output it works on while they deliver it; it ends after they did."
    )


class Requirement(Model):
    """What must hold for every row of the trace."""

    that: Expression = Field(description="The condition.")
    otherwise: str = Field(alias="else", description="The message; {name} is the value of a column or a variable.")


class StagePipeline(Model):
    """The stages, and how the rows of a trace become their tiles."""

    serial: Names = Field(
        default=(), description="Columns; rows that differ in them follow one another without overlap, as layers do."
    )
    heads: Expression = Field(default=Expression.parse("count"), description="Alike heads that a row stands for.")
    queries: Expression = Field(default=Expression.parse("query_num"), description="Tiles of each of those heads.")
    require: tuple[Requirement, ...] = Field(default=(), description="Conditions on the rows.")
    assumptions: tuple[str, ...] = Field(default=(), description="What the description takes for granted.")
    stages: tuple[PipelineStage, ...] = Field(min_length=1, description="The stages, in the order of the pipeline.")

    @model_validator(mode="after")
    def _check_names(self) -> StagePipeline:
        names = [stage.stage for stage in self.stages]
        for place, stage in enumerate(self.stages):
            key = f"stages[{place}]"
            if stage.stage in names[:place]:
                raise SpecError(f"the stage '{stage.stage}' occurs twice", key=key)
            for field in ("after", "along"):
                for other in getattr(stage, field):
                    if other not in names:
                        raise SpecError(f"unknown stage '{other}'{nearest(other, names)}", key=f"{key}.{field}")
            if stage.on is None and (stage.ops or stage.select or stage.along):
                raise SpecError("a stage that computes, selects or works along others needs `on`", key=key)
        return self


def parse_pipeline(data: Any, key: str) -> StagePipeline:
    """A pipeline from YAML data; SpecError names the key path of a mistake."""
    try:
        return StagePipeline.model_validate(data)
    except ValidationError as error:
        raise pydantic_error(error, model=StagePipeline, key=key) from None
    except SpecError as error:
        raise error.located(key=join_key(key)) from None
