"""mAP against the official definition, written out again as plainly as possible."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import TalError
from tal_lib.evaluation import average_precision, mean_average_precision

ANNOTATION = ["recording", "start", "end", "label"]
TIOUS = [0.1, 0.3, 0.5, 0.7, 0.95]


def official(annotations, detections, label, tiou):
    """One class at one tIoU, detection by detection, as the challenge's script goes about it."""
    truth = [
        list(row) + [False] for row in annotations[annotations.label == label][ANNOTATION].to_numpy().tolist()
    ]
    if not truth:
        return float("nan")
    class_detections = detections[detections.label == label]
    hits = []
    for row in class_detections.iloc[
        np.argsort(class_detections.score.to_numpy(), kind="stable")[::-1]
    ].itertuples():
        same = [item for item in truth if item[0] == row.recording]
        overlaps = []
        for item in same:
            inter = max(0.0, min(item[2], row.end) - max(item[1], row.start))
            overlaps.append(inter / ((item[2] - item[1]) + (row.end - row.start) - inter))
        hit = False
        for index in np.argsort(overlaps, kind="stable")[::-1]:
            if overlaps[index] < tiou:
                break
            if not same[index][4]:
                same[index][4] = hit = True
                break
        hits.append(hit)
    if not hits:
        return 0.0
    positives = np.cumsum(hits)
    precision, recall = positives / np.arange(1, len(hits) + 1), positives / len(truth)
    precision, recall = np.hstack([[0], precision, [0]]), np.hstack([[0], recall, [1]])
    for i in range(len(precision) - 1)[::-1]:
        precision[i] = max(precision[i], precision[i + 1])
    at = np.where(recall[1:] != recall[:-1])[0] + 1
    return float(np.sum((recall[at] - recall[at - 1]) * precision[at]))


def tables(rng, recordings, annotations, detections, classes, grid, ties):
    def segments(count):
        start = rng.integers(0, grid, count).astype(float)
        return {
            "recording": [f"r{i}" for i in rng.integers(recordings, size=count)],
            "start": start,
            "end": start + rng.integers(1, 8, count),
            "label": [f"c{i}" for i in rng.integers(classes, size=count)],
        }

    score = rng.integers(0, ties, detections) / ties if ties else rng.random(detections)
    return pd.DataFrame(segments(annotations)), pd.DataFrame(segments(detections) | {"score": score})


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    recordings=st.integers(1, 4),
    annotations=st.integers(1, 25),
    detections=st.integers(0, 60),
    classes=st.integers(1, 3),
    ties=st.sampled_from([0, 1, 3, 10]),
)
def test_equals_the_official_definition(seed, recordings, annotations, detections, classes, ties):
    # a coarse grid of times makes equal overlaps as common as equal scores
    truth, predictions = tables(
        np.random.default_rng(seed), recordings, annotations, detections, classes, 20, ties
    )
    for row in average_precision(truth, predictions, TIOUS).itertuples():
        assert row.ap == pytest.approx(official(truth, predictions, row.label, row.tiou), abs=1e-9)


def test_hand_worked():
    truth = pd.DataFrame([("a", 0, 10, "x"), ("a", 20, 30, "x"), ("b", 0, 10, "y")], columns=ANNOTATION)
    detections = pd.DataFrame(
        [("a", 0, 10, "x", 0.9), ("a", 50, 60, "x", 0.8), ("a", 20, 28, "x", 0.7), ("b", 0, 10, "y", 0.1)],
        columns=[*ANNOTATION, "score"],
    )
    scores = mean_average_precision(truth, detections, [0.5, 0.9])
    assert scores[0.5] == pytest.approx(
        ((1 + 2 / 3) / 2 + 1) / 2
    )  # x: precisions 1 and 2/3 at its two recalls; y: 1
    assert scores[0.9] == pytest.approx((0.5 + 1) / 2)


def test_degenerate_tables():
    truth = pd.DataFrame([("a", 0, 10, "x")], columns=ANNOTATION)
    none = pd.DataFrame(columns=[*ANNOTATION, "score"])
    assert mean_average_precision(truth, none, [0.5]).tolist() == [0.0]
    assert np.isnan(mean_average_precision(truth[:0], none, [0.5])).all()
    point = pd.DataFrame(
        [("a", 5, 5, "x", 1.0)], columns=[*ANNOTATION, "score"]
    )  # no length: a false positive
    assert mean_average_precision(truth, point, [0.5]).tolist() == [0.0]
    table = average_precision(truth, none, [0.5], classes=["x", "z"])
    assert table.ap.tolist()[0] == 0.0 and np.isnan(table.ap.tolist()[1])  # z is annotated nowhere


def test_bad_input_is_named():
    truth = pd.DataFrame([("a", 0, 10, "x")], columns=ANNOTATION)
    with pytest.raises(TalError, match="recording a.*ends before"):
        mean_average_precision(truth.assign(start=10.0), truth.assign(score=1.0), [0.5])
    with pytest.raises(TalError, match="not finite"):
        mean_average_precision(truth, truth.assign(score=np.nan), [0.5])
    with pytest.raises(TalError, match="score"):
        mean_average_precision(truth, truth, [0.5])
    with pytest.raises(TalError, match="tIoU"):
        mean_average_precision(truth, truth.assign(score=1.0), [0.0])


def test_many_detections_of_one_annotation_terminate():
    rng = np.random.default_rng(0)
    truth = pd.DataFrame(
        {"recording": "a", "start": np.arange(50.0), "end": np.arange(50.0) + 30, "label": "x"}
    )
    start = rng.uniform(0, 60, 5000)
    detections = pd.DataFrame(
        {"recording": "a", "start": start, "end": start + 30, "label": "x", "score": rng.random(5000)}
    )
    assert average_precision(truth, detections, [0.3]).ap[0] == pytest.approx(
        official(truth, detections, "x", 0.3), abs=1e-9
    )
