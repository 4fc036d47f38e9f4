"""What all pyramid detectors share beyond their blocks."""

import pytest
import torch

from tal_lib import models
from tal_lib.data import collate, make_item
from tal_lib.models.parts.assignment import centre_assignment


def test_the_loss_is_divided_by_a_running_mean_of_positives(small):
    """positives ← 0.9 · positives + 0.1 · (positive points), in training; it divides both losses."""
    batch = collate([make_item(small, recording) for recording in small.recordings("train")[:2]])
    model = models.build(
        "actionformer",
        input_dim=small.feature_spec.dim,
        num_classes=len(small.classes),
        width=32,
        head_width=32,
    )
    points, valid = model.points(batch.mask.shape[1]), model.level_mask(batch.mask)
    counts = [
        int((centre_assignment(points, segments, labels, model.num_classes)[2] & row).sum())
        for segments, labels, row in zip(batch.segments, batch.labels, valid)
    ]
    start, momentum = float(model.positives), model.config.loss_norm_momentum
    assert sum(counts) > 0 and start != sum(counts)
    model.eval()
    outputs = model.run(batch)
    model.loss(outputs, batch)
    assert float(model.positives) == start
    model.train()
    expected = start
    for _ in range(3):
        expected = momentum * expected + (1 - momentum) * sum(counts)
        losses = model.loss(outputs, batch)
        assert float(model.positives) == pytest.approx(expected)
    model.eval()
    model.positives.mul_(2)
    halved = model.loss(outputs, batch)
    for name in ("classification", "regression"):
        torch.testing.assert_close(2 * halved[name], losses[name])
