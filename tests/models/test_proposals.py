"""What the proposal family shares, against brute force; and segments across the seams of windows."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import TalError, models
from tal_lib.data import Batch
from tal_lib.evaluation import tiou
from tal_lib.models.bsn import CURVES
from tal_lib.models.parts.proposals import (
    ProposalConfig,
    ProposalDetector,
    at_ends,
    balanced_bce,
    balanced_by_overlap,
    best_of_grid,
    boundary_candidates,
    curve_targets,
    cut,
    join,
    overlap_map,
    pair_boundaries,
    window_starts,
)
from tal_lib.models.parts.sampling import proposal_grid, sample_linear
from tal_lib.models.parts.segment_classifier import IGNORED, class_targets, classification_loss


@given(steps=st.integers(1, 90), window=st.integers(2, 20), overlap=st.integers(0, 19))
def test_windows_cover_every_step_and_every_segment_up_to_the_overlap(steps, window, overlap):
    overlap = min(overlap, window - 1)
    starts = window_starts(steps, window, overlap).tolist()
    assert starts[0] == 0 and starts[-1] + window >= steps
    for first in range(steps):
        last = min(first + overlap, steps - 1)  # [first, last] spans `overlap` steps at most
        assert any(start <= first and last <= start + window for start in starts)


@settings(deadline=None)
@given(steps=st.integers(1, 50), window=st.integers(2, 12), overlap=st.integers(0, 11))
def test_cut_windows_join_to_what_they_were(steps, window, overlap):
    overlap = min(overlap, window - 1)
    starts = window_starts(steps, window, overlap)
    x = torch.randn(2, steps, 3)
    windows = cut(x, starts, window, overlap)
    assert windows.shape == (2 * len(starts), window, 3)
    for index, start in enumerate(starts.tolist()):
        torch.testing.assert_close(windows[index, : max(0, steps - start)], x[0, start : start + window])
    torch.testing.assert_close(join(windows, starts, steps), x)


segments_st = st.lists(st.tuples(st.floats(-3, 20), st.floats(0.5, 15)), max_size=5).map(
    lambda pairs: torch.tensor([[start, start + length] for start, length in pairs]).reshape(-1, 2)
)


@settings(deadline=None)
@given(segments=segments_st)
def test_curve_targets_are_overlaps_with_regions(segments):
    got = curve_targets(segments, 18)
    for step in range(18):
        want = [0.0, 0.0, 0.0]
        for start, end in segments.tolist():
            reach = max(1.0, (end - start) / 10)
            for curve, (a, b) in enumerate(
                ((start - reach, start + reach), (end - reach, end + reach), (start, end))
            ):
                want[curve] = max(want[curve], min(step + 0.5, b) - max(step - 0.5, a))
        assert got[step].tolist() == pytest.approx(want, abs=1e-5)


@settings(deadline=None)
@given(segments=segments_st)
def test_overlap_map_is_the_best_tiou(segments):
    cells, annotated = overlap_map(segments, 12, 6).tolist(), segments.double().numpy()
    for start in range(12):
        for duration in range(1, 7):
            cell = np.array([start, start + duration], dtype=float)
            want = max([float(tiou(cell, segment)) for segment in annotated], default=0.0)
            assert cells[start][duration - 1] == pytest.approx(want, abs=1e-5)


@given(values=st.lists(st.integers(0, 20), min_size=1, max_size=15))
def test_candidates_are_peaks_or_high(values):
    curve = [value / 20 for value in values]
    got = boundary_candidates(torch.tensor([curve]))[0].tolist()
    padded = [-1.0, *curve, -1.0]
    for index, value in enumerate(curve):
        peak = value > padded[index] and value > padded[index + 2]
        assert got[index] == (peak or value > 0.5 * max(curve) + 1e-7), (index, curve)


def test_pairs_and_the_best_of_them():
    start, end = torch.zeros(1, 8), torch.zeros(1, 8)
    start[0, [1, 4]], end[0, [3, 6]] = torch.tensor([0.9, 0.8]), torch.tensor([0.7, 0.6])
    scores, allowed = pair_boundaries(start, end, torch.ones(1, 8, 1), max_duration=4)
    segments, best = best_of_grid(scores, allowed, 10)
    score_of = {
        tuple(segment): round(score, 4)
        for segment, score in zip(segments[0].tolist(), best[0].tolist())
        if score > 0
    }
    assert score_of == {(1, 3): 0.63, (4, 6): 0.48}  # (1, 6) is too long
    keep = torch.ones(1, 8, 1)
    keep[0, 6:] = 0
    _, allowed = pair_boundaries(start, end, keep, max_duration=4)
    assert allowed.nonzero().tolist() == [[0, 1, 1]]  # nothing ends in the padding


def test_a_long_segment_does_not_take_the_places_of_short_ones():
    scores = torch.zeros(1, 30, 20)
    scores[0, 3:9, 10:18] = torch.rand(6, 8) * 0.1 + 0.8  # many versions of a long one
    scores[0, 20, 3] = 0.2
    segments, best = best_of_grid(scores, torch.ones_like(scores, dtype=torch.bool), 12)
    assert [20, 24] in segments[0].tolist()


def test_at_ends_reads_the_end_of_every_proposal():
    curve = torch.rand(2, 9)
    got, grid = at_ends(curve, 5), proposal_grid(9, 5)
    for start in range(9):
        for duration in range(1, 6):
            end = start + duration
            assert grid[start, duration - 1].tolist() == [start, end]
            want = curve[:, end] if end < 9 else torch.zeros(2)
            assert torch.equal(got[:, start, duration - 1], want)


def test_balanced_losses_by_hand():
    logits, positive = torch.tensor([0.0, 1.0, -1.0, 2.0]), torch.tensor([True, False, False, False])
    valid = torch.tensor([True, True, True, False])
    sigmoid = logits.double().sigmoid()
    want = (0.5 * 3 * -sigmoid[0].log() + 0.5 * 1.5 * (-(1 - sigmoid[1]).log() - (1 - sigmoid[2]).log())) / 3
    assert float(balanced_bce(logits, positive, valid)) == pytest.approx(float(want), rel=1e-5)
    loss, overlap = torch.tensor([1.0, 2.0, 3.0, 10.0, 99.0]), torch.tensor([0.1, 0.2, 0.5, 0.9, 0.9])
    valid = torch.tensor([True, True, True, True, False])
    assert float(balanced_by_overlap(loss, overlap, valid)) == pytest.approx((1.5 + 3 + 10) / 3)
    assert float(balanced_by_overlap(loss, overlap, ~valid & False)) == 0


def test_class_targets_and_their_loss():
    proposals = torch.tensor([[0.0, 10.0], [0.0, 4.0], [20.0, 30.0], [11.0, 19.0]])
    segments, labels = torch.tensor([[0.0, 9.0], [10.0, 20.0]]), torch.tensor([1, 0])
    assert class_targets(proposals, segments, labels, 2).tolist() == [1, IGNORED, 2, 0]
    assert class_targets(proposals, segments[:0], labels[:0], 2).tolist() == [2] * 4
    logits = torch.zeros(5, 3)
    assert float(classification_loss(logits, torch.tensor([0, 2, 2, 2, IGNORED]))) == pytest.approx(
        1.0986, rel=1e-3
    )


@dataclass(frozen=True, kw_only=True)
class ImpulseConfig(ProposalConfig):
    window: int = 40
    overlap: int = 20
    max_duration: int = 20
    classifier_width: int = 8


class Impulses(ProposalDetector):
    """Reads start and end from the features. A pair's confidence is ideal: 1 if it fits, else 0."""

    def build_network(self):
        pass

    def windows(self, x, keep):
        scores, allowed = pair_boundaries(x[..., 0], x[..., 1], keep, self.config.max_duration)
        return (), *best_of_grid(scores, allowed, self.config.proposals)


@pytest.mark.parametrize("start", [3, 15, 19, 20, 35, 39, 40, 58, 75])
def test_a_segment_across_a_seam_is_found_once_and_whole(start):
    """Windows begin at 0, 20, 40, …. A segment of 18 steps is detected anywhere, also across windows."""
    features = torch.zeros(1, 3, 97)
    features[0, 0, start], features[0, 1, start + 18] = 1, 1
    model = Impulses(ImpulseConfig(), 3, 1).eval()
    batch = Batch(
        recordings=("r",),
        features=features,
        mask=torch.ones(1, 97, dtype=torch.bool),
        durations=torch.tensor([98.0]),
        stride_s=torch.ones(1),
        window_s=torch.zeros(1),
        classes=("a",),
    )
    proposals = model.propose(batch)[0]
    assert proposals.iloc[0][["start", "end"]].tolist() == [start, start + 18] and proposals.score.iloc[
        0
    ] == pytest.approx(1)
    assert (proposals.score.iloc[1:] < 0.2).all()  # what a second window saw of it is suppressed


@pytest.mark.parametrize("name", ["bmn", "tcanet"])
def test_long_recordings_go_through_in_parts(name, monkeypatch):
    torch.manual_seed(0)
    model = models.build(name, input_dim=8, num_classes=2).eval()
    x = torch.randn(2, 8, 500)
    with torch.no_grad():
        want = model(x)
        monkeypatch.setattr("tal_lib.models.parts.proposals.WINDOWS_AT_ONCE", 3)
        monkeypatch.setattr("tal_lib.models.parts.segment_classifier.PROPOSALS_AT_ONCE", 70)
        for output, expected in zip(model(x), want):
            torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


def test_options_that_cannot_be_are_refused():
    for options in ({"overlap": 128}, {"max_duration": 0}, {"max_duration": 129}):
        with pytest.raises(TalError, match="max_duration|overlap=128"):
            models.build("bmn", input_dim=8, num_classes=2, **options)


def test_bsn_samples_the_action_curve():
    """8 points in [s − l / 5, s + l / 5], 16 in [s, e], 8 in [e − l / 5, e + l / 5]."""
    model = models.build("bsn", input_dim=8, num_classes=2)
    curves, segments = (
        torch.rand(2, 30, 3),
        torch.tensor([[[4.0, 14.0], [0.0, 3.0]], [[7.0, 8.0], [20.0, 29.0]]]),
    )
    got = model.proposal_features(curves, segments)
    assert got.shape == (2, 2, 32)
    for n in range(2):
        for p in range(2):
            start, end = segments[n, p].tolist()
            fifth = (end - start) / 5
            at = torch.cat(
                [
                    torch.linspace(a, b, count)
                    for a, b, count in (
                        (start - fifth, start + fifth, 8),
                        (start, end, 16),
                        (end - fifth, end + fifth, 8),
                    )
                ]
            )
            want = sample_linear(curves[n, :, CURVES.index("action"), None], at)[:, 0]
            torch.testing.assert_close(got[n, p], want)
