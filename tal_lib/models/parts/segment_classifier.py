"""The classifier of proposals, shared by all models that propose first.

It trains with the detector, on the same recordings. Its parameters are separate, so the proposals do not
depend on it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.parts.blocks import ConvNormReLU
from tal_lib.models.parts.conv import exporting, masked
from tal_lib.models.parts.sampling import sample_segments
from tal_lib.segments import interval_iou

IGNORED = -100
PROPOSALS_AT_ONCE = 2048  # at inference


class SegmentClassifier(nn.Module):
    """Two k3 convolutions over the recording; an MLP classifies samples of each proposal.

    A proposal is sampled with half its length on either side. Class K is background.
    """

    def __init__(self, inputs: int, width: int, num_classes: int, points: int = 16, context: float = 0.5):
        super().__init__()
        self.points, self.context = points, context
        self.convs = nn.ModuleList(ConvNormReLU(inputs if i == 0 else width, width) for i in range(2))
        self.hidden, self.norm = nn.Linear(points * width, width), nn.LayerNorm(width)
        self.drop, self.out = nn.Dropout(0.3), nn.Linear(width, num_classes + 1)

    def features(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """(B, T, D) → (B, T, width)."""
        for conv in self.convs:
            x = conv(x, keep)
        return masked(x, keep)

    def forward(self, features: Tensor, segments: Tensor) -> Tensor:
        """Features (B, T, width) and segments (B, P, 2) in steps → class logits (B, P, K + 1)."""
        if not (torch.is_grad_enabled() or exporting()) and segments.shape[1] > PROPOSALS_AT_ONCE:
            return torch.cat([self(features, part) for part in segments.split(PROPOSALS_AT_ONCE, 1)], 1)
        sampled = sample_segments(features, segments, self.points, self.context).flatten(2)
        return self.out(self.drop(F.relu(self.norm(self.hidden(sampled)))))


def class_targets(
    proposals: Tensor,
    segments: Tensor,
    labels: Tensor,
    background: int,
    positive: float = 0.5,
    negative: float = 0.3,
) -> Tensor:
    """Target class (P,) of each proposal.

    A proposal gets the class of the segment that it overlaps best from tIoU `positive` on, background below
    `negative`, and IGNORED between the two.

    Args:
        proposals: (P, 2); segments: (M, 2); labels: (M,).
    """
    if not len(segments):
        return torch.full((len(proposals),), background, device=proposals.device)
    overlap, which = interval_iou(proposals[:, None], segments[None]).max(1)
    target = torch.where(overlap >= positive, labels[which], IGNORED)
    return torch.where(overlap < negative, background, target)


def classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of (N, K + 1) logits; background as a whole weighs no more than the classes."""
    background = logits.shape[1] - 1
    loss = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
    is_class, is_background = (targets != IGNORED) & (targets != background), targets == background
    count = is_class.sum().clamp(min=1)
    weight = is_class + is_background * (count / is_background.sum().clamp(min=1)).clamp(max=1)
    return (loss * weight).sum() / weight.sum().clamp(min=1)
