"""ActionFormer: a transformer pyramid with local attention.

Source: Zhang, Wu, Li, ActionFormer: Localizing Moments of Actions with Transformers, ECCV 2022.

Padding has no influence here; in the authors' code it changes the last steps of a recording
(`padding="authors"`). Their code votes in class-agnostic NMS only, so the preset `paper` does not vote on
THUMOS14. A detection whose clipped segment has length zero is dropped; theirs is kept. docs/fidelity.md
compares both.
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from tal_lib.models.parts.attention import GlobalAttention, LocalAttention
from tal_lib.models.parts.blocks import DropPath, mlp
from tal_lib.models.parts.candidates import PostProcess
from tal_lib.models.parts.conv import DepthwiseConv, halve, masked, max_pool
from tal_lib.models.parts.published import PUBLISHED_POST, PublishedConfig, PublishedPyramid
from tal_lib.models.parts.pyramid import AUTHORS
from tal_lib.models.parts.registry import register
from tal_lib.validation import BelowOne, Size, SizeOrZero, require, require_divides


@dataclass(frozen=True, kw_only=True)
class ActionFormerConfig(PublishedConfig):
    """THUMOS14 values by default."""

    heads: Size = 4  # of the attention
    window: Size = 19  # steps that a step sees, itself included
    global_levels: SizeOrZero = 0  # the coarsest levels, whose steps see every step of their level
    mlp_ratio: Size = 4  # hidden channels of the MLP, per channel of the width
    drop_path: BelowOne = 0.1  # probability that a block's branch is left out in training

    def check(self):
        super().check()
        require_divides(self, "width", "heads")
        levels = len(self.ranges) - 1
        require(
            self.global_levels <= levels,
            f"global_levels: {self.global_levels} of {levels} levels above the first",
            f"Give at most {levels}.",
        )


class TransformerBlock(nn.Module):
    """Pre-norm block: local attention at stride 1 or 2, then an MLP; (B, T, C) → (B, ceil(T / stride), C)."""

    sees_padding = False  # set by `see_padding`

    def __init__(self, width: int, heads: int, window: int, mlp_ratio: int, drop_path: float, stride: int):
        super().__init__()
        self.stride = stride
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.convs = nn.ModuleList(DepthwiseConv(width, 3, stride=stride) for _ in range(3))  # q, k, v
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.projections = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.attention = LocalAttention(heads, window // 2)
        self.out = nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, mlp_ratio * width), nn.Linear(mlp_ratio * width, width)
        self.drop1, self.drop2 = DropPath(width, drop_path), DropPath(width, drop_path)

    def forward(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor | None]:
        u = self.norm1(x)
        if self.sees_padding:
            convolved = [conv(u, keep) for conv in self.convs]
        else:
            u = masked(u, keep)
            convolved = [conv(u) for conv in self.convs]
        if self.stride == 2:
            x, keep = max_pool(x, keep, self.sees_padding), halve(keep)
        elif self.sees_padding:
            x = masked(x, keep)
        q, k, v = (project(norm(y)) for y, norm, project in zip(convolved, self.norms, self.projections))
        x = self.drop1(x, masked(self.out(self.attention(q, k, v, keep)), keep))
        x = self.drop2(x, masked(mlp(self.norm2(x), self.mlp_in, self.mlp_out), keep))
        return x, keep


@register(
    "actionformer",
    family="one_stage",
    # the weight counts only where a user sets multiclass=false and voting_tiou=0.7
    paper=ActionFormerConfig(post=replace(PUBLISHED_POST, voting_weight="score_tiou"), **AUTHORS),
    compact=ActionFormerConfig(width=128, head_width=128, window=9, distance_bias=1.0),
    paper_activitynet=ActionFormerConfig(
        width=256,
        head_width=256,
        window=7,
        global_levels=1,
        position_steps=192,
        loss_norm=200,
        regression_weight=2.0,
        label_smoothing=0.1,
        padded_steps=192,
        post=PostProcess(
            min_segment_steps=0.001,
            max_detections=100,
            nms_sigma=0.75,
            multiclass=False,
            voting_tiou=0.9,
            voting_weight="score_tiou",
        ),
        **AUTHORS,
    ),
)
class ActionFormer(PublishedPyramid):
    """Stem of blocks at stride 1, then one block of stride 2 a level; identity neck with a norm a level."""

    config: ActionFormerConfig

    def block(self, stride: int) -> TransformerBlock:
        c = self.config
        return TransformerBlock(c.width, c.heads, c.window, c.mlp_ratio, c.drop_path, stride)

    def build_pyramid(self) -> None:
        super().build_pyramid()
        for block in self.branch[len(self.branch) - self.config.global_levels :]:
            block.attention = GlobalAttention(self.config.heads)  # pyright: ignore[reportArgumentType]

    def padding_multiple(self) -> int:
        # at every level with local attention their code takes the steps in chunks of twice the reach
        attentions = [block.attention for block in (*self.stem[:1], *self.branch)]
        chunks = [2 * each.reach if isinstance(each, LocalAttention) else 1 for each in attentions]
        strides = [2**level for level in range(len(self.config.ranges))][-len(chunks) :]
        return max(super().padding_multiple(), *(stride * chunk for stride, chunk in zip(strides, chunks)))
