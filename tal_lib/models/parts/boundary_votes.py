"""Refine segments by the votes of the steps around their ends.

Every step at full resolution says how far away the nearest start and the nearest end are (signed, in steps),
and how sure it is that there is one within `reach`. A boundary that a coarser point proposed moves to the
mean of the votes around it. With no vote it stays.

Sources: Hough voting, Leibe et al., Implicit Shape Model (2004), in one dimension; signed distances to
boundaries instead of boundary classes: this project.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.parts.conv import TemporalConv


class BoundaryVotes(nn.Module):
    """Step features (B, T, C) → votes (B, T, 4): distance to the nearest start and end, in units of `reach`,
    and logits of whether each is within `reach`."""

    def __init__(self, channels: int, reach: int, prior: float = 0.1):
        super().__init__()
        self.reach = reach
        self.out = TemporalConv(channels, 4)
        with torch.no_grad():
            self.out.bias[:2] = 0.0  # pyright: ignore[reportOptionalSubscript]
            self.out.bias[2:] = torch.logit(torch.tensor(prior))  # pyright: ignore[reportOptionalSubscript]

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        return self.out(x, keep)

    def loss(self, votes: Tensor, mask: Tensor, segments: Sequence[Tensor]) -> Tensor:
        """Mean over the valid steps of the loss of certainty, and over the near ones of that of distance.

        Args:
            votes: (B, T, 4); mask: (B, T) bool; segments: (N, 2) in steps, of each recording.
        """
        distance, near = self.targets(votes, segments)
        near, valid = near & mask[..., None], mask[..., None].expand_as(near)
        certainty = F.binary_cross_entropy_with_logits(votes[..., 2:][valid], near[valid].to(votes.dtype))
        if not near.any():
            return certainty
        return certainty + F.smooth_l1_loss(votes[..., :2][near], distance[near], beta=1 / self.reach)

    def targets(self, votes: Tensor, segments: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Signed distances (B, T, 2) to the nearest start and end in units of `reach`, and whether they are
        within it."""
        steps = torch.arange(votes.shape[1], device=votes.device, dtype=votes.dtype)
        distance = votes.new_full((*votes.shape[:2], 2), torch.inf)
        for index, ends in enumerate(segments):
            if len(ends):
                away = ends.T[:, None, :] - steps[None, :, None]  # (2, T, N)
                nearest = away.abs().argmin(-1, keepdim=True)
                distance[index] = away.gather(-1, nearest)[..., 0].T / self.reach
        near = distance.abs() <= 1
        return torch.where(near, distance, 0), near

    def refine(self, segments: Tensor, batch: Tensor, votes: Tensor) -> Tensor:
        """Segments (N, 2) in steps of recordings `batch` (N,), each end moved by the votes around it.

        A vote counts by its certainty, and linearly less with the distance of its step from the end.
        """
        taps = torch.arange(-self.reach, self.reach + 1, device=segments.device)
        weight = 1 - taps.abs() / (self.reach + 1)
        last = votes.shape[1] - 1
        moved = []
        for end in (0, 1):
            at = segments[:, end, None].round().long() + taps  # (N, taps)
            inside = (at >= 0) & (at <= last)
            at = at.clamp(0, last)
            distance = votes[batch[:, None], at, end] * self.reach
            sure = votes[batch[:, None], at, 2 + end].sigmoid() * weight * inside
            shift = (sure * (at + distance - segments[:, end, None])).sum(1) / (1 + sure.sum(1))
            moved.append(segments[:, end] + shift.clamp(-self.reach, self.reach))
        return torch.stack(moved, -1)
