"""Boundary max-pooling: the largest features around the start and around the end of each segment.

Source: Lin et al., AFSD (CVPR 2021), section 3.3, equation 4.
"""

import torch
from torch import Tensor

from tal_lib.models.parts.conv import exporting

EXPORTED_POWERS = 15  # an exported model pools over ranges of up to 2^16 steps


def range_max(x: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Channel-wise maximum over ranges of steps, in O(T log T) for all ranges.

    Two windows of a power of two cover each range; their maxima are computed beforehand for all positions.

    Args:
        x: (B, T, C); first, last: (B, P) inclusive steps, clamped to the recording, first ≤ last.

    Returns:
        (B, P, C).
    """
    batch, steps, channels = x.shape
    first, last = first.clamp(0, steps - 1), last.clamp(0, steps - 1)
    size = last - first + 1
    power = (size.float() + 0.5).log2().floor().long()
    larger = lambda a, b: torch.where(a >= b, a, b)
    tables, table, span = [x], x, 1
    for _ in range(EXPORTED_POWERS if exporting() else 0):  # any length: no branch on it
        after = (torch.arange(steps, device=x.device) + span).clamp(max=steps - 1)
        table = torch.maximum(table, table[:, after])
        tables.append(table)
        span *= 2
    while not exporting() and 2 * span <= steps:
        table = torch.cat(
            [larger(table[:, :-span], table[:, span:]), table[:, -span:]], 1
        )  # the tail is never asked for
        tables.append(table)
        span *= 2
    power = power.clamp(max=len(tables) - 1)
    rows = torch.stack(tables, 1).reshape(-1, channels)  # (B · levels · T, C)
    offset = torch.arange(batch, device=x.device)[:, None] * len(tables) * steps + power * steps
    take = lambda at: rows.index_select(0, (offset + at).flatten()).unflatten(0, (batch, -1))
    return larger(take(first), take(last - 2**power + 1))


def boundary_pooling(x: Tensor, segments: Tensor, steps: Tensor) -> Tensor:
    """Boundary max-pooling: half of the channels from around the start, half from around the end.

    The start region is [start − len / 10, start + len / 4], the end region [end − len / 4, end + len / 10],
    both rounded outwards.

    Args:
        x: (B, T, C); segments: (B, P, 2) in steps of x; steps: (B, 1) valid steps.
    """
    length = (segments[..., 1] - segments[..., 0]).clamp(min=1)
    half = x.shape[-1] // 2
    parts = []
    for channels, at, before, after in (
        (x[..., :half], segments[..., 0], 0.1, 0.25),
        (x[..., half:], segments[..., 1], 0.25, 0.1),
    ):
        first = torch.minimum((at - before * length).floor().long().clamp(min=0), steps - 1)
        last = torch.maximum(torch.minimum((at + after * length).ceil().long(), steps - 1), first)
        parts.append(range_max(channels, first, last))
    return torch.cat(parts, -1)


def end_features(x: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima of features (1, T, C) around the starts and around the ends of segments (P, 2): (P, C) each."""
    length = (segments[:, 1] - segments[:, 0]).clamp(min=1)
    around = lambda at, before, after: range_max(
        x,
        (at - before * length).floor().long()[None],
        (at + after * length).ceil().long()[None],
    )[0]
    return around(segments[:, 0], 0.1, 0.25), around(segments[:, 1], 0.25, 0.1)


# as in the authors' code


def pooling_regions(segments: Tensor, extra: float = 0.0) -> Tensor:
    """Regions (..., 4) around the ends of segments (..., 2): first and last of the start's, then the end's.

    A region reaches a quarter of the length inwards and a tenth outwards, each at least 1, and is rounded.
    `extra` is added to the length. Source: the authors' code (BDNet.py).
    """
    start, end = segments.unbind(-1)
    length = end - start + extra
    inside, outside = (length / 4).clamp(min=1), (length / 10).clamp(min=1)
    return torch.stack([start - outside, start + inside, end - inside, end + outside], -1).round()


def pool_regions(x: Tensor, regions: Tensor, steps: Tensor) -> Tensor:
    """Maxima of the first half of the channels in start regions, of the other half in end regions.

    A region is cut to whole steps towards zero and clamped to the valid ones. Where its last step then lies
    before its first, the first is taken. Source: the authors' kernel.

    Args:
        x: (B, T, C); regions: (B, P, 4) as `pooling_regions` gives them; steps: (B, 1) valid steps.

    Returns:
        (B, P, C).
    """
    at = torch.minimum(regions.long().clamp(min=0), (steps - 1).unsqueeze(-1))
    half = x.shape[-1] // 2
    parts = (
        range_max(channels, at[..., side], torch.maximum(at[..., side], at[..., side + 1]))
        for side, channels in ((0, x[..., :half]), (2, x[..., half:]))
    )
    return torch.cat(list(parts), -1)
