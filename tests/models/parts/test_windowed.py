"""Detection in windows: nothing lost, nothing added, time shifted back."""

import pytest
import torch

from tal_lib import TalError, models
from tal_lib.data import collate, make_item
from tal_lib.models.parts.windowed import InWindows


@pytest.fixture(scope="module")
def model(small):
    torch.manual_seed(0)
    built = models.build(
        "temporalmaxer",
        input_dim=small.feature_spec.dim,
        num_classes=len(small.classes),
        width=16,
        head_width=16,
        ranges=((0, 4), (4, 8), (8, 10_000)),
        nms="none",
        max_detections=10**6,
        max_candidates=10**6,
    ).eval()
    torch.nn.init.constant_(built.class_out.bias, -1.0)
    return built


def test_one_window_is_the_whole_recording(model, small):
    batch = collate([make_item(small, recording) for recording in small.recordings("test")[:2]])
    steps = batch.mask.shape[1]
    for ours, windowed in zip(model.detect(batch), InWindows(model, steps, 0).detect(batch)):
        assert ours.equals(windowed)


def test_windows_are_run_alone_and_shifted_back(model, small):
    """Detections equal those of each window, run as a separate recording and shifted to its place."""
    batch = collate([make_item(small, small.recordings("test")[0])])
    candidates = InWindows(model, 32, 0, at_once=3).candidates(
        InWindows(model, 32, 0, at_once=3).run(batch), batch.mask
    )[0]
    parts = []
    for start in range(0, batch.mask.shape[1], 32):
        features, mask = batch.features[..., start : start + 32], batch.mask[:, start : start + 32]
        with torch.no_grad():
            window_candidates = model.candidates(model(features, None), mask)[0]
        parts += [
            (float(a) + start, float(b) + start, float(score))
            for (a, b), score in zip(window_candidates.segments, window_candidates.scores)
        ]
    ours = sorted(
        (float(a), float(b), float(score)) for (a, b), score in zip(candidates.segments, candidates.scores)
    )
    assert len(ours) == len(parts)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(sorted(parts)), atol=1e-4, rtol=1e-4)


def test_overlap_adds_windows_and_padding_adds_nothing(model, small):
    batch = collate([make_item(small, recording) for recording in small.recordings("test")[:3]])
    windowed = InWindows(model, 48, 24)
    batched = windowed.detect(batch)
    for index, recording in enumerate(batch.recordings):
        alone = windowed.detect(collate([make_item(small, recording)]))[0]
        assert abs(len(alone) - len(batched[index])) <= 2  # a score at the threshold
        assert set(batched[index].recording) == {recording}
        assert batched[index].end.max() <= small.duration(recording) + 1e-3
    assert len(batched[0]) > len(InWindows(model, 48, 0).detect(batch)[0])


def test_a_window_must_be_wider_than_its_overlap(model):
    with pytest.raises(TalError, match="window=32, overlap=32"):
        InWindows(model, 32, 32)
