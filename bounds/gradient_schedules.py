"""Schedules of all sums of products around one intermediate over rows and columns, such as attention's backward pass.

Every statement has the scores, one array of the rows and one of the columns. Scores are computed again wherever they
are needed, from all row inputs, all column inputs and the row values that scale them (maximum, sum, ...).

    row pass       row inputs, row values and row outputs of a tile resident, column inputs streamed column by column
    column pass    column inputs and outputs of a tile resident, row inputs and row values streamed row by row
    two passes     row outputs by a row pass, column outputs by a column pass
    rows at once   a row pass in which column outputs go to and fro
    columns at once  a column pass in which row outputs go to and fro (FlashAttention's own backward pass)
    spilled        each product by itself, scores and their gradients written and read back (for small memories)

Tests execute each of them word by word.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import prod

import numpy as np

from bounds.attention_schedules import Heads, tile_pairs
from bounds.pattern import LONGEST, Intervals
from bounds.problem import Access, Problem
from bounds.staircase import Staircase
from bounds.tiles import breakpoints


@dataclass(frozen=True, eq=False)
class Star:
    """Words of each row and column: inputs, outputs; `scalars` row values that are inputs.

    products, row_products, column_products   widths of the products that make scores, row outputs, column outputs
    """

    heads: Heads
    row_in: int
    row_out: int
    column_in: int
    column_out: int
    scalars: int
    products: tuple[int, ...]
    row_products: tuple[int, ...]
    column_products: tuple[int, ...]

    @property
    def live(self) -> int:
        """Words of a pair while all its versions are needed."""
        return len(self.products)


def gradient_schedules(problem: Problem, recompute: bool = True) -> Staircase | None:
    """The staircase of these schedules, or None where the problem has another form."""
    star = star_of(problem)
    if star is None:
        return None
    width = next(iter(problem.classes.values())).width
    found = star_schedules(star, recompute).scaled(star.heads.copies)
    return Staircase(found.footprint * width, found.words * width, found.origin, found.describe)


def star_schedules(star: Star, recompute: bool = True) -> Staircase:
    """The staircase of one copy; without `recompute` only of those that make each score once."""
    both = [Staircase.sequence("two passes", row_pass(star), column_pass(star))] if recompute else []
    return Staircase.merged([*both, rows_at_once(star), columns_at_once(star), spilled(star)])


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


def spilled(star: Star) -> Staircase:
    """Scores by one product after another, each version written; then each output from the version that it needs."""
    parts = [spilled_scores(star, place) for place in range(star.live)]
    for side, tiles, count, widths in (
        ("row", star.heads.row_tiles, star.heads.rows, star.row_products),
        ("column", star.heads.column_tiles, star.heads.columns, star.column_products),
    ):
        for place, width in enumerate(widths):
            height, chunk = tiles.sizes[:, None], breakpoints(width)[None, :]
            words = star.heads.pairs * -(-width // chunk) + (width * tiles.needed)[:, None] + count * width
            space = height * chunk + np.minimum(height, chunk) + 2
            parts.append(tile_pairs(f"{side} output {place}", height, chunk, space, words))
    return reduce(lambda first, second: Staircase.sequence("", first, second), parts)


def spilled_scores(star: Star, place: int) -> Staircase:
    """One version of the scores: its product, the version before it read, row values loaded for each tile."""
    heads, d, rows, columns = star.heads, star.products[place], star.heads.rows, star.heads.columns
    by_rows, by_columns, name = heads.row_tiles, heads.column_tiles, f"scores {place},"
    moved = heads.pairs * (2 if place else 1)
    height, width, room = by_rows.sizes, by_columns.sizes, max(2, star.scalars + 1)
    own = d + star.scalars
    by_query = Staircase.of(
        height * (own + 1) + 2,
        rows * own + d * by_rows.needed + moved,
        lambda k: f"{name} rows resident {height[k]}",
    )
    by_key = Staircase.of(
        width * (d + 1) + room,
        columns * d + own * by_columns.needed + moved,
        lambda k: f"{name} columns resident {width[k]}",
    )
    across = breakpoints(int(by_rows.largest.max()))[None, :]
    space = height[:, None] * across + np.maximum(np.minimum(height[:, None], across) + 2, room)
    words = by_rows.visits(across[0]) * own + (d * by_rows.needed)[:, None] + moved
    return Staircase.merged([by_query, by_key, tile_pairs(f"{name} tiles", height[:, None], across, space, words)])


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
    widths: dict[str, list[int]] = {"intermediate": [], "row": [], "column": []}
    for statement in problem.statements:
        side = "row" if rows & set(statement.output.loops) else "column"
        kind = "intermediate" if statement.output.tensor == scores else side
        widths[kind].append(prod(size[x] for x in statement.loops if x not in loops))
    return Star(
        heads,
        row_in=words["row input"],
        row_out=words["row output"],
        column_in=words["column input"],
        column_out=words["column output"],
        scalars=len(outside),
        products=tuple(widths["intermediate"]),
        row_products=tuple(widths["row"]),
        column_products=tuple(widths["column"]),
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
