"""Set prediction: boxes, their one-to-one assignment to annotations, and merging the sets of overlapping
slices.

A box is a centre and a width, as fractions of a slice.
"""

import numpy as np
import torch
from torch import Tensor

from tal_lib.models.parts.candidates import Candidates
from tal_lib.segments import interval_iou, nms


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit, clamped away from the ends."""
    x = x.clamp(eps, 1 - eps)
    return torch.log(x / (1 - x))


def to_segments(boxes: Tensor) -> Tensor:
    """Centre and width → start and end."""
    centre, width = boxes.unbind(-1)
    return torch.stack([centre - width / 2, centre + width / 2], -1)


def best_overlap(boxes: Tensor, targets: Tensor) -> Tensor:
    """Largest tIoU (...) of each box (..., 2) with any of the target boxes (N, 2), N > 0."""
    return interval_iou(to_segments(boxes).unsqueeze(-2), to_segments(targets)).amax(-1)


def match(
    class_logits: Tensor,
    boxes: Tensor,
    labels: Tensor,
    targets: Tensor,
    costs: tuple[float, float, float],
) -> tuple[Tensor, Tensor]:
    """One-to-one assignment of least cost between predictions and annotations of a slice (Hungarian method).

    Args:
        class_logits: (Q, K); boxes: (Q, 2) centre and width in [0, 1]; labels: (N,); targets: (N, 2).
        costs: weights of the focal class cost, the L1 distance, and the tIoU.

    Returns:
        indices of predictions and of annotations, min(Q, N) each.
    """
    p = class_logits.sigmoid()
    positive = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log()
    negative = 0.75 * p**2 * -(1 - p + 1e-8).log()
    of_class, of_distance, of_overlap = costs
    cost = (
        of_class * (positive - negative)[:, labels]
        + of_distance * torch.cdist(boxes, targets, p=1)
        - of_overlap * interval_iou(to_segments(boxes)[:, None], to_segments(targets)[None])
    )
    from scipy.optimize import linear_sum_assignment  # here: one model needs it, every command imports all

    rows, columns = linear_sum_assignment(cost.detach().cpu().numpy())
    return torch.as_tensor(rows, device=boxes.device), torch.as_tensor(columns, device=boxes.device)


def merge_overlaps(candidates: Candidates, overlaps: list[tuple[float, float]], tiou: float) -> Candidates:
    """Hard NMS, in each class, of the candidates that reach into the overlap of two slices: above `tiou`.

    The other candidates stay as they are. One that survives in two overlaps is listed once.

    Args:
        overlaps: start and end of each; time in steps, as in the candidates.
    """
    segments, scores, labels = (
        part.cpu().numpy()
        for part in (candidates.segments.float(), candidates.scores.float(), candidates.labels)
    )
    above = float(np.nextafter(np.float32(tiou), np.float32(2)))  # at the threshold itself both stay
    outside, groups = np.ones(len(scores), dtype=bool), []
    for start, end in overlaps:
        here = np.minimum(segments[:, 1], end) > np.maximum(segments[:, 0], start)
        outside &= ~here
        parts = segments[here], scores[here], labels[here]
        groups.append(nms(*parts, tiou_threshold=above, max_detections=len(scores)))
    groups.append((segments[outside], scores[outside], labels[outside]))
    table = np.concatenate([np.column_stack(group).astype(np.float64) for group in groups])
    rows = torch.from_numpy(np.unique(table, axis=0)).to(candidates.segments.device)
    return Candidates(rows[:, :2].float(), rows[:, 2].float(), rows[:, 3].long())
