"""MeasurementPlan: which kernels, shapes and tiles to measure, from YAML, expanded to cases.

plan: example
description: one line
timing: {target_ms: 60, min_repetitions: 10, max_repetitions: 50}
rows:
  - kernel: flash_attention
    head_dim: [64, 128]                  # a list: every value
    causal: [false, true]                # lists multiply
    each:                                # lists of alternatives, each setting several fields; they multiply too
      shape: [{batch: 4, heads: 16, q_len: 2048}, {batch: 1, heads: 32, q_len: [8192, 16384]}]
      tile: [{block_m: 128, block_n: 64, warps: 8, stages: 3}, {block_m: 64, block_n: 64, warps: 4, stages: 2}]
    where: head_dim == 128 or block_n <= 128   # rows to keep
    counters: block_m == 128                   # rows that `--counters` profiles: true, false or a condition
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from einsum.errors import EinsightError, SpecError, nearest
from einsum.expressions import Expression
from einsum.specfile import SpecFile, load_yaml
from kernels.case import Case

MAX_ROWS = 100_000
LIBRARY = Path(__file__).parent / "library"


@dataclass(frozen=True)
class TimingPlan:
    """How long each row is timed: as many repetitions as `target_ms` holds, between the two limits."""

    target_ms: float = 60.0
    min_repetitions: int = 10
    max_repetitions: int = 50


@dataclass(frozen=True)
class MeasurementPlan:
    """A name, the cases in order without repeats, and those among them to profile with hardware counters."""

    name: str
    description: str
    timing: TimingPlan
    cases: tuple[Case, ...]
    counted: frozenset[Case]

    @staticmethod
    def load(name_or_path: str | Path) -> MeasurementPlan:
        """Read a plan from `kernels/library` by name, or from a YAML file. SpecError says what is wrong and where."""
        path = find_plan(name_or_path)
        try:
            return MeasurementPlan.parse(load_yaml(path))
        except EinsightError as error:
            raise SpecFile(path, {}).located(error) from None

    @staticmethod
    def parse(data: Mapping[str, Any]) -> MeasurementPlan:
        """A plan from the mapping of its YAML file."""
        _only_known(data, ("plan", "description", "timing", "rows"), None)
        if not isinstance(data.get("plan"), str):
            raise SpecError("expected the plan's name under 'plan'", key="plan")
        entries = data.get("rows")
        if not isinstance(entries, list) or not entries:
            raise SpecError("expected a list of rows to measure", key="rows")
        cases: dict[Case, bool] = {}
        for index, entry in enumerate(entries):
            try:
                for case, counted in _expand(entry):
                    cases[case] = cases.get(case, False) or counted
            except EinsightError as error:
                raise error.located(key=f"rows[{index}]") from None
        return MeasurementPlan(
            name=data["plan"],
            description=str(data.get("description") or ""),
            timing=_timing(data.get("timing") or {}),
            cases=tuple(cases),
            counted=frozenset(case for case, counted in cases.items() if counted),
        )


def find_plan(name_or_path: str | Path) -> Path:
    """The file of a plan: a name in `kernels/library`, or a path to a YAML file."""
    text = str(name_or_path)
    if Path(text).suffix in (".yaml", ".yml"):
        return Path(text)
    if text not in list_plans():
        raise SpecError(f"unknown measurement plan '{text}'{nearest(text, list_plans())}")
    return LIBRARY / f"{text}.yaml"


def list_plans() -> tuple[str, ...]:
    """The names of the plans in the library, sorted."""
    return tuple(sorted(path.stem for path in LIBRARY.glob("*.yaml")))


def _timing(given: object) -> TimingPlan:
    """The timing section, with defaults for what it leaves out."""
    if not isinstance(given, dict):
        raise SpecError("expected a mapping", key="timing")
    _only_known(given, [field.name for field in fields(TimingPlan)], "timing")
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise SpecError(f"expected a number above 0, found {value!r}", key=f"timing.{name}")
    timing = TimingPlan(**given)
    if timing.min_repetitions > timing.max_repetitions:
        raise SpecError("min_repetitions is above max_repetitions", key="timing")
    return timing


def _expand(entry: object) -> Iterator[tuple[Case, bool]]:
    """The cases of one entry of `rows`, each with whether it is to be profiled."""
    if not isinstance(entry, dict):
        raise SpecError(f"expected a mapping, found {entry!r:.60}")
    names = [field.name for field in fields(Case)]
    _only_known(entry, [*names, "each", "where", "counters"], None)
    where, counted = _condition(entry, "where"), _condition(entry, "counters")
    direct = {name: value for name, value in entry.items() if name in names}
    groups = [list(_alternatives(direct))]
    each = entry.get("each") or {}
    if not isinstance(each, dict):
        raise SpecError("expected named lists of alternatives", key="each")
    for group, alternatives in each.items():
        if not isinstance(alternatives, list) or not all(isinstance(one, dict) for one in alternatives):
            raise SpecError("expected a list of mappings", key=f"each.{group}")
        for one in alternatives:
            _only_known(one, names, f"each.{group}")
        groups.append([choice for one in alternatives for choice in _alternatives(one)])
    if math.prod(len(group) for group in groups) > MAX_ROWS:
        raise SpecError(f"the entry expands to more than {MAX_ROWS} rows")
    for choices in itertools.product(*groups):
        values = {name: value for choice in choices for name, value in choice.items()}
        case = Case.from_fields(values)
        if where.evaluate(case.fields()):
            yield case, bool(counted.evaluate(case.fields()))


def _alternatives(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All combinations of the values that are lists."""
    lists = [value if isinstance(value, list) else [value] for value in values.values()]
    for choice in itertools.product(*lists):
        yield dict(zip(values, choice, strict=True))


def _condition(entry: Mapping[str, Any], key: str) -> Expression:
    """A condition on a case's fields; true where the entry has none."""
    given = entry.get(key, True)
    try:
        condition = Expression.parse("1 == 1" if given is True else "1 == 0" if given is False else given)
        known = {field.name for field in fields(Case)}
        for name in sorted(condition.names - known):
            raise SpecError(f"unknown field '{name}'{nearest(name, known)}")
    except EinsightError as error:
        raise error.located(key=key) from None
    return condition


def _only_known(given: Mapping[str, Any], known: list[str] | tuple[str, ...], key: str | None) -> None:
    """Refuse a key that means nothing here."""
    for name in given:
        if name not in known:
            raise SpecError(f"unknown key '{name}'{nearest(str(name), known)}", key=key)
