"""NMS of all classes at once against the plain algorithm, a candidate at a time."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib.evaluation import nms, soft_nms
from tal_lib.models.parts.candidates import Candidates, PostProcess, suppress


def overlap(a, b):
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = a[1] - a[0] + b[1] - b[0] - inter
    return inter / union if union > 0 else 0.0


def plain(segments, scores, labels, decay, min_score, limit, voting):
    kept = []
    for label in sorted(set(labels.tolist())):
        pool = [
            [segment, float(score)]
            for segment, score, one in zip(segments, scores, labels)
            if one == label and score > min_score
        ]
        everything = [(segment, score) for segment, score in pool]
        count = 0
        while pool and count < limit:
            best = max(pool, key=lambda item: item[1])
            pool = [item for item in pool if item is not best]
            segment = best[0]
            if voting:
                near = [(score, one) for one, score in everything if overlap(one, segment) >= voting]
                segment = (
                    sum(score * one for score, one in near) / sum(score for score, _ in near)
                    if near
                    else segment
                )
            kept.append((best[1], label, *segment))
            count += 1
            pool = [[one, score * decay(overlap(one, best[0]))] for one, score in pool]
            pool = [item for item in pool if item[1] > min_score]
    return sorted(kept, reverse=True)[:limit]


def candidates(seed, count, classes, span=30):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, span, count)
    segments = np.stack([start, start + rng.uniform(0.1, 10, count)], 1).astype(np.float32)
    return (
        segments,
        rng.permutation(count).astype(np.float32) / count * 0.98 + 0.01,
        rng.integers(classes, size=count),
    )


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 80),
    classes=st.integers(1, 12),
    voting=st.sampled_from([0.0, 0.7]),
    limit=st.sampled_from([5, 200]),
)
def test_soft_nms_equals_the_plain_algorithm(seed, count, classes, voting, limit):
    segments, scores, labels = candidates(seed, count, classes)
    got = soft_nms(
        segments, scores, labels, sigma=0.5, min_score=0.05, max_detections=limit, voting_tiou=voting
    )
    want = plain(segments, scores, labels, lambda o: np.exp(-o * o / 0.5), 0.05, limit, voting)
    assert len(got[1]) == len(want)
    np.testing.assert_allclose(got[1], [row[0] for row in want], rtol=1e-4)
    if len(set(np.round([row[0] for row in want], 4))) == len(want):  # no ties: the order is determined
        assert got[2].tolist() == [row[1] for row in want]
        np.testing.assert_allclose(
            got[0], np.reshape([row[2:] for row in want], (-1, 2)), rtol=1e-3, atol=1e-3
        )


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 80),
    classes=st.integers(1, 4),
    threshold=st.sampled_from([0.2, 0.5]),
)
def test_hard_nms_keeps_no_overlap_and_drops_only_overlapped(seed, count, classes, threshold):
    segments, scores, labels = candidates(seed, count, classes)
    kept, kept_scores, kept_labels = nms(segments, scores, labels, tiou_threshold=threshold)
    want = plain(segments, scores, labels, lambda o: 0.0 if o >= threshold else 1.0, 0.0, 200, 0.0)
    np.testing.assert_allclose(kept_scores, [row[0] for row in want], rtol=1e-5)


def test_a_class_with_thousands_of_candidates_takes_the_long_way_and_agrees():
    segments, scores, labels = candidates(1, 1500, 2, span=300)
    got = soft_nms(segments, scores, labels, min_score=0.3, max_detections=50)
    want = plain(segments, scores, labels, lambda o: np.exp(-o * o / 0.5), 0.3, 50, 0.0)
    np.testing.assert_allclose(got[1], [row[0] for row in want], rtol=1e-4)


def test_nothing_in_nothing_out():
    for function in (soft_nms, nms):
        segments, scores, labels = function(np.zeros((0, 2)), np.zeros(0), np.zeros(0, dtype=int))
        assert segments.shape == (0, 2) and len(scores) == len(labels) == 0
    assert len(soft_nms([[0, 1]], [1e-6])[1]) == 0


def test_one_class_without_labels():
    segments, scores, labels = soft_nms([[0, 10], [0, 10], [20, 30]], [0.9, 0.8, 0.7])
    assert scores == pytest.approx([0.9, 0.7, 0.8 * np.exp(-2)], abs=1e-6) and set(labels) == {0}


@pytest.mark.parametrize(("threshold", "kept"), [(0.5, [0.9]), (np.nextafter(0.5, 1), [0.9, 0.8])])
def test_hard_nms_drops_an_overlap_of_just_the_threshold(threshold, kept):
    _, scores, _ = nms([[0, 2], [0, 1]], [0.9, 0.8], tiou_threshold=threshold)  # tIoU 1/2
    assert scores == pytest.approx(kept)


def test_candidates_of_no_length_are_dropped():
    """Half of the shortest length that the default allows, and twice as much."""
    shortest = next(f.default for f in fields(PostProcess) if f.name in ("min_segment_steps", "min_steps"))
    assert shortest > 0
    segments = torch.tensor([[3.0, 3.0 + shortest / 2], [7.0, 7.0 + 2 * shortest], [9.0, 9.0]])
    candidates = Candidates(segments, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.long))
    for method in ("soft", "hard", "none"):
        kept, _, _ = suppress(candidates, PostProcess(nms=method))
        assert kept.tolist() == [pytest.approx([7.0, 7.0 + 2 * shortest])]
