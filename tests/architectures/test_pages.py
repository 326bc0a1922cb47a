"""Pages that sets of vectors touch: against bytes one by one, all subsets, drawn clusters, and measured attention."""

from __future__ import annotations

import csv
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom

from architectures.pages import Layout


def counted(chosen: list[int], vector: int, page: int) -> int:
    """Pages of a set, byte by byte: vectors are packed as many to a page as fit, or begin at a page's boundary."""
    room, each = page // vector, -(-vector // page)
    begins = {place: place // room * page + place % room * vector if room else place * each * page for place in chosen}
    return len({byte // page for begin in begins.values() for byte in range(begin, begin + vector)})


@settings(max_examples=80, deadline=None)
@given(chosen=st.lists(st.integers(0, 200), max_size=40), vector=st.integers(1, 600), page=st.integers(1, 400))
def test_a_given_set_is_counted_exactly(chosen: list[int], vector: int, page: int) -> None:
    assert Layout.of(vector, page).touched(chosen) == counted(chosen, vector, page)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), tokens=st.integers(1, 40), channels=st.integers(1, 8), page=st.integers(1, 40))
def test_keys_by_token_and_by_channel_are_counted_element_by_element(
    data: st.DataObject, tokens: int, channels: int, page: int
) -> None:
    """A matrix of one-byte keys in both orders; what a page cannot hold of a row begins on the next one."""
    some_tokens = data.draw(st.sets(st.integers(0, tokens - 1)))
    some_channels = data.draw(st.sets(st.integers(0, channels - 1)))
    for rows, length in ((some_tokens, channels), (some_channels, tokens)):
        room = max(page // length, 1)
        pages = {(row // room, (row % room * length + element) // page) for row in rows for element in range(length)}
        assert Layout.of(length, page).touched(sorted(rows)) == len(pages)


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


@settings(max_examples=60, deadline=None)
@given(pages=st.integers(1, 200), per=st.integers(1, 40), share=st.floats(0.01, 0.99), together=st.floats(0.02, 0.95))
def test_clusters_are_beta_binomial(pages: int, per: int, share: float, together: float) -> None:
    """scipy's distribution of the same mean and correlation; the urn's correlation lacks that of the even draw."""
    n = pages * per
    added = together * n / (1 - together) - 1
    if added <= 0:
        return
    a, b = share * n / added, (1 - share) * n / added
    expected = pages * (1 - betabinom.pmf(0, per, a, b))
    assert float(Layout.of(1, per).expected(n, share * n, 0, together)) == pytest.approx(expected, rel=1e-9)


def test_clustered_draws_touch_as_many_pages_as_expected() -> None:
    """Each page draws its own share from a Beta distribution, then each of its vectors by that share."""
    per, pages, share, together = 16, 4000, 1 / 8, 0.3
    random = np.random.default_rng(0)
    shares = random.beta(share * (1 / together - 1), (1 - share) * (1 / together - 1), pages)
    chosen = np.flatnonzero(random.random(pages * per) < np.repeat(shares, per))
    assert chosen.size == pytest.approx(pages * per * share, rel=0.03)
    layout, n = Layout.of(256, 4096), pages * per
    assert float(layout.expected(n, chosen.size, 0, together)) == pytest.approx(layout.touched(chosen), rel=0.03)


def test_from_an_even_draw_to_whole_pages() -> None:
    layout = Layout.of(256, 4096)
    pages = [float(layout.expected(1600, 200, 0, together)) for together in (0, 1e-6, 0.05, 0.2, 0.5, 0.9, 1)]
    assert (np.diff(pages) < 0).all()
    assert pages[1] == pytest.approx(pages[0], rel=1e-4)
    assert pages[-1] == pytest.approx(200 / 16)


MEASURED = Path(__file__).parents[1] / "data" / "attention-clustering.csv"


def test_measured_attention_lies_together_in_pages() -> None:
    """Pages of 16 tokens that SparF's tokens touch in two small models: clustered by 0.05 to 0.20, not an even draw."""
    rows = list(csv.DictReader(line for line in MEASURED.read_text().splitlines() if not line.startswith("#")))
    assert len(rows) >= 16
    layout = Layout(np.array(16.0), np.array(1.0))
    for row in rows:
        share, touched = float(row["kept"]), float(row["touched"])
        n = 1520
        found = [float(layout.expected(n, share * n, 0, together)) / (n / 16) for together in (0.20, 0.05, 0)]
        assert found[0] - 0.01 < touched < found[1] + 0.01 < found[2]


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
