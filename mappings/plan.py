"""The YAML form of a plan: how a whole run goes over a chip or a system of processors, links, memories and drives.

A plan has phases that follow one another, such as prefill and decode. A phase runs the same stages tile by tile. What
its tiles are comes from one of two sources: a series gives each tile class a value, such as the length of the context,
so that a sum over all generated tokens is exact; or each row of a trace stands for tiles with the row's sizes. `memory`
says what each part has to hold: what does not fit is a result, not an error. `mappings.plan_lowering` turns it into a
tile program.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field, ValidationError, model_validator

from einsum.errors import SpecError, join_key
from einsum.expressions import Expression
from einsum.specfile import pydantic_error
from mappings.schema import Model, Names
from mappings.stages import PlanStage, check_stages


class Series(Model):
    """Values that tell the tile classes of a phase apart."""

    start: Expression = Field(alias="from", description="The first value.")
    count: Expression = Field(description="How many consecutive values there are.")


class Requirement(Model):
    """What must hold for every tile."""

    that: Expression = Field(description="The condition.")
    otherwise: str = Field(alias="else", description="The message; {name} is the value of a column or a variable.")

    def unmet(self, env: Mapping[str, Any], shape: tuple[int, int]) -> tuple[int, str] | None:
        """The first class (or row) of the first point where it does not hold, and the message; `shape` is theirs."""
        wrong = ~np.broadcast_to(np.asarray(self.that.evaluate(env)), shape).astype(bool)
        if not wrong.any():
            return None
        point = int(np.argmax(wrong.any(axis=1)))
        place = int(np.argmax(wrong[point]))
        sentence = self.otherwise
        for name, value in env.items():
            if "{" + name + "}" in sentence:
                found = np.broadcast_to(np.asarray(value), shape)[point, place]
                sentence = sentence.replace("{" + name + "}", f"{found:.12g}")
        return place, sentence


class Rows(Model):
    """How the rows of a trace become tiles: each stands for heads, each head for queries, a tile is one of those."""

    serial: Names = Field(
        default=(), description="Columns; rows that differ in them follow one another without overlap, as layers do."
    )
    heads: Expression = Field(default=Expression.parse("count"), description="Alike heads that a row stands for.")
    queries: Expression = Field(default=Expression.parse("query_num"), description="Tiles of each of those heads.")


class PlanPhase(Model):
    """Stages that run tile by tile."""

    phase: str = Field(min_length=1, description="Its name.")
    series: dict[str, Series] = Field(default_factory=dict, max_length=1, description="variable -> its values.")
    rows: Rows | None = Field(default=None, description="The tiles are those of a trace's rows.")
    require: tuple[Requirement, ...] = Field(default=(), description="Conditions on the tiles.")
    tiles: Expression = Field(default=Expression.parse(1), description="Tiles for each value, one after another.")
    repeat: Expression = Field(default=Expression.parse(1), description="Times that the whole phase runs.")
    stages: tuple[PlanStage, ...] = Field(min_length=1, description="The stages, in the order of a tile.")

    @model_validator(mode="after")
    def _check(self) -> PlanPhase:
        check_stages(self.stages)
        if self.rows is not None:
            for field in ("series", "tiles"):
                if field in self.model_fields_set:
                    raise SpecError("a phase has either a series of tiles or those of a trace's rows", key=field)
        return self


class PhasePlan(Model):
    """Phases in order, and what has to be held meanwhile."""

    memory: dict[str, dict[str, Expression]] = Field(
        default_factory=dict, description="memory or drive -> tensor -> bytes that it has to hold, all copies together."
    )
    assumptions: tuple[str, ...] = Field(default=(), description="What the description takes for granted.")
    phases: tuple[PlanPhase, ...] = Field(min_length=1, description="The phases, in the order in which they run.")

    @model_validator(mode="after")
    def _check_names(self) -> PhasePlan:
        names = [phase.phase for phase in self.phases]
        twice = next((place for place, name in enumerate(names) if name in names[:place]), None)
        if twice is not None:
            raise SpecError(f"the phase '{names[twice]}' occurs twice", key=f"phases[{twice}]")
        return self

    @property
    def traced(self) -> bool:
        """Whether a phase takes its tiles from a trace."""
        return any(phase.rows is not None for phase in self.phases)


def parse_plan(data: Any, key: str) -> PhasePlan:
    """A plan from YAML data; SpecError names the key path of a mistake."""
    try:
        return PhasePlan.model_validate(data)
    except ValidationError as error:
        raise pydantic_error(error, model=PhasePlan, key=key) from None
    except SpecError as error:
        raise error.located(key=join_key(key)) from None
