"""The report: rows, JSON, pages, and one clear sentence for bad input."""

from __future__ import annotations

import csv
import json
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from bounds import Measurement, OwnSchedule, analyse, parse_memory_sizes, run_bounds, verify
from bounds.pages import _series
from einsight.command import main
from einsum import Cascade, SpecError
from einsum.errors import InternalError

SIZES = {"B": 1, "H": 2, "P": 256, "M": 256, "E": 32, "F": 32}
PRUNED = Cascade.parse(
    """
    cascade: pruned
    ranks: {p: P, m: M, e: E, f: F}
    inputs: {Q: [p, e], K: [m, e], V: [m, f], KEEP: [p, m]}
    outputs: [AV]
    einsums: ["QK[p,m] = Q[p,e] * K[m,e]", "AV[p,f] = QK[p,m] * V[m,f] where KEEP[p,m]"]
    """
)
NAMED = ("flash-attention-1", "flash-attention-2", "flat", "unfused")


def test_rows_hold_bound_schedule_gap_and_named_schedules() -> None:
    memory = np.array([500.0, 4000.0, 40000.0])
    report = analyse("attention-3pass", SIZES, memory, mask="causal", schedules=NAMED)
    for row in report.rows:
        assert row.label in ("recompute-safe", "any-algorithm")
        assert row.best_schedule_words is not None
        assert row.lower_bound_words <= row.best_schedule_words
        assert row.gap == row.best_schedule_words / row.lower_bound_words
        assert verify(row.certificate) >= row.lower_bound_words - 1
        for name in NAMED:
            assert row.schedules[name].words >= row.lower_bound_words or not row.schedules[name].fits
    assert report.rows[-1].lower_bound_words == 4 * 2 * 256 * 32 == report.rows[-1].best_schedule_words
    assert [row.fast_memory_words for row in report.rows] == memory.tolist()


def test_a_schedule_below_the_bound_is_an_internal_error(capsys: pytest.CaptureFixture[str]) -> None:
    own = OwnSchedule("too good", 64.0, 1000.0)
    sentence = r"the best schedule \(too good\) moves 32 words, and the bound .* with 1,000 words of fast memory"
    with pytest.raises(InternalError, match=sentence):
        analyse("attention-3pass", SIZES, [1000], own=[own])
    with patch("bounds.command.run_bounds", side_effect=InternalError("a contradiction")):
        assert main(["bounds", "--cascade", "attention-3pass", "--set", "N=64", "--set", "d=8"]) == 1
    assert capsys.readouterr().err == "einsight: internal error: a contradiction; please report it\n"


def test_measured_traffic_below_the_bound_is_remarked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "measured.csv"
    file.write_text("name,traffic_bytes,fast_memory_bytes\nlow,1 KiB,4 KiB\nhigh,64 MiB,4 KiB\n")
    sizes = ["--set", "N=256", "--set", "d=32"]
    assert main(["bounds", "--cascade", "attention-3pass", *sizes, "--measured", str(file)]) == 0
    low, high = (line for line in capsys.readouterr().out.splitlines() if line.startswith(("low", "high")))
    assert "below the bound" in low and "below the bound" not in high


def test_json_has_one_object_for_each_memory() -> None:
    rows = json.loads(analyse("attention-1pass", SIZES, [600, 6000], schedules=["flat"]).to_json())
    assert set(rows[0]) == {
        "fast_memory_words",
        "lower_bound_words",
        "label",
        "theorem",
        "certificate",
        "best_schedule_words",
        "best_schedule",
        "gap",
        "schedules",
        "level",
    }
    assert set(rows[0]["schedules"]["flat"]) == {"words", "fits", "blocks"}
    assert isinstance(rows[0]["lower_bound_words"], int)


def test_labels() -> None:
    sizes = SIZES | {"P": 64, "M": 64}
    found = {
        label: analyse("attention-3pass", sizes, [200.0], label=label).rows[0].lower_bound_words
        for label in ("any-algorithm", "recompute-safe", "no-recompute", "schedule-class")
    }
    assert list(found.values()) == sorted(found.values())
    row = analyse("attention-3pass", sizes, [200.0], label="schedule-class").rows[0]
    assert (row.label, row.gap) == ("schedule-class", 1.0)
    with pytest.raises(SpecError, match="did you mean 'no-recompute'"):
        analyse("attention-3pass", sizes, [200.0], label="norecompute")


class Page(HTMLParser):
    """Collects what a page would load and how often each tag opens and closes."""

    def __init__(self) -> None:
        super().__init__()
        self.external: list[str] = []
        self.open: dict[str, int] = {}

    def handle_starttag(self, tag, attrs) -> None:
        self.open[tag] = self.open.get(tag, 0) + 1
        self.external += [v for k, v in attrs if k in ("src", "href") and v]

    def handle_endtag(self, tag) -> None:
        self.open[tag] = self.open.get(tag, 0) - 1


def report_with_everything():
    return analyse(
        "attention-3pass",
        SIZES,
        parse_memory_sizes("2KiB:256KiB:log"),
        schedules=(*NAMED, "flash-attention-1-paper"),
        memories={"scratch <pad>": 32768.0, "far away": 1e12},
        measured=[Measurement("a kernel", 3e6, 65536.0)],
    )


def test_the_report_is_a_page_of_its_own_a_text_and_the_rows(tmp_path: Path) -> None:
    paths = report_with_everything().write(tmp_path / "new" / "report")
    assert sorted(path.name for path in paths) == sorted(path.name for path in (tmp_path / "new" / "report").iterdir())
    html = (tmp_path / "new" / "report" / "bounds.html").read_text()
    page = Page()
    page.feed(html)
    assert page.external == []
    assert all(count in (0, 1) for tag, count in page.open.items() if tag not in ("meta", "line", "circle", "polyline"))
    assert html.count("<svg") == 3
    assert "scratch &lt;pad&gt;" in html
    assert "scratch <pad>" not in html
    assert "a kernel" in html
    text = (tmp_path / "new" / "report" / "bounds.md").read_text()
    text = text[: text.index("## Measured traffic")]
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(table) == 1 + len(report_with_everything().rows)  # and the header
    assert len({line.count("|") for line in table}) == 1
    assert len(json.loads((tmp_path / "new" / "report" / "bounds.json").read_text())) == len(table) - 1


@pytest.mark.browser
def test_a_browser_draws_the_page(tmp_path: Path, chromium: str) -> None:
    report_with_everything().write(tmp_path)
    picture = tmp_path / "page.png"
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--screenshot={picture}",
        "--window-size=1100,1600",
    ]
    subprocess.run([*command, (tmp_path / "bounds.html").as_uri()], check=True, capture_output=True, timeout=120)
    assert picture.stat().st_size > 20_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1024,4096", [1024, 4096]),
        ("16KiB", [8192]),
        ("16KiB:128KiB:log", [8192, 16384, 32768, 65536]),
        ("100:400:lin:4", [100, 200, 300, 400]),
        ("1_000:4_000:log:3", [1000, 2000, 4000]),
    ],
)
def test_memory_sizes(text: str, words: list[int]) -> None:
    assert parse_memory_sizes(text, 2).tolist() == words
    both = [*words, 3.0] if ":" not in text else sorted({*words, 3.0})
    assert parse_memory_sizes(f"{text},3", 2).tolist() == both


@pytest.mark.parametrize(
    "text", ["", "0", "-5", "4:2:log", "1:2", "1:2:cube", "1:9:lin", "1:9:log:1", "12 apples", "nan", "1:inf:log"]
)
def test_wrong_memory_sizes_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_memory_sizes(text)


def test_a_memory_too_small_says_how_much_is_needed() -> None:
    with pytest.raises(SpecError, match=r"a fast memory of 5 words is too small.* is 6 words"):
        analyse("attention-3pass", SIZES, [5.0, 100.0])
    with pytest.raises(SpecError, match=r"multiplication of .* is 3 words"):
        analyse(PRUNED, {"P": 6, "M": 7, "E": 3, "F": 2}, [2.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fast_memory_words": [0]}, "positive"),
        ({"fast_memory_words": [float("nan")]}, "positive"),
        ({"extents": SIZES | {"P": 0}}, "extent P of rank 'p' is 0"),
        ({"extents": {"P": 4}}, "no value is given"),
        ({"mask": "casual"}, "did you mean 'causal'"),
        ({"mask": "window:0"}, "positive whole number"),
        ({"schedules": ["flash-attention-3"]}, "did you mean"),
        ({"word_bytes": 0}, "positive size"),
        ({"cascade": "matmul", "extents": {"M": 4, "N": 4, "K": 4}, "mask": "causal"}, "no scores"),
        ({"cascade": "matmul", "extents": {"M": 4, "N": 4, "K": 4}, "schedules": ["flat"]}, "for attention"),
    ],
)
def test_bad_input_is_one_sentence(change: dict, message: str) -> None:
    arguments = {"cascade": "attention-3pass", "extents": SIZES, "fast_memory_words": [1000.0]} | change
    names = {k: arguments.pop(k) for k in ("cascade", "extents", "fast_memory_words")}
    with pytest.raises(SpecError, match=message) as caught:
        analyse(*names.values(), **arguments)
    assert "\n" not in str(caught.value)


# The command


def test_n_and_d_stand_for_the_sizes_of_attention(tmp_path: Path) -> None:
    short = run_bounds(
        "attention-1pass", {"N": 512, "d": 64}, fast_memory="4096", mask="causal", schedules="flat, unfused"
    )
    full = run_bounds(
        "attention-1pass", {"B": 1, "H": 1, "P": 512, "M": 512, "E": 64, "F": 64}, fast_memory="4096", mask="causal"
    )
    assert short.rows[0].lower_bound_words == full.rows[0].lower_bound_words
    assert set(short.rows[0].schedules) == {"flat", "unfused"}
    run_bounds("matmul", {"M": 64, "N": 64, "K": 64}, fast_memory="64", out=tmp_path)
    assert (tmp_path / "bounds.html").exists()


def test_n_and_d_are_refused_where_they_would_mean_something_else() -> None:
    for name in ("linear-attention", "matmul"):
        with pytest.raises(SpecError):
            run_bounds(name, {"N": 512, "d": 64}, fast_memory="4096")


def test_an_architecture_gives_memories_level_by_level() -> None:
    report = run_bounds("attention-1pass", {"N": 4096, "d": 64}, architecture="fusemax")
    assert report.memories
    assert [row.fast_memory_words for row in report.rows] == sorted({int(b // 2) for b in report.memories.values()})


def test_all_memory_of_a_machine_is_told_with_its_levels() -> None:
    """An H100 has 132 x (228 KiB of shared memory + 256 KiB of registers) beside its 50 MiB of L2 (whitepaper)."""
    report = run_bounds("attention-1pass", {"N": 512, "d": 64}, architecture="h100-sxm")
    told = next(remark for remark in report.remarks if "--fast-memory" in remark).rpartition(" ")[2]
    assert parse_memory_sizes(told)[0] >= (50 * 2**20 + 132 * (228 + 256) * 2**10) / 2


def test_measurements_are_read_and_checked(tmp_path: Path) -> None:
    table = tmp_path / "measured.csv"
    table.write_text("name,traffic_bytes,fast_memory_bytes\nkernel,1.5 MiB,228 KiB\nother,3000000,\n")
    report = run_bounds("attention-1pass", {"N": 512, "d": 64}, fast_memory="4096", measured=table)
    least = 4 * 512 * 64 * 2.0
    assert report.measured == (
        Measurement("kernel", 1.5 * 2**20, 228 * 1024.0, least),
        Measurement("other", 3e6, None, least),
    )
    table.write_text("name,traffic_bytes\nkernel,-3\n")
    with pytest.raises(SpecError, match="line 2"):
        run_bounds("attention-1pass", {"N": 512, "d": 64}, fast_memory="4096", measured=table)
    for text, message in (
        ("kernel,bytes\n", "name and traffic_bytes"),
        ("name,traffic_bytes,traffic_bytes\nkernel,1,2\n", "'traffic_bytes' twice"),
        ("name,traffic_bytes\n", "no rows"),
        ("name,traffic_bytes\nkernel,1,2\n", "more cells"),
    ):
        table.write_text(text)
        with pytest.raises(SpecError, match=message):
            run_bounds("attention-1pass", {"N": 512, "d": 64}, fast_memory="4096", measured=table)


def test_batch_and_heads_that_are_not_given_are_one() -> None:
    sizes = {"P": 30, "M": 70, "E": 16, "F": 8}
    report, whole = (run_bounds("attention-1pass", s, fast_memory="4096") for s in (sizes, {**sizes, "B": 1, "H": 1}))
    assert report.rows == whole.rows
    with pytest.raises(SpecError, match="'E'"):
        run_bounds("attention-1pass", {"P": 30, "M": 70}, fast_memory="4096")
    with pytest.raises(SpecError, match="N stands for no size"):
        run_bounds("attention-native-sparse", {"N": 4096, "d": 64}, fast_memory="4096")


def test_a_bad_run_leaves_no_report_behind(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        run_bounds("attention-1pass", {"N": 512, "d": 64}, fast_memory="2", out=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_cascade_object_is_as_good_as_a_name() -> None:
    cascade = Cascade.load("matmul")
    assert analyse(cascade, {"M": 8, "N": 8, "K": 8}, 30).rows[0].gap is not None


def test_rows_of_measured_kernels_are_found_by_their_shape() -> None:
    table = Path(__file__).parents[2] / "kernels" / "measurements" / "h100-sxm.csv"
    sizes = {"B": 1, "H": 32, "P": 16384, "M": 16384, "E": 128, "F": 128}
    with table.open() as stream:
        shapes = [row for row in csv.DictReader(stream) if row["dram_read_bytes"]]
    row = next(r for r in shapes if r["kernel"] == "flash_attention" and r["q_len"] == r["kv_len"] == "16384")
    sizes |= {"B": int(row["batch"]), "H": int(row["heads"]), "E": int(row["head_dim"]), "F": int(row["head_dim"])}
    mask = "causal" if row["causal"] == "true" else None
    report = run_bounds("attention-3pass", sizes, fast_memory="100000", measured=table, mask=mask)
    moved = sum(float(row[f"dram_{kind}_bytes"] or 0) for kind in ("read", "write", "drain"))
    assert moved in [one.traffic_bytes for one in report.measured]
    assert all(one.traffic_bytes >= 0.95 * one.bound_bytes for one in report.measured)
    with pytest.raises(SpecError, match="measures this problem's shape"):
        run_bounds("attention-3pass", sizes | {"P": 17, "M": 17}, fast_memory="100000", measured=table)


def test_the_mapper_is_a_schedule_by_name_and_covers_what_closed_forms_do_not() -> None:
    sizes = {"B": 1, "H": 1, "P": 96, "M": 96, "E": 16, "F": 16}
    rows = analyse("attention-3pass", sizes, [300.0, 3000.0], schedules=["mapper"]).rows
    for row in rows:
        mapped = row.schedules["mapper"]
        assert row.lower_bound_words <= row.best_schedule_words <= mapped.words
        assert mapped.fits
    mixed = Cascade.parse(
        """
        cascade: mixed-words
        ranks: {p: P, m: M, e: E, f: E}
        inputs: {Q: [p, f], K: [m, f], V: [m, e]}
        bits: {K: 8}
        outputs: [O]
        einsums: ["S[p,m] = Q[p,f] * K[m,f]", "O[p,e] = S[p,m] * V[m,e]"]
        """
    )
    alone, mapped = (
        analyse(mixed, {"P": 64, "M": 64, "E": 16}, [200.0, 2000.0, 20000.0], schedules=names).rows
        for names in ([], ["mapper"])
    )
    for closed, row in zip(alone, mapped, strict=True):  # row tiles at the words' own sizes beat what the mapper finds
        assert closed.lower_bound_words <= closed.best_schedule_words <= row.schedules["mapper"].words
    assert alone[-1].gap == 1.0
    with pytest.raises(SpecError, match="schedules"):
        analyse("attention-3pass", sizes, [300.0], schedules=["maper"])


def test_levels_are_named() -> None:
    report = run_bounds("attention-1pass", {"N": 4096, "d": 64}, architecture="h100-sxm")
    assert {row.level for row in report.rows} == {"shared", "L2"}
    assert any("one of 132 copies" in remark for remark in report.remarks)


def test_unknown_settings_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(SpecError, match="unknown variable 'D'"):
        run_bounds("attention-1pass", {"N": 64, "D": 8}, fast_memory="4096")
    with pytest.raises(SpecError, match="linear-attention needs B, E, F, H, M, P"):
        run_bounds("linear-attention", {"N": 512, "d": 64}, fast_memory="4096")


def test_mappings_of_ones_own_are_counted_as_they_are_simulated(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from einsight.commands.bounds import command
    from simulator.simulate import simulate

    sizes = {"B": 1, "H": 2, "P": 512, "M": 512, "E": 64, "F": 64}
    options = [text for name, value in sizes.items() for text in ("--set", f"{name}={value}")]
    base = ["--cascade", "attention-3pass", *options, "--fast-memory", "32MiB,64KiB", "--json"]
    mapping = Path(__file__).parents[2] / "mappings" / "library" / "unfused.yaml"
    done = CliRunner().invoke(command, [*base, "--schedules", str(mapping), "--mapping", "fusemax-binding"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    moved = next(iter(simulate(mapping=mapping, settings=sizes).traffic_bytes.values()))["total"]
    found = rows[0]["schedules"][str(mapping)]
    assert found["words"] == pytest.approx(float(np.sum(moved["read"] + moved["write"])) / 2)
    assert not rows[1]["schedules"][str(mapping)]["fits"]
    assert rows[0]["schedules"]["fusemax-binding"]["words"] >= rows[0]["lower_bound_words"]
    for other, message in (("matmul-output-stationary", "no architecture"), ("gpu-only", "no nest")):
        refused = CliRunner().invoke(command, [*base[:-1], "--mapping", other])
        assert isinstance(refused.exception, SpecError)
        assert message in str(refused.exception)


def test_a_plot_claims_nothing_between_two_sizes_that_is_not_proved() -> None:
    memory = [2048.0, 65536.0]
    report = analyse("attention-3pass", SIZES, memory, curve=True)
    assert len(report.curve) > 100
    assert all(verify(row.certificate) for row in report.curve[::40])
    floor = next(one for one in _series(report, lambda words, _: words) if one.floor)
    known = {x / report.word_bytes: y for x, y in floor.points}
    sizes = sorted(known)
    for place, (low, high) in enumerate(pairwise(sizes)):  # in between the line is as low as at the larger size
        assert {y for x, y in floor.corners(place)[1:]} == {known[high]} and known[high] <= known[low]


def test_a_schedule_of_ones_own_that_fits_nowhere_says_what_it_needs() -> None:
    report = analyse("attention-3pass", SIZES, [600.0], own=[OwnSchedule("mine", 1e9, 4096.0)])
    assert report.remarks == ("mine needs 4 KiB: all memory inside the outermost one, registers included",)


def test_rows_with_shared_keys_are_another_problem(tmp_path: Path) -> None:
    header = "kernel,batch,heads,kv_heads,q_len,kv_len,head_dim,causal,dram_read_bytes,dram_write_bytes\n"
    table = tmp_path / "rows.csv"
    table.write_text(header + "flash_attention,1,8,2,64,64,16,false,1000000,0\nflash_attention,1,8,8,64,64,16,,9,0\n")
    sizes = {"B": 1, "H": 8, "P": 64, "M": 64, "E": 16, "F": 16}
    report = run_bounds("attention-3pass", sizes, fast_memory="4096", measured=table)
    assert [one.traffic_bytes for one in report.measured] == [9.0]
    table.write_text(header + "flash_attention,1,8,8,32,64,16,true,1000000,0\n")
    with pytest.raises(SpecError, match="none of the 1 rows"):  # its last query sees all keys, the bound's does not
        run_bounds("attention-3pass", sizes | {"P": 32}, fast_memory="4096", measured=table, mask="causal")


@pytest.mark.parametrize("label", ["recompute-safe", "no-recompute"])
def test_a_bound_by_passes_is_compared_with_schedules_of_as_many_passes(label: str) -> None:
    sizes = {"B": 1, "H": 1, "P": 2, "M": 4096, "E": 16, "F": 16}
    rows = analyse("attention-3pass", sizes, [200, 1000, 3000, 5000], label=label).rows
    assert all(row.gap is not None and row.gap >= 1 for row in rows)
    assert any("passes" in row.theorem for row in rows) == (label == "no-recompute")
