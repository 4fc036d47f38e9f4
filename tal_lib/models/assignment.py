"""Which pyramid points answer for which segment."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Points:
    """Pyramid points, all levels end to end: position and stride in steps, and the level's regression range."""

    position: Tensor  # (P,)
    stride: Tensor  # (P,)
    low: Tensor  # (P,)
    high: Tensor  # (P,)
    level_sizes: tuple[int, ...]


def pyramid_points(steps: int, ranges: tuple[tuple[float, float], ...], device=None) -> Points:
    """Points of a pyramid over `steps` steps, one level a range, strides 1, 2, 4, …"""
    sizes, parts = [], []
    for level, (low, high) in enumerate(ranges):
        stride = 2**level
        size = -(-steps // stride)
        sizes.append(size)
        position = torch.arange(size, device=device, dtype=torch.float32) * stride
        parts.append(torch.stack([position, *(torch.full_like(position, value) for value in (stride, low, high))]))
    return Points(*torch.cat(parts, dim=1), tuple(sizes))


def centre_assignment(points: Points, segments: Tensor, labels: Tensor, num_classes: int, radius: float = 1.5):
    """Targets of every point by centre sampling and level ranges.

    A point is positive for a segment if it lies within `radius` strides of its centre and inside it, and the larger
    distance to its ends is in the level's range. Of several segments the shortest wins.

    Args:
        segments: (N, 2) in steps; labels: (N,).

    Returns:
        classes (P, K) multi-hot, segments (P, 2) in steps (NaN-free; meaningful where positive), positive (P,) bool.

    Source: Tian et al., FCOS (ICCV 2019); ActionFormer (ECCV 2022), section 3.3.
    """
    count = len(points.position)
    classes = points.position.new_zeros(count, num_classes)
    if len(segments) == 0:
        return classes, points.position.new_zeros(count, 2), torch.zeros(count, dtype=torch.bool, device=classes.device)
    t, stride = points.position[:, None], points.stride[:, None]
    start, end = segments[:, 0], segments[:, 1]
    centre = (start + end) / 2
    near = torch.minimum(t - torch.maximum(centre - radius * stride, start),
                         torch.minimum(centre + radius * stride, end) - t) > 0
    far = torch.maximum(t - start, end - t)
    fits = near & (far >= points.low[:, None]) & (far < points.high[:, None])
    lengths = torch.where(fits, end - start, torch.inf)
    shortest, which = lengths.min(dim=1)
    positive = shortest.isfinite()
    equally_short = fits & (lengths <= shortest[:, None] + 1e-3)
    onehot = torch.nn.functional.one_hot(labels, num_classes).to(classes)
    classes = (equally_short.to(classes) @ onehot).clamp(max=1)
    return classes, segments[which], positive
