"""Attention that several models share: plain, local, local-global and through latents."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.parts.conv import ceil_div, exporting


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """Scaled dot-product attention over (B, heads, ·, d); dropout: of its weights."""
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
    weights = (scores if bias is None else scores + bias).softmax(-1)
    return (F.dropout(weights, dropout) if dropout else weights) @ v


class LocalAttention(nn.Module):
    """Multi-head attention in which step i sees the steps j with |i − j| ≤ `reach`, in linear time.

    Queries are taken in blocks, keys in the overlapping windows around them: views of one padded table, not
    copies. Input: projected q, k, v (B, T, C).

    Sources: ActionFormer (ECCV 2022), section 3.2; Beltagy et al., Longformer (2020).
    """

    def __init__(self, heads: int, reach: int):
        super().__init__()
        self.heads, self.reach, self.block = heads, reach, max(reach, 8)
        distance = torch.arange(self.block)[:, None] + reach - torch.arange(self.block + 2 * reach)[None]
        self.band: Tensor
        self.register_buffer("band", distance.abs() <= reach, persistent=False)  # (block, block + 2 reach)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None = None) -> Tensor:
        if exporting():
            return self._each_alone(q, k, v, keep)
        batch, steps, channels = q.shape
        block, reach = self.block, self.reach
        span = block + 2 * reach
        # recordings end to end, each with room for the windows at its ends;
        # a window that runs into the next recording is masked
        rows = (-(-steps // block) + -(-2 * reach // block)) * block
        valid = q.new_ones(batch, steps, 1) if keep is None else keep

        def windows(x):  # (B, T, C) -> (blocks of all recordings, C, span)
            return F.pad(x, (0, 0, reach, rows - steps - reach)).flatten(0, 1).unfold(0, span, block)

        split = lambda x: windows(x).unflatten(1, (self.heads, -1)).transpose(2, 3)
        allowed = self.band & (windows(valid) > 0.5)  # (blocks, block, span)
        blocks = allowed.shape[0]  # those without a whole window, behind the last step, are left out
        bias = torch.zeros_like(allowed, dtype=q.dtype).masked_fill_(
            ~allowed, -1e4
        )  # finite: a masked row stays finite
        room = (blocks * block if batch == 1 else rows) - steps
        q = F.pad(q, (0, 0, 0, room)) if room else q
        q = q.reshape(-1, block, self.heads, channels // self.heads)[:blocks].transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, split(k), split(v), attn_mask=bias.unsqueeze(1))
        mixed = mixed.transpose(1, 2).reshape(blocks * block, channels)
        if batch > 1:
            mixed = F.pad(mixed, (0, 0, 0, batch * rows - blocks * block))
        return mixed.reshape(batch, -1, channels)[:, :steps]

    def _each_alone(self, q, k, v, keep):
        """The same, every recording in blocks of its own: no branch on the batch or the length."""
        batch, steps, channels = q.shape
        block, reach = self.block, self.reach
        span = block + 2 * reach
        room = ceil_div(steps, block) * block - steps
        valid = torch.ones_like(q[..., :1]) if keep is None else keep
        windows = lambda x: F.pad(x, (0, 0, reach, reach + room)).unfold(1, span, block).flatten(0, 1)
        split = lambda x: windows(x).unflatten(1, (self.heads, -1)).transpose(2, 3)
        bias = torch.where(self.band & (windows(valid) > 0.5), 0.0, -1e4).to(q.dtype)
        q = F.pad(q, (0, 0, 0, room)).reshape(-1, block, self.heads, channels // self.heads).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, split(k), split(v), attn_mask=bias.unsqueeze(1))
        return mixed.transpose(1, 2).reshape(batch, -1, channels)[:, :steps]


class GlobalAttention(nn.Module):
    """Multi-head attention in which every step sees all valid steps. Input: projected q, k, v (B, T, C)."""

    def __init__(self, heads: int):
        super().__init__()
        self.heads = heads

    def forward(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None = None) -> Tensor:
        split = lambda x: x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        bias = None
        if keep is not None:  # finite: a recording without a valid step stays finite
            bias = torch.where(keep > 0.5, 0.0, -1e4).to(q.dtype).transpose(1, 2).unsqueeze(1)
        mixed = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=bias)
        return mixed.transpose(1, 2).flatten(2)


class LGTE(nn.Module):
    """Local-global temporal encoder: half of the heads see a window around each step, the other half all
    steps.

    (N, T, C) → same. Attention, then a feed-forward network, each followed by a layer norm.

    Source: TCANet (CVPR 2021), section 3.2.
    """

    def __init__(
        self, width: int, heads: int, window: int, feed_forward: int, attention_dropout: float = 0.0
    ):
        super().__init__()
        self.heads, self.reach, self.attention_dropout = heads, window // 2, attention_dropout
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.grow, self.shrink = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.norm1, self.norm2, self.drop = nn.LayerNorm(width), nn.LayerNorm(width), nn.Dropout(0.1)

    def allowed(self, steps: int, device=None) -> Tensor:
        """Which step sees which, (heads, T, T): the first half of the heads is local."""
        at = torch.arange(steps, device=device)
        near = (at[:, None] - at[None]).abs() <= self.reach
        local = torch.arange(self.heads, device=device)[:, None, None] < self.heads // 2
        return near | ~local

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        seen = self.allowed(x.shape[1], x.device) & (
            keep.transpose(1, 2).unsqueeze(1) > 0
        )  # (N, heads, T, T)
        bias = torch.zeros_like(seen, dtype=x.dtype).masked_fill_(
            ~seen, -1e4
        )  # finite: a masked row stays finite
        dropout = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        mixed = mixed.transpose(1, 2).flatten(2)
        x = self.norm1(x + self.drop(self.mix(mixed)))
        return self.norm2(x + self.drop(self.shrink(self.drop(F.relu(self.grow(x)))))) * keep


class GlobalContextBlock(nn.Module):
    """Multi-head attention through a few latents: they read the recording, then every step reads them.

    (B, T, C) → same, in O(T · latents).
    """

    def __init__(self, channels: int, heads: int, latents: int):
        super().__init__()
        self.heads = heads
        self.latents = nn.Parameter(torch.randn(latents, channels) * channels**-0.5)
        self.read = nn.Linear(channels, 2 * channels)  # keys and values of the steps
        self.write = nn.Linear(channels, 2 * channels)  # keys and values of the latents
        self.query = nn.Linear(channels, channels)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        batch = x.shape[0]
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        bias = (
            None
            if keep is None
            else torch.where(keep > 0, 0.0, -1e4).to(x.dtype).transpose(1, 2).unsqueeze(1)
        )
        keys, values = self.read(x).chunk(2, -1)
        latents = attend(split(self.latents.expand(batch, -1, -1)), split(keys), split(values), bias)
        latents = latents.transpose(1, 2).flatten(2) + self.latents
        keys, values = self.write(latents).chunk(2, -1)
        return attend(split(self.query(x)), split(keys), split(values)).transpose(1, 2).flatten(2)
