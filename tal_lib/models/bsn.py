"""BSN: boundary curves, their pairs, and a confidence from the action curve around each pair.

Source: Lin et al., BSN: Boundary Sensitive Network for Temporal Action Proposal Generation, ECCV 2018, and
the first author's PyTorch code (wzmsltw/BSN-boundary-sensitive-network.pytorch), which is for ActivityNet's
100 steps.

`paper_activitynet` is that code: with its weights, curves, pairs, confidences and losses agree
(docs/fidelity.md). `paper` (THUMOS14) is the same network over windows of 128 steps.

We keep three differences on purpose. The paper trains its stages one after the other; here they train at
once, with one optimizer, and the last stage passes no gradient to the curves. The last stage trains on 1,000
pairs of a recording, not 500. A THUMOS14 window gives 100 local maxima of start × end to the last stage and
to the classifier, none longer than 64 steps.

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
    pair_boundaries,
)
from tal_lib.models.parts.registry import register
from tal_lib.models.parts.sampling import sample_linear, sample_segments
from tal_lib.segments import interval_iou
from tal_lib.validation import NotNegative, Positive, Size, SizeOrZero, require


@dataclass(frozen=True, kw_only=True)
class BSNConfig(ProposalConfig):
    """THUMOS14 values by default. Where the published code and its paper differ, the default is the code."""

    width: Size = 512  # channels of the convolutions of the curves
    confidence_width: Size = 256  # hidden channels of the confidence
    centre_points: Size = 16  # samples of the action curve inside a proposal
    boundary_points: Size = 8  # at each of its ends, a fifth of its length to either side
    # sampled for the confidence; start and end may join, which the paper does not do
    curves: tuple[Literal["start", "end", "action"], ...] = ("action",)
    confidence_weight: NotNegative = 1.0  # of the loss of the confidence
    # parts of the distance between two samples: a sample is the mean of the curve at the ends of these parts,
    # half a distance to either side. 0: the curve at the sample itself (the paper)
    sub_samples: SizeOrZero = 3
    curve_scale: Positive = 0.01  # of the curves' logits; the paper has none
    confidence_scale: Positive = 0.1  # of both layers of the confidence
    boundary: NotNegative = (
        0.05  # a boundary's region to either side, in lengths of the segment; the paper: 0.1
    )
    least_boundary: NotNegative = 0.5  # the same in steps, at least
    least_share: Positive = 1e-7  # of positives in a batch; more bounds the weight of few positives
    action_weight: NotNegative = 2.0  # of the action curve's loss
    # smooth L1 of the confidences: the mean over all proposals, which is what the published code computes; or
    # low, middle and high overlaps weighing the same (the paper)
    confidence_loss: Literal["mean", "balanced"] = "mean"
    confidence_beta: Positive = 1.0  # where that turns from square to linear
    ends_are_candidates: bool = True  # the first and the last step, whatever their probability
    local_maxima: bool = True  # of start × end only, or every pair of candidates

    def check(self):
        super().check()
        check_share(self.least_share)
        require(len(self.curves) > 0, "curves: the list is empty", "Give at least one of start, end, action.")


CURVES = ("start", "end", "action")
COMPACT = {
    "width": 128,
    "confidence_width": 64,
    "classifier_width": 64,
    "sub_samples": 0,
    "curve_scale": 1.0,
    "confidence_scale": 1.0,
    "boundary": 0.1,
    "least_boundary": 1.0,
    "least_share": 1e-3,
    "action_weight": 1.0,
    "confidence_loss": "balanced",
    "confidence_beta": 0.1,
    "ends_are_candidates": False,
}


def post(steps: int, **more) -> PostProcess:
    """The published soft-NMS; `steps` of the window are its unit of length."""
    return PostProcess(nms_sigma=0.75, nms_low=0.65, nms_high=0.9, nms_span=steps, voting_tiou=0.0, **more)


@register(
    "bsn",
    family="proposals",
    paper=BSNConfig(post=post(128)),
    compact=BSNConfig(**COMPACT),
    paper_activitynet=BSNConfig(
        **ACTIVITYNET_WINDOW,
        proposals=1000,
        local_maxima=False,
        post=post(100, min_score=0.0, score_threshold=1e-4, max_detections=100),
    ),
)
class BSN(ProposalDetector):
    """`windows` returns curve logits (N, T, 3) of start, end and action, segments (N, P, 2), existence (N, P)
    and confidences (N, P)."""

    config: BSNConfig
    unordered = ((1, 2, 3), *ProposalDetector.unordered)

    def build_network(self) -> None:
        c = self.config
        self.convs = nn.ModuleList([TemporalConv(self.input_dim, c.width), TemporalConv(c.width, c.width)])
        self.out = TemporalConv(c.width, 3, 1)
        self.hidden = nn.Linear(len(c.curves) * (c.centre_points + 2 * c.boundary_points), c.confidence_width)
        self.confidence = nn.Linear(c.confidence_width, 1)

    def proposal_features(self, curves: Tensor, segments: Tensor) -> Tensor:
        """Curve samples (N, P, curves · 32) around segments (N, P, 2), from curves (N, T, 3): start, inside,
        end. Source: section 3.3."""
        c = self.config
        chosen = curves[..., [CURVES.index(name) for name in c.curves]]
        reach = (segments[..., 1:] - segments[..., :1]) / 5
        regions = [
            (torch.cat([at - reach, at + reach], -1), c.boundary_points) for at in segments.split(1, -1)
        ]
        regions.insert(1, (segments, c.centre_points))
        return torch.cat(
            [averaged_samples(chosen, *region, c.sub_samples).flatten(2) for region in regions], -1
        )

    def windows(self, x: Tensor, keep: Tensor):
        c = self.config
        for conv in self.convs:
            x = F.relu(conv(x, keep))
        logits = self.out(x) if c.curve_scale == 1 else c.curve_scale * self.out(x)
        curves = logits.sigmoid().detach()
        pairs, allowed = pair_boundaries(
            curves[..., 0],
            curves[..., 1],
            keep,
            c.max_duration,
            edge=False,
            ends_are_candidates=c.ends_are_candidates,
        )
        segments, scores = best_of_grid(pairs, allowed, c.proposals, peaks=c.local_maxima)
        scaled = lambda x: x if c.confidence_scale == 1 else c.confidence_scale * x
        hidden = F.relu(scaled(self.hidden(self.proposal_features(curves * keep, segments))))
        confidence = scaled(self.confidence(hidden)).squeeze(-1)
        return (logits, segments, scores, confidence), segments, scores * confidence.detach().sigmoid()

    def proposal_loss(
        self, outputs: tuple[Tensor, ...], segments: list[Tensor], keep: Tensor
    ) -> dict[str, Tensor]:
        logits, proposals, scores, confidence = outputs
        c = self.config
        wanted = torch.stack(
            [
                curve_targets(window_segments, c.window, c.boundary, c.least_boundary)
                for window_segments in segments
            ]
        )
        overlap = torch.stack(
            [
                interval_iou(window_proposals[:, None], window_segments[None]).amax(1)
                if len(window_segments)
                else window_proposals.new_zeros(len(window_proposals))
                for window_proposals, window_segments in zip(proposals, segments)
            ]
        )
        curves = sum(
            weight * balanced_bce(logits[..., i], wanted[..., i] > 0.5, keep, c.least_share)
            for i, weight in enumerate((1.0, 1.0, c.action_weight))
        )
        error = F.smooth_l1_loss(confidence.sigmoid(), overlap, reduction="none", beta=c.confidence_beta)
        exists = scores > 0
        if c.confidence_loss == "mean":
            confidence_loss = (error * exists).sum() / exists.sum().clamp(min=1)
        else:
            confidence_loss = balanced_by_overlap(error, overlap, exists)
        return {
            "curves": curves,  # pyright: ignore[reportReturnType]
            "confidence": c.confidence_weight * confidence_loss,
        }


def averaged_samples(x: Tensor, segments: Tensor, points: int, sub_samples: int) -> Tensor:
    """Features (B, P, points, C) at even positions in segments (B, P, 2), each averaged over a sample's
    distance."""
    if not sub_samples:
        return sample_segments(x, segments, points)
    start, end = segments.split(1, -1)
    apart = (end - start) / (points - 1)
    part = torch.arange(points * sub_samples + 1, device=x.device) / sub_samples - 0.5
    at = start + apart * part  # (B, P, points · sub_samples + 1)
    sampled = sample_linear(x, at.flatten(1)).unflatten(1, at.shape[1:])
    return sampled.unfold(2, sub_samples + 1, sub_samples).mean(-1)
