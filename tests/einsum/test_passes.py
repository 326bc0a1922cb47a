"""Pass counts: the published vectors, cascades of our own, and a traversal carried out element by element."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsum import Cascade, SpecError
from einsum.passes import PassReport, analyse_passes


def small(einsums: list[str], inputs: dict[str, str], outputs: list[str], **more: object) -> Cascade:
    """A cascade from Einsums over ranks k, j, p and i (iterative)."""
    used = "".join(einsums) + "".join(inputs.values())
    ranks = {rank: rank.upper() + "X" for rank in "kjpi" if f"{rank}" in _letters(used)}
    return Cascade.parse({
        "cascade": "small",
        "ranks": ranks,
        "iterative": ["i"] if "i" in ranks else [],
        "inputs": {name: list(indices) for name, indices in inputs.items()},
        "outputs": outputs,
        "einsums": einsums,
        **more,
    })  # fmt: skip


def _letters(text: str) -> set[str]:
    words = "".join(letter if letter.isalnum() else " " for letter in text).split()
    return {word for word in words if len(word) == 1} | set(text if text.isalpha() else "")


@pytest.mark.parametrize(
    ("name", "passes", "pass_of"),
    [
        ("attention-3pass", 3, {"QK": 1, "GM": 1, "SN": 2, "SD": 2, "A": 3, "AV": 3}),
        ("attention-3pass-deferred", 2, {"QK": 1, "GM": 1, "SN": 2, "SD": 2, "SNV": 2}),
        ("attention-unstable", 2, {"QK": 1, "SN": 1, "SD": 1, "A": 2, "AV": 2}),
        ("attention-unstable-deferred", 1, {"QK": 1, "SN": 1, "SD": 1, "SNV": 1}),
        ("attention-2pass", 2, {"BQK": 1, "LM": 1, "SLN": 1, "SLD": 1, "A": 2, "AV": 2}),
        ("attention-1pass", 1, {"BQK": 1, "LM": 1, "SLN": 1, "SLD": 1, "SLNV": 1}),
        ("transformer-layer", 3, {"K": 1, "V": 1, "QK": 1, "GM": 1, "SN": 2, "SD": 2, "A": 3, "AV": 3}),
    ],
)
def test_published_pass_counts(name: str, passes: int, pass_of: dict[str, int]) -> None:
    report = analyse_passes(Cascade.load(name), "m")
    assert report.passes == passes
    assert report.pass_of == pass_of


def test_a_sum_used_in_another_sum_costs_a_second_pass() -> None:
    cascade = small(["Y = A[k] * B[k]", "Z = Y * A[k]"], {"A": "k", "B": "k"}, ["Z"])
    assert analyse_passes(cascade, "k").passes == 2


def test_two_independent_sums_share_a_pass() -> None:
    cascade = small(["Y = A[k] * B[k]", "X = sum(k) A[k]", "Z = Y * X"], {"A": "k", "B": "k"}, ["Z"])
    report = analyse_passes(cascade, "k")
    assert (report.passes, report.times["Z"]) == (1, 1.0)
    assert report.live == ()


def test_a_prefix_dependence_on_an_iterative_rank_adds_no_pass() -> None:
    einsums = ["RY[i+1] = RY[i] + A[i] * B[i]", "RZ[i+1] = RZ[i] * RY[i+1] / RY[i] + RY[i+1] * A[i]", "Z = RZ[IX]"]
    cascade = small(einsums, {"A": "i", "B": "i"}, ["Z"], initial={"RY": 1, "RZ": 0})
    report = analyse_passes(cascade, "i")
    assert report.passes == 1
    assert report.live == ()


def test_the_final_value_of_a_prefix_is_a_full_dependence() -> None:
    einsums = ["RY[i+1] = RY[i] + A[i]", "Z[i] = A[i] / RY[IX]"]
    report = analyse_passes(small(einsums, {"A": "i"}, ["Z"], initial={"RY": 0}), "i")
    assert report.passes == 2
    assert [(fiber.tensor, str(fiber.words)) for fiber in report.live] == [("A", "IX")]


def test_of_two_reduced_ranks_each_has_its_own_count() -> None:
    cascade = small(
        ["Y[k] = sum(j) A[k,j]", "X[k,j] = A[k,j] / Y[k]", "Z = sum(k, j) X[k,j] * B[j]"], {"A": "kj", "B": "j"}, ["Z"]
    )
    assert analyse_passes(cascade, "j").passes == 2  # each row is summed before it is divided
    assert analyse_passes(cascade, "k").passes == 1  # rows follow one another
    both = small(["Y = sum(k, j) A[k,j]", "Z = sum(k, j) A[k,j] / Y"], {"A": "kj"}, ["Z"])
    assert (analyse_passes(both, "j").passes, analyse_passes(both, "k").passes) == (2, 2)


def test_inside_a_chunk_the_running_form_makes_two_passes_and_keeps_one_chunk() -> None:
    report = analyse_passes(Cascade.load("attention-1pass"), "m0")
    assert report.passes == 2
    assert report.per_iteration == ("m1",)
    (fiber,) = report.live
    assert (fiber.tensor, str(fiber.words), fiber.per) == ("BQK", "M0", ("b", "h", "m1", "p"))


def test_what_must_live_between_the_passes_of_the_stable_softmax() -> None:
    report = analyse_passes(Cascade.load("attention-3pass"), "M")
    assert [str(fiber) for fiber in report.live] == [
        "QK: M words for each (b, h, p) from pass 1 to pass 2",
        "SN: M words for each (b, h, p) from pass 2 to pass 3",
    ]


def test_partial_maxima_leave_a_full_fiber_and_two_coarse_ones() -> None:
    report = analyse_passes(Cascade.load("attention-2pass"), "m")
    words = {fiber.tensor: str(fiber.words) for fiber in report.live}
    assert words == {"LM": "M1", "SLN": "M", "SLD": "M1"}


def test_a_later_pass_is_explained_by_the_chain_that_forces_it() -> None:
    report = analyse_passes(Cascade.load("attention-3pass"), "m")
    assert report.chains["A"] == ("QK", "GM", "SN", "SD", "A")
    assert report.reasons["SN"] == "in pass 2: reads GM; 'GM[b,h,p] = max(m) QK[b,h,m,p]' needs every m of pass 1"
    assert report.reasons["AV"] == "in pass 3: follows A element by element"
    running = analyse_passes(Cascade.load("attention-1pass"), "m")
    assert running.reasons["AV"].startswith("after pass 1: reads RNV")


def test_other_full_dependences() -> None:
    backwards = small(["X[k] = 2 * A[k]", "Z[k] = X[KX-1-k] + A[k]"], {"A": "k"}, ["Z"])
    assert analyse_passes(backwards, "k").passes == 2
    selected = small(["T[k] = topk_mask(k, 3) A[k]", "Z = sum(k) T[k] * A[k]"], {"A": "k"}, ["Z"])
    assert analyse_passes(selected, "k").passes == 2
    listed = small(["T[j] = topk(k) A[k]", "Z = sum(k) A[k] where k in T"], {"A": "k"}, ["Z"])
    assert analyse_passes(listed, "k").passes == 2
    elementwise = small(["T[k] = A[k] > 0", "Z = sum(k) A[k] where k in T"], {"A": "k"}, ["Z"])
    assert analyse_passes(elementwise, "k").passes == 1
    windowed = small(["X[k] = 2 * A[k]", "Z[k] = sum(j) X[k+j] where k + j < KX"], {"A": "k"}, ["Z"])
    assert analyse_passes(windowed, "k").passes == 1
    first = small(["X[k] = 2 * A[k]", "Z[k] = A[k] - X[0]"], {"A": "k"}, ["Z"])
    assert analyse_passes(first, "k").passes == 1


def test_a_loop_around_a_reduction_makes_its_passes_in_each_iteration() -> None:
    einsums = ["Y[i] = sum(k) A[k] * X[i]", "X[i+1] = X[i] + Y[i]", "Z = X[IX]"]
    report = analyse_passes(small(einsums, {"A": "k"}, ["Z"], initial={"X": 1}), "k")
    assert (report.passes, report.per_iteration) == (1, ("i",))


def test_a_rank_that_is_not_iterated_has_no_pass_and_unknown_ranks_are_named() -> None:
    cascade = Cascade.load("attention-3pass")
    assert analyse_passes(cascade, "f").passes == 1
    with pytest.raises(SpecError, match="unknown rank 'z'"):
        analyse_passes(cascade, "z")
    with pytest.raises(SpecError, match="the extent of several ranks"):
        analyse_passes(Cascade.load("transformer-layer"), "P")


def test_masks_change_no_pass_count() -> None:
    for name, passes in [("attention-3pass", 3), ("attention-2pass", 2), ("attention-1pass", 1)]:
        assert analyse_passes(Cascade.load(name).with_condition("m <= p"), "m").passes == passes


def traversals(cascade: Cascade, rank: str, length: int) -> int:
    """Passes made by visiting the coordinates 0, 1, ... over and over, doing all that is possible at each visit.

    Only for cascades whose indices along the rank are the rank itself, a step ahead or the final value.
    """
    done: dict[str, set[int]] = {einsum.name: set() for einsum in cascade.einsums}
    along = {einsum.name: rank in einsum.ranks for einsum in cascade.einsums}

    def complete(name: str) -> bool:
        return len(done[name]) == (length if along[name] else 1)

    def possible(position: int, at: int) -> bool:
        for access in cascade.einsums[position].inputs:
            if access.tensor not in done:
                continue
            producer = cascade.einsum(access.tensor)
            place = producer.output.ranks.index(rank) if rank in producer.output.ranks else None
            if place is None:
                if not complete(access.tensor):
                    return False
                continue
            made, read = producer.output.indices[place].step, access.indices[place].step
            needed = at + read[1] - (made[1] if made else 0) if read else length - 1
            if needed >= 0 and needed not in done[access.tensor]:
                return False
        return True

    def settle(at: int | None) -> None:
        changed = True
        while changed:
            changed = False
            for position, einsum in enumerate(cascade.einsums):
                here = at if along[einsum.name] else 0
                if here is not None and here not in done[einsum.name] and possible(position, here):
                    done[einsum.name].add(here)
                    changed = True

    settle(None)
    for number in itertools.count(1):
        if all(complete(name) for name in done):
            return number - 1
        for at in range(length):
            settle(at)
    raise AssertionError


@st.composite
def chains(draw: st.DrawFn) -> Cascade:
    """Random cascades over one rank: maps, full sums, running sums, broadcasts, final values."""
    einsums: list[str] = []
    initial: dict[str, int] = {}
    vectors = ["A[i]"]
    scalars: list[str] = []
    for number in range(draw(st.integers(1, 9))):
        name = f"T{number}"
        kind = draw(st.sampled_from(["map", "sum", "running", "scalar"]))
        pool = vectors + scalars
        one, other = draw(st.sampled_from(pool)), draw(st.sampled_from(pool))
        if kind == "map" or (kind in ("sum", "running") and one not in vectors):
            einsums.append(f"{name}[i] = {one} + {other} * A[i]")
            vectors.append(f"{name}[i]")
        elif kind == "sum":
            einsums.append(f"{name} = sum(i) {one} * {other}")
            scalars.append(name)
        elif kind == "running":
            einsums.append(f"{name}[i+1] = {name}[i] + {one} * {other}")
            initial[name] = 0
            vectors += [f"{name}[i]", f"{name}[i+1]"]
            scalars.append(f"{name}[IX]")
        elif scalars:
            einsums.append(f"{name} = {draw(st.sampled_from(scalars))} + {draw(st.sampled_from(scalars))}")
            scalars.append(name)
    einsums.append(f"Z = sum(i) {draw(st.sampled_from(vectors))} * A[i]")
    outputs = [text.split("=")[0].split("[")[0].strip() for text in einsums]
    return small(einsums, {"A": "i"}, outputs, initial=initial)


@settings(max_examples=300, deadline=None)
@given(chains())
def test_counts_agree_with_a_traversal_carried_out(cascade: Cascade) -> None:
    report: PassReport = analyse_passes(cascade, "i")
    assert report.passes == traversals(cascade, "i", 4)


def test_normalizations_pass_over_what_they_normalize() -> None:
    rows = small(["MX[k] = max(p) A[k,p]", "Z[k,p] = A[k,p] - MX[k]"], {"A": "kp"}, ["Z"])
    assert (analyse_passes(rows, "p").passes, analyse_passes(rows, "k").passes) == (2, 1)
    variance = ["S = sum(k) A[k]", "D[k] = A[k] - S / KX", "V = D[k] * D[k]", "Z[k] = D[k] / sqrt(V)"]
    layer = small(variance, {"A": "k"}, ["Z"])
    assert analyse_passes(layer, "k").pass_of == {"S": 1, "D": 2, "V": 2, "Z": 3}
    moments = ["S = sum(k) A[k]", "T = A[k] * A[k]", "Z[k] = (A[k] - S / KX) / sqrt(T / KX - (S / KX) ** 2)"]
    assert analyse_passes(small(moments, {"A": "k"}, ["Z"]), "k").passes == 2
