"""Per-head traces: what a file says, and one sentence with the row for everything that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from einsum import SpecError
from workloads import HeadTrace

HEADER = (
    "iteration_id,layer_id,head_id,embedding_length_D,sentence_length_L,key_fetch_num,quant_key_bit,quant_query_bit,"
    "auto_requant_thres,if_requant,auto_requant_incre,value_fetch_num,quant_value_bit,if_accumulate_importance,"
    "if_rescale_previous_importance,if_topk,topk"
)
ROW = "0,0,0,64.0,993,921,6,16,0.05,True,4,184,6,True,False,False,-1"
OFF = "1,0,1,64,994,994,-1,-1,-1,False,-1,994,-1,False,False,True,921"


def trace(*rows: str, header: str = HEADER) -> HeadTrace:
    return HeadTrace.parse([header, *rows], file="trace.csv")


def changed(**cells: str) -> str:
    names = HEADER.split(",")
    row = dict(zip(names, ROW.split(","), strict=True)) | cells
    return ",".join(row[name] for name in names)


def test_columns_are_numbers_and_flags_by_name() -> None:
    found = trace("# a comment", ROW, OFF)
    assert len(found) == 2
    assert found.columns["embedding_length_D"].tolist() == [64, 64]
    assert found.columns["if_requant"].tolist() == [1, 0]
    assert found.columns["quant_key_bit"].tolist() == [6, -1]
    assert found.columns["query_num"].tolist() == [1, 1]
    assert found.columns["count"].tolist() == [1, 1]


def test_the_order_of_columns_is_free_and_others_are_ignored() -> None:
    names, cells = HEADER.split(","), ROW.split(",")
    found = trace(",".join(["note", *cells[::-1]]), header=",".join(["remark", *names[::-1]]))
    assert all(found.columns[name] == trace(ROW).columns[name] for name in names)


def test_a_trace_survives_saving_and_loading(tmp_path: Path) -> None:
    trace(ROW, OFF).save(tmp_path / "copy.csv")
    copy = HeadTrace.load(tmp_path / "copy.csv")
    assert {name: cells.tolist() for name, cells in copy.columns.items()} == {
        name: cells.tolist() for name, cells in trace(ROW, OFF).columns.items()
    }


def test_rows_know_the_heads_of_their_layer() -> None:
    rows = [changed(layer_id="0", head_id="0"), changed(layer_id="0", head_id="1"), changed(layer_id="1")]
    columns = trace(*rows).layer_columns()
    assert columns["layer_heads"].tolist() == [2, 2, 1]
    assert columns["most_heads"].tolist() == [2, 2, 2]
    assert columns["leads_layer"].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"key_fetch_num": "994"}, "row 2: key_fetch_num is 994, more keys than the 993 tokens of the context"),
        ({"value_fetch_num": "922"}, "row 2: value_fetch_num is 922, but a top-k of 922 cannot select from 921 keys"),
        ({"if_topk": "True", "topk": "1000"}, "row 2: topk is 1000, but a top-k of 1000 cannot select from 993 tokens"),
        ({"if_topk": "True"}, "row 2: if_topk is set, but topk is -1; expected how many tokens are kept"),
        ({"key_fetch_num": "-5"}, "row 2: key_fetch_num is -5, expected a whole number of at least 1"),
        ({"key_fetch_num": "12.5"}, "row 2: key_fetch_num is 12.5, expected a whole number of at least 1"),
        ({"key_fetch_num": "many"}, "row 2: key_fetch_num is 'many', expected a number"),
        ({"key_fetch_num": ""}, "row 2: key_fetch_num is '', expected a number"),
        ({"key_fetch_num": "nan"}, "row 2: key_fetch_num is nan, expected a whole number"),
        ({"sentence_length_L": "1e400"}, "row 2: sentence_length_L is 1e400, expected a whole number"),
        (
            {"quant_key_bit": "0"},
            "row 2: quant_key_bit is 0, expected a whole number of at least 1 and at most 64, or -1 for off",
        ),
        (
            {"quant_value_bit": "65"},
            "row 2: quant_value_bit is 65, expected a whole number of at least 1 and at most 64",
        ),
        ({"key_fetch_num": "-1"}, "row 2: key_fetch_num is -1, expected a whole number of at least 1"),
        ({"value_fetch_num": "0"}, "row 2: value_fetch_num is 0, expected a whole number of at least 1"),
        ({"sentence_length_L": "1_000"}, "row 2: sentence_length_L is '1_000', expected a number"),
        ({"sentence_length_L": "٩٩٣"}, "row 2: sentence_length_L is '٩٩٣', expected a number"),
        ({"sentence_length_L": "0x400"}, "row 2: sentence_length_L is '0x400', expected a number"),
        ({"topk": "inf"}, "row 2: topk is inf, expected a whole number of at least 1, or -1 for off"),
        ({"auto_requant_thres": "NaN"}, "row 2: auto_requant_thres is NaN, expected a share from 0 to 1"),
        (
            {"auto_requant_thres": "1.2"},
            "row 2: auto_requant_thres is 1.2, expected a share from 0 to 1, or -1 for off",
        ),
        ({"auto_requant_thres": "-0.1"}, "row 2: auto_requant_thres is -0.1, expected a share from 0 to 1"),
        ({"if_requant": "maybe"}, "row 2: if_requant is 'maybe', expected True or False"),
        ({"auto_requant_incre": "-1"}, "row 2: if_requant is set, but quant_key_bit is 6 and auto_requant_incre -1"),
    ],
)
def test_a_row_that_cannot_be_is_refused_with_its_number(cells: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        trace(ROW, changed(**cells))
    assert str(caught.value).startswith(f"trace.csv: {message}")


def test_files_that_are_no_traces_are_refused(tmp_path: Path) -> None:
    cases = {
        HEADER.replace("key_fetch_num", "keys_fetch_num")
        + "\n"
        + ROW: "'key_fetch_num' is missing .did you mean 'keys_",
        "a,b\n1,2": "'iteration_id' is missing .and layer_id, head_id, embedding_length_D, ...",
        HEADER + ",topk\n" + ROW + ",1": "the column 'topk' occurs twice",
        HEADER: "the trace has no rows",
        "": "the file is empty",
        HEADER + "\n" + ROW + "\n1,2": "row 2 has 2 values, expected 17",
    }
    for text, message in cases.items():
        path = tmp_path / "bad.csv"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(SpecError, match=message) as caught:
            HeadTrace.load(path)
        assert caught.value.file == str(path)
    with pytest.raises(SpecError, match="cannot be read: no such file"):
        HeadTrace.load(tmp_path / "missing.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="is no CSV file"):
        HeadTrace.load(tmp_path / "binary.csv")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path: Path, ending: str, mark: bytes) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(mark + ending.join(["# a comment", HEADER.replace(",", ", "), ROW, "", OFF, ""]).encode())
    assert HeadTrace.load(path).columns["key_fetch_num"].tolist() == [921, 994]


def test_folders_and_other_encodings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: is a directory"):
        HeadTrace.load(tmp_path)
    (tmp_path / "wide.csv").write_bytes(f"{HEADER}\n{ROW}\n".encode("utf-16"))
    with pytest.raises(SpecError, match="is no CSV file"):
        HeadTrace.load(tmp_path / "wide.csv")
    (tmp_path / "long.csv").write_text(f"{HEADER}\n{'9' * 200_000}")
    with pytest.raises(SpecError, match="is no CSV file: field larger than field limit"):
        HeadTrace.load(tmp_path / "long.csv")


def test_the_published_trace_fetches_what_it_is_said_to() -> None:
    c = HeadTrace.load(Path(__file__).parents[2] / "docs/examples/data/gpt2-small-wikitext2.csv").columns
    heads, vector = c["count"], c["embedding_length_D"] / 8
    pruned = c["key_fetch_num"] * (c["quant_key_bit"] + c["if_requant"] * c["auto_requant_incre"])
    pruned = pruned + c["value_fetch_num"] * c["quant_value_bit"]
    assert float(np.sum(heads * vector * pruned)) == 82_428_256
    assert float(np.sum(heads * vector * 64 * c["sentence_length_L"])) == 2_379_350_016
    assert heads.sum() == 32 * 12 * 12
    assert float((heads * c["if_requant"]).sum() / heads.sum()) == pytest.approx(0.070, abs=0.0005)
