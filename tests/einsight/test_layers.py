"""The layered layout: every edge goes down, long edges have places of their own, and rows avoid crossings."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from einsight.layers import lay_out


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]]]:
    nodes = [f"n{i}" for i in range(draw(st.integers(1, 12)))]
    pairs = [(a, b) for i, a in enumerate(nodes) for b in nodes[i + 1 :]]
    return nodes, draw(st.lists(st.sampled_from(pairs), max_size=25)) if pairs else []


@given(graphs())
@settings(max_examples=100)
def test_every_node_has_one_place_and_every_edge_steps_down_row_by_row(
    graph: tuple[list[str], list[tuple[str, str]]],
) -> None:
    nodes, edges = graph
    layout = lay_out(nodes, edges)
    row_of = {name: number for number, row in enumerate(layout.rows) for name in row}
    assert sum(map(len, layout.rows)) == len(row_of)
    assert set(nodes) <= row_of.keys()
    assert set(layout.paths) == set(edges)
    for (source, target), path in layout.paths.items():
        assert (path[0], path[-1]) == (source, target)
        assert [row_of[name] for name in path] == list(range(row_of[source], row_of[target] + 1))


def test_crossed_edges_are_uncrossed() -> None:
    layout = lay_out(["a", "b", "c", "d"], [("a", "d"), ("b", "c")])
    above, below = layout.rows
    assert [below.index("d"), below.index("c")] == [above.index("a"), above.index("b")]


def test_an_input_stands_just_above_its_first_reader() -> None:
    layout = lay_out(["x", "late", "y", "z"], [("x", "y"), ("y", "z"), ("late", "z")])
    assert layout.rows[1] in (("y", "late"), ("late", "y"))


def test_nothing_has_no_rows() -> None:
    assert lay_out([], []).rows == ()
