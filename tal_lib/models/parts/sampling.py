"""Features between the steps by linear interpolation: at chosen positions, or for every proposal of a
window.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.parts.conv import exporting


def sample_linear(values: Tensor, at: Tensor) -> Tensor:
    """Values at fractional positions, zero beyond the ends.

    Args:
        values: (..., L, d); at: (..., M) positions in float32, 0 is the first step's centre.

    Returns:
        (..., M, d), the two neighbours weighed linearly.
    """
    length = values.shape[-2]
    low = at.floor()
    share = (at - low).unsqueeze(-1)
    total = 0
    for index, weight in ((low, 1 - share), (low + 1, share)):
        inside = ((index >= 0) & (index < length)).unsqueeze(-1)
        rows = index.clamp(0, length - 1).long().unsqueeze(-1).expand(*at.shape, values.shape[-1])
        total = total + values.gather(-2, rows) * (weight * inside).to(values.dtype)
    return total


def positions_in(segments: Tensor, points: int, context: float = 0.0) -> Tensor:
    """Evenly spaced positions (..., points) in segments (..., 2), widened by `context` lengths on either
    side."""
    start, length = segments[..., :1], segments[..., 1:] - segments[..., :1]
    share = torch.linspace(-context, 1 + context, points, device=segments.device)
    return start + length * share


def sample_segments(x: Tensor, segments: Tensor, points: int, context: float = 0.0) -> Tensor:
    """Features (B, P, points, C) at evenly spaced positions in segments (B, P, 2), from features (B, T,
    C).
    """
    at = positions_in(segments, points, context)
    return sample_linear(x, at.flatten(1)).unflatten(1, at.shape[1:])


class _WeightedSum(torch.autograd.Function):
    """Many weighted sums of rows of a table. Both directions gather; neither scatters.

    table (N, C), bags: rows (M, S) and shares (M, S) → (M, C). `back`: the same pairs by row of the table
    (cells, shares, offsets).
    """

    @staticmethod
    def forward(ctx, table, rows, shares, back):
        ctx.back = back
        return F.embedding_bag(rows, table, mode="sum", per_sample_weights=shares)

    @staticmethod
    def backward(ctx, grad):
        cells, shares, offsets = ctx.back
        return F.embedding_bag(
            cells, grad.contiguous(), offsets, mode="sum", per_sample_weights=shares.to(grad.dtype)
        ), *[None] * 3


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a proposal is sampled for boundary matching."""

    points: int = 32
    context: float = 0.25  # lengths before and behind the proposal that are sampled too
    context_steps: float = 0.0  # added to the length before `context` is taken
    samples: int = 1  # averaged at each point; consecutive ones of points · samples even positions
    # whether a position less than a step before the window reads the whole first step, else linear to zero
    hold_start: bool = False


def sampling_weights(segments: Tensor, steps: int, how: Sampling) -> tuple[Tensor, Tensor]:
    """Which rows of a table (T · points) make up a segment's samples, and their shares, (M, n) each.

    Args:
        segments: (M, 2) in steps, T = `steps`. A row of the table is step · points + point.
    """
    if how.context_steps == 0 and how.samples == 1:
        at = positions_in(segments, how.points, how.context)
    else:  # in double precision: at whole steps, `hold_start` is not continuous
        segments = segments.double()
        length = segments[:, 1:] - segments[:, :1]
        reach = how.context * (length + how.context_steps)
        count = how.points * how.samples
        step = (length + 2 * reach) / max(1, count - 1)
        at = segments[:, :1] - reach + step * torch.arange(count)
    low = at.floor()
    index = torch.stack([low, low + 1], -1)  # (M, points · samples, 2)
    share = torch.stack([low + 1 - at, at - low], -1) * ((index >= 0) & (index < steps))
    if how.hold_start:
        share[..., 1] = torch.where((at > -1) & (at < 0), 1.0, share[..., 1])
    point = torch.arange(how.points).repeat_interleave(how.samples)[:, None]
    rows = index.clamp(0, steps - 1).long() * how.points + point
    if how.samples == 1:
        return rows.flatten(1), share.flatten(1)
    return _merged(rows.flatten(1), share.flatten(1) / how.samples, steps * how.points)


def _merged(rows, share, size):
    """Every row of the table once for a segment, those without a share left out; padded with shares of 0."""
    cell = torch.arange(len(rows))[:, None].expand_as(rows)
    keys, inverse = (cell * size + rows).flatten().unique(return_inverse=True)
    total = share.new_zeros(len(keys)).index_add(0, inverse, share.flatten())
    keys, total = keys[total != 0], total[total != 0]
    cell, row = keys // size, keys % size
    counts = cell.bincount(minlength=len(rows))
    place = torch.arange(len(keys)) - (counts.cumsum(0) - counts)[cell]
    shape = (len(rows), int(counts.max()) if len(keys) else 1)
    merged_rows, merged_share = torch.zeros(shape, dtype=torch.long), torch.zeros(shape)
    merged_rows[cell, place], merged_share[cell, place] = row, total.float()
    return merged_rows, merged_share


class BoundaryMatching(nn.Module):
    """Features of every proposal of a window: sampled points, then one weight per point; (B, T, C) → (B, T,
    D, C').

    The proposal of start t and duration d is the segment [t, t + d], with t < T and d in 1 … D. A proposal is
    widened and sampled as `how` says; outside the window everything is zero. What would end behind the
    window has no samples.

    Args:
        by_end: the last two axes are start and last step, (B, T, T, C'), instead of start and duration.
        empty_bias: a place without samples holds the bias, as in the published code; else zero.

    Source: BMN (ICCV 2019), section 4.2. There the samples are a product with a dense (T, points · D · T)
    matrix, followed by a convolution over the points. Interpolation acts on time and the convolution on
    channels, so the two commute. Here every step is first multiplied by the matrix of every point; a proposal
    is then a weighted sum of 2 · points rows or a few more. The function is the same, without the dense
    matrix and without the (B, C, points, D, T) samples.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        steps: int,
        max_duration: int,
        how: Sampling,
        by_end: bool = False,
        empty_bias: bool = False,
    ):
        super().__init__()
        self.shape, self.points, self.empty_bias = (
            (steps, steps if by_end else max_duration),
            how.points,
            empty_bias,
        )
        points = how.points
        conv = nn.Conv1d(inputs, outputs, points)  # for its initialisation
        self.weight = nn.Parameter(
            conv.weight.detach().permute(1, 2, 0).reshape(inputs, points * outputs).contiguous()
        )
        self.bias = nn.Parameter(conv.bias.detach().clone())  # pyright: ignore[reportOptionalMemberAccess]
        segments = proposal_grid(steps, max_duration).flatten(0, 1)
        segments = segments[segments[:, 1] <= steps]
        start, end = segments.long().unbind(1)
        rows, share = sampling_weights(segments, steps, how)  # of a table (T · points, C')
        order = rows.flatten().argsort(stable=True)
        order = order[share.flatten()[order] != 0]
        counts = rows.flatten()[order].bincount(minlength=steps * points)
        buffers = {
            "cells": start * self.shape[1] + (end - 1 if by_end else end - start - 1),
            "rows": rows,
            "share": share.float(),
            "back_cells": order // rows.shape[1],
            "back_share": share.flatten()[order].float(),
            "back_offsets": counts.cumsum(0) - counts,
        }
        self.cells: Tensor
        self.rows: Tensor
        self.share: Tensor
        self.back_cells: Tensor
        self.back_share: Tensor
        self.back_offsets: Tensor
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, size = x.shape[0], self.shape[0] * self.points
        table = (x @ self.weight).reshape(batch * size, -1)
        if exporting():  # ONNX would loop over the bags, one after the other
            parts = (
                table.unflatten(0, (batch, size))[:, row] * share[:, None]
                for row, share in zip(self.rows.T, self.share.T)
            )
            return self._placed(sum(parts) + self.bias)
        times = torch.arange(batch, device=x.device)[:, None]
        every = lambda index, step: (index.flatten() + step * times).flatten()
        rows = every(self.rows, size).unflatten(0, (-1, self.rows.shape[1]))
        share = self.share.to(table.dtype).repeat(batch, 1)
        if torch.is_grad_enabled() and table.requires_grad:
            back = (
                every(self.back_cells, len(self.cells)),
                self.back_share.repeat(batch),
                every(self.back_offsets, len(self.back_cells)),
            )
            sums = _WeightedSum.apply(table, rows, share, back)
        else:
            sums = F.embedding_bag(rows, table, mode="sum", per_sample_weights=share)
        return self._placed(sums.add_(self.bias).unflatten(0, (batch, -1)))

    def _placed(self, sums):
        """Proposals that end in the window (B, cells, C') at their places in all of `shape`."""
        shape = sums.shape[0], self.shape[0] * self.shape[1], sums.shape[-1]
        empty = self.bias.to(sums.dtype).expand(shape).clone() if self.empty_bias else sums.new_zeros(shape)
        return empty.index_copy_(1, self.cells, sums).unflatten(1, self.shape)


def proposal_grid(steps: int, max_duration: int, device=None) -> Tensor:
    """Segments (T, D, 2) in steps: [t, t + d] for t = 0 … T − 1 and d = 1 … D."""
    start = torch.arange(steps, device=device).float()[:, None].expand(steps, max_duration)
    return torch.stack([start, start + torch.arange(1, max_duration + 1, device=device)], -1)
