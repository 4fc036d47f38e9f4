"""BMN: boundary curves, and a confidence map of all proposals at once.

Source: Lin et al., BMN: Boundary-Matching Network for Temporal Action Proposal Generation, ICCV 2019, and the
published PyTorch code (JJBOY/BMN-Boundary-Matching-Network), which is for ActivityNet's 100 steps.

`paper_activitynet` is that code: with its weights, curves, maps, losses, gradients and proposals agree
(docs/fidelity.md). `paper` (THUMOS14) is the same network over windows of 128 steps and durations up to 64.
Its map is of start and duration, as in the paper.

We keep three differences on purpose. The study's classifier labels the proposals, instead of video-level
class scores. A batch without positives does not divide by zero. Soft-NMS gets the best 1,000 of
ActivityNet's 4,950 pairs (`proposals`), and a THUMOS14 window's best 100 local maxima, since each is
classified.

`compact` differs in size, and by the options that `COMPACT` lists.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.parts.candidates import PostProcess
from tal_lib.models.parts.conv import TemporalConv
from tal_lib.models.parts.proposals import (
    ACTIVITYNET_WINDOW,
    ProposalConfig,
    ProposalDetector,
    balanced_bce,
    balanced_by_overlap,
    best_of_grid,
    check_share,
    curve_targets,
    inside,
    overlap_map,
    pair_boundaries,
    sampled_by_overlap,
)
from tal_lib.models.parts.registry import register
from tal_lib.models.parts.sampling import BoundaryMatching, Sampling
from tal_lib.validation import NotNegative, Positive, Probability, Size, require, require_divides

MOST_SAMPLES = 2**24  # of a window's proposals; the published map has 2^18


@dataclass(frozen=True, kw_only=True)
class BMNConfig(ProposalConfig):
    """THUMOS14 values by default. Where the published code and its paper differ, the default is the code."""

    base_width: Size = 256  # channels of the first convolution
    width: Size = 256  # the paper has 128
    groups: Size = 4  # of the base's convolutions and the first of the curves
    joint_curves: bool = False  # start and end share their last convolution
    points: Size = 32  # sampled in a proposal
    samples: Size = 3  # averaged at each point; the paper has one
    context: NotNegative = 0.5  # lengths before and behind it; the paper has 0.25
    context_steps: NotNegative = 1.0  # added to the length before `context` is taken
    # a position less than one step before the window reads the whole first step: the published code rounds
    # towards zero there; else linear to zero, as at the window's end
    hold_start: bool = True
    # second axis of the confidence map: durations (the paper), or last steps (the published code)
    map_axis: Literal["duration", "end"] = "duration"
    # what the map's convolutions see where nothing can be sampled: the layer's bias (published code), or 0
    empty: Literal["bias", "zero"] = "bias"
    sampled_width: Size = 512  # channels behind the points
    map_width: Size = 128  # of the convolutions over start and duration
    boundary: NotNegative = (
        0.0  # a boundary's region to either side, in lengths of the segment; the paper: 0.1
    )
    least_boundary: NotNegative = 1.5  # the same in steps, at least
    positive_tiou: Probability = 0.9  # of the classification map
    least_share: Positive = 1e-7  # of positives in a batch; more bounds the weight of few positives
    # overlaps of the regression map: middle and low ones drawn at random, without tIoU 0, half the error (the
    # published code); or all, the three groups weighing the same
    overlap_sampling: Literal["random", "expected"] = "random"
    regression_weight: NotNegative = 10.0  # of the loss of the regression map
    map_power: Positive = 1.0  # of classification × regression in a proposal's score
    candidates: Literal["peaks", "all"] = "peaks"  # boundary peaks and local maxima of the map, or every pair
    edge_proposals: bool = (
        True  # also propose what ends at the window's edge; the published inference does not
    )

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
        check_share(self.least_share)

    @property
    def sampling(self) -> Sampling:
        """How boundary matching samples a proposal."""
        names = ("points", "samples", "context", "context_steps", "hold_start")
        return Sampling(**{name: getattr(self, name) for name in names})


# the study's reduction: as the paper where that differs from the published code
COMPACT = {
    "base_width": 128,
    "width": 64,
    "joint_curves": True,
    "points": 16,
    "samples": 1,
    "context": 0.25,
    "context_steps": 0.0,
    "hold_start": False,
    "empty": "zero",
    "sampled_width": 48,
    "map_width": 32,
    "classifier_width": 64,
    "boundary": 0.1,
    "least_boundary": 1.0,
    "positive_tiou": 0.7,  # short segments on the grid of steps hardly ever overlap by 0.9
    "least_share": 1e-3,
    "overlap_sampling": "expected",
    "map_power": 0.5,
}
ACTIVITYNET_INFERENCE = {
    "candidates": "all",
    "proposals": 1000,  # of 4,950 pairs; the published code suppresses them all
    "edge_proposals": False,
    "post": PostProcess(
        nms_sigma=0.4,
        nms_low=0.5,
        nms_high=0.9,
        nms_span=100,
        min_score=0.0,
        score_threshold=1e-4,
        max_detections=100,
        voting_tiou=0.0,
    ),
}
THUMOS14_POST = PostProcess(nms_sigma=0.4, nms_low=0.5, nms_high=0.9, nms_span=128, voting_tiou=0.0)


class Curve(nn.Sequential):
    """Base features (N, T, C) → logits (N, T, 1) of a boundary: two convolutions."""

    def __init__(self, width: int, groups: int):
        super().__init__(TemporalConv(width, width, groups=groups), TemporalConv(width, 1, 1))

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        return self[1](F.relu(self[0](x, keep)))


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
    paper=BMNConfig(post=THUMOS14_POST),
    compact=BMNConfig(**COMPACT),
    paper_activitynet=BMNConfig(**ACTIVITYNET_WINDOW, **ACTIVITYNET_INFERENCE, map_axis="end"),
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
        if c.joint_curves:
            self.curves_in, self.curves_out = (
                TemporalConv(c.width, 2 * c.width, groups=c.groups),
                TemporalConv(2 * c.width, 2, 1),
            )
        else:
            self.curves = nn.ModuleList(Curve(c.width, c.groups) for _ in range(2))
        self.proposal_conv = TemporalConv(c.width, c.width)
        self.matching = BoundaryMatching(
            c.width,
            c.sampled_width,
            steps=c.window,
            max_duration=c.max_duration,
            how=c.sampling,
            by_end=c.map_axis == "end",
            empty_bias=c.empty == "bias",
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

    def boundary_curves(self, x: Tensor, keep: Tensor) -> Tensor:
        """Base features (N, T, C) → curve logits (N, T, 2) of start and end."""
        if self.config.joint_curves:
            return self.curves_out(F.relu(self.curves_in(x, keep)))
        return torch.cat([curve(x, keep) for curve in self.curves], -1)

    def confidence(self, x: Tensor, keep: Tensor) -> Tensor:
        """Base features (N, T, C) → map logits (N, T, D, 2) of start and duration."""
        sampled = self.matching(F.relu(self.proposal_conv(x, keep)) * keep).relu_()
        maps = self.maps(self.relate(sampled))
        return maps if self.config.map_axis == "duration" else by_duration(maps, self.config.max_duration)

    def windows(self, x: Tensor, keep: Tensor):
        c, x = self.config, self.encode(x, keep)
        curves, maps = self.boundary_curves(x, keep), self.confidence(x, keep)
        start, end = curves.sigmoid().unbind(-1)
        every = c.candidates == "all"
        pairs, allowed = pair_boundaries(start, end, keep, c.max_duration, edge=c.edge_proposals, every=every)
        confidence = maps.sigmoid().prod(-1)
        confidence = confidence.sqrt() if c.map_power == 0.5 else confidence**c.map_power
        best = best_of_grid((pairs * confidence).detach(), allowed, c.proposals, peaks=not every)
        return (curves, maps), *best

    def proposal_loss(
        self, outputs: tuple[Tensor, ...], segments: list[Tensor], keep: Tensor
    ) -> dict[str, Tensor]:
        curves, maps = outputs
        c = self.config
        wanted = torch.stack(
            [
                curve_targets(window_segments, c.window, c.boundary, c.least_boundary)[:, :2]
                for window_segments in segments
            ]
        )
        overlap = torch.stack(
            [overlap_map(window_segments, c.window, c.max_duration) for window_segments in segments]
        )
        valid = inside(keep.float(), c.max_duration)
        start, end = (
            balanced_bce(curves[..., i], wanted[..., i] > 0.5, keep, c.least_share) for i in range(2)
        )
        error = (maps[..., 1].sigmoid() - overlap) ** 2
        if c.overlap_sampling == "random":
            regression = 0.5 * sampled_by_overlap(error, overlap, valid & (overlap > 0))
        else:
            regression = balanced_by_overlap(error, overlap, valid)
        return {
            "curves": start + end,
            "map_classification": balanced_bce(maps[..., 0], overlap > c.positive_tiou, valid, c.least_share),
            "map_regression": c.regression_weight * regression,
        }


def by_duration(maps: Tensor, max_duration: int) -> Tensor:
    """Maps of start and last step (N, T, T, C) → of start and duration (N, T, D, C)."""
    steps = maps.shape[1]
    last = torch.arange(steps, device=maps.device)[:, None] + torch.arange(max_duration, device=maps.device)
    last = last.clamp(max=steps - 1)[None, ..., None].expand(len(maps), -1, -1, maps.shape[-1])
    return maps.gather(2, last)


def grouped(channels: int, groups: int) -> int:
    """The groups, or 1 if they do not divide the channels."""
    return groups if channels % groups == 0 else 1
