"""Ids and labels as files write them, found among those of the annotations."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tal_lib import TalError
from tal_lib.data.annotations import AnnotationFile
from tal_lib.evaluation.matching import (
    closest_label,
    match_detection_labels,
    match_detections,
    match_labels,
    match_recordings,
)

NAMES = st.text("abv_1", min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("written", "known", "expected"),
    [
        (["v_0123456789a"], ["v_0123456789a"], "v_0123456789a"),  # 13 characters, and the annotations' own
        (["v_0123456789a"], ["0123456789a"], "0123456789a"),  # ActivityNet's
        (["v_short"], ["short"], "short"),
        (["0123456789a"], ["v_0123456789a"], "v_0123456789a"),  # as files of features
        (["v_a"], ["a", "v_a"], "v_a"),
        (["v_v_a"], ["v_a"], "v_a"),
    ],
)
def test_prefix_is_passed_over_only_where_needed(written, known, expected):
    assert match_recordings(written, known, where="d.json") == {written[0]: expected}


def test_unknown_recordings_are_left_out_and_twins_refused():
    assert match_recordings(["v_b", "c"], ["a"], where="d.json") == {}
    with pytest.raises(TalError, match="d.json: a and v_a both mean recording a"):
        match_recordings(["a", "v_a"], ["a"], where="d.json")


@given(known=st.sets(NAMES), written=st.lists(NAMES, unique=True))
def test_known_ids_are_never_changed_and_matches_are_known(known, written):
    try:
        matches = match_recordings(written, known, where="d.json")
    except TalError:
        return
    assert all(matches[name] == name for name in written if name in known)
    assert set(matches.values()) <= known and len(set(matches.values())) == len(matches)


def test_labels_by_name_or_index():
    ids = {0: "walk", 1: "wave hand", 5: "never annotated"}
    assert match_labels(["walk", "1", "5", "Walk", "²", "9" * 50], ["walk", "wave hand"], ids) == {
        "walk": "walk",
        "1": "wave hand",
    }
    assert match_labels(["1"], ["1", "x"], {1: "x"}) == {"1": "1"}  # a label that is a number


@pytest.mark.parametrize("label", ["Wave_hand", " wave hand", "WAVE HAND", "wave hands"])
def test_the_closest_label_is_named(label):
    assert closest_label(label, ["Wave hand", "Walk"]) == "Wave hand"
    assert closest_label(label, ["zzz"]) is None


def annotations(duration=10.0, fps=float("nan"), **more):
    recordings = pd.DataFrame({"recording": ["a"], "split": "test", "duration": duration, "fps": fps})
    segments = pd.DataFrame([("a", 1.0, 2.0, "Wave hand")], columns=["recording", "start", "end", "label"])
    return AnnotationFile(recordings, segments, **more)


def detections(*rows):
    return pd.DataFrame(rows, columns=["recording", "start", "end", "label", "score"])


def test_unknown_labels_are_counted():
    table = detections(
        ("a", 1, 2, "Wave hand", 0.9), *[("a", 1, 2, "Wave_hand", 0.9)] * 2, ("a", 1, 2, "zz", 0.9)
    )
    kept, remarks = match_detection_labels(table, annotations(), where="d.json")
    assert len(kept) == 1 and "'Wave_hand' (2 detections; did you mean 'Wave hand'?)" in remarks[0]
    assert "'zz' (1 detections)" in remarks[0] and "left out" in remarks[0]
    with pytest.raises(
        TalError, match="d.json: none of its labels is in the annotations: 'Wave_hand' .2 det"
    ):
        match_detection_labels(table[1:3], annotations(), where="d.json")


def test_indices_need_label_ids():
    table = detections(("a", 1, 2, "3", 0.9))
    kept, remarks = match_detection_labels(table, annotations(label_ids={3: "Wave hand"}), where="d.json")
    assert kept.label.tolist() == ["Wave hand"] and "label_id" in remarks[0]
    with pytest.raises(TalError, match="none of its labels.*Indices are read where"):
        match_detection_labels(table, annotations(), where="d.json")


@pytest.mark.parametrize(("duration", "fps"), [(10.0, float("nan")), (200.0, 25.0), (10.0, 25.0)])
def test_frames_are_not_seconds(duration, fps):
    rows = [
        ("a", 25.0 * start, 25.0 * (start + duration / 8), "Wave hand", 0.9)
        for start in (2, 5, duration * 0.85)
    ]
    with pytest.raises(TalError, match=r"d.json: . of 3 detections lie far beyond.*frame.*seconds"):
        match_detections(detections(*rows), annotations(duration, fps), where="d.json")


def test_a_few_detections_beyond_the_end_are_a_remark():
    table = detections(
        *[("a", 1.0, 2.0, "x", 0.5)] * 9, ("a", 3.0, 99.0, "x", 0.5), ("a", 9.0, 10.4, "x", 0.5)
    )
    kept, remarks = match_detections(table, annotations(), where="d.json")
    assert len(kept) == 11 and remarks[0].startswith("1 of 11 detections lie far beyond")


def test_no_detections_are_no_file_to_score():
    with pytest.raises(TalError, match="d.json: no detections in it"):
        match_detections(detections(), annotations(), where="d.json")
