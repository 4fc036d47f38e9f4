"""Masks of instances: each step predicts which other steps belong to its instance. Losses and decoding.

Used by STALE (stale.py). N windows of T steps, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tal_lib.models.parts.proposals import balanced_bce


def from_relative(rows: Tensor) -> Tensor:
    """Relative masks (N, T, 2T − 1) → (N, T, T): entry j of step i is its entry j − i + T − 1."""
    steps = rows.shape[1]
    at = torch.arange(steps, device=rows.device)
    return rows.gather(2, (at[None] - at[:, None] + steps - 1).expand(rows.shape[0], -1, -1))


def middle_windows(steps: int, windows: int, stride: int, window: int, device=None) -> Tensor:
    """For every step the window whose middle is nearest: (steps,) indices."""
    at = torch.arange(steps, device=device)
    return ((at - (window - 1) / 2) / stride).round().long().clamp(0, windows - 1)


# losses


def focal_cross_entropy(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """(1 − p)^γ · −log p, with p the probability of the target class.

    logits (..., K), targets (..., K) that sum to one → (...).
    """
    log_p = logits.log_softmax(-1)
    return -(targets * (1 - log_p.exp()) ** gamma * log_p).sum(-1)


def dice(p: Tensor, targets: Tensor) -> Tensor:
    """1 − (2 Σ p t + 1) / (Σ p² + Σ t² + 1) over the last axis.

    Source: Milletari et al., V-Net (3DV 2016), smoothed by one.
    """
    return 1 - (2 * (p * targets).sum(-1) + 1) / (p.square().sum(-1) + targets.square().sum(-1) + 1)


def pooled(x: Tensor, weights: Tensor) -> Tensor:
    """Mean of x (N, T, C) over steps with weights (N, T)."""
    return (x * weights[..., None]).sum(1) / weights.sum(1, keepdim=True).clamp(min=1e-6)


def same_instance(instances: Tensor, valid: Tensor) -> Tensor:
    """Whether step j belongs to the instance of step i, (N, T, T), from instances (N, T), −1 for none."""
    inside = (instances >= 0) & valid
    return (instances[:, :, None] == instances[:, None]) & inside[:, :, None] & inside[:, None]


def mask_loss(masks: Tensor, instances: Tensor, valid: Tensor, bce_share: float) -> Tensor:
    """Balanced cross-entropy and dice of masks (N, T, T) against "step j belongs to the instance of step i".

    Dice counts only steps that have an instance.
    """
    inside = (instances >= 0) & valid
    targets = same_instance(instances, valid)
    both = valid[:, :, None] & valid[:, None]
    bce = balanced_bce(masks, targets, both)
    if not inside.any():
        return bce_share * bce
    p = (masks.sigmoid() * valid[:, None])[inside]
    return bce_share * bce + (1 - bce_share) * dice(p, targets[inside].to(p)).mean()


def consistency_loss(x: Tensor, logits: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
    """1 − cosine of features (N, T, C), pooled by the foreground of the classes and by that of the masks."""
    by_class = (1 - logits.softmax(-1)[..., -1]) * valid
    by_mask = masks.sigmoid().diagonal(dim1=1, dim2=2) * valid
    return (1 - F.cosine_similarity(pooled(x, by_class), pooled(x, by_mask), dim=-1)).mean()


# as the authors' code computes them


def focal_of_mean(logits: Tensor, targets: Tensor) -> Tensor:
    """Focal loss of the mean cross-entropy c: (1 − exp(−c))² · c; logits (M, K), targets (M,) class indices.

    The published loss focuses on batches, not on single steps.
    """
    mean = F.cross_entropy(logits, targets)
    return (1 - (-mean).exp()) ** 2 * mean


def released_mask_loss(masks: Tensor, instances: Tensor, valid: Tensor, bce_share: float) -> Tensor:
    """Weighted cross-entropy and dice of masks (N, T, T), each window as one whole.

    The weights are those of BSN's loss with ten more of either kind. Dice has no factor 2, so a perfect mask
    has a loss near ½.
    """
    both = valid[:, :, None] & valid[:, None]
    target = same_instance(instances, valid)
    positive = 10 + target.sum()
    entries = 10 + positive + (both & ~target).sum()
    ratio = entries / positive
    p = masks.sigmoid()
    weight = torch.where(target, 0.5 * ratio, 0.5 * ratio / (ratio - 1))
    log = weight * torch.where(target, p + 1e-6, 1 - p + 1e-6).log()
    p, target = (p * both).flatten(1), target.flatten(1).to(p)
    overlap = ((p * target).sum(1) + 1) / (p.square().sum(1) + target.sum(1) + 1)
    return bce_share * -(log * both).sum() / entries + (1 - bce_share) * (1 - overlap).mean()


CLASSES_READ = 200  # of the K + 1; the background is among them unless there are 200 classes


def released_consistency_loss(x: Tensor, logits: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
    """1 − cosine of features (N, T, C), averaged over two sets of steps.

    One set has a class probability, the other a largest mask value, of at least the window's mean.
    """
    above = lambda value: (value >= pooled(value[..., None], valid.to(value))) & valid
    by_class = above(logits.softmax(-1)[..., :CLASSES_READ].amax(-1))
    by_mask = above((masks.sigmoid() * valid[:, None]).amax(2))
    means = (pooled(x, chosen.to(x)) for chosen in (by_class, by_mask))
    return (1 - F.cosine_similarity(*means, dim=-1, eps=1e-6)).mean()


# decoding


def best_step(scores: Tensor, first: Tensor, last: Tensor, label: Tensor) -> Tensor:
    """The step of the highest score (T, K) of its class in each run (R,), from `first` to `last`
    inclusive.
    """
    at = torch.arange(len(scores), device=scores.device)
    inside = (at >= first[:, None]) & (at <= last[:, None])
    return torch.where(inside, scores.T[label], -1).argmax(1)


def mask_runs(rows: Tensor, at: Tensor, end: Tensor, thresholds: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """The runs of masks (R, T) around steps `at` (R,) that stay above each threshold and before `end` (R,).

    Returns:
        segments (thresholds · R, 2) in steps of the window, and the agreement of each with its mask: the tIoU
            of a soft set, which is the mask inside over the length plus the mask outside. 0 where the step
            itself is not above the threshold.
    """
    position = torch.arange(rows.shape[1], device=rows.device)
    segments, agreement = [], []
    for threshold in thresholds:
        out = (rows <= threshold) | (position >= end[:, None])
        first = (
            torch.where(out & (position <= at[:, None]), position, -1).amax(1) + 1
        )  # after the last step outside before it
        last = torch.where(out & (position >= at[:, None]), position, rows.shape[1]).amin(1) - 1
        inside = (position >= first[:, None]) & (position <= last[:, None])
        segments.append(torch.stack([first - 0.5, last + 0.5], 1))
        within = (rows * inside).sum(1)
        agreement.append(
            within / (inside.sum(1) + (rows * (position < end[:, None])).sum(1) - within).clamp(min=1e-6)
        )
    return torch.cat(segments).to(rows.dtype), torch.cat(agreement)
