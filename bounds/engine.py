"""The engine: all bounds that hold for a problem, joined where they count different I/Os, the largest with a label.

Labels, from the widest class of algorithms to the narrowest:

    any-algorithm     every algorithm that reads all its inputs and writes all its outputs
    recompute-safe    every schedule of the cascade's sums of products, intermediates recomputed as often as it likes
    no-recompute      schedules that compute each intermediate once
    schedule-class    only the schedules that were enumerated (their least traffic; not a limit for others)

A bound with a wider label also holds with a narrower one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bounds import certificate
from bounds.chi import Segments, count_segments
from bounds.fusion import Fusion, fuse
from bounds.joint import Joint, join
from bounds.problem import Problem, Statement, ValueClass
from bounds.star import Star, star
from bounds.turnover import Turnover, least_words, turnover

Floats = NDArray[np.float64]
Certificate = dict[str, Any]
LABELS = ("any-algorithm", "recompute-safe", "no-recompute")
MOST_SETS = 100
MOST_KEYS = 12
ROUNDING = 1 - 1e-7  # bounds are rounded down by more than floating point can have rounded them up


@dataclass(frozen=True, eq=False)
class Part:
    """One bound on the I/O of some classes: values over the memories, and the certificate of each."""

    theorem: str
    label: str
    values: Floats
    charged: frozenset[str]
    statements: frozenset[str]
    certify: Callable[[int], Certificate]


@dataclass(frozen=True, eq=False)
class LowerBound:
    """The largest bound with a label for each memory, its theorem, label and certificate."""

    memory: Floats
    words: Floats
    theorems: tuple[str, ...]
    labels: tuple[str, ...]
    certificates: tuple[Certificate, ...]


def lower_bound(problem: Problem, memory: Floats, label: str = "recompute-safe") -> LowerBound:
    """The largest bound with the label at each fast memory size (words); never increasing with the size.

    A bound at a larger memory holds at a smaller one, so each size also takes the bounds of the larger sizes.
    """
    order = np.argsort(memory)
    sizes = np.asarray(memory, float)[order]
    candidates = list(_candidates(problem, sizes, label))
    values = np.array([candidate.values for candidate in candidates])
    winner = np.argmax(values, axis=0)
    words = values[winner, np.arange(len(sizes))]
    source = len(sizes) - 1 - np.maximum.accumulate(np.zeros(len(sizes), int))
    best = len(sizes) - 1
    for k in range(len(sizes) - 1, -1, -1):
        best = k if words[k] >= words[best] else best
        source[k] = best
    made = {k: candidates[winner[k]].certify(k) for k in set(source.tolist())}
    back = np.argsort(order)
    chosen = [int(source[k]) for k in back]
    return LowerBound(
        memory=np.asarray(memory, float),
        words=words[chosen],
        theorems=tuple(candidates[winner[k]].theorem for k in chosen),
        labels=tuple(candidates[winner[k]].label for k in chosen),
        certificates=tuple(made[k] for k in chosen),
    )


def _candidates(problem: Problem, memory: Floats, label: str) -> Iterable[Part]:
    yield _sum(problem, (), memory, "any-algorithm")
    if label == "any-algorithm":
        return
    safe = list(_parts(problem, memory, {}, label))
    for chosen in _disjoint(safe, lambda part: part.charged, compulsory(problem)):
        yield _sum(problem, chosen, memory, max((p.label for p in chosen), key=LABELS.index))
    if label == "no-recompute":
        pieces = [part for group in _groups(problem) for part in _cut(problem, group, memory)]
        for chosen in _disjoint(pieces, lambda part: part.statements, compulsory(problem)):
            yield _sum(problem, chosen, memory, "no-recompute")
        yield from _passes(problem, memory)


def _parts(problem: Problem, memory: Floats, shares: dict[str, float], label: str) -> Iterable[Part]:
    for statement in problem.statements:
        fusion = fuse(problem, statement, shares)
        if fusion:
            yield _segment_part(fusion, memory)
    for tensor in problem.classes:
        for joint in join(problem, tensor, shares):
            yield from _joint_parts(problem, joint, memory, label)
        around = star(problem, tensor) if not shares else None
        if around:
            yield _star_part(around, memory)
    rectangle = turnover(problem) if label == "no-recompute" and not shares else None
    if rectangle:
        yield _turnover_part(rectangle, memory)


def _segment_part(fusion: Fusion, memory: Floats) -> Part:
    chi = fusion.chi((float(memory.min()), float(memory.max())))
    counted = count_segments(chi, fusion.volume, memory)
    values = fusion.batch * counted.charges * ROUNDING
    theorem = "fused segments" if len(fusion.modes) > 1 else "segments"

    def certify(k: int) -> Certificate:
        at = Segments(*(np.atleast_1d(f[k]) for f in (counted.charges, counted.length, counted.full, counted.rest)))
        return certificate.of_segments(theorem, fusion, chi, at, float(memory[k]), float(values[k]))

    statements = frozenset([fusion.statement])
    return Part(theorem, "recompute-safe", values, fusion.charged, statements, certify)


def _star_part(around: Star, memory: Floats) -> Part:
    chi = around.chi(float(memory.min()) / 64)
    counted = count_segments(chi, around.volume, memory)
    values = around.batch * counted.charges * ROUNDING

    def certify(k: int) -> Certificate:
        at = Segments(*(np.atleast_1d(f[k]) for f in (counted.charges, counted.length, counted.full, counted.rest)))
        return certificate.of_star(around, at, float(memory[k]), float(values[k]))

    return Part("star segments", "recompute-safe", values, around.charged, frozenset(around.statements), certify)


def _turnover_part(around: Turnover, memory: Floats) -> Part:
    found = [least_words(around, float(words)) for words in memory]
    words = np.array([waste.words if waste else 0.0 for waste in found])
    values = around.copies * np.maximum(words, 0.0) * ROUNDING

    def certify(k: int) -> Certificate:
        waste = found[k]
        assert waste is not None
        return certificate.of_turnover(around, waste, float(memory[k]), float(values[k]))

    return Part("turnover", "no-recompute", values, around.charged, frozenset(), certify)


def _joint_parts(problem: Problem, joint: Joint, memory: Floats, label: str) -> Iterable[Part]:
    words = np.maximum(joint.words(memory), 0.0) * ROUNDING
    safe = memory <= joint.limit
    names = frozenset(s.name for s in problem.statements)
    for values, own in ((np.where(safe, words, 0.0), "recompute-safe"), (words, "no-recompute")):
        if own == "no-recompute" and (label != own or safe.all()):
            continue

        def certify(k: int, values: Floats = values, own: str = own) -> Certificate:
            return certificate.of_joint(joint, float(memory[k]), float(values[k]), own)

        yield Part(
            "joint phases" if joint.rebuild > 1 else "joint statements", own, values, joint.charged, names, certify
        )


def _sum(problem: Problem, chosen: tuple[Part, ...], memory: Floats, label: str) -> Part:
    """Parts that charge different words, and the compulsory traffic of all classes that none of them charges."""
    charged = frozenset().union(*(part.charged for part in chosen))
    left = {name: words for name, words in compulsory(problem).items() if name not in charged}
    values = sum((part.values for part in chosen), np.full(memory.shape, float(sum(left.values()))))
    if len(chosen) == 1 and not left:
        return replace(chosen[0], label=label)
    theorem = " + ".join([part.theorem for part in chosen] + ["compulsory"] * bool(left))

    def certify(k: int) -> Certificate:
        return certificate.of_sum(
            theorem,
            left,
            [part.certify(k) for part in chosen if part.values[k] > 0],
            float(memory[k]),
            float(values[k]),
        )

    return Part(theorem, label, values, charged, frozenset(), certify)


def compulsory(problem: Problem) -> dict[str, float]:
    """Words of every input that is used and of every output: each moves at least once, whatever the algorithm.

    An input with a version of it among the outputs is read and written.
    """
    return {
        value.name: value.elements * value.width * (2 if value.kind == "input" and value.stored else 1)
        for value in problem.classes.values()
        if value.kind in ("input", "output") or value.stored
    }


def _disjoint(
    parts: list[Part], key: Callable[[Part], frozenset[str]], least: dict[str, float]
) -> Iterable[tuple[Part, ...]]:
    """Sets of parts without a common key: those with the largest sum at each memory, then some that cannot grow.

    Sums are taken with and without what the words that parts charge (`least`) would count for by themselves.
    """
    parts = sorted((p for p in parts if np.any(p.values > 0)), key=lambda p: -float(np.sum(np.log1p(p.values))))
    found: dict[tuple[int, ...], None] = {}
    for free in (0.0, 1.0):
        values = [p.values - free * sum(least.get(name, 0.0) for name in p.charged) for p in parts]
        found |= dict.fromkeys(_largest_sums(values, [key(p) for p in parts]))
    for chosen in found:
        yield tuple(parts[k] for k in chosen)
    yield from _maximal(parts, key)


def _largest_sums(values: list[Floats], keys: list[frozenset[str]]) -> list[tuple[int, ...]]:
    """The sets of parts without a common key that have the largest sum at some memory, by sets of keys in turn."""
    names = sorted(frozenset[str]().union(*keys))
    if not names or len(names) > MOST_KEYS:
        return []
    masks = [sum(1 << names.index(name) for name in own) for own in keys]
    sums: dict[int, Floats] = {0: np.zeros_like(values[0])}
    taken: dict[int, NDArray[np.int64]] = {}
    for mask in range(1, 1 << len(names)):
        lowest = mask & -mask
        usable = [k for k, own in enumerate(masks) if own & lowest and own & mask == own]
        tried = np.array([sums[mask ^ lowest], *(values[k] + sums[mask ^ masks[k]] for k in usable)])
        pick = np.argmax(tried, axis=0)
        sums[mask] = np.take_along_axis(tried, pick[None], axis=0)[0]
        taken[mask] = np.array([-1, *usable])[pick]
    found: dict[tuple[int, ...], None] = {}
    for at in range(values[0].size):
        mask, chosen = (1 << len(names)) - 1, []
        while mask:
            k = int(taken[mask][at])
            chosen += [k] if k >= 0 else []
            mask ^= masks[k] if k >= 0 else mask & -mask
        found[tuple(sorted(chosen))] = None
    return [chosen for chosen in found if chosen]


def _maximal(parts: list[Part], key: Callable[[Part], frozenset[str]]) -> Iterable[tuple[Part, ...]]:
    """Sets without a common key that cannot grow, at most MOST_SETS of them, larger bounds first."""
    made = 0
    stack: list[tuple[int, tuple[Part, ...], frozenset[str]]] = [(0, (), frozenset())]
    while stack and made < MOST_SETS:
        start, chosen, used = stack.pop()
        if start == len(parts):
            if chosen:
                made += 1
                yield chosen
            continue
        part = parts[start]
        stack.append((start + 1, chosen, used))
        if not key(part) & used:
            stack.append((start + 1, (*chosen, part), used | key(part)))


def _groups(problem: Problem) -> list[tuple[Statement, ...]]:
    """Single statements, and the statements around each intermediate and each input."""
    groups: list[tuple[Statement, ...]] = [(statement,) for statement in problem.statements]
    for name, value in problem.classes.items():
        around = tuple(s for s in problem.statements if name in {s.output.tensor, *(a.tensor for a in s.operands)})
        if value.kind in ("intermediate", "input") and len(around) > 1:
            groups.append(around)
    return list(dict.fromkeys(groups))


def _cut(problem: Problem, group: tuple[Statement, ...], memory: Floats) -> Iterable[Part]:
    """Bounds of a group of statements cut out of the problem, less the first presence of each cut tensor.

    A class that other statements read (or write) too is charged in proportion to the group's part of them.
    """
    names = {s.name for s in group}
    shares: dict[str, float] = {}
    classes: dict[str, ValueClass] = {}
    unpaid: dict[str, float] = {}
    for name, value in problem.classes.items():
        readers = {s.name for s in problem.statements if any(a.tensor == name for a in s.operands)}
        writers = {s.name for s in problem.statements if s.output.tensor == name}
        inside = (bool(readers & names), bool(writers & names))
        kind = value.kind
        if inside == (True, False):
            shares[name] = len(readers & names) / len(readers)
            kind = "input"
        elif inside == (False, True):
            shares[name] = len(writers & names) / len(writers)
            kind = "output"
        elif inside == (True, True) and (readers | writers) - names:
            return
        if any(inside) and value.chunked and kind != value.kind:
            return
        if any(inside):
            classes[name] = replace(value, kind=kind)
            if value.kind == "intermediate" and kind != "intermediate":
                unpaid[name] = shares[name] * value.elements * value.width
    part_of = replace(problem, classes=classes, statements=group, passes=())
    for part in _parts(part_of, memory, shares, "no-recompute"):
        if len(group) > 1 and part.theorem == "segments":
            continue  # the statement's own group has it
        free = {name: words for name, words in unpaid.items() if name in part.charged}
        values = np.maximum(part.values - sum(free.values()), 0.0)

        def certify(k: int, part: Part = part, values: Floats = values, free: dict[str, float] = free) -> Certificate:
            return certificate.of_cut(part.certify(k), free, float(memory[k]), float(values[k]))

        yield Part(f"cut: {part.theorem}", "no-recompute", values, part.charged, frozenset(names), certify)


def _passes(problem: Problem, memory: Floats) -> Iterable[Part]:
    """Multi-pass fibers: after each pass at most M words survive, the rest comes back once per further pass.

    The first barrier has spilled what does not fit where the fiber is an intermediate, which pays the first pass too.
    """
    for fiber in problem.passes:
        if fiber.passes < 2 or fiber.tensor not in problem.classes:
            continue
        value = problem.classes[fiber.tensor]
        beyond = np.maximum(fiber.length * value.width - memory, 0.0)
        times = fiber.passes - 1 + (value.kind == "intermediate")
        values = fiber.fibers * times * beyond * ROUNDING
        # Read for the first time, and written where it is an output; an intermediate may be stored as it spills.
        once = 0.0 if value.kind == "intermediate" else compulsory(problem)[fiber.tensor]
        values = values + once

        def certify(k: int, fiber: Any = fiber, values: Floats = values, once: float = once) -> Certificate:
            own = problem.classes[fiber.tensor]
            return certificate.of_passes(fiber, own, once, float(memory[k]), float(values[k]))

        own = Part("passes", "no-recompute", values, frozenset([fiber.tensor]), frozenset(), certify)
        yield _sum(problem, (own,), memory, "no-recompute")
