"""TemporalMaxer: a pyramid of max-pooling alone.

Source: Tang, Kim, Sohn, TemporalMaxer: Maximize Temporal Context with only Max Pooling for Temporal Action
Localization, 2023.

The released code keeps ActionFormer's fixed assignment of points and classes. A point then learns, of all
segments that contain it, the one that it predicts at the least cost (`assignment="least_cost"`, the preset
`paper`). ActionFormer learns the shortest (`centre`, `compact`); `simota` is SimOTA proper. The released code
could also lower the weights of positives of high cost; none of its configurations does. On held-out training
people of HAPT, `centre` was better than `simota`: 94.7 against 93.8 avg mAP with all recordings, 87.4 against
86.7 with 20 % (one seed).

The released code normalizes the features before the heads: by a group norm without parameters, or, for EPIC-
Kitchens verbs and MultiTHUMOS, by a layer norm (`neck_norm`). Padding has no influence here; in the authors'
code it has (`padding="authors"`). A detection whose clipped segment has length zero is dropped; theirs is
kept. Their training keeps the epoch with the best mAP on the test videos. Ours keeps the last epoch, because
no choice may depend on the test set. docs/fidelity.md compares both.

The compact preset has no norm before the heads and initialises the distances to one stride. With the
published zero, its ReLU head died in one of eight seeds (none of eight with one stride).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.models.parts.assignment import Points, least_cost_segments, simota_assignment
from tal_lib.models.parts.blocks import MaskedGroupNorm
from tal_lib.models.parts.candidates import PostProcess
from tal_lib.models.parts.conv import halve, max_pool
from tal_lib.models.parts.published import PUBLISHED_POST, PublishedConfig, PublishedPyramid
from tal_lib.models.parts.pyramid import AUTHORS, At
from tal_lib.models.parts.registry import register
from tal_lib.validation import NotNegative, require

NECK_GROUPS = 4


@dataclass(frozen=True, kw_only=True)
class TemporalMaxerConfig(PublishedConfig):
    """THUMOS14 values by default."""

    # centre: the shortest segment; least_cost: of the same points, the segment of least cost, as released
    assignment: Literal["centre", "least_cost", "simota"] = "centre"
    iou_weight: NotNegative = 2.0  # of the cost
    class_weight: NotNegative = 1.0  # of the class loss in the cost
    # between pyramid and heads. group: over a recording's steps, 4 groups of channels, no parameters;
    # layer: over the channels of a step, as their EPIC-Kitchens verb and MultiTHUMOS settings have it
    neck_norm: Literal["group", "layer", "none"] = "group"

    def check(self):
        super().check()
        require(
            self.neck_norm != "group" or self.width % NECK_GROUPS == 0,
            f"width: {self.width} is not divisible by {NECK_GROUPS}, the groups of the norm",
            "Choose another width, or neck_norm: layer.",
        )


@register(
    "temporalmaxer",
    family="one_stage",
    # the weight counts only where a user sets multiclass=false and voting_tiou=0.7
    paper=TemporalMaxerConfig(
        assignment="least_cost", post=replace(PUBLISHED_POST, voting_weight="score_tiou"), **AUTHORS
    ),
    compact=TemporalMaxerConfig(width=128, head_width=128, distance_bias=1.0, neck_norm="none"),
    paper_activitynet=TemporalMaxerConfig(
        width=256,
        head_width=256,
        assignment="least_cost",
        loss_norm=200,
        regression_weight=2.0,
        label_smoothing=0.1,
        # its authors have no setting for ActivityNet: post-processing as ActionFormer
        post=PostProcess(
            min_segment_steps=0.001,
            max_detections=100,
            nms_sigma=0.75,
            multiclass=False,
            voting_tiou=0.9,
            voting_weight="score_tiou",
        ),
        **AUTHORS,
    ),
)
class TemporalMaxer(PublishedPyramid):
    """Each level is the max-pool of the one below; then a norm, the same for all levels."""

    config: TemporalMaxerConfig

    def build_pyramid(self) -> None:
        c = self.config
        if c.neck_norm == "none":
            return
        norm = MaskedGroupNorm(NECK_GROUPS, c.width, affine=False)
        norm = nn.LayerNorm(c.width) if c.neck_norm == "layer" else norm
        self.neck = nn.ModuleList(norm for _ in c.ranges)  # one norm, as released; a file lists it per level

    def pyramid(self, x: Tensor, keep: Tensor | None):
        levels, keeps = [x], [keep]
        for _ in self.config.ranges[1:]:
            x, keep = max_pool(x, keep, self.sees_padding), halve(keep)
            levels.append(x)
            keeps.append(keep)
        if self.config.neck_norm == "group":
            levels = [norm(level, keep) for norm, level, keep in zip(self.neck, levels, keeps)]
        elif self.config.neck_norm == "layer":
            levels = [norm(level) for norm, level in zip(self.neck, levels)]
        return levels, keeps

    def assign(self, outputs: tuple[Tensor, ...], points: Points, valid: Tensor, batch: Batch):
        config = self.config
        by_centre = super().assign(outputs, points, valid, batch)
        if config.assignment == "centre":
            return by_centre
        every = torch.arange(outputs[0].shape[1], device=valid.device)
        weights: dict[str, Any] = {"iou_weight": config.iou_weight, "class_weight": config.class_weight}
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
