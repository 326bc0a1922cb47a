"""The mapper: finds the mapping of a cascade on an architecture that is best for an objective.

The cascade is cut into runs of consecutive Einsums (`mappings.mapspace`); each run gets its best schedule
(`mappings.schedules`); runs follow one another through the outermost memory. With one buffer below that memory the
least traffic is found exactly: the traffic of a cut is the sum of its runs', so a shortest path over the cuts is best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import inf, isclose
from pathlib import Path
from typing import Any, Literal

from architectures import Architecture, EvaluatedArchitecture
from einsum.cascade import Cascade
from einsum.counts import compulsory_traffic
from einsum.errors import SpecError, nearest, refuse_unknown
from einsum.expressions import resolve
from mappings.binding import Issue
from mappings.candidate import Candidate, shortlist
from mappings.candidates import Candidates
from mappings.combined import combined
from mappings.mapping import Mapping as Plan
from mappings.mapspace import Problem, breakpoints
from workloads import Workload

Objective = Literal["dram", "latency", "energy", "edp", "pareto"]
OBJECTIVES = ("edp", "latency", "energy", "dram", "pareto")
MOST_PARTITION_SIZES = 24


@dataclass(frozen=True)
class Cost:
    """What a mapping costs."""

    latency_s: float
    energy_j: float
    dram_bytes: float

    def of(self, objective: str) -> float:
        """The number that an objective makes small."""
        return {
            "latency": self.latency_s,
            "energy": self.energy_j,
            "edp": self.latency_s * self.energy_j,
            "dram": self.dram_bytes,
        }[objective]


Evaluate = Callable[[Plan], Cost]


@dataclass(frozen=True)
class Found:
    """A mapping that was found.

    dram_bytes        traffic of the outermost memory, in closed form
    compulsory_bytes  inputs and outputs once each: no mapping moves less
    exact             whether no mapping of the space moves fewer bytes
    cost              by the evaluator that the caller gave; None without one
    front             for `pareto`: all mappings found that no other beats in latency and energy
    """

    mapping: Plan
    objective: Objective
    dram_bytes: float
    compulsory_bytes: float
    exact: bool
    tried: int
    cost: Cost | None = None
    front: tuple[Found, ...] = ()

    @property
    def gap(self) -> float:
        """Traffic over compulsory traffic."""
        return self.dram_bytes / self.compulsory_bytes


def find(
    cascade: str | Path | Cascade,
    architecture: str | Path | Architecture,
    workload: str | Path | Workload | None = None,
    objective: Objective = "edp",
    settings: Mapping[str, Any] | None = None,
    *,
    evaluate: Evaluate | None = None,
    issue: Issue = "chained",
    hidden_fill: bool = False,
) -> Found:
    """The best mapping of a cascade on an architecture for one of `OBJECTIVES`.

    settings  values for variables of workload, architecture and cascade, numbers
    evaluate  what a mapping costs; needed for every objective but `dram` (`simulator.simulate` knows)
    issue     chained: a point's operations run as a pipeline on their unit; serial: one after another
    hidden_fill  the first tile's fill and the last one's drain overlap with work outside

    The result's mapping sets the cascade's variables that the search chose. SpecError for unknown names, sizes that are
    missing, cascades under conditions, and when nothing fits.
    """
    cascade = cascade if isinstance(cascade, Cascade) else Cascade.load(cascade)
    architecture = architecture if isinstance(architecture, Architecture) else Architecture.load(architecture)
    workload = workload if workload is None or isinstance(workload, Workload) else Workload.load(workload)
    if objective not in OBJECTIVES:
        raise SpecError(f"unknown objective '{objective}'{nearest(objective, OBJECTIVES)}")
    if objective != "dram" and evaluate is None:
        raise SpecError(f"the objective {objective} needs an evaluator of mappings")
    given = dict(settings or {})
    _check_settings(cascade, architecture, workload, given)
    machine = architecture.evaluate(given)
    if len(machine.memories) < 2:
        raise SpecError(f"the architecture '{architecture.name}' has no memory beside its outermost one to map to")
    found: list[Candidate] = []
    spaces: dict[int, Candidates] = {}
    compulsory, masked = inf, False
    for sizes in _partition_sizes(cascade, machine, workload, given, objective):
        env = environment(cascade, machine, workload, {**given, **sizes})
        problem = Problem(cascade, machine, env)
        compulsory = float(sum(compulsory_traffic(cascade, env, float(machine.word_bytes)).values()))
        candidates = Candidates(problem, issue, sizes)
        masked = problem.mask is not None
        if masked:
            least_moving = candidates.frugal(compulsory)
            found += least_moving
            if objective != "dram" or not least_moving:  # the others are for time and energy, and take longer
                found += candidates.arranged()
            continue
        least = candidates.least_traffic(compulsory)
        if least is not None:
            found.append(least)
            spaces[id(least)] = candidates
        if objective != "dram":
            found += [*candidates.arranged(), *combined(candidates, objective)]
        elif found and found[-1].moved_bytes <= compulsory:
            break
    if not found:
        _refuse(cascade, machine)
    plan_of = partial(_plan, cascade=cascade, architecture=architecture, hidden_fill=hidden_fill)
    if objective == "dram" and not masked:
        return _least_traffic(found, spaces, evaluate, plan_of, compulsory)
    if evaluate is None:
        raise SpecError("the least traffic under a mask needs an evaluator of mappings")
    return _best_cost(found, objective, evaluate, plan_of, compulsory)


def _refuse(cascade: Cascade, machine: EvaluatedArchitecture) -> None:
    level = list(machine.memories.values())[1]
    raise SpecError(
        f"no mapping of cascade '{cascade.name}' fits into {level.name} ({float(level.capacity_bytes):,.0f} bytes)"
    )


def _least_traffic(
    found: Sequence[Candidate],
    spaces: Mapping[int, Candidates],
    evaluate: Evaluate | None,
    plan: Callable[[Candidate], Plan],
    compulsory: float,
) -> Found:
    """The mapping with the least traffic; of those that move as little, with an evaluator, the fastest that is found.

    spaces  id of a candidate -> those that it is one of
    """
    best = min(found, key=lambda candidate: (candidate.moved_bytes, candidate.estimate_s))
    least = Found(plan(best), "dram", best.moved_bytes, compulsory, best.exact, len(found))
    if evaluate is None:
        return least
    cost = fastest = evaluate(least.mapping)
    least = replace(least, cost=cost)
    others = [*spaces[id(best)].arranged(), *combined(spaces[id(best)], "latency")]
    if not isclose(cost.dram_bytes, best.moved_bytes, rel_tol=1e-9):
        # The closed form does not hold here; what is counted in full does, so several are counted.
        return _best_cost([*found, *others], "dram", evaluate, plan, compulsory)
    alike = [candidate for candidate in others if candidate.moved_bytes <= best.moved_bytes]
    for candidate in shortlist(alike, "latency"):
        made = plan(candidate)
        try:
            own = evaluate(made)
        except SpecError:
            continue  # lowering finds that it does not fit
        if own.dram_bytes <= cost.dram_bytes and own.latency_s < fastest.latency_s:
            least, fastest = replace(least, mapping=made, cost=own), own
    return least


def _best_cost(
    found: Sequence[Candidate],
    objective: Objective,
    evaluate: Evaluate,
    plan: Callable[[Candidate], Plan],
    compulsory: float,
) -> Found:
    """The best of the shortlisted candidates by their full cost; for `pareto` the best product, and the front.

    Candidates that cannot be costed (a mask cuts them into too many tiles, or lowering finds that they do not fit) are
    left out unless none can.
    """
    chosen = shortlist(found, objective)
    costed = []
    failure: SpecError | None = None
    for candidate in chosen:
        made = plan(candidate)
        try:
            cost = evaluate(made)
        except SpecError as error:
            failure = error
            continue
        exact = objective == "dram" and cost.dram_bytes <= compulsory
        costed.append(Found(made, objective, cost.dram_bytes, compulsory, exact, len(found), cost))
    if failure is not None and not costed:
        raise failure

    def by(kind: str) -> Callable[[Found], float]:
        return lambda one: one.cost.of(kind) if one.cost else inf

    if objective != "pareto":
        return min(costed, key=by(objective))
    front: list[Found] = []
    for one in sorted(costed, key=lambda one: (by("latency")(one), by("energy")(one))):
        if not front or by("energy")(one) < by("energy")(front[-1]):
            front.append(one)
    return replace(min(front, key=by("edp")), front=tuple(front))


def _plan(candidate: Candidate, cascade: Cascade, architecture: Architecture, hidden_fill: bool) -> Plan:
    data: dict[str, Any] = {
        "mapping": f"{cascade.name}-on-{architecture.name}",
        "description": candidate.description,
        "cascade": cascade.name,
        "architecture": architecture.name,
    }
    if hidden_fill:
        data["fill_drain"] = "hidden"
    if candidate.variables:
        data["variables"] = dict(candidate.variables)
    return Plan.parse({**data, "nest": candidate.write()})


def environment(
    cascade: Cascade, machine: EvaluatedArchitecture, workload: Workload | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Values of all variables of workload, architecture and cascade; settings win, and the cascade's own come last.

    A value that the workload gives replaces the cascade's default, as for the simulator: J, the heads of a group.
    SpecError for a missing size.
    """
    env: dict[str, Any] = {}
    if workload is not None:
        env.update(workload.resolve(settings))
    env.update(machine.names())
    env.update(machine.variables)
    env.update(settings)
    missing = [name for name in cascade.parameters if name not in env]
    if missing:
        source = f"workload '{workload.name}' has no" if workload else "nothing gives the"
        sizes = "size" if len(missing) == 1 else "sizes"
        raise SpecError(f"{source} {sizes} {', '.join(missing)} of cascade '{cascade.name}'")
    definitions = cascade.definitions
    own = {*settings, *cascade.variables}
    given = {name: value for name, value in env.items() if name not in definitions or name in own}
    return resolve(definitions, given)


def _check_settings(
    cascade: Cascade, architecture: Architecture, workload: Workload | None, settings: Mapping[str, Any]
) -> None:
    known = {*architecture.known_names, *cascade.variables}
    known |= {*cascade.parameters, *(workload.known_names if workload else ())}
    refuse_unknown(settings, known)
    for name, value in settings.items():
        if getattr(value, "ndim", 0):
            raise SpecError(f"the mapper takes one design point, '{name}' has {len(value)} values")


def _partition_sizes(
    cascade: Cascade,
    machine: EvaluatedArchitecture,
    workload: Workload | None,
    settings: Mapping[str, Any],
    objective: str,
) -> Iterator[dict[str, int]]:
    """Chunk sizes to try for the ranks that the cascade partitions, where nobody has set them."""
    env = environment(cascade, machine, workload, settings)
    names: list[str] = []
    ways: list[list[int]] = []
    for base, part in cascade.partitions.items():
        variable = str(part.size)
        if variable not in cascade.variables or variable in settings:
            continue
        extent = int(cascade.ranks[base].extent.evaluate(env))
        width = max((int(size) for unit in machine.units.values() for size in unit.dims.values()), default=1)
        sizes = sorted({min(extent, width * times) for times in (1, 2, 4)}) if width > 1 else []
        if objective == "dram":
            sizes = list(dict.fromkeys([*sizes, *_thinned(breakpoints(extent))]))
        names.append(variable)
        ways.append(sizes or _thinned(breakpoints(extent)))
    for chosen in product(*ways):
        yield dict(zip(names, chosen, strict=True))


def _thinned(sizes: list[int]) -> list[int]:
    while len(sizes) > MOST_PARTITION_SIZES:
        sizes = sizes[::-2][::-1]
    return sizes
