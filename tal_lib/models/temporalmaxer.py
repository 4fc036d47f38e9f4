"""TemporalMaxer: a pyramid of max-pooling alone.

Source: Tang, Kim, Sohn, TemporalMaxer: Maximize Temporal Context with only Max Pooling for Temporal Action
Localization, 2023.

The released code keeps ActionFormer's fixed assignment of points and classes. A point then learns, of all
segments that contain it, the one that it predicts at the least cost (`assignment="least_cost"`, the preset
`paper`). ActionFormer learns the shortest (`centre`, `compact`); `simota` is SimOTA proper. The released code
could also lower the weights of positives of high cost; none of its configurations does. On held-out training
people of HAPT, `centre` was better than `simota`: 94.7 against 93.8 avg mAP with all recordings, 87.4 against
86.7 with 20 % (one seed).

The compact preset initialises the distances to one stride. With the published zero, the ReLU head died in one
of eight seeds (none of eight with one stride), because nothing normalizes the features before the heads.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tal_lib.data.batches import Batch
from tal_lib.models.parts.assignment import Points, least_cost_segments, simota_assignment
from tal_lib.models.parts.candidates import PostProcess
from tal_lib.models.parts.conv import halve, max_pool
from tal_lib.models.parts.pyramid import AUTHORS, At, PyramidConfig, PyramidDetector
from tal_lib.models.parts.registry import register
from tal_lib.validation import NotNegative


@dataclass(frozen=True, kw_only=True)
class TemporalMaxerConfig(PyramidConfig):
    """THUMOS14 values by default."""

    # centre: the shortest segment; least_cost: of the same points, the segment of least cost, as released
    assignment: Literal["centre", "least_cost", "simota"] = "centre"
    iou_weight: NotNegative = 2.0  # of the cost
    class_weight: NotNegative = 1.0


@register(
    "temporalmaxer",
    family="one_stage",
    paper=TemporalMaxerConfig(assignment="least_cost", **AUTHORS),
    compact=TemporalMaxerConfig(width=128, head_width=128, distance_bias=1.0),
    paper_activitynet=TemporalMaxerConfig(
        width=256,
        head_width=256,
        assignment="least_cost",
        loss_norm=200,
        regression_weight=2.0,
        label_smoothing=0.1,
        post=PostProcess(max_detections=100, nms_sigma=0.75, voting_tiou=0.9, min_segment_steps=0.001),
        **AUTHORS,
    ),
)
class TemporalMaxer(PyramidDetector):
    """Each level is the max-pool of the one below; no norm between pyramid and heads."""

    config: TemporalMaxerConfig

    def build_pyramid(self) -> None:
        pass

    def pyramid(self, x: Tensor, keep: Tensor | None):
        levels, keeps = [x], [keep]
        for _ in self.config.ranges[1:]:
            x, keep = max_pool(x, keep), halve(keep)
            levels.append(x)
            keeps.append(keep)
        return levels, keeps

    def assign(self, outputs: tuple[Tensor, ...], points: Points, valid: Tensor, batch: Batch):
        config = self.config
        by_centre = super().assign(outputs, points, valid, batch)
        if config.assignment == "centre":
            return by_centre
        every = torch.arange(outputs[0].shape[1], device=valid.device)
        weights = {"iou_weight": config.iou_weight, "class_weight": config.class_weight}
        targets = []
        for index, (segments, labels) in enumerate(zip(batch.segments, batch.labels)):
            predicted = self.decode(outputs, points, At(torch.full_like(every, index), every, every))
            known = points, segments, labels, outputs[0][index], predicted
            if config.assignment == "simota":
                targets.append(
                    simota_assignment(*known, valid[index], radius=config.centre_radius, **weights)
                )
            else:
                classes, shortest, positive = (part[index] for part in by_centre)
                cheapest = least_cost_segments(*known, **weights) if len(segments) else shortest
                targets.append((classes, cheapest, positive))
        return tuple(torch.stack(part) for part in zip(*targets))
