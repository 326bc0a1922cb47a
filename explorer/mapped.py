"""A mapping that is found at every point: what may stand in place of a mapping's name, and what comes out.

`{find: edp}` has the mapper look for the best mapping at each point, with the point's own sizes and hardware.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Discriminator, Tag

from architectures import Architecture
from einsum.cascade import Cascade
from einsum.errors import EinsightError, SpecError, nearest
from explorer.part import Part
from explorer.points import Cells
from mappings import Mapping as Plan
from workloads import Workload

Goal = Literal["edp", "latency", "energy", "dram"]
DOCUMENT = "found.mapping"
"""The result that holds the mapping that was found, as YAML."""
FOUND = ("found.description", "found.exact", "found.candidates", "found.compulsory_bytes")
"""What else a point says of it: which Einsums run together and where their tiles lie; whether no mapping of the space
moves fewer bytes (1 or 0); mappings that were compared; inputs and outputs once each."""
_BY_MAPPER = "Found by the mapper: "


def _known_goal(value: Any) -> Any:
    goals = get_args(Goal)
    if value == "pareto":
        raise SpecError(f"a point has one mapping, so 'pareto' is no objective here; expected {', '.join(goals)}")
    if value not in goals:
        raise SpecError(f"unknown objective '{value}'{nearest(str(value), goals)}")
    return value


def _mapping_that_is_there(name: str) -> str:
    Plan.load(name)
    return name


class Find(Part):
    """In place of a mapping: the mapper finds the best one at every point (as `einsight map` does)."""

    find: Annotated[Goal, BeforeValidator(_known_goal)]
    """What it makes small: edp, latency, energy or dram."""
    issue: Literal["chained", "serial"] = "chained"
    """chained: a point's operations run as a pipeline on their unit; serial: one after another."""
    fill_drain: Literal["charged", "hidden"] = "charged"
    """hidden: the first tile's fill and the last one's drain overlap with work outside."""
    linear_layers: Annotated[str, AfterValidator(_mapping_that_is_there)] | None = None
    """The mapping of the layer's other matrix products, for end-to-end results."""

    def __str__(self) -> str:
        """What the input `mapping` says at the points: the objective, and whatever is not the default."""
        chosen = [f"{name} {value}" for name, value in self.model_dump(exclude_defaults=True).items() if name != "find"]
        return " ".join([f"find {self.find}", *(f"({', '.join(chosen)})" for _ in chosen[:1])])

    def values(
        self,
        cascade: Cascade,
        architecture: Architecture,
        workload: Workload | None,
        settings: Mapping[str, Any],
        *,
        end_to_end: bool = False,
        fidelity: Literal["analytic", "event"] = "analytic",
    ) -> dict[str, Cells]:
        """Results at each point under the mapping found there, by dotted name, (points,); FOUND and DOCUMENT as well.

        settings  arrays have one value for each point

        A result that mappings leave out where nothing moves or runs is 0. SpecError where there is no mapping.
        """
        count = max((len(value) for value in settings.values() if np.ndim(value)), default=1)
        points = []
        for point in range(count):
            own = {name: value if np.ndim(value) == 0 else value[point] for name, value in settings.items()}
            own = {name: value.item() if isinstance(value, np.generic) else value for name, value in own.items()}
            points.append(self._point(cascade, architecture, workload, own, end_to_end, fidelity))
        return {
            name: np.concatenate([one[name] for one in points])
            for name in points[0]
            if all(name in one for one in points)
        }

    def _point(
        self,
        cascade: Cascade,
        architecture: Architecture,
        workload: Workload | None,
        settings: Mapping[str, Any],
        end_to_end: bool,
        fidelity: Literal["analytic", "event"],
    ) -> dict[str, Cells]:
        import yaml

        from simulator.mapper import find_mapping, possible_results
        from simulator.result import result_values
        from simulator.simulate import simulate

        hidden = self.fill_drain == "hidden"
        found = find_mapping(cascade, architecture, workload, self.find, settings, issue=self.issue, hidden_fill=hidden)
        mapping = found.mapping
        if self.linear_layers is not None:
            mapping = Plan.parse({**mapping.data, "linear_layers": self.linear_layers})
        result = simulate(cascade, architecture, mapping, workload, settings, end_to_end=end_to_end, fidelity=fidelity)
        description = mapping.header.description.removeprefix(_BY_MAPPER)
        said = (description, float(found.exact), found.tried, found.compulsory_bytes)
        results: dict[str, Cells] = {**result_values(result)}
        for name in possible_results(cascade, architecture):
            results.setdefault(name, np.zeros(1))
        about = {name: np.array([value]) for name, value in zip(FOUND, said, strict=True)}
        text = yaml.safe_dump(dict(mapping.data), sort_keys=False, allow_unicode=True)
        return {**results, **about, DOCUMENT: np.array([text])}


def _form(value: Any) -> str:
    return "is-find" if isinstance(value, dict | Find) else "is-list" if isinstance(value, list) else "is-name"


_One = Annotated[Annotated[str, Tag("is-name")] | Annotated[Find, Tag("is-find")], Discriminator(_form)]
Mappings = (
    Annotated[
        Annotated[str, Tag("is-name")] | Annotated[Find, Tag("is-find")] | Annotated[list[_One], Tag("is-list")],
        Discriminator(_form),
    ]
    | None
)
"""A mapping by name or to be found, or a list of them."""


def values_by_name(
    find: Find, names: Mapping[str, Any], settings: Mapping[str, Any], fidelity: Literal["analytic", "event"]
) -> dict[str, Cells]:
    """`Find.values` for descriptions by name: `cascade`, `architecture`, `workload`, and whether `end_to_end`."""
    for kind in ("cascade", "architecture"):
        if names.get(kind) is None:
            raise missing_model(kind)
    return find.values(
        Cascade.load(names["cascade"]),
        Architecture.load(names["architecture"]),
        None if names.get("workload") is None else Workload.load(names["workload"]),
        settings,
        end_to_end=bool(names.get("end_to_end")),
        fidelity=fidelity,
    )


def missing_model(kind: str) -> EinsightError:
    """The error where a mapping is to be found and no cascade or architecture is given."""
    return SpecError(f"a mapping that is found names no {kind}, so one has to be given", key=kind)
