import numpy as np
import pandas as pd
import pytest

from tal_lib import TalError
from tal_lib.data import class_agnostic, load_benchmark

ROWS = [("a", 1.0, 5.0, "x"), ("b", 2.0, 9.0, "y")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", 5.0, 5.0, "x")], "recording a.*ends before"),
        ([("a", -1.0, 5.0, "x")], "recording a.*before the recording"),
        ([("a", 1.0, 101.0, "x")], "recording a.*beyond"),
        ([("a", 1.0, 5.0, "z")], "recording a.*unknown class 'z'"),
        ([("c", 1.0, 5.0, "x")], "recording c.*not listed"),
        ([("a", float("nan"), 5.0, "x")], "recording a.*not finite"),
    ],
)
def test_bad_segments_name_the_recording(tiny, rows, message):
    with pytest.raises(TalError, match=message):
        tiny(rows)


def test_bad_recordings(tiny):
    with pytest.raises(TalError, match="recording a is listed twice"):
        tiny(ROWS[:1], recordings=("a", "a"))
    with pytest.raises(TalError, match="duration"):
        tiny([], table=pd.DataFrame({"recording": ["a"], "split": "train", "duration": [0.0]}))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((10, 4)), r"shape \(10, 4\), expected \(T, 3\)"),
        (np.zeros(3), "shape"),
        (np.zeros((0, 3)), "no steps"),
        (np.array([[0, 0, 0], [0, np.nan, 0]]), "NaN or infinite, first at step 1"),
        (np.full((2, 3), np.inf), "NaN or infinite"),
    ],
)
def test_bad_features_name_the_recording(tiny, array, message):
    with pytest.raises(TalError, match=f"recording b.*{message}"):
        tiny(ROWS, features=lambda recording: array).features("b")


def test_lookups(tiny):
    data = tiny(ROWS)
    assert data.recordings("train") == ["a", "b"] and data.splits == ("train",)
    assert data.features("a").dtype == np.float32 and data.time_axis("a") == (1.0, 1.0)
    for call in (
        lambda: data.features("q"),
        lambda: data.annotations_of(["q"]),
        lambda: data.recordings("test"),
        lambda: data.features("a", "audio"),
        lambda: load_benchmark("kinetics"),
    ):
        with pytest.raises(TalError, match="Choose from|Take ids"):
            call()


def test_annotations_of_recordings_are_rows_of_the_table_in_its_order(tiny):
    rows = [("b", 2.0, 9.0, "y"), ("a", 1.0, 5.0, "x"), ("b", 1.0, 3.0, "x")]
    data = tiny(rows, recordings=("a", "b", "c"))
    whole = data.annotations()
    for names in (["a"], ["b"], ["c"], [], ["b", "a"], ["a", "a"], {"a", "c"}, iter(["c", "b", "a"])):
        names = list(names)
        expected = whole[whole.recording.isin(names)].reset_index(drop=True)
        pd.testing.assert_frame_equal(data.annotations_of(names), expected)
    agnostic = class_agnostic(data)  # a view with other annotations, after the first were looked up
    assert set(agnostic.annotations_of(["b"]).label) == {"action"}
    assert list(data.annotations_of(["b"]).label) == ["y", "x"]


def test_hash_follows_annotations(tiny):
    assert tiny(ROWS).data_hash == tiny(ROWS).data_hash != tiny(ROWS[:1]).data_hash
