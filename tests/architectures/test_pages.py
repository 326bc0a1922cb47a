"""Pages that sets of vectors touch: against plain sets, all subsets, and drawn runs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures.pages import Layout


def counted(chosen: list[int], vector: int, page: int) -> int:
    """Pages of a set, byte by byte: vectors are packed as many to a page as fit, or begin at a page's boundary."""
    room = page // vector
    if room:
        return len({place // room for place in chosen})
    each = -(-vector // page)
    return len({(place, part) for place in chosen for part in range(each)})


@settings(max_examples=80, deadline=None)
@given(chosen=st.lists(st.integers(0, 200), max_size=40), vector=st.integers(1, 600), page=st.integers(1, 400))
def test_a_given_set_is_counted_exactly(chosen: list[int], vector: int, page: int) -> None:
    assert Layout.of(vector, page).touched(chosen) == counted(chosen, vector, page)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n=st.integers(1, 9), per=st.integers(1, 5))
def test_an_even_draw_is_the_mean_over_all_sets(data: st.DataObject, n: int, per: int) -> None:
    kept = data.draw(st.integers(0, n))
    latest = data.draw(st.integers(0, kept))
    layout = Layout.of(1, per)
    window = list(range(n - latest, n))
    sets = [[*drawn, *window] for drawn in combinations(range(n - latest), kept - latest)]
    pages = [len({place // per for place in chosen}) for chosen in sets]
    if latest and (n - latest) % per:  # a page that the latest share with older vectors is whole or not: count as taken
        first = (n - latest) // per
        pages = [len({place // per for place in chosen} | {first}) for chosen in sets]
    assert float(layout.expected(n, kept, latest)) == pytest.approx(np.mean(pages))


def test_runs_touch_fewer_pages_than_an_even_draw() -> None:
    """A chain of two states, drawn: mean run 4, an eighth of the vectors chosen."""
    n, run, share = 4096, 4.0, 1 / 8
    random = np.random.default_rng(0)
    ends, begins = 1 / run, share / (1 - share) / run
    pages, kept = [], []
    for _ in range(60):
        draws, state, chosen = random.random(n), random.random() < share, []
        for place in range(n):
            if state:
                chosen.append(place)
            state = draws[place] >= ends if state else draws[place] < begins
        pages.append(Layout.of(256, 4096).touched(chosen))
        kept.append(len(chosen))
    assert np.mean(kept) == pytest.approx(n * share, rel=0.03)
    layout = Layout.of(256, 4096)
    assert float(layout.expected(n, n * share, 0, run)) == pytest.approx(np.mean(pages), rel=0.03)
    assert float(layout.expected(n, n * share, 0, run)) < float(layout.expected(n, n * share))


def test_a_page_of_the_drive_holds_sixteen_tokens_and_all_tokens_are_all_pages() -> None:
    """InstInfer: 4 KiB are 16 tokens of 128 values in fp16."""
    layout = Layout.of(128 * 2, 4096)
    assert layout.per_page == 16
    tokens = np.arange(1, 200)
    np.testing.assert_array_equal(layout.expected(tokens, tokens), np.ceil(tokens / 16))
    np.testing.assert_array_equal(layout.expected(tokens, tokens, 0, 4), layout.pages(tokens))


def test_a_channel_of_a_long_context_takes_several_pages() -> None:
    layout = Layout.of(5000 * 2, 4096)
    assert float(layout.expected(128, 16)) == pytest.approx(16 * 3)
    assert layout.touched([0, 5, 5]) == 6
