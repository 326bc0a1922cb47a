"""Schedules of all sums of products around one intermediate over rows and columns, such as attention's backward pass.

Every statement has the scores, one array of the rows and one of the columns. Scores are computed again wherever they
are needed, from all row inputs, all column inputs and the row values that scale them (maximum, sum, ...).

    row pass       row inputs, row values and row outputs of a tile resident, column inputs streamed column by column
    column pass    column inputs and outputs of a tile resident, row inputs and row values streamed row by row
    two passes     row outputs by a row pass, column outputs by a column pass
    rows at once   a row pass in which column outputs go to and fro
    columns at once  a column pass in which row outputs go to and fro (FlashAttention's own backward pass)

Tests execute each of them word by word.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from bounds.attention_schedules import Heads
from bounds.pattern import LONGEST, Intervals
from bounds.problem import Access, Problem
from bounds.staircase import Staircase


@dataclass(frozen=True, eq=False)
class Star:
    """Words of each row and column: inputs, outputs; `scalars` row values that are inputs; `live` words of a pair."""

    heads: Heads
    row_in: int
    row_out: int
    column_in: int
    column_out: int
    scalars: int
    live: int


def gradient_schedules(problem: Problem) -> Staircase | None:
    """The staircase of these schedules, or None where the problem has another form."""
    star = star_of(problem)
    if star is None:
        return None
    width = next(iter(problem.classes.values())).width
    found = star_schedules(star).scaled(star.heads.copies)
    return Staircase(found.footprint * width, found.words * width, found.origin, found.describe)


def star_schedules(star: Star) -> Staircase:
    """The staircase of one copy."""
    rows, columns = row_pass(star), column_pass(star)
    both = Staircase.sequence("two passes", rows, columns)
    return Staircase.merged([both, rows_at_once(star), columns_at_once(star)])


def row_pass(star: Star) -> Staircase:
    """All row outputs."""
    tiles, own = star.heads.row_tiles, star.row_in + star.row_out + star.scalars
    words = star.heads.rows * own + tiles.needed * star.column_in
    space = tiles.sizes * (own + star.live) + star.column_in + 1
    return Staircase.of(space, words, lambda k: f"row pass {tiles.sizes[k]}")


def column_pass(star: Star) -> Staircase:
    """All column outputs."""
    tiles, own = star.heads.column_tiles, star.column_in + star.column_out
    words = star.heads.columns * own + tiles.needed * (star.row_in + star.scalars)
    space = tiles.sizes * (own + star.live) + star.row_in + star.scalars + 1
    return Staircase.of(space, words, lambda k: f"column pass {tiles.sizes[k]}")


def rows_at_once(star: Star) -> Staircase:
    """Everything in a row pass; an output of a column comes back for each tile of rows but the first."""
    tiles, own = star.heads.row_tiles, star.row_in + star.row_out + star.scalars
    moved = star.column_out * (2 * tiles.needed - star.heads.columns)
    words = star.heads.rows * own + tiles.needed * star.column_in + moved
    space = tiles.sizes * (own + star.live) + star.column_in + 1
    return Staircase.of(space, words, lambda k: f"rows at once {tiles.sizes[k]}")


def columns_at_once(star: Star) -> Staircase:
    """Everything in a column pass; an output of a row comes back for each tile of columns but the first."""
    tiles, own = star.heads.column_tiles, star.column_in + star.column_out
    moved = star.row_out * (2 * tiles.needed - star.heads.rows)
    words = star.heads.columns * own + tiles.needed * (star.row_in + star.scalars) + moved
    space = tiles.sizes * (own + star.live) + star.row_in + star.scalars + 1
    return Staircase.of(space, words, lambda k: f"columns at once {tiles.sizes[k]}")


def star_of(problem: Problem) -> Star | None:
    """The problem as statements around one intermediate, or None."""
    shared = [n for n, v in problem.classes.items() if v.kind == "intermediate"]
    if len(shared) != 1 or len(problem.statements) < 3 or problem.remarks:
        return None
    scores = shared[0]
    statements = [(s.output, *s.operands) for s in problem.statements]
    inner = [next((a for a in accesses if a.tensor == scores), None) for accesses in statements]
    plain = all(a.projective for accesses in statements for a in accesses)
    if None in inner or not plain:
        return None
    loops = {a.loops for a in inner if a}
    others = [[a for a in accesses if a.tensor != scores] for accesses in statements]
    if len(loops) != 1 or any(len(two) != 2 for two in others):
        return None
    return _star(problem, scores, loops.pop(), others)


def _star(problem: Problem, scores: str, loops: tuple[str, ...], others: list[list[Access]]) -> Star | None:
    batch = set.intersection(set(loops), *(set(a.loops) for two in others for a in two)) - _tied(problem)
    sides = [frozenset((set(a.loops) & set(loops)) - batch) for a in others[0]]
    scales = problem.scales.get(scores, frozenset())
    rows, columns = sorted(sides, key=lambda side: -sum(side <= set(ranks) for ranks in scales))
    if rows & columns or rows | columns != set(loops) - batch:
        return None
    if any({frozenset((set(a.loops) & set(loops)) - batch) for a in two} != {rows, columns} for two in others):
        return None
    if any(set(ranks) != batch | rows for ranks in scales):
        return None
    size, used = problem.extents, {scores, *(a.tensor for two in others for a in two)}
    words = {"row input": 0, "row output": 0, "column input": 0, "column output": 0}
    for access in {a.tensor: a for two in others for a in two}.values():
        side = "row" if rows & set(access.loops) else "column"
        words[f"{side} {problem.classes[access.tensor].kind}"] += prod(size[x] for x in access.loops if x not in loops)
    heads = _heads(problem, batch, rows, columns)
    outside = [value for name, value in problem.classes.items() if name not in used and value.elements]
    if heads is None or any(v.kind != "input" or v.elements != heads.rows * heads.copies for v in outside):
        return None
    values = list(problem.classes.values())
    simple = all(v.plain and not v.chunked for v in values) and len({v.width for v in values}) == 1
    if not simple or not (words["row output"] and words["column output"]):
        return None
    live = sum(s.output.tensor == scores for s in problem.statements)
    return Star(
        heads,
        row_in=words["row input"],
        row_out=words["row output"],
        column_in=words["column input"],
        column_out=words["column output"],
        scalars=len(outside),
        live=live,
    )


def _heads(problem: Problem, batch: set[str], rows: frozenset[str], columns: frozenset[str]) -> Heads | None:
    """The pattern with its copies and groups; the widths are the star's own."""
    size, coupling = problem.extents, problem.coupling
    copies = prod(size[x] for x in batch)
    if coupling is None:
        across, down = prod(size[x] for x in columns), prod(size[x] for x in rows)
        return None if max(across, down) > LONGEST else Heads(Intervals.dense(down, across), 1, 1, copies=copies)
    if columns != {coupling.column} or coupling.row not in rows:
        return None
    return Heads(coupling.pattern, 1, 1, group=prod(size[x] for x in rows if x != coupling.row), copies=copies)


def _tied(problem: Problem) -> set[str]:
    return {problem.coupling.row, problem.coupling.column} if problem.coupling else set()
