"""Transformers with one query that finds the foreground of a window, and their attention; used by STALE.

Tensors are (N, T, C): N windows of T steps, C channels. keep (N, T, 1) is one at valid steps.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.parts.attention import attend
from tal_lib.models.parts.conv import masked


class Attention(nn.Module):
    """Multi-head attention of queries (B, Q, C) on weighted steps, then residual and norm.

    Steps are (B, T, C), each with a weight in [0, 1] (B, T, 1).
    wide: each head has C channels, projected without bias; otherwise the heads share C channels.
    weights_dropout: of the attention's weights; dropout: of what is read.
    """

    def __init__(
        self, width: int, heads: int, dropout: float, *, wide: bool = False, weights_dropout: float = 0.0
    ):
        super().__init__()
        self.heads, self.weights_dropout = heads, weights_dropout
        inner = heads * width if wide else width
        self.query, self.key, self.value = (nn.Linear(width, inner, bias=not wide) for _ in range(3))
        self.out = nn.Linear(inner, width)
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(dropout)
        if wide:  # as published
            for layer in (self.query, self.key, self.value):
                nn.init.normal_(layer.weight, std=width**-0.5)
            nn.init.xavier_normal_(self.out.weight)

    def attend(
        self, queries: Tensor, steps: Tensor, weights: Tensor | None, values: Tensor | None = None
    ) -> Tensor:
        """What the queries read, without the residual; values: of the steps, if not the steps themselves."""
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        # a weight multiplies the attention before it is normalised: its logarithm is added
        bias = None if weights is None else weights.clamp(min=1e-6).log().transpose(1, 2).unsqueeze(1)
        query, key = split(self.query(queries)), split(self.key(steps))
        value = split(self.value(steps if values is None else values))
        read = attend(query, key, value, bias, self.weights_dropout if self.training else 0.0)
        return self.drop(self.out(read.transpose(1, 2).flatten(2)))

    def forward(self, queries: Tensor, steps: Tensor, weights: Tensor | None) -> Tensor:
        return self.norm(queries + self.attend(queries, steps, weights))


class QueryLayer(nn.Module):
    """The query reads the steps, then an MLP; post-norm."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, query: Tensor, steps: Tensor, keep: Tensor | None) -> Tensor:
        query = self.attention(query, steps, keep)
        return self.norm(query + self.mlp(query))


def sine_positions(steps: int, width: int, device=None) -> Tensor:
    """MaskFormer's encoding (T, C) of an image of one row: half of the channels for the row, half for
    the step. The positions run to 2π; the row's half is the same everywhere.
    """
    half = width // 2
    frequency = 10_000 ** (2 * (torch.arange(half, device=device) // 2) / half)

    def waves(position):
        angles = position[:, None] / frequency
        return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], -1).flatten(1)

    at = torch.arange(1, steps + 1, device=device)
    full = 2 * math.pi
    row = torch.full_like(at, full / (1 + 1e-6), dtype=torch.float32)
    return torch.cat([waves(row), waves(at / (steps + 1e-6) * full)], 1)


class PreNormLayer(nn.Module):
    """Self-attention, attention on the steps if `reads`, then an MLP; each behind a norm, with a residual.

    Positions are added to queries and keys, not to values.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, *, reads: bool):
        super().__init__()
        # their own norm stands in front here
        self.attention = Attention(width, heads, dropout, weights_dropout=dropout)
        self.reading = Attention(width, heads, dropout, weights_dropout=dropout) if reads else None
        self.mlp_in, self.mlp_out = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        keep: Tensor | None,
        memory: Tensor | None = None,
        memory_position: Tensor | None = None,
    ) -> Tensor:
        u = self.attention.norm(x)
        x = x + self.attention.attend(u + position, u + position, keep if memory is None else None, u)
        if self.reading is not None:
            assert memory is not None and memory_position is not None
            u = self.reading.norm(x)
            x = x + self.reading.attend(u + position, memory + memory_position, keep, memory)
        hidden = self.drop(F.relu(self.mlp_in(self.norm(x))))
        return x + self.drop(self.mlp_out(hidden))


class ForegroundTransformer(nn.Module):
    """MaskFormer's transformer with one query, as the published STALE configures it.

    Window (N, T, C) → one vector (N, C), whose product with the embedded steps is the foreground.

    Source: Cheng et al., Per-Pixel Classification is Not All You Need (NeurIPS 2021).
    """

    def __init__(self, width: int, heads: int = 2, layers: int = 2, hidden: int = 1, dropout: float = 0.1):
        super().__init__()
        layer = lambda reads: PreNormLayer(width, heads, hidden, dropout, reads=reads)
        self.project = nn.Linear(width, width)
        nn.init.kaiming_uniform_(self.project.weight, a=1)
        nn.init.zeros_(self.project.bias)
        self.encoder = nn.ModuleList(layer(False) for _ in range(layers))
        self.decoder = nn.ModuleList(layer(True) for _ in range(layers))
        for weight in (*self.encoder.parameters(), *self.decoder.parameters()):
            if weight.ndim > 1:
                nn.init.xavier_uniform_(weight)
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Parameter(torch.randn(1, 1, width))
        self.mask_embedding = nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        position = sine_positions(x.shape[1], x.shape[2], x.device).to(x.dtype)
        memory = self.project(x)
        for layer in self.encoder:
            memory = layer(memory, position, keep)
        memory = masked(self.encoder_norm(memory), keep)
        query = self.query.expand(x.shape[0], -1, -1)
        answer = torch.zeros_like(query)
        for layer in self.decoder:
            answer = layer(answer, query, keep, memory, position)
        answer = self.decoder_norm(answer)
        for index, layer in enumerate(self.mask_embedding):
            answer = layer(answer) if index == 2 else F.relu(layer(answer))
        return answer[:, 0]
