"""Which pyramid points answer for which segment."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tal_lib.models.parts.conv import ceil_div
from tal_lib.models.parts.losses import diou, sigmoid_focal
from tal_lib.segments import interval_iou


@dataclass(frozen=True)
class Points:
    """Pyramid points, all levels end to end: position and stride in steps, and the regression range of the
    level."""

    position: Tensor  # (P,)
    stride: Tensor  # (P,)
    low: Tensor  # (P,)
    high: Tensor  # (P,)
    first: Tensor  # (P,) row at which its level begins
    level_sizes: tuple[int, ...]


def pyramid_points(steps: int, ranges: tuple[tuple[float, float], ...], device=None) -> Points:
    """Points of a pyramid over `steps` steps, one level a range, strides 1, 2, 4, …"""
    sizes, parts, first = [], [], 0
    for level, (low, high) in enumerate(ranges):
        stride = 2**level
        size = ceil_div(steps, stride)
        sizes.append(size)
        position = torch.arange(size, device=device, dtype=torch.float32) * stride
        parts.append(
            torch.stack(
                [position, *(torch.full_like(position, value) for value in (stride, low, high, first))]
            )
        )
        first = first + size
    position, stride, low, high, first = torch.cat(parts, dim=1)
    return Points(position, stride, low, high, first.long(), tuple(sizes))


def _near_centre(points: Points, segments: Tensor, radius: float) -> Tensor:
    """Whether a point lies inside a segment and within `radius` strides of its centre, (P, N)."""
    t, stride = points.position[:, None], points.stride[:, None]
    start, end = segments[:, 0], segments[:, 1]
    centre = (start + end) / 2
    return (
        torch.minimum(
            t - torch.maximum(centre - radius * stride, start),
            torch.minimum(centre + radius * stride, end) - t,
        )
        > 0
    )


def _class_cost(logits: Tensor, onehot: Tensor) -> Tensor:
    """Focal loss of all classes against "this class only", (P, N), from (P, K) and (N, K)."""
    # the loss against no class, with one entry exchanged
    against, none = (sigmoid_focal(logits.detach(), torch.full_like(logits, value)) for value in (1.0, 0.0))
    return none.sum(1, keepdim=True) + (against - none) @ onehot.T


def centre_assignment(
    points: Points,
    segments: Tensor,
    labels: Tensor,
    num_classes: int,
    radius: float = 1.5,
    *,
    closed: bool = False,
):
    """Targets of every point by centre sampling and level ranges.

    A point is positive for a segment under three conditions: it lies within `radius` strides of the centre,
    inside the segment, and the larger distance to the ends is in the range of its level. Of several segments
    the shortest wins.

    Args:
        segments: (N, 2) in steps; labels: (N,).
        closed: the range of a level includes its upper end, as in the authors' code.

    Returns:
        classes (P, K) multi-hot, segments (P, 2) in steps (without NaN; meaningful where positive), positive
            (P,) bool.

    Source: Tian et al., FCOS (ICCV 2019); ActionFormer (ECCV 2022), section 3.3.
    """
    count = len(points.position)
    classes = points.position.new_zeros(count, num_classes)
    if len(segments) == 0:
        return (
            classes,
            points.position.new_zeros(count, 2),
            torch.zeros(count, dtype=torch.bool, device=classes.device),
        )
    t, start, end = points.position[:, None], segments[:, 0], segments[:, 1]
    near = _near_centre(points, segments, radius)
    far = torch.maximum(t - start, end - t)
    high = points.high[:, None]
    fits = near & (far >= points.low[:, None]) & (far <= high if closed else far < high)
    lengths = torch.where(fits, end - start, torch.inf)
    shortest, which = lengths.min(dim=1)
    positive = shortest.isfinite()
    equally_short = fits & (lengths <= shortest[:, None] + 1e-3)
    onehot = torch.nn.functional.one_hot(labels, num_classes).to(classes)
    classes = (equally_short.to(classes) @ onehot).clamp(max=1)
    return classes, segments[which], positive


def inside_assignment(points: Points, segments: Tensor, labels: Tensor, num_classes: int):
    """Targets of every point by inclusion: the shortest segment around it.

    The larger distance to the segment's ends must lie in the range of the point's level, above its lower and
    up to its upper end.

    Args and returns: as `centre_assignment`, but each point has one class.

    Source: Lin et al., AFSD (CVPR 2021), by the authors' code.
    """
    count = len(points.position)
    classes = points.position.new_zeros(count, num_classes)
    if len(segments) == 0:
        return classes, classes.new_zeros(count, 2), torch.zeros_like(points.position, dtype=torch.bool)
    before = points.position[:, None] - segments[:, 0]
    after = segments[:, 1] - points.position[:, None]
    far = torch.maximum(before, after)
    fits = (before >= 0) & (after >= 0) & (far > points.low[:, None]) & (far <= points.high[:, None])
    shortest, which = torch.where(fits, before + after, torch.inf).min(1)
    positive = shortest.isfinite()
    onehot = torch.nn.functional.one_hot(labels[which], num_classes).to(classes)
    return onehot * positive[:, None], segments[which], positive


def simota_assignment(
    points: Points,
    segments: Tensor,
    labels: Tensor,
    logits: Tensor,
    predicted: Tensor,
    valid: Tensor,
    *,
    radius: float = 1.5,
    iou_weight: float = 2.0,
    class_weight: float = 1.0,
    top: int = 10,
):
    """Targets by cost: each segment takes the k points near its centre that predict it at the least cost.

    The cost of a point for a segment is `class_weight` · focal loss of its class scores − `iou_weight` · log
    tIoU. k is the sum of the segment's `top` largest tIoUs, at least 1. A point that several segments want
    goes to the one of least cost.

    Args:
        logits: (P, K); predicted: (P, 2) in steps; valid: (P,) bool. No gradient flows.

    Returns:
        As `centre_assignment`.

    Source: Ge et al., OTA (CVPR 2021), in the simplified form of YOLOX (2021).
    """
    classes = logits.new_zeros(logits.shape)
    positive = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    if len(segments) == 0:
        return classes, logits.new_zeros(len(logits), 2), positive
    near = _near_centre(points, segments, radius) & valid[:, None]
    overlap = interval_iou(predicted[:, None].detach(), segments[None])  # (P, N)
    onehot = torch.nn.functional.one_hot(labels, logits.shape[1]).to(logits)
    cost = class_weight * _class_cost(logits, onehot) - iou_weight * overlap.clamp(min=1e-8).log()
    cost = torch.where(near, cost, torch.inf)
    wanted = (
        torch.where(near, overlap, 0).topk(min(top, len(overlap)), dim=0).values.sum(0).int().clamp(min=1)
    )
    rank = cost.argsort(dim=0).argsort(dim=0)
    taken = near & (rank < wanted)
    cheapest, which = torch.where(taken, cost, torch.inf).min(1)
    positive = cheapest.isfinite()
    classes[positive] = onehot[which[positive]]
    return classes, segments[which], positive


@torch.no_grad()
def least_cost_segments(
    points: Points,
    segments: Tensor,
    labels: Tensor,
    logits: Tensor,
    predicted: Tensor,
    *,
    iou_weight: float = 2.0,
    class_weight: float = 1.0,
) -> Tensor:
    """For every point the segment (P, 2) that it predicts at the least cost, of those that contain it.

    The cost is `class_weight` · focal loss of the class scores + `iou_weight` · DIoU loss of the segment.

    Args:
        segments: (N, 2) in steps, N ≥ 1; labels: (N,); logits: (P, K); predicted: (P, 2) in steps.

    Source: the assigner of TemporalMaxer's code (2023).
    """
    t = points.position[:, None]
    inside = (t >= segments[:, 0]) & (t <= segments[:, 1])
    onehot = torch.nn.functional.one_hot(labels, logits.shape[1]).to(logits)
    cost = class_weight * _class_cost(logits, onehot) + iou_weight * diou(predicted[:, None], segments[None])
    return segments[torch.where(inside, cost, torch.inf).argmin(1)]
