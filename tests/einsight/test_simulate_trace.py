"""`einsight simulate --trace-file`: a run whose sizes a CSV file gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.einsight.conftest import Run

TRACE = Path(__file__).parents[2] / "docs/examples/data/gpt2-small-wikitext2.csv"
SPATTEN = ("simulate", "--architecture", "spatten")
HEADER = (
    "iteration_id,layer_id,head_id,embedding_length_D,sentence_length_L,key_fetch_num,quant_key_bit,quant_query_bit,"
    "auto_requant_thres,if_requant,auto_requant_incre,value_fetch_num,quant_value_bit,if_accumulate_importance,"
    "if_rescale_previous_importance,if_topk,topk"
)
ROW = "0,0,0,64,993,921,6,16,0.05,True,4,184,6,True,False,False,-1"


def test_a_trace_is_costed_and_its_progress_goes_to_stderr(run: Run) -> None:
    ran = run(*SPATTEN, "--trace-file", TRACE, "--json")
    moved = ran.document["traffic_bytes"]["HBM"]
    assert ran.code == 0
    assert sum(moved[tensor]["read"] for tensor in ("K", "K_lsb", "V")) == 82_428_256
    assert ran.document["utilization"]["value_selector"] > 0.5


def test_the_dense_form_of_a_run_is_a_setting(run: Run) -> None:
    ran = run(*SPATTEN, "--trace-file", TRACE, "--json", "--set", "pruned=0", "--set", "quantized=0")
    moved = ran.document["traffic_bytes"]["HBM"]
    assert sum(moved[tensor]["read"] for tensor in ("K", "K_lsb", "V")) == 2_379_350_016


def test_events_of_a_trace_can_be_seen_on_a_timeline(run: Run, tmp_path: Path) -> None:
    ran = run(*SPATTEN, "--trace-file", TRACE, "--fidelity", "event", "--trace", tmp_path / "timeline.json", "--json")
    assert (ran.code, ran.document["fidelity"]) == (0, "event")
    names = {event["name"] for event in json.loads((tmp_path / "timeline.json").read_text())["traceEvents"]}
    assert {"load keys", "scores", "softmax", "select values", "filter values", "outputs"} <= names


def test_without_a_trace_the_schedule_of_the_workload_runs_on_the_mapping_of_the_architecture(run: Run) -> None:
    ran = run("simulate", "--architecture", "spatten-eighth", "--workload", "bert-large", "--set", "L=40", "--json")
    assert (ran.code, ran.document["traffic_bytes"]["HBM"]["total"]["write"]) == (0, 0)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([ROW.replace("921", "994")], "row 1: key_fetch_num is 994, more keys than the 993 tokens of the context"),
        ([ROW, ROW.replace("184", "-184")], "row 2: value_fetch_num is -184, expected a whole number of at least 1"),
        ([ROW, ROW.replace("184", "922")], "row 2: value_fetch_num is 922, but a top-k of 922 cannot select from 921"),
        ([ROW, ROW.replace("0.05", "1.05")], "row 2: auto_requant_thres is 1.05, expected a share from 0 to 1"),
        ([ROW, ROW.replace("993,921", "2000,1500")], "row 2: the context of 1500 keys of 64 elements does not fit"),
        ([ROW[:-3]], "row 1 has 16 values, expected 17"),
        ([], "the trace has no rows"),
    ],
)
def test_a_bad_trace_is_one_sentence_with_its_row(run: Run, tmp_path: Path, rows: list[str], sentence: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("\n".join([HEADER, *rows]))
    ran = run(*SPATTEN, "--trace-file", path, "--fidelity", "event", "--trace", tmp_path / "timeline.json")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.strip().splitlines()[-1].startswith(f"einsight: {path}: {sentence}")
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--trace-file", "missing.csv"), "missing.csv: cannot be read: no such file or directory"),
        (("--trace-file", TRACE, "--trace", "timeline.json"), "choose fidelity event"),
        (("--trace-file", TRACE, "--where", "m <= p"), "--trace-file goes neither with --where"),
        (("--trace-file", TRACE, "--set", "key_buffers=0"), "need at least one buffer each, found 0"),
        (("--trace-file", TRACE, "--set", "topk_paralelism=1"), "unknown variable 'topk_paralelism' (did you mean"),
        ((), "needs a trace, or a workload with a pruning schedule"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(run: Run, arguments: tuple[object, ...], sentence: str) -> None:
    ran = run(*SPATTEN, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert sentence in ran.err
    assert not Path("timeline.json").exists()
