"""Deformable attention over time, the encoder and decoder layers that use it, and RoIAlign over time."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.parts.conv import ceil_div, masked
from tal_lib.models.parts.sampling import sample_linear

SamplingStart = Literal["cosine", "alternate"]


class DeformableAttention(nn.Module):
    """Each query reads a few fractional positions around its reference; it predicts their offsets and
    weights.

    start: where the heads look before training. `cosine`, as published, is 1, 0, −1, 0, … times the number of
    the sample for 8 heads; `alternate` is 1, −1, …

    Source: section III-C of TadTR; Zhu et al., Deformable DETR (ICLR 2021), equation 2, in one dimension.
    """

    def __init__(self, width: int, heads: int, samples: int, start: SamplingStart = "alternate"):
        super().__init__()
        self.heads, self.samples = heads, samples
        self.offsets = nn.Linear(width, heads * samples)
        self.weights = nn.Linear(width, heads * samples)
        self.values, self.out = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        if start == "cosine":
            side = (torch.arange(heads) * (4 * math.pi / heads)).cos()
        else:
            side = torch.tensor([1.0, -1.0]).repeat(heads)[:heads]
        with torch.no_grad():  # heads look left and right in turn, their samples ever further
            self.offsets.bias.copy_((side[:, None] * torch.arange(1, samples + 1)).flatten())

    def forward(
        self, query: Tensor, memory: Tensor, centre: Tensor, width: Tensor | None, keep: Tensor | None
    ) -> Tensor:
        """Queries (S, Q, C) with reference centres (S, Q) and widths in steps, memory (S, L, C) → (S, Q, C).

        Offsets are in steps; with a width, in halves of it divided by the number of samples.
        """
        slices, queries, _ = query.shape
        values = (
            masked(self.values(memory), keep).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        )  # (S, H, L, d)
        offsets = self.offsets(query).unflatten(-1, (self.heads, self.samples))
        if width is not None:
            offsets = offsets / self.samples * width[..., None, None] * 0.5
        at = (centre[..., None, None] + offsets).transpose(1, 2)  # (S, H, Q, M)
        weights = self.weights(query).unflatten(-1, (self.heads, self.samples)).softmax(-1).transpose(1, 2)
        sampled = sample_linear(values, at.flatten(2)).unflatten(
            2, (queries, self.samples)
        )  # (S, H, Q, M, d)
        return self.out((sampled * weights.unsqueeze(-1)).sum(-2).transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Deformable self-attention, then a feed-forward layer; norms after the residuals."""

    def __init__(
        self,
        width: int,
        feed_forward: int,
        dropout: float,
        make_attention: Callable[[], DeformableAttention],
    ):
        super().__init__()
        self.attention = make_attention()
        self.grow, self.shrink = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.norm1, self.norm2, self.drop = nn.LayerNorm(width), nn.LayerNorm(width), nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, centre: Tensor, keep: Tensor | None) -> Tensor:
        x = self.norm1(x + self.drop(self.attention(x + position, x, centre, None, keep)))
        return self.norm2(x + self.drop(self.shrink(self.drop(F.relu(self.grow(x))))))


class DecoderLayer(nn.Module):
    """Self-attention among the queries, deformable attention to the memory, feed-forward.

    attention_dropout: of the self-attention's weights.
    """

    def __init__(
        self,
        width: int,
        feed_forward: int,
        dropout: float,
        attention_dropout: float,
        make_attention: Callable[[], DeformableAttention],
    ):
        super().__init__()
        self.qk, self.v, self.mix = (
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
            nn.Linear(width, width),
        )
        self.attention = make_attention()
        self.heads, self.attention_dropout = self.attention.heads, attention_dropout
        self.grow, self.shrink = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.norms, self.drop = nn.ModuleList(nn.LayerNorm(width) for _ in range(3)), nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        memory: Tensor,
        centre: Tensor,
        width: Tensor | None,
        keep: Tensor | None,
    ) -> Tensor:
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k = map(split, self.qk(x + position).chunk(2, -1))
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1)
        if self.attention_dropout:
            weights = F.dropout(weights, self.attention_dropout, self.training)
        x = self.norms[0](x + self.drop(self.mix((weights @ split(self.v(x))).transpose(1, 2).flatten(2))))
        x = self.norms[1](x + self.drop(self.attention(x + position, memory, centre, width, keep)))
        return self.norms[2](x + self.drop(self.shrink(self.drop(F.relu(self.grow(x))))))


def start_as_published(layers: Iterable[Any]) -> None:
    """Initial weights of encoder or decoder layers as in TadTR's code: Xavier's uniform distribution.

    The biases of the attention are zero. Of the deformable attention's weights, those of offsets and of
    sample weights stay zero.
    """
    for layer in layers:
        deformable = layer.attention
        for linear in (deformable.values, deformable.out, layer.grow, layer.shrink):
            nn.init.xavier_uniform_(linear.weight)
        zero = [deformable.values.bias, deformable.out.bias]
        if isinstance(layer, DecoderLayer):
            nn.init.xavier_uniform_(layer.mix.weight)
            for part in (layer.qk, layer.v):  # one matrix (3 C, C) in their code
                limit = math.sqrt(6 / (4 * part.in_features))
                nn.init.uniform_(part.weight, -limit, limit)
            zero += [layer.qk.bias, layer.v.bias, layer.mix.bias]
        for bias in zero:
            nn.init.zeros_(bias)


def sine_position(at: Tensor, width: int) -> Tensor:
    """Sines and cosines in turn of positions (L,), at wavelengths from 2π to 20,000π: (L, width)."""
    wave = at[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([wave.sin(), wave.cos()], -1).flatten(1)


def roi_align(x: Tensor, segments: Tensor, bins: int) -> Tensor:
    """Averages of features in equal bins of segments, as the 1-D RoIAlign of TadTR and G-TAD computes them.

    A segment is at least one step long. A bin is averaged over ⌈length / bins⌉ evenly spaced positions. Step
    t's feature is at position t, although segments measure from its left edge: a shift of half a step that
    the published kernel has. Positions beyond the ends take the last feature, and zero behind L.

    Args:
        x: (S, L, C); segments: (S, Q, 2) in steps, inside [0, L].

    Returns:
        (S, Q, bins, C).
    """
    steps = x.shape[1]
    first = segments[..., :1]
    length = (segments[..., 1:] - first).clamp(min=1)  # (S, Q, 1)
    count = (length / bins).ceil()[..., None]  # positions a bin, (S, Q, 1, 1)
    most = max(1, ceil_div(steps, bins))
    index = torch.arange(most, device=x.device)
    bin_first = first + torch.arange(bins, device=x.device) * (length / bins)  # (S, Q, bins)
    at = bin_first[..., None] + (index + 0.5) * (length / bins)[..., None] / count
    share = (index < count) * (at <= steps) / count  # (S, Q, bins, most)
    # the weight of every step in every bin: a product is cheaper than a gather of all positions' features
    near = (at.clamp(0, steps - 1)[..., None] - torch.arange(steps, device=x.device)).abs()
    weight = ((1 - near).clamp(min=0) * share[..., None]).sum(-2)  # (S, Q, bins, L)
    return (weight.flatten(1, 2).to(x.dtype) @ x).unflatten(1, weight.shape[1:3])
