"""All that would stop a training is found before its first step; recordings without features are refused
or left out."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tal_lib import TalError
from tal_lib.cli import main
from tal_lib.data import load_benchmark, ready
from tal_lib.data.checks import MISSING_LIST, summary, write_missing

SHORT = ["--set", "epochs=1", "--set", "min_steps=1"]
TRAIN_GONE, TEST_GONE = "clip0000002", "clip0000006"


@pytest.fixture
def incomplete(clips):
    """A folder of 6 training and 2 test recordings, one of each without features."""
    folder = clips()
    for name in (TRAIN_GONE, TEST_GONE):
        (folder / "features" / f"{name}.npy").unlink()
    return folder


def of(folder):
    data = load_benchmark(str(folder))
    return data, data.recordings("train") if "train" in data.splits else []


def test_missing_features_are_an_error_that_counts_them(incomplete):
    with pytest.raises(
        TalError, match="1 of 6 training and 1 of 2 test recordings.*clip0000002.*--missing skip"
    ):
        ready(*of(incomplete))


def test_skip_leaves_them_out_and_says_so(incomplete):
    checked = ready(*of(incomplete), "skip")
    assert len(checked.train) == 5 and checked.test == ["clip0000007"]
    assert (checked.missing_train, checked.missing_test) == ([TRAIN_GONE], [TEST_GONE])
    assert checked.counts == {"missing_train": 1, "missing_test": 1}
    assert "1 of 6 training and 1 of 2 test recordings have no features" in checked.report()[-1]


def test_nothing_missing_adds_nothing_to_a_row(clips, small):
    for data, recordings in (of(clips()), (small, small.recordings("train"))):
        checked = ready(data, recordings)
        assert checked.counts == {} and checked.train == recordings and checked.report() == []
        assert checked.test == data.recordings("test")


def empty_features(folder):
    for file in folder.glob("features/*.npy"):
        file.unlink()


def one_file(folder, array, name="clip0000007"):
    np.save(folder / "features" / f"{name}.npy", array)


FAULTS = {
    "no test split": (
        lambda folder, database: [row.update(subset="training") for row in database.values()],
        r"clips: no recording of subset test \(there are train\)",
    ),
    "no training split": (
        lambda folder, database: [row.update(subset="testing") for row in database.values()],
        "clips: no recording of subset train",
    ),
    "test without segments": (
        lambda folder, database: [
            row.update(annotations=[]) for row in database.values() if row["subset"] == "testing"
        ],
        "none of the 2 test recordings has an annotated segment",
    ),
    "training without segments": (
        lambda folder, database: [
            row.update(annotations=[]) for row in database.values() if row["subset"] == "training"
        ],
        "none of the 6 training recordings has an annotated segment",
    ),
    "no features at all": (
        lambda folder, database: empty_features(folder),
        "6 of 6 training and 2 of 2 test",
    ),
    "a broken test file": (
        lambda folder, database: (folder / "features" / "clip0000007.npy").write_bytes(b"\x93NUMPY"),
        "clip0000007.npy: cannot be read",
    ),
    "NaN in a test file": (
        lambda folder, database: one_file(folder, np.full((119, 8), np.nan)),
        "clip0000007.npy: features are NaN or infinite",
    ),
    "more than float32 holds": (
        lambda folder, database: one_file(folder, np.full((119, 8), 1e300)),
        "clip0000007.npy: features are NaN or infinite",
    ),
    "another width": (
        lambda folder, database: one_file(folder, np.zeros((119, 9))),
        r"shape \(119, 9\), expected \(T, 8\)",
    ),
}


@pytest.mark.parametrize("missing", ["error", "skip"])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_would_stop_a_training_is_found_before_it(
    clips, change, tmp_path, capsys, monkeypatch, fault, missing
):
    """One line, exit code 2, no step made, nothing written; broken files are not missing ones."""
    folder, (edit, message) = clips(), FAULTS[fault]
    change(folder, lambda database: edit(folder, database) and None)
    monkeypatch.setattr("tal_lib.study.fit", lambda *_, **__: pytest.fail("a training began"))
    out = tmp_path / "out"
    arguments = [
        "train",
        "window_cnn",
        "--benchmark",
        str(folder),
        "--missing",
        missing,
        "--out",
        str(out),
        *SHORT,
    ]
    assert main(arguments) == 2 and not out.exists()
    error = capsys.readouterr().err
    assert error.startswith("tal: ") and error.count("\n") == 1
    if fault == "no features at all" and missing == "skip":
        message = "no training recording has features"
    with pytest.raises(TalError, match=message):
        ready(*of(folder), missing)


def test_a_word_that_is_neither(clips):
    with pytest.raises(TalError, match="missing: 'ignore' is not one of error or skip"):
        ready(*of(clips()), "ignore")


def test_train_with_skip_keeps_the_list(incomplete, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [
        "train",
        "window_cnn",
        "--benchmark",
        str(incomplete),
        "--missing",
        "skip",
        "--out",
        str(out),
        *SHORT,
    ]
    assert main(arguments) == 0
    assert json.loads((out / MISSING_LIST).read_text()) == {"train": [TRAIN_GONE], "test": [TEST_GONE]}
    assert "missing: 1 of 6 training and 1 of 2 test recordings" in capsys.readouterr().err
    assert TEST_GONE not in (out / "detections.json").read_text()


def test_the_list_of_an_earlier_run_is_removed(incomplete, tmp_path):
    """If nothing is missing any more; a file that somebody else wrote stays."""
    checked = ready(*of(incomplete), "skip")
    path = write_missing(tmp_path, checked)
    assert path == tmp_path / MISSING_LIST and path.is_file()
    whole = replace(checked, missing_train=[], missing_test=[])
    assert write_missing(tmp_path, whole) is None and not path.exists()
    path.write_text("{}")
    assert write_missing(tmp_path, whole) is None and path.read_text() == "{}"


def test_memory_is_given_back(clips):
    """Test recordings are read to check them, and not kept for the length of a training."""
    data, recordings = of(clips())
    ready(data, recordings)
    assert not any(map(data.holds, data.recordings("test"))) and all(map(data.holds, recordings))


def test_the_check_sums_up_by_kind(clips, capsys):
    folder = clips(30, 2)
    for number in range(15):
        (folder / "features" / f"clip{number:07d}.npy").unlink()
    one_file(folder, np.zeros((10, 8)), "clip0000031")
    assert main(["data", "check", str(folder)]) == 1
    out = capsys.readouterr().out
    assert out.count("missing: clip") == 10 and "missing: … and 5 more (--all lists them)" in out
    assert "    15 missing\n     1 suspect\n" in out
    assert out.endswith("32 recordings, 15 without features, 0 broken, 1 remarks\n")
    assert main(["data", "check", str(folder), "--all"]) == 1
    assert capsys.readouterr().out.count("missing: clip") == 15


def test_summary_of_nothing():
    assert summary(pd.DataFrame(columns=["recording", "kind", "problem"])) == []


def test_which_axis_is_time_cannot_be_told(clips):
    from tal_lib.data import check_benchmark

    folder = clips(1, 1, rows=4.5)  # eight steps of eight columns
    assert np.load(folder / "features" / "clip0000000.npy").shape == (8, 8)
    (folder / "annotations.json").write_text(
        (folder / "annotations.json").read_text().replace('"duration": 4.5', '"duration": 60.0')
    )
    problems = check_benchmark(str(folder)).problem
    assert (
        problems.str.contains("as many steps as columns (8): read as (steps, columns)", regex=False).sum()
        == 2
    )


def test_a_wrong_time_axis_is_refused_before_training(clips):
    folder = clips(spec={"streams": {"features": 8}, "stride_s": 5.0})
    with pytest.raises(TalError, match="features of 8 of 8 recordings differ in duration .*spec.json"):
        ready(*of(folder))


def test_a_few_recordings_of_another_length_are_a_remark(clips):
    folder = clips()
    one_file(folder, np.zeros((20, 8), np.float32))
    assert "1 recordings last longer or shorter than their features" in ready(*of(folder)).report()[0]
