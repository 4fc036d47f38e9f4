"""NMS of all classes at once against the plain algorithm, a candidate at a time."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib.evaluation import nms, soft_nms
from tal_lib.models import config
from tal_lib.models.parts.candidates import Candidates, PostProcess, suppress


def overlap(a, b):
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = a[1] - a[0] + b[1] - b[0] - inter
    return inter / union if union > 0 else 0.0


def plain(segments, scores, labels, decay, min_score, limit, voting, multiclass=True, weight="score"):
    kept = []
    for group in sorted(set(labels.tolist())) if multiclass else [None]:
        pool = [
            [segment, float(score), label]
            for segment, score, label in zip(segments, scores, labels.tolist())
            if group in (None, label) and score > min_score
        ]
        everything = [(segment, score) for segment, score, _ in pool]
        count = 0
        while pool and count < limit:
            best = max(pool, key=lambda item: item[1])
            pool = [item for item in pool if item is not best]
            segment = best[0]
            if voting:
                near = [
                    (score * (overlap(other, segment) if weight == "score_tiou" else 1), other)
                    for other, score in everything
                    if overlap(other, segment) >= voting
                ]
                segment = (
                    sum(vote * other for vote, other in near) / sum(vote for vote, _ in near)
                    if near
                    else segment
                )
            kept.append((best[1], best[2], *segment))
            count += 1
            pool = [[other, score * decay(overlap(other, best[0])), label] for other, score, label in pool]
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
    multiclass=st.booleans(),
    weight=st.sampled_from(["score", "score_tiou"]),
)
def test_soft_nms_equals_the_plain_algorithm(seed, count, classes, voting, limit, multiclass, weight):
    segments, scores, labels = candidates(seed, count, classes)
    options = {"multiclass": multiclass, "voting_tiou": voting, "voting_weight": weight}
    got = soft_nms(segments, scores, labels, sigma=0.5, min_score=0.05, max_detections=limit, **options)
    decay = lambda o: np.exp(-o * o / 0.5)
    want = plain(segments, scores, labels, decay, 0.05, limit, voting, multiclass, weight)
    assert len(got[1]) == len(want)
    np.testing.assert_allclose(got[1], [row[0] for row in want], rtol=1e-4)
    if len(set(np.round([row[0] for row in want], 4))) == len(want):  # no ties: the order is determined
        assert got[2].tolist() == [row[1] for row in want]
        np.testing.assert_allclose(
            got[0], np.reshape([row[2:] for row in want], (-1, 2)), rtol=1e-3, atol=1e-3
        )


def test_candidates_of_other_classes_count_only_without_multiclass():
    """Two segments of tIoU 0.8 and different classes. Votes: 0.9 and 0.6; times tIoU: 0.9 and 0.48."""
    both = Candidates(torch.tensor([[0.0, 8.0], [0.0, 10.0]]), torch.tensor([0.9, 0.6]), torch.tensor([0, 1]))
    run = lambda **options: suppress(both, PostProcess(max_detections=2, **options))
    segments, scores, labels = run(voting_tiou=0.7)
    assert segments.tolist() == [[0, 8], [0, 10]] and scores.tolist() == pytest.approx([0.9, 0.6])
    segments, scores, labels = run(voting_tiou=0.0, multiclass=False)
    assert segments.tolist() == [[0, 8], [0, 10]] and labels.tolist() == [0, 1]
    assert scores.tolist() == pytest.approx([0.9, 0.6 * np.exp(-(0.8**2) / 0.5)])
    ends = {"score": (0.9 * 8 + 0.6 * 10) / 1.5, "score_tiou": (0.9 * 8 + 0.48 * 10) / 1.38}
    for weight, end in ends.items():
        segments, _, _ = run(voting_tiou=0.7, multiclass=False, voting_weight=weight)
        assert segments[0].tolist() == pytest.approx([0, end])


@pytest.mark.parametrize(
    ("name", "preset", "post"),
    [
        ("actionformer", "paper", {"max_detections": 200, "multiclass": True, "voting_tiou": 0.0}),
        ("tridet", "paper", {"max_detections": 2000, "multiclass": True, "voting_tiou": 0.0}),
        ("temporalmaxer", "paper", {"max_detections": 200, "multiclass": True, "voting_tiou": 0.0}),
        (
            "actionformer",
            "paper_activitynet",
            {"max_detections": 100, "multiclass": False, "voting_tiou": 0.9, "voting_weight": "score_tiou"},
        ),
        ("action_mamba", "paper", {"max_detections": 200, "multiclass": True, "voting_tiou": 0.0}),
        (
            "action_mamba",
            "paper_activitynet",
            {"max_detections": 100, "multiclass": False, "voting_tiou": 0.9, "voting_weight": "score"},
        ),
        (
            "tridet",
            "paper_activitynet",
            {"max_detections": 200, "multiclass": False, "voting_tiou": 0.95, "voting_weight": "score"},
        ),
    ],
)
def test_paper_presets_post_process_as_their_authors_do(name, preset, post):
    """Values of the released settings; their code votes in class-agnostic NMS only."""
    ours = config(name, preset).post
    assert {option: getattr(ours, option) for option in post} == post
    if preset == "paper":
        pair = config(name, preset, multiclass=False, voting_tiou=0.7).post
        by_tiou = name in ("actionformer", "temporalmaxer")
        assert pair.voting_weight == ("score_tiou" if by_tiou else "score")
    assert (ours.score_threshold, ours.min_score, ours.max_candidates, ours.nms) == (
        0.001,
        0.001,
        2000,
        "soft",
    )


@pytest.mark.parametrize("name", ["actionformer", "temporalmaxer", "tridet", "action_mamba"])
def test_paper_presets_vote_only_when_asked(name):
    """The weight of a vote changes no default detection; with the pair of options it does."""
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 60, 300)
    segments = torch.tensor(np.stack([start, start + rng.uniform(3, 9, 300)], 1), dtype=torch.float32)
    drawn = Candidates(
        segments, torch.tensor(rng.uniform(0.1, 1, 300)), torch.tensor(rng.integers(0, 3, 300))
    )

    def ends(**options):
        return suppress(drawn, config(name, "paper", **options).post)[0]

    given = {tuple(row) for row in segments.numpy()}
    for weight in ("score", "score_tiou"):
        assert np.array_equal(ends(voting_weight=weight), ends())
    assert {tuple(row) for row in ends()} <= given
    assert not {tuple(row) for row in ends(multiclass=False)} - given
    assert {tuple(row) for row in ends(multiclass=False, voting_tiou=0.7)} - given


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
