"""PRN: BMN with a local-global encoder below and attention between proposals above.

Source: Wang et al., Proposal Relation Network for Temporal Action Detection, ActivityNet challenge 2021. We
know of no public code, so nothing here could be compared. What PRN shares with BMN follows BMN's published
code (see bmn.py). The map is of start and duration on every benchmark, since proposals of one duration
attend to each other. Widths, heads and blocks of the relation module are our choice.

Attention between all D · T proposals would cost their square (10,000² at T = D = 100). Here the map is
averaged over small blocks, and attention is axial: a proposal attends to those of its start, then to those of
its duration. The cost is D · T · (D + T), divided by the cube of the block's side.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.bmn import (
    ACTIVITYNET_INFERENCE,
    BMN,
    COMPACT,
    THUMOS14_POST,
    BMNConfig,
)
from tal_lib.models.parts.attention import LGTE
from tal_lib.models.parts.conv import exporting
from tal_lib.models.parts.proposals import ACTIVITYNET_WINDOW
from tal_lib.models.parts.registry import register
from tal_lib.validation import Size, require, require_divides


@dataclass(frozen=True, kw_only=True)
class PRNConfig(BMNConfig):
    """THUMOS14 values by default."""

    heads: Size = 8  # of the encoder's attention
    attention_window: Size = 9  # of the encoder's local heads
    relation_width: Size = 128  # channels of the attention between proposals
    relation_heads: Size = 4  # of the attention between proposals
    relation_block: Size = 2  # side of the blocks of proposals that attend as one

    def check(self):
        super().check()
        require_divides(self, "width", "heads")
        require(
            self.map_axis == "duration",
            f"map_axis: {self.map_axis} has no duration axis, which PRN needs",
            "Choose duration.",
        )
        require_divides(self, "relation_width", "relation_heads")


class AxialAttention(nn.Module):
    """Self-attention along the last axis but one; (..., L, C) → same, pre-norm residual."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.mix = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        rows = self.qkv(self.norm(x))
        if exporting():  # ONNX wants its attention in four axes
            rows = rows.flatten(0, -3)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for part in rows.chunk(3, -1))
        return x + self.mix(F.scaled_dot_product_attention(q, k, v).transpose(-2, -3).flatten(-2)).reshape(
            x.shape
        )


class ProposalRelation(nn.Module):
    """Every proposal's features, plus what its relatives say; (N, T, D, C) → same."""

    def __init__(self, channels: int, width: int, heads: int, block: int):
        super().__init__()
        self.block = block
        self.down, self.up = nn.Linear(channels, width), nn.Linear(width, channels)
        self.over_durations, self.over_starts = AxialAttention(width, heads), AxialAttention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        steps, durations = x.shape[1:3]
        blocks = F.avg_pool2d(
            x.permute(0, 3, 1, 2), self.block, ceil_mode=True, count_include_pad=False
        ).permute(0, 2, 3, 1)
        y = self.over_durations(self.down(blocks))
        y = self.up(self.over_starts(y.transpose(1, 2)).transpose(1, 2))
        y = y.repeat_interleave(self.block, 1).repeat_interleave(self.block, 2)[:, :steps, :durations]
        return x + y


@register(
    "prn",
    family="proposals",
    paper=PRNConfig(post=THUMOS14_POST),
    compact=PRNConfig(**COMPACT, heads=4, relation_width=48, relation_heads=4),
    paper_activitynet=PRNConfig(**ACTIVITYNET_WINDOW, **ACTIVITYNET_INFERENCE),
)
class PRN(BMN):
    """Outputs are BMN's."""

    config: PRNConfig

    def build_network(self) -> None:
        super().build_network()
        c = self.config
        self.encoder = LGTE(c.width, c.heads, c.attention_window, 2 * c.width)
        self.relation = ProposalRelation(
            c.sampled_width, c.relation_width, c.relation_heads, c.relation_block
        )

    def encode(self, x: Tensor, keep: Tensor) -> Tensor:
        return self.encoder(super().encode(x, keep), keep)

    def relate(self, proposals: Tensor) -> Tensor:
        return self.relation(proposals)
