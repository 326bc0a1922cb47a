"""Running a sweep: points from the sampler, to the executor, into the store, from where an earlier run ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.errors import SpecError
from explorer.executors import Cluster, Executor, InProcess, Processes, processors
from explorer.identity import text_digest
from explorer.preparation import input_constraints, prepare, results_of
from explorer.programs import CANDIDATES, FEWEST_POINTS, with_programs
from explorer.sampling import Sample, draw_sample
from explorer.search import Search
from explorer.space import Inputs, take
from explorer.store import Store
from explorer.study import Study, Task, evaluate
from explorer.sweep import MODELS, Draw, Evolution, Objective, Sweep

BATCHES_FOR_PROCESSES = 16
"""Analytic batches from which on several processes are worth starting."""
_TRIAL_POINTS = 1024
_TRIAL_SEARCHES = 4
_PROBED = 64
_POLL_S = 0.1


@dataclass(frozen=True)
class Plan:
    """A sweep that is ready to run: its study, its objectives, and where its points come from."""

    sweep: Sweep
    study: Study
    objectives: tuple[Objective, ...]
    points: Sample | Evolution

    @property
    def size(self) -> int:
        """Points to evaluate; of a search, the most that it proposes."""
        return self.points.size if isinstance(self.points, Sample) else self.points.points

    @property
    def batches(self) -> int:
        """Batches of a sample."""
        return math.ceil(self.size / self.sweep.batch_points)

    def search(self) -> Search:
        """A search that begins at its first generation."""
        assert isinstance(self.points, Evolution)
        constraints = input_constraints(self.sweep)
        return Search(self.sweep.space(), self.points, len(self.objectives), constraints, self.study.constants)

    def identity(self) -> dict[str, str]:
        """What must be equal for stored results to belong to this plan."""
        document = self.sweep.model_dump(mode="json", by_alias=True)
        # What the search looks for decides where it looks; of a sample the objectives may change afterwards.
        asked = [document[name] for name in ("variables", "zips", "set", "constraints", "sampler", "fidelity")]
        asked += [[str(chosen) for chosen in self.study.models], self.sweep.batch_points]
        asked.append({name: str(column.value) for name, column in self.study.columns.items()})
        if isinstance(self.points, Evolution):
            asked.append([objective.model_dump() for objective in self.objectives])
        return {
            "sweep": text_digest(asked),
            "descriptions": text_digest([models.digest for models in self.study.models.values()]),
            "version": self.study.version,
        }

    def about(self) -> dict[str, Any]:
        """What the store says of its results."""
        return {
            "name": self.sweep.name,
            "description": self.sweep.description,
            "source": self.sweep.source,
            "identity": self.identity(),
            "constants": self.study.constants,
            "varying": self.study.varying,
            "columns": {
                name: {"dimension": column.dimension, "title": column.title or name.replace("_", " ")}
                for name, column in self.study.columns.items()
            },
            "objectives": [objective.model_dump(exclude_none=True) for objective in self.objectives],
            "front_by": self.sweep.front.by,
            "found": list(self.sweep.finds()),
            "fidelity": self.sweep.fidelity,
            "points": self.size,
            "sampler": self.sweep.sampler.kind,
        }


def plan(sweep: Sweep) -> Plan:
    """Check a sweep and find its points. Raises SpecError for whatever is wrong with it."""
    space, constraints = sweep.space(), input_constraints(sweep)
    probes = max(64, 8 * math.prod(axis.size for axis in space.axes if axis.size and set(axis.names) & set(MODELS)))
    points: Sample | Evolution
    if isinstance(sweep.sampler, Evolution):
        points = sweep.sampler
        candidates = Search(space, points, len(sweep.objectives), constraints, sweep.fixed()).some(probes)
    else:
        points = draw_sample(space, sweep.sampler, constraints, sweep.fixed())
        candidates = points.some(probes)
    study, objectives = prepare(sweep, candidates)
    _refuse_alike((*study.varying, *study.columns))
    if points.size >= FEWEST_POINTS if isinstance(points, Sample) else points.points >= FEWEST_POINTS:
        found = points.some(CANDIDATES) if isinstance(points, Sample) else candidates
        study = with_programs(study, found)
    return Plan(sweep, study, objectives, points)


def known_results(sweep: Sweep) -> dict[str, float | str]:
    """The results that a sweep's expressions may use, with their values at one of its points.

    Raises SpecError for whatever is wrong with the sweep but its expressions, and where no point can be simulated.
    """
    space, sampler = sweep.space(), sweep.sampler
    drawn = Draw(kind="sobol", points=_PROBED, seed=sampler.seed) if isinstance(sampler, Evolution) else sampler
    return results_of(sweep, draw_sample(space, drawn, input_constraints(sweep), sweep.fixed()).some(_PROBED))


_RESERVED = ("point", "key", "feasible", "error")


def _refuse_alike(names: tuple[str, ...]) -> None:
    """Names of columns in the store have to differ in more than case, and from the store's own."""
    seen = {name: name for name in _RESERVED}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise SpecError(f"the names '{other}' and '{name}' differ in case only, and the store ignores case")
        if name in _RESERVED:
            raise SpecError(f"the name '{name}' is the store's own; choose another one", key=f"columns.{name}")


def choose_workers(ready: Plan, workers: int | None) -> int:
    """Processes for a plan: as many as asked for, or as pay."""
    if workers is not None:
        return workers
    at_once = ready.size if isinstance(ready.points, Sample) else min(ready.points.population, ready.size)
    batches = math.ceil(at_once / ready.sweep.batch_points)
    slow = ready.sweep.fidelity == "event" or ready.sweep.finds()
    pays = batches > 1 if slow else batches >= BATCHES_FOR_PROCESSES
    return min(processors(), batches) if pays else 1


def choose_executor(ready: Plan, workers: int | None, scheduler: str | None) -> Executor:
    """The executor for a plan: a cluster, or else processes, or this process where one worker is enough.

    Raises SpecError when no scheduler answers.
    """
    if scheduler is not None:
        return Cluster(ready.study, scheduler)
    count = choose_workers(ready, workers)
    return Processes(ready.study, count) if count > 1 else InProcess(ready.study)


def seconds_per_point(ready: Plan) -> float:
    """How long one point takes on one processor, measured on a part of a batch in this process."""
    count = min(ready.sweep.batch_points, ready.size, _TRIAL_POINTS if ready.sweep.fidelity == "analytic" else 2)
    if ready.sweep.finds():
        count = min(ready.size, _TRIAL_SEARCHES)
    source = ready.points if isinstance(ready.points, Sample) else ready.search()
    inputs = source.some(count)
    numbers = np.arange(len(next(iter(inputs.values()))), dtype=np.int64)
    evaluate(ready.study, Task(0, numbers[:1], take(inputs, slice(0, 1))))
    start = time.perf_counter()
    evaluate(ready.study, Task(0, numbers, inputs))
    return (time.perf_counter() - start) / len(numbers)


@dataclass(frozen=True)
class Progress:
    """How far a sweep is.

    stored  points in the store, of a total
    failed  of these
    added   by this process
    gained  by all processes that work on it, in the time since this one began
    """

    stored: int
    total: int
    failed: int
    added: int
    gained: int
    elapsed_s: float

    @property
    def per_s(self) -> float:
        """Points that are stored in a second."""
        return self.gained / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float:
        """Seconds until the end at this rate, infinite before the first batch."""
        return (self.total - self.stored) / self.per_s if self.gained else math.inf


Show = Callable[[Progress], None]


class _Run:
    """One run of a plan: it claims batches, has them evaluated and stores them."""

    def __init__(self, ready: Plan, store: Store, executor: Executor, show: Show) -> None:
        self.store = store
        self._executor = executor
        self._show = show
        self._total = ready.size
        self._done = store.done()
        self._start = time.perf_counter()
        self._before = self._stored = store.count()
        self._added = 0
        self._failed = store.count("error IS NOT NULL")
        self.report()

    def report(self, total: int | None = None) -> None:
        """Show how far the sweep is."""
        self._total = total or self._total
        elapsed_s = time.perf_counter() - self._start
        gained = self._stored - self._before
        self._show(Progress(self._stored, self._total, self._failed, self._added, gained, elapsed_s))

    def complete(self, batches: range, task: Callable[[int], Task]) -> None:
        """Return when every batch is done, by this process or by another one."""
        left = [batch for batch in batches if batch not in self._done]
        while left:
            for outcome in self._executor.run(self._claimed(left, task)):
                self.store.commit(outcome)
                self._done.add(outcome.task.batch)
                self._stored += len(outcome.task.points)
                self._added += len(outcome.task.points)
                self._failed += sum(error is not None for error in outcome.errors)
                self.report()
            left = [batch for batch in left if batch not in self._done]
            if left:
                # Another process works on these; should it end before they are done, they are taken over.
                time.sleep(_POLL_S)
                self._done |= self.store.done()
                self._stored = self.store.count()
                self._failed = self.store.count("error IS NOT NULL")
                self.report()
                left = [batch for batch in left if batch not in self._done]

    def _claimed(self, batches: list[int], task: Callable[[int], Task]) -> Iterator[Task]:
        for batch in batches:
            if self.store.claim(batch):
                yield task(batch)


def run(ready: Plan, store: Store, executor: Executor, show: Show = lambda progress: None) -> None:
    """Evaluate and store all points of a plan that are not stored yet.

    Raises EinsightError when the disk is full or the workers are gone; what is stored stays.
    """
    at_work = _Run(ready, store, executor, show)
    if isinstance(ready.points, Sample):
        sample, size = ready.points, ready.sweep.batch_points

        def task(batch: int) -> Task:
            points = np.arange(batch * size, min((batch + 1) * size, sample.size))
            return Task(batch, points, sample.inputs(points))

        at_work.complete(range(ready.batches), task)
    else:
        _run_search(ready, at_work)
    store.finish()


def _run_search(ready: Plan, at_work: _Run) -> None:
    """Evaluate generation after generation; a point that an earlier one had is taken from the store."""
    search = ready.search()
    size = ready.sweep.batch_points
    number: dict[bytes, int] = {}
    first = 0
    for inputs, holds in search.generations():
        keys = ready.study.keys(inputs)
        fresh = [place for place in np.flatnonzero(holds).tolist() if keys[place] not in number]
        fresh = list({keys[place]: place for place in reversed(fresh)}.values())[::-1]
        for place in fresh:
            number[keys[place]] = len(number)
        parts = [np.array(fresh[start : start + size]) for start in range(0, len(fresh), size)]
        tasks = {first + offset: _task(first + offset, part, keys, number, inputs) for offset, part in enumerate(parts)}
        at_work.complete(range(first, first + len(parts)), tasks.__getitem__)
        first += len(parts)
        search.tell(*_values(ready, at_work.store, [number.get(key, -1) for key in keys]))
    at_work.report(total=len(number))


def _task(batch: int, places: NDArray[np.int64], keys: list[bytes], number: dict[bytes, int], inputs: Inputs) -> Task:
    points = np.array([number[keys[place]] for place in places], dtype=np.int64)
    return Task(batch, points, take(inputs, places))


def _values(ready: Plan, store: Store, points: list[int]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Signed objectives of stored points, (points, objectives), and whether they keep all constraints.

    Point -1 is one that is not stored.
    """
    names = [objective.name for objective in ready.objectives]
    wanted = np.unique([point for point in points if point >= 0]).astype(np.int64)
    found = store.read(["point", *names, "feasible"], points=wanted)
    place = np.searchsorted(wanted, points)
    place = np.where(np.array(points) >= 0, place, 0)
    stored = np.array(points) >= 0
    if not len(wanted):
        return np.full((len(points), len(names)), np.nan), stored
    values = np.column_stack([found[o.name][place] * o.sign for o in ready.objectives])
    return values, stored & (found["feasible"][place] == 1)
