import json

import pandas as pd
import pytest

from tal_lib import TalError
from tal_lib.evaluation import read_detections, write_detections
from tal_lib.reports import escape


def test_round_trip(tmp_path):
    table = pd.DataFrame(
        [("a", 0.5, 2.25, "x", 0.9), ("b", 1.0, 2.0, "y", 0.125)],
        columns=["recording", "start", "end", "label", "score"],
    )
    path = write_detections(tmp_path / "d.json", table)
    pd.testing.assert_frame_equal(read_detections(path), table, check_dtype=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"results": {"a": [{"label": "x", "sco', "not valid JSON"),
        ("[]", "unexpected JSON structure"),
        ('{"database": {}}', "unexpected JSON structure"),
        (json.dumps({"results": {"rec7": [{"label": "x", "segment": [1, 2]}]}}), "recording rec7.*score"),
        (
            json.dumps({"results": {"rec7": [{"label": "x", "score": 1, "segment": [3, 2]}]}}),
            "rec7.*ends before",
        ),
        (json.dumps({"results": {"rec7": [{"label": "x", "score": 1, "segment": [3]}]}}), "rec7"),
        ('{"results": {"a": [{"label": "x", "score": NaN, "segment": [1, 2]}]}}', "not a finite"),
    ],
)
def test_broken_files_are_named(tmp_path, text, message):
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(TalError, match=message) as error:
        read_detections(tmp_path / "d.json")
    assert "d.json" in str(error.value)


ITEM = {"label": "x", "score": 0.5, "segment": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "much"}, "detection 2.score: 'much' is not a number"),
        ({"score": None}, "detection 2.score: None is not a number"),
        ({"score": True}, "detection 2.score: True is not a number"),
        ({"score": [0.5]}, "detection 2.score"),
        ({"segment": [1.0, "end"]}, "detection 2.segment.2: 'end' is not a number"),
        ({"segment": "12"}, "detection 2.segment"),
        ({"segment": [1, 2, 3]}, "detection 2.segment.*2 values"),
        ({"segment": [1.0, float("inf")]}, "not finite"),
        ({"label": ""}, "detection 2.label: '' is not a label"),
        ({"label": {"name": "x"}}, "detection 2.label"),
    ],
)
def test_what_an_entry_may_be(tmp_path, change, message):
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"results": {"rec7": [ITEM, ITEM | change]}}))
    with pytest.raises(TalError, match=f"recording rec7.*{message}"):
        read_detections(path)


def test_numbers_may_be_text_and_ids_stay_as_written(tmp_path):
    path = tmp_path / "d.json"
    item = {"label": 3, "score": "5e-1", "segment": ["1", 2], "more": None}
    path.write_text("\ufeff" + json.dumps({"results": {"v_0123456789a": [item], "empty": []}}))
    assert read_detections(path).to_numpy().tolist() == [["v_0123456789a", 1.0, 2.0, "3", 0.5]]


def test_no_detections_are_an_empty_table(tmp_path):
    (tmp_path / "d.json").write_text('{"results": {}}')
    assert len(read_detections(tmp_path / "d.json")) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recording,start,end,score\na,1,2,0.5\n", "columns missing: label"),
        ("recording,start,end,label,score\na,1,2,x,0.5\na,1,two,x,0.5\n", "row 2: end is 'two'"),
        ("recording,start,end,label,score\na,1,2,x,nan\n", "row 1: score is 'nan'"),
        ("recording,start,end,label,score\na,1,2,,0.5\n", "row 1: label is ''"),
        ("recording,start,end,label,score\na,3,2,x,0.5\n", "ends before"),
        ("recording,start,end,label,score\na,1,2,x,0.5,6,7\nb,1\n", "row|table"),
        ("", "not a readable table"),
        ('recording,start,end,label,score\n"a', "not a readable table"),
    ],
)
def test_broken_tables_are_named(tmp_path, text, message):
    path = tmp_path / "d.csv"
    path.write_text(text)
    with pytest.raises(TalError, match=message) as error:
        read_detections(path)
    assert "d.csv" in str(error.value)


def test_ids_and_labels_of_a_table_are_text(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("score,recording,start,end,label\n0.5,007,1,2,NA\n")
    assert read_detections(path).to_numpy().tolist() == [["007", 1.0, 2.0, "NA", 0.5]]


def test_texts_that_a_spreadsheet_would_calculate_are_read_as_they_were(tmp_path):
    texts = ["=1+1", "'=1", "''@x", "+x", "-x", "-5", "'-5", "@a", "＝1", "'quoted", "don't", "plain"]
    table = pd.DataFrame({"recording": texts, "start": 0.0, "end": 1.0, "label": texts, "score": 0.5})
    escape.csv_table(table).to_csv(tmp_path / "d.csv", index=False)
    assert "'=1+1,0.0,1.0,'=1+1" in (tmp_path / "d.csv").read_text()
    pd.testing.assert_frame_equal(read_detections(tmp_path / "d.csv"), table, check_dtype=False)


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
    path = tmp_path / "d.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(
        TalError, match="d.parquet: (not a readable Parquet table|reading Parquet needs pyarrow)"
    ):
        read_detections(path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(TalError, match="d.parquet: reading Parquet needs pyarrow.*CSV"):
        read_detections(path)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda table: table.drop(columns="recording"), "columns missing: recording"),
        (lambda table: table.drop(columns="end_cs"), "columns missing: start, end"),
        (lambda table: table.assign(start_cs="soon"), "row 1: start"),
    ],
)
def test_broken_files_of_a_sweep_are_named(tmp_path, change, message):
    pytest.importorskip("pyarrow")
    path = tmp_path / "d.parquet"
    row = {"cell": "c", "recording": "r", "start_cs": 10, "end_cs": 250, "label": "x", "score": 0.5}
    pd.DataFrame([row]).to_parquet(path)
    assert read_detections(path).to_numpy().tolist() == [["r", 0.1, 2.5, "x", 0.5]]
    change(pd.DataFrame([row])).to_parquet(path)
    with pytest.raises(TalError, match=f"d.parquet: {message}"):
        read_detections(path)
