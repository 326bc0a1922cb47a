"""Pages that sets of vectors touch: against bytes one by one, all subsets, drawn scores, and measured attention."""

from __future__ import annotations

import csv
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from architectures.pages import Layout
from einsum import Cascade


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


@settings(max_examples=40, deadline=None)
@given(pages=st.integers(1, 200), per=st.integers(1, 40), share=st.floats(0.01, 0.99), together=st.floats(0.01, 0.99))
def test_alike_vectors_are_those_above_a_threshold(pages: int, per: int, share: float, together: float) -> None:
    """Each page's share by adaptive quadrature over the part of the scores that it has in common."""
    n, k = pages * per, share * pages * per

    def missed(z: float) -> float:
        of_page = norm.cdf((together**0.5 * z - norm.isf(share)) / (1 - together) ** 0.5)
        return norm.pdf(z) * np.prod([max(n * (1 - of_page) - place, 0) / (n - place) for place in range(per)])

    steep = norm.isf(share) / together**0.5
    inside = [steep] if abs(steep) < 8 else None
    expected = pages * (1 - quad(missed, -8, 8, points=inside, limit=200, epsabs=1e-9)[0])
    assert float(Layout.of(1, per).expected(n, k, 0, together)) == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("share", "together"), [(1 / 8, 0.4), (1 / 16, 0.4), (1 / 2, 0.8)])
def test_the_largest_scores_touch_as_many_pages_as_expected(share: float, together: float) -> None:
    """Drawn scores, those of a page with a part in common; the largest are kept, exactly as many as wanted."""
    per, pages = 16, 4000
    random = np.random.default_rng(0)
    common = np.repeat(random.standard_normal(pages), per)
    scores = together**0.5 * common + (1 - together) ** 0.5 * random.standard_normal(pages * per)
    kept = round(share * pages * per)
    chosen = np.argsort(scores)[-kept:]
    layout = Layout.of(256, 4096)
    assert float(layout.expected(pages * per, kept, 0, together)) == pytest.approx(layout.touched(chosen), rel=0.03)


def test_from_an_even_draw_to_whole_pages() -> None:
    layout = Layout.of(256, 4096)
    pages = [float(layout.expected(1600, 200, 0, together)) for together in (0, 1e-6, 0.05, 0.2, 0.5, 0.9, 0.999, 1)]
    assert (np.diff(pages) < 0).all()
    assert pages[1] == pytest.approx(pages[0], rel=1e-4)
    assert pages[-2] == pytest.approx(200 / 16, rel=0.1)
    assert pages[-1] == pytest.approx(200 / 16)


DATA = Path(__file__).parents[1] / "data"


def measured(name: str) -> list[dict[str, str]]:
    lines = (DATA / name).read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def share_touched(kept: float, together: float, vectors: int = 1520, of_a_page: int = 16) -> float:
    layout = Layout(np.array(float(of_a_page)), np.array(1.0))
    return float(layout.expected(vectors, kept * vectors, 0, together)) * of_a_page / vectors


def alike(kept: float, touched: float, **sizes: int) -> float:
    """The correlation at which as many pages are touched as were measured."""
    return float(brentq(lambda together: share_touched(kept, together, **sizes) - touched, 1e-4, 0.98))


def mean_of(rows: list[dict[str, str]], field: str, **wanted: str) -> float:
    return float(np.mean([float(row[field]) for row in rows if wanted.items() <= row.items()]))


MODELS = ("SmolLM2-135M", "Gemma-3-270M", "Qwen2.5-Coder-1.5B")


@pytest.mark.parametrize("model", MODELS)
def test_one_correlation_gives_the_pages_at_another_compression(model: str) -> None:
    """Found where a sixteenth of the tokens is kept, it predicts the pages of an eighth; an urn is 7 to 11 % off."""
    rows = measured("attention-clustering.csv")
    sixteenth, eighth = ({"model": model, "one_of": part} for part in ("16", "8"))
    together = alike(mean_of(rows, "kept", **sixteenth), mean_of(rows, "touched", **sixteenth))
    kept, touched = mean_of(rows, "kept", **eighth), mean_of(rows, "touched", **eighth)
    assert share_touched(kept, together) == pytest.approx(touched, rel=0.02)
    assert share_touched(kept, 0) > 1.2 * touched


@pytest.mark.parametrize("model", MODELS)
def test_one_correlation_stands_for_heads_that_differ_widely(model: str) -> None:
    """A correlation of its own for each of a model's heads changes the pages of an eighth of the tokens by 1 %."""
    rows = [row for row in measured("attention-clustering-heads.csv") if row["model"] == model]
    heads = [(float(row["kept"]), float(row["touched"])) for row in rows]
    found = [alike(kept, touched) if share_touched(kept, 1e-4) > touched else 0.0 for kept, touched in heads]
    assert np.quantile(found, 0.9) - np.quantile(found, 0.1) > 0.15
    kept, touched = np.mean(heads, axis=0)
    each = float(np.mean([share_touched(2 * share, own) for (share, _), own in zip(heads, found, strict=True)]))
    assert share_touched(2 * kept, alike(kept, touched)) == pytest.approx(each, rel=0.01)


@pytest.mark.parametrize("model", MODELS)
def test_one_correlation_stands_for_contexts_of_all_lengths(model: str) -> None:
    """1056 to 2048 tokens: within 5 % for the shorter and the longer half of them, 10 % for each single one."""
    rows = [row for row in measured("attention-clustering-contexts.csv") if row["model"] == model]
    together = alike(mean_of(rows, "kept"), mean_of(rows, "touched"))
    ratios = [
        share_touched(float(row["kept"]), together, int(row["context"]) // 16 * 16) / float(row["touched"])
        for row in rows
    ]
    assert ratios == pytest.approx([1.0] * 16, rel=0.1)
    assert [np.mean(ratios[:8]), np.mean(ratios[8:])] == pytest.approx([1.0, 1.0], rel=0.05)


@pytest.mark.parametrize("model", MODELS)
def test_one_correlation_gives_the_channels_of_larger_groups(model: str) -> None:
    """Found from pairs, it predicts the groups of eight channels; an even draw is 8 to 28 % off."""
    rows = measured("channel-clustering.csv")
    pairs, eights = (mean_of(rows, "touched", model=model, group=group) for group in ("2", "8"))
    together = alike(1 / 8, pairs, vectors=128, of_a_page=2)
    assert share_touched(1 / 8, together, 128, 8) == pytest.approx(eights, rel=0.03)


def test_defaults_are_the_means_over_the_measured_models() -> None:
    variables = Cascade.load("attention-sparf").variables
    rows = measured("attention-clustering.csv")
    tokens = [
        alike(*(mean_of(rows, field, model=model, one_of="16") for field in ("kept", "touched"))) for model in MODELS
    ]
    rows = measured("channel-clustering.csv")
    channels = [
        alike(1 / 8, mean_of(rows, "touched", model=model, group="2"), vectors=128, of_a_page=2) for model in MODELS
    ]
    assert float(variables["clustering"].evaluate({})) == round(np.mean(tokens), 2)
    assert float(variables["channel_clustering"].evaluate({})) == round(np.mean(channels), 2)


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
