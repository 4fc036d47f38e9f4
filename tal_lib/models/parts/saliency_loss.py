"""AFSD's losses as its authors' code computes them (multisegment_loss.py and train.py).

Segments are pairs of distances (..., 2) from a point to a start and to an end, in any unit.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tal_lib.data.batches import Batch
from tal_lib.models.parts.boundary_pooling import pool_regions, pooling_regions


def reach_overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """tIoU and GIoU (...) of segments around the same points, by their distances a and b (..., 2).

    Distances may be negative; then the tIoU may be, too.
    """
    tiny = torch.finfo(torch.float32).eps
    inter = torch.minimum(a, b).sum(-1)
    union, hull = a.sum(-1) + b.sum(-1) - inter, torch.maximum(a, b).sum(-1)
    overlap = inter / union.clamp(min=tiny)
    return overlap, overlap - (hull - union) / hull.clamp(min=tiny)


def softmax_focal(logits: Tensor, target: Tensor, background: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (N,) of exclusive classes, logits (N, K + 1) with the background first, target (N,).

    background: weight of points whose target is the background; of the others it is 1 − background.
    """
    p = logits.softmax(-1).gather(1, target[:, None])[:, 0] + 1e-6
    weight = torch.where(target == 0, background, 1 - background)
    return -weight * (1 - p) ** gamma * p.log()


def detection_losses(
    outputs: tuple[Tensor, ...],
    wanted: Tensor,
    labels: Tensor,
    valid: Tensor,
    *,
    piou: float,
    best_is_good: bool,
    smooth: bool,
) -> dict[str, Tensor]:
    """Losses of all points: class and location, coarse and refined, and quality.

    Coarse losses are divided by the number of positive points, refined ones by the number of those whose
    coarse segment has a tIoU of at least `piou`.

    Args:
        outputs: coarse logits (B, P, K + 1) and distances (B, P, 2), refined logits, offsets (B, P, 2) in
            halves of the coarse length, outwards, quality logits (B, P).
        wanted: annotated distances (B, P, 2); labels: (B, P), 0 for the background; valid: (B, P).
        best_is_good: a recording's best coarse segment is refined whatever its tIoU.
        smooth: smooth-L1 for the offsets, not L1.
    """
    logits, coarse, again, offsets, quality = outputs
    positive = labels > 0
    with torch.no_grad():
        overlap = reach_overlap(coarse, wanted)[0]
        enough = torch.full_like(overlap[:, :1], piou)
        if best_is_good:
            best = overlap.masked_fill(~positive, -torch.inf).amax(1, keepdim=True)
            enough = torch.where(best > -torch.inf, best.clamp(max=piou), enough)
        good = positive & (overlap >= enough)
    count, refined_count = (which.sum().clamp(min=1) for which in (positive, good))
    focal = lambda logits, target: softmax_focal(logits[valid], target[valid]).sum()

    half = coarse.sum(-1, keepdim=True) / 2
    target = ((wanted - coarse) / half).detach()
    error = F.smooth_l1_loss if smooth else F.l1_loss
    # this overlap is not detached: the published loss teaches the segments through it, too
    fits = reach_overlap((half * offsets + coarse)[positive], wanted[positive])[0].clamp(min=0)
    return {
        "classification": focal(logits, labels) / count,
        "regression": (1 - reach_overlap(coarse, wanted)[1])[positive].sum() / count,
        "refined": focal(again, torch.where(good, labels, 0)) / refined_count,
        "offsets": error(offsets[good], target[good], reduction="sum") / refined_count,
        "quality": F.binary_cross_entropy_with_logits(quality[positive], fits, reduction="sum") / count,
    }


def boundary_targets(segments: Tensor, frames: Tensor) -> Tensor:
    """Which frames lie near a start or an end: segments (N, 2) in frames, frame numbers (F,) → (F, 2).

    A region is a tenth of the segment long, at least two frames, around its end, and rounded.
    """
    reach = ((segments[:, 1] - segments[:, 0]) / 10).clamp(min=2)[:, None] / 2
    first, last = (segments - reach).round(), (segments + reach).round()
    at = frames[:, None, None]
    return ((at >= first) & (at <= last)).any(1).to(segments)


def boundary_consistency(active: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropies of activations (B, F, 2) in [0, 1]: means over the valid frames, of start plus end."""
    loss = F.binary_cross_entropy(active, targets, reduction="none")
    return loss[valid].mean(0).sum()


def boundary_contrast(features: Tensor, pieces: Tensor, frames: int, scale: int) -> Tensor:
    """Triplet loss of a spliced recording: the cut action's inner ends stay alike, unlike the piece's start.

    Args:
        features: (1, T, C); pieces: (3, 2) of `spliced`, in steps; frames: a step; scale: frames that a step
            of the features spans.
    """
    at = pieces * frames
    at = torch.cat([at[:2], at[2:] + at.new_tensor([1.0, -1.0])])
    steps = torch.tensor([[features.shape[1]]], device=features.device)
    pooled = pool_regions(features, pooling_regions(at, extra=1.0)[None] / scale, steps)[0]
    half = pooled.shape[-1] // 2
    return F.triplet_margin_loss(pooled[:1, half:], pooled[1:2, :half], pooled[2:, :half])


def light_boundary_loss(curves: Tensor, batch: Batch) -> Tensor:
    """Boundary consistency of the light head: halves of the channels are active at starts and at ends."""
    steps = torch.arange(curves.shape[1], device=curves.device, dtype=torch.float32)
    targets = torch.zeros_like(curves)
    for index, segments in enumerate(batch.segments):
        reach = ((segments[:, 1] - segments[:, 0]) / 10).clamp(min=1)
        for side in range(2):
            near = (steps[:, None] - segments[:, side]).abs() <= reach
            targets[index, :, side] = near.any(1).to(curves)
    p = curves.tanh().clamp(1e-4, 1 - 1e-4)  # the features are after a ReLU
    loss = F.binary_cross_entropy(p, targets, reduction="none", weight=1 + 4 * targets)
    return loss[batch.mask].mean()
