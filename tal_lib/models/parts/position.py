"""Absolute positions, added to the features of a pyramid's first level."""

import torch
from torch import Tensor, nn

from tal_lib.models.parts.conv import masked


class Sinusoids(nn.Module):
    """Add a table of sinusoids over time, scaled by 1 / √C, at valid steps; (B, T, C) → same.

    Step t gets row t. An input longer than the table gets the table stretched to its length by linear
    interpolation between step centres.

    Sources: Vaswani et al., Attention Is All You Need (2017); scale and stretching from ActionFormer's code.
    """

    def __init__(self, steps: int, channels: int):
        super().__init__()
        column = torch.arange(channels, dtype=torch.float64)
        angle = torch.arange(steps, dtype=torch.float64)[:, None] / 10_000 ** (2 * (column // 2) / channels)
        table = torch.where(column % 2 == 0, angle.sin(), angle.cos()) / channels**0.5
        self.table: Tensor
        self.register_buffer("table", table.float(), persistent=False)  # (steps, C)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        last = len(self.table) - 1
        step = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
        # the length as a tensor, without a branch on it, so that graphs for any length can be recorded
        scale = (last + 1) / (step[-1] + 1).clamp(min=last + 1)
        at = ((step + 0.5) * scale - 0.5).clamp(0, last)
        low = at.floor().long()
        rows = torch.lerp(self.table[low], self.table[(low + 1).clamp(max=last)], (at - low)[:, None])
        return x + masked(rows.to(x.dtype), keep)
