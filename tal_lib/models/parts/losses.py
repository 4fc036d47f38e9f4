"""Losses of the detectors, element by element; the caller sums and weighs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tal_lib.segments import interval_iou


def sigmoid_focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss of independent classes, same shape as `logits`.

    Source: Lin et al., ICCV 2017, equation 5.
    """
    p = logits.sigmoid()
    ce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p_t = p * targets + (1 - p) * (1 - targets)
    alpha_t = alpha * targets + (1 - alpha) * (1 - targets)
    return alpha_t * (1 - p_t) ** gamma * ce


def diou(a: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    """1 − tIoU + (distance of the centres / hull)², of segments (..., 2).

    Source: Zheng et al., AAAI 2020, in one dimension.
    """
    hull = torch.maximum(a[..., 1], b[..., 1]) - torch.minimum(a[..., 0], b[..., 0])
    centres = 0.5 * (a.sum(-1) - b.sum(-1))
    return 1 - interval_iou(a, b, eps) + (centres / hull.clamp(min=eps)) ** 2


def giou(a: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    """1 − tIoU + the fraction of the hull that neither segment covers, of segments (..., 2).

    Source: Rezatofighi et al., CVPR 2019.
    """
    hull = torch.maximum(a[..., 1], b[..., 1]) - torch.minimum(a[..., 0], b[..., 0])
    overlap = interval_iou(a, b, eps)
    union = ((a[..., 1] - a[..., 0]).clamp(min=0) + (b[..., 1] - b[..., 0]).clamp(min=0)) / (1 + overlap)
    return 1 - overlap + (hull - union) / hull.clamp(min=eps)
