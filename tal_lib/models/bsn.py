"""BSN: boundary curves, their pairs, and a confidence from the action curve around each pair.

Source: Lin et al., BSN: Boundary Sensitive Network for Temporal Action Proposal Generation, ECCV 2018. The
paper trains three stages one after the other. Here they train at once; the last stage reads the curves
without passing a gradient to them.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.bmn import ACTIVITYNET
from tal_lib.models.parts.conv import TemporalConv
from tal_lib.models.parts.proposals import (
    ProposalConfig,
    ProposalDetector,
    balanced_bce,
    balanced_by_overlap,
    best_of_grid,
    curve_targets,
    pair_boundaries,
)
from tal_lib.models.parts.registry import register
from tal_lib.models.parts.sampling import sample_segments
from tal_lib.segments import interval_iou
from tal_lib.validation import NotNegative, Size, require


@dataclass(frozen=True, kw_only=True)
class BSNConfig(ProposalConfig):
    """THUMOS14 values by default."""

    width: Size = 512
    confidence_width: Size = 256
    centre_points: Size = 16  # samples of the action curve inside a proposal
    boundary_points: Size = 8  # at each of its ends, a fifth of its length to either side
    # sampled for the confidence; start and end may join, which the paper does not do
    curves: tuple[Literal["start", "end", "action"], ...] = ("action",)
    confidence_weight: NotNegative = 1.0

    def check(self):
        super().check()
        require(len(self.curves) > 0, "curves: there is none", "Give one or more of start, end, action.")


CURVES = ("start", "end", "action")


@register(
    "bsn",
    family="proposals",
    paper=BSNConfig(),
    compact=BSNConfig(width=128, confidence_width=64, classifier_width=64),
    paper_activitynet=BSNConfig(**ACTIVITYNET),
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
        """Curve samples (N, P, curves · 32) around segments (N, P, 2), from curves (N, T, 3). Source: section
        3.3."""
        c = self.config
        chosen = curves[..., [CURVES.index(name) for name in c.curves]]
        reach = (segments[..., 1:] - segments[..., :1]) / 5
        regions = [
            (torch.cat([at - reach, at + reach], -1), c.boundary_points) for at in segments.split(1, -1)
        ]
        regions.insert(1, (segments, c.centre_points))
        return torch.cat(
            [sample_segments(chosen, region, points).flatten(2) for region, points in regions], -1
        )

    def windows(self, x: Tensor, keep: Tensor):
        c = self.config
        for conv in self.convs:
            x = F.relu(conv(x, keep))
        logits = self.out(x)
        curves = logits.sigmoid().detach()
        pairs, allowed = pair_boundaries(curves[..., 0], curves[..., 1], keep, c.max_duration)
        segments, scores = best_of_grid(pairs, allowed, c.proposals)
        confidence = self.confidence(
            F.relu(self.hidden(self.proposal_features(curves * keep, segments)))
        ).squeeze(-1)
        return (logits, segments, scores, confidence), segments, scores * confidence.detach().sigmoid()

    def proposal_loss(
        self, outputs: tuple[Tensor, ...], segments: list[Tensor], keep: Tensor
    ) -> dict[str, Tensor]:
        logits, proposals, scores, confidence = outputs
        wanted = torch.stack(
            [curve_targets(window_segments, self.config.window) for window_segments in segments]
        )
        overlap = torch.stack(
            [
                interval_iou(window_proposals[:, None], window_segments[None]).amax(1)
                if len(window_segments)
                else window_proposals.new_zeros(len(window_proposals))
                for window_proposals, window_segments in zip(proposals, segments)
            ]
        )
        curves = sum(balanced_bce(logits[..., i], wanted[..., i] > 0.5, keep) for i in range(3))
        error = F.smooth_l1_loss(confidence.sigmoid(), overlap, reduction="none", beta=0.1)
        return {
            "curves": curves,  # pyright: ignore[reportReturnType]
            "confidence": self.config.confidence_weight * balanced_by_overlap(error, overlap, scores > 0),
        }
