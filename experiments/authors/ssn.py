"""SSN beside yjxiong/action-detection: the completeness and location losses, and the classifiers' widths.

Their network reads images and trains end to end, so only its heads and losses are compared: on the same
scores of drawn proposals, one complete and six incomplete ones a recording.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest import mock

import torch
from torch import nn

from experiments.authors import Row, importable
from tal_lib import models
from tal_lib.models.ssn import BACKGROUND, COMPLETE, INCOMPLETE

FOLDER = "action-detection"
MODELS = ("ssn",)
CLASSES, RECORDINGS = 20, 8
HOW = "random scores of 1 complete and 6 incomplete proposals a recording, 8 recordings"


@contextmanager
def their_losses(clone: Path) -> Iterator[ModuleType]:
    """Their module of the pyramid and the losses."""
    with (
        importable(clone, "ops"),
        mock.patch.object(torch.Tensor, "cuda", lambda value, *device: value),
        mock.patch.object(nn.init, "xavier_uniform", nn.init.xavier_uniform_, create=True),
    ):
        import ops.ssn_ops as module  # pyright: ignore[reportMissingImports]

        yield module


def rows(clone: Path, model: str) -> Iterator[Row]:
    """Widths of the heads and two losses."""
    with their_losses(clone) as theirs:
        ours = models.build(model, input_dim=1024, num_classes=CLASSES, preset="paper")
        pyramid = theirs.StructuredTemporalPyramidPooling(ours.config.width, True, configs=(1, (1, 2), 1))
        for name, layer, width in (
            ("activity", ours.activity, pyramid.activity_feat_dim()),
            ("completeness", ours.completeness, pyramid.completeness_feat_dim()),
        ):
            difference = abs(layer.in_features - width)
            how = "inputs of the classifier; their pyramid (1, (1, 2), 1) of features as wide as ours"
            yield Row(model, "parameters", name, layer.in_features, width, difference, 0.0, how)
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randn(*shape, generator=generator)
        group, count = 7, 7 * RECORDINGS
        labels = torch.randint(CLASSES, (RECORDINGS, 1), generator=generator).expand(-1, group).flatten()
        role = torch.tensor([COMPLETE] + [INCOMPLETE] * 6).repeat(RECORDINGS)
        # theirs takes the hardest of each recording, ours the hardest of the batch: one of each is hard here
        completeness = draw(count, CLASSES) - torch.where(torch.arange(count) % group < 2, -4.0, 4.0)[:, None]
        regression, wanted = draw(count, CLASSES, 2), draw(count, 2)
        segment = torch.tensor([[0.0, 10.0]]).expand(count, -1)
        centre, length = 5 + 10 * wanted[:, 0], 10 * wanted[:, 1].exp()
        target = torch.stack([centre - length / 2, centre + length / 2], 1)
        activity = draw(count, CLASSES + 1)
        our_losses = ours.proposal_losses(role, labels, target, segment, activity, completeness, regression)
        complete = role == COMPLETE
        hinge = theirs.CompletenessLoss()(completeness, labels + 1, 1, group)
        location = theirs.ClassWiseRegressionLoss()(
            regression[complete], labels[complete] + 1, wanted[complete]
        )
        assert not (role == BACKGROUND).any()
        for name, value, weight in (
            ("completeness", hinge, ours.config.completeness_weight),
            ("location", location, ours.config.regression_weight),
        ):
            pair = float(our_losses[name]) / weight, float(value)
            yield Row(model, "loss", name, *pair, abs(pair[0] - pair[1]), 1e-5, HOW)
        for name, value, reference in (
            ("dropout", ours.config.dropout, 0.8),
            ("NMS tIoU, THUMOS14", ours.config.post.nms_tiou, 0.2),
            ("detections, THUMOS14", ours.config.post.max_detections, 2000),
        ):
            how = "theirs read from ssn_opts.py and data/dataset_cfg.yaml"
            yield Row(model, "recipe", name, value, reference, abs(value - reference), 0.0, how)
