"""Brute force: many orders of the multiplications, each run with the replacement that looks furthest ahead.

An operation multiplies two words into an accumulator. `least_words` counts the loads and stores of a trace when, of
the words not needed now, the one whose next use is furthest away leaves (dirty words are stored when still needed).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from bounds.problem import Problem, Statement

Word = tuple[Hashable, ...]
Operation = tuple[tuple[Word, ...], Word]
NEVER = 1 << 60


def least_words(trace: Sequence[Operation], outputs: set[str], memory: int, fresh: set[str] = frozenset()) -> int:
    """Words moved by a trace in a fast memory; accumulators of names in `outputs` must be stored in the end."""
    uses: dict[Word, list[int]] = {}
    for time, (operands, target) in enumerate(trace):
        for word in (*operands, target):
            uses.setdefault(word, []).append(time)
    at = dict.fromkeys(uses, 0)
    fast: dict[Word, bool] = {}
    in_slow: set[Word] = set()
    moved = 0

    def next_use(word: Word) -> int:
        k = at[word]
        return uses[word][k] if k < len(uses[word]) else NEVER

    for time, (operands, target) in enumerate(trace):
        now = {*operands, target}
        for word in now:
            while at[word] < len(uses[word]) and uses[word][at[word]] <= time:
                at[word] += 1
        for word in now - fast.keys():
            if len(fast) >= memory:
                others = [w for w in fast if w not in now]
                gone = max(others, key=lambda w: (next_use(w), not fast[w]))
                if fast.pop(gone) and (next_use(gone) < NEVER or gone[0] in outputs):
                    moved += 1
                    in_slow.add(gone)
            made_here = word == target and word not in in_slow
            moved += not made_here
            fast[word] = False
        fast[target] = True
        for word in now:
            if next_use(word) == NEVER and not (word[0] in outputs and fast[word]):
                del fast[word]
    return moved + sum(dirty and word[0] in outputs for word, dirty in fast.items())


def attention_traces(problem: Problem, generator: np.random.Generator, count: int) -> list[list[Operation]]:
    """Orders of attention: tiles of rows and columns, fused or in two phases, snaking or not, recomputing."""
    size, pattern = problem.extents, problem.coupling.pattern
    rows, columns = pattern.rows * size["g"], pattern.columns
    keys = [set(pattern.row(i // size["g"])) for i in range(rows)]
    return [_attention_trace(keys, rows, columns, size["e"], size["f"], generator) for _ in range(count)]


def _attention_trace(keys, rows: int, columns: int, d: int, dv: int, generator) -> list[Operation]:
    height, width = (int(generator.integers(1, n + 1)) for n in (rows, columns))
    row_tiles = [range(a, min(a + height, rows)) for a in range(0, rows, height)]
    column_tiles = [range(b, min(b + width, columns)) for b in range(0, columns, width)]
    tiles = [(r, c) for r in row_tiles for c in column_tiles]
    if generator.random() < 0.5:
        tiles = [(r, c) for c in column_tiles for r in row_tiles]
    if generator.random() < 0.3:  # snake: turn every second line
        line = len(column_tiles) if tiles[0][0] == tiles[min(1, len(tiles) - 1)][0] else len(row_tiles)
        lines = [tiles[a : a + line] for a in range(0, len(tiles), line)]
        tiles = [tile for k, part in enumerate(lines) for tile in (part[::-1] if k % 2 else part)]
    chunk = int(generator.integers(1, dv + 1))
    parts = [range(x, min(x + chunk, dv)) for x in range(0, dv, chunk)]
    style = generator.choice(["fused", "two phases", "recompute"])
    inner = generator.permutation(3)
    trace: list[Operation] = []

    def score(tile, version=0) -> None:
        points = [(i, j, x) for i in tile[0] for j in tile[1] if j in keys[i] for x in range(d)]
        points.sort(key=lambda p: tuple(p[k] for k in inner))
        trace.extend(((("Q", i, x), ("K", j, x)), ("S", i, j, version)) for i, j, x in points)

    def output(tile, xs, version=0) -> None:
        points = [(i, j, x) for i in tile[0] for j in tile[1] if j in keys[i] for x in xs]
        points.sort(key=lambda p: tuple(p[k] for k in inner))
        trace.extend(((("S", i, j, version), ("V", j, x)), ("O", i, x)) for i, j, x in points)

    if style == "two phases":
        for tile in tiles:
            score(tile)
        for xs in parts:
            for tile in tiles:
                output(tile, xs)
    elif style == "fused":
        for tile in tiles:
            score(tile)
            output(tile, range(dv))
    else:
        for version, xs in enumerate(parts):
            for tile in tiles:
                score(tile, version)
                output(tile, xs, version)
    return trace


def backward_trace(rows: int, columns: int, d: int, dv: int, generator: np.random.Generator) -> list[Operation]:
    """One order of attention's backward pass: tiles in steps that each take some of the five products, or all at once.

    Scores are S, their gradients D, and G, made of both, is what gives the gradients of queries and keys. Versions of
    them are made one after another where the order computes them again.
    """
    height, width = (int(generator.integers(1, n + 1)) for n in (rows, columns))
    tiles = [
        (range(a, min(a + height, rows)), range(b, min(b + width, columns)))
        for a in range(0, rows, height)
        for b in range(0, columns, width)
    ]
    if generator.random() < 0.5:
        tiles.sort(key=lambda tile: (tile[1][0], tile[0][0]))
    inner = generator.permutation(3)
    trace: list[Operation] = []

    def product(tile, size: int, words: Callable[[int, int, int], Operation]) -> None:
        points = sorted(
            ((i, j, x) for i in tile[0] for j in tile[1] for x in range(size)), key=lambda p: [p[k] for k in inner]
        )
        trace.extend(words(*p) for p in points)

    def scores(tile, v: int) -> None:
        product(tile, d, lambda i, j, x: ((("Q", i, x), ("K", j, x)), ("S", i, j, v)))

    def gradients(tile, v: int) -> None:
        product(tile, dv, lambda i, j, x: ((("DO", i, x), ("V", j, x)), ("D", i, j, v)))
        trace.extend(((("S", i, j, v), ("D", i, j, v)), ("G", i, j, v)) for i in tile[0] for j in tile[1])

    outputs = {
        "DV": lambda tile, v: product(tile, dv, lambda i, j, x: ((("S", i, j, v), ("DO", i, x)), ("DV", j, x))),
        "DQ": lambda tile, v: product(tile, d, lambda i, j, x: ((("G", i, j, v), ("K", j, x)), ("DQ", i, x))),
        "DK": lambda tile, v: product(tile, d, lambda i, j, x: ((("G", i, j, v), ("Q", i, x)), ("DK", j, x))),
    }
    style = generator.choice(["at once", "spilled", "again", "two passes"])
    if style == "at once":
        for tile in tiles:
            scores(tile, 0)
            if generator.random() < 0.5:
                outputs["DV"](tile, 0)
                gradients(tile, 0)
            else:
                gradients(tile, 0)
                outputs["DV"](tile, 0)
            outputs["DQ"](tile, 0)
            outputs["DK"](tile, 0)
    elif style == "spilled":
        for step in (scores, gradients, *outputs.values()):
            for tile in tiles:
                step(tile, 0)
    else:
        groups = [["DQ"], ["DK", "DV"]] if style == "two passes" else [["DV"], ["DQ"], ["DK"]]
        for v, group in enumerate(groups):
            for tile in sorted(tiles, key=lambda tile: tile[0][0] if group == ["DQ"] else tile[1][0]):
                scores(tile, v)
                if group != ["DV"]:
                    gradients(tile, v)
                for name in group:
                    outputs[name](tile, v)
    return trace


def statement_traces(
    problem: Problem, statement: Statement, generator: np.random.Generator, count: int
) -> list[list[Operation]]:
    """Orders of one statement: random tiles, a random order of the loops between tiles and inside them."""
    loops = statement.loops
    extents = [problem.extents[loop] for loop in loops]
    address = word_addresses(statement)
    traces = []
    points = np.array(list(np.ndindex(*extents)))
    for _ in range(count):
        tile = np.array([int(generator.integers(1, extent + 1)) for extent in extents])
        outer, inner = generator.permutation(len(loops)), generator.permutation(len(loops))
        keys = [(points % tile)[:, k] for k in inner[::-1]] + [(points // tile)[:, k] for k in outer[::-1]]
        ordered = points[np.lexsort(keys)]
        traces.append([(tuple(a(p) for a in address[:-1]), address[-1](p)) for p in map(tuple, ordered.tolist())])
    return traces


def word_addresses(statement: Statement) -> list[Callable[[tuple[int, ...]], Word]]:
    """For each operand, then the output: the word that a point of the loops touches."""
    return [_address(access, statement.loops) for access in (*statement.operands, statement.output)]


def _address(access, loops: Sequence[str]) -> Callable[[tuple[int, ...]], Word]:
    rows = [[dict(terms).get(loop, 0) for loop in loops] for terms in access.dimensions]
    return lambda p: (access.tensor, *(sum(c * x for c, x in zip(row, p, strict=True)) for row in rows))
