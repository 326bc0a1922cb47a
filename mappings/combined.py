"""Whole mappings for time and energy: the cuts of a cascade, each run with its best schedules by estimate."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from mappings.candidate import Candidate, ranking
from mappings.candidates import Candidates
from mappings.closed_form import Space
from mappings.schedules import RunSchedule
from mappings.weighed import Weighed, weighed_schedules

KEPT = 8
MOST_ROWS = 256


def combined(candidates: Candidates, objective: str) -> list[Candidate]:
    """Mappings whose runs follow one another, each with tiles in any of the memories; times and energies add up.

    Chunks fill the units; where nothing fits with those, all chunks are tried.
    """
    filling = Space(sizes=candidates.fine_sizes, grain=candidates.grain, rows=MOST_ROWS)
    return _in_space(candidates, objective, filling) or _in_space(candidates, objective, Space(rows=MOST_ROWS))


def _in_space(candidates: Candidates, objective: str, space: Space) -> list[Candidate]:
    found = []
    known: dict[tuple[int, int], list[Weighed]] = {}
    machine = candidates.problem.machine
    capacity = {level: float(machine.memories[level].capacity_bytes) for level in candidates.levels}
    for cut in candidates.cuts():
        best: list[tuple[float, float, list[RunSchedule]]] = [(0.0, 0.0, [])]
        for start, end in pairwise(cut):
            if (start, end) not in known:
                run = candidates.run(start, end)
                known[start, end] = (
                    []
                    if run is None
                    else weighed_schedules(candidates.problem, run, capacity, space, candidates.issue, objective)
                )
            sums = [
                (energy + way.energy_j, latency + way.latency_s, [*parts, way.schedule])
                for energy, latency, parts in best
                for way in known[start, end]
            ]
            best = sorted(sums, key=lambda entry: ranking(objective, *entry[:2]))[:KEPT]
        for energy, latency, parts in best:
            made = candidates.candidate(parts, "sequence", False, overlapped=True)
            estimate = made.estimate_s if objective == "energy" else latency
            found.append(replace(made, estimate_s=estimate, estimate_j=energy))
    return found
