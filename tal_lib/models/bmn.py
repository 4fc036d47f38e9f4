"""BMN: boundary curves, and a confidence map of all proposals at once.

Source: Lin et al., BMN: Boundary-Matching Network for Temporal Action Proposal Generation, ICCV 2019. The
paper samples low, middle and high overlaps 1 : 1 : 1. Here they are weighted equally, which is the
expectation of that.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.parts.candidates import PostProcess
from tal_lib.models.parts.conv import TemporalConv
from tal_lib.models.parts.proposals import (
    ProposalConfig,
    ProposalDetector,
    at_ends,
    balanced_bce,
    balanced_by_overlap,
    best_of_grid,
    curve_targets,
    overlap_map,
    pair_boundaries,
)
from tal_lib.models.parts.registry import register
from tal_lib.models.parts.sampling import BoundaryMatching
from tal_lib.validation import NotNegative, Probability, Size, require, require_divides

MOST_SAMPLES = 2**24  # of a window's proposals; the published map has 2^18


@dataclass(frozen=True, kw_only=True)
class BMNConfig(ProposalConfig):
    """THUMOS14 values by default."""

    base_width: Size = 256
    width: Size = 128
    groups: Size = 4  # of the base's convolutions and the last of the curves
    points: Size = 32  # sampled in a proposal
    context: NotNegative = 0.25  # lengths before and behind it
    sampled_width: Size = 512  # channels behind the points
    map_width: Size = 128  # of the convolutions over start and duration
    positive_tiou: Probability = 0.9  # of the classification map
    regression_weight: NotNegative = 10.0

    def check(self):
        super().check()
        require_divides(self, "base_width", "groups")
        require_divides(self, "width", "groups")
        samples = self.window * self.max_duration * self.points
        require(
            samples <= MOST_SAMPLES,
            f"window={self.window}, max_duration={self.max_duration}, points={self.points}: too many",
            f"Keep their product at most {MOST_SAMPLES:,}.",
        )


COMPACT = {
    "base_width": 128,
    "width": 64,
    "points": 16,
    "sampled_width": 48,
    "map_width": 32,
    "classifier_width": 64,
    "positive_tiou": 0.7,
}  # short segments on the grid of steps hardly ever overlap by 0.9
ACTIVITYNET = {
    "window": 100,
    "overlap": 50,
    "max_duration": 100,
    "post": PostProcess(max_detections=100, voting_tiou=0.0),
}


class ConfidenceMaps(nn.Module):
    """Features of all proposals (N, T, D, C) → logits (N, T, D, 2): classification, regression."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.reduce = nn.Linear(inputs, width)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.out = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x).relu_().permute(0, 3, 1, 2)  # a view: channels-last, as the convolutions like it
        for conv in self.convs:
            x = conv(x).relu_()
        return self.out(x.permute(0, 2, 3, 1))


@register(
    "bmn",
    family="proposals",
    paper=BMNConfig(),
    compact=BMNConfig(**COMPACT),
    paper_activitynet=BMNConfig(**ACTIVITYNET),
)
class BMN(ProposalDetector):
    """`windows` gives curve logits (N, T, 2) of start and end, and map logits (N, T, D, 2)."""

    config: BMNConfig

    def build_network(self) -> None:
        c = self.config
        self.base = nn.ModuleList(
            [
                TemporalConv(self.input_dim, c.base_width, groups=grouped(self.input_dim, c.groups)),
                TemporalConv(c.base_width, c.width, groups=c.groups),
            ]
        )
        self.curves_in, self.curves_out = (
            TemporalConv(c.width, 2 * c.width, groups=c.groups),
            TemporalConv(2 * c.width, 2, 1),
        )
        self.proposal_conv = TemporalConv(c.width, c.width)
        self.matching = BoundaryMatching(
            c.width,
            c.sampled_width,
            steps=c.window,
            max_duration=c.max_duration,
            points=c.points,
            context=c.context,
        )
        self.maps = ConfidenceMaps(c.sampled_width, c.map_width)

    def encode(self, x: Tensor, keep: Tensor) -> Tensor:
        """Windows (N, T, D) → base features (N, T, C)."""
        for conv in self.base:
            x = F.relu(conv(x, keep))
        return x

    def relate(self, proposals: Tensor) -> Tensor:
        """Features of all proposals (N, T, D, C) → the same; nothing here."""
        return proposals

    def windows(self, x: Tensor, keep: Tensor):
        x = self.encode(x, keep)
        curves = self.curves_out(F.relu(self.curves_in(x, keep)))
        sampled = self.matching(F.relu(self.proposal_conv(x, keep)) * keep).relu_()
        maps = self.maps(self.relate(sampled))
        start, end = curves.sigmoid().unbind(-1)
        pairs, allowed = pair_boundaries(start, end, keep, self.config.max_duration)
        scores = pairs * maps.sigmoid().prod(-1).sqrt()
        return (curves, maps), *best_of_grid(scores.detach(), allowed, self.config.proposals)

    def proposal_loss(
        self, outputs: tuple[Tensor, ...], segments: list[Tensor], keep: Tensor
    ) -> dict[str, Tensor]:
        curves, maps = outputs
        c = self.config
        wanted = torch.stack(
            [curve_targets(window_segments, c.window)[:, :2] for window_segments in segments]
        )
        overlap = torch.stack(
            [overlap_map(window_segments, c.window, c.max_duration) for window_segments in segments]
        )
        valid = keep[..., None] & (at_ends(keep.float(), c.max_duration) > 0)
        start, end = (balanced_bce(curves[..., i], wanted[..., i] > 0.5, keep) for i in range(2))
        regression = balanced_by_overlap((maps[..., 1].sigmoid() - overlap) ** 2, overlap, valid)
        return {
            "curves": start + end,
            "map_classification": balanced_bce(maps[..., 0], overlap > c.positive_tiou, valid),
            "map_regression": c.regression_weight * regression,
        }


def grouped(channels: int, groups: int) -> int:
    """The groups, or 1 if they do not divide the channels."""
    return groups if channels % groups == 0 else 1
