"""local_global: the study's own detector: light local convolution, a pooled pyramid, and a mixed norm.

Half of the channels go through a LocalTemporalBlock, the other half pass; a 1×1 convolution fuses them. After
two such blocks at full resolution, max-pooling alone builds the pyramid. In embedding and heads, half of the
channels are normalized over the steps of a recording, which removes what all its steps share (with few
labels, the differences between a few people); the other half are normalized over channels. The cost is
linear in the length.

The name is older than the design: half of the channels went through a GlobalContextBlock, and a second
regression gave centre and duration. Both, and votes for the boundaries, are options. None of them raised the
accuracy (grid `own_design`, results/readers/accuracy/own_design.md).

Sources: this project; the mixed norm: Pan et al., Two at Once (IBN-Net), ECCV 2018, and Ulyanov et al.
(2016); the pooled pyramid: TemporalMaxer (2023); the latents of the global block: Lee et al., Set Transformer
(ICML 2019), section 3.1.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.models.parts.assignment import Points
from tal_lib.models.parts.attention import GlobalContextBlock
from tal_lib.models.parts.blocks import DropPath
from tal_lib.models.parts.boundary_votes import BoundaryVotes
from tal_lib.models.parts.conv import DepthwiseConv, TemporalConv, halve, masked, max_pool
from tal_lib.models.parts.losses import diou
from tal_lib.models.parts.pyramid import At, PyramidConfig, PyramidDetector, Scales, Tower
from tal_lib.models.parts.registry import register
from tal_lib.validation import BelowOne, NotNegative, OddSize, Size, SizeOrZero, require


@dataclass(frozen=True, kw_only=True)
class LocalGlobalConfig(PyramidConfig):
    """Options of local_global."""

    heads: Size = 4  # of the attention
    # tokens that carry the recording's context; 0: no global block, its channels pass unchanged
    latents: SizeOrZero = 0
    kernels: tuple[OddSize, ...] = (3, 7)  # of the local block's depthwise convolutions
    stem_blocks: SizeOrZero = 2
    level_blocks: bool = False  # a block and a norm at each level too, instead of max-pooling alone
    embedding_kernel: OddSize = 3
    norm: Literal["layer", "instance", "half"] = "half"
    drop_path: BelowOne = 0.1  # probability that a block's branch is left out in training
    # both: a segment head too, which gives centre and duration; learned confidences weigh the two
    regressions: Literal["both", "boundary"] = "boundary"
    vote_reach: SizeOrZero = 0  # steps around an end whose votes move it; 0: no votes
    vote_weight: NotNegative = 0.5  # of their loss

    def check(self):
        super().check()
        require(
            self.width % 2 == 0,
            f"width: {self.width} is odd",
            "Choose an even width: half of the channels are local.",
        )
        require(len(self.kernels) > 0, "kernels: the list is empty", "Give at least one odd kernel.")
        half = self.width // 2
        require(
            not self.latents or half % self.heads == 0,
            f"heads: {self.heads} does not divide {half}, half of the width",
            "Choose a number of heads that divides half of the width.",
        )


class LocalTemporalBlock(nn.Module):
    """Depthwise convolutions of several extents, summed, then ReLU; (B, T, C) → same."""

    def __init__(self, channels: int, kernels: tuple[int, ...]):
        super().__init__()
        self.convs = nn.ModuleList(DepthwiseConv(channels, kernel, bias=True) for kernel in kernels)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        x = masked(x, keep)
        return F.relu(sum(conv(x) for conv in self.convs))  # pyright: ignore[reportArgumentType]


class Pool(nn.Module):
    """The next level of the pyramid: maximum over three steps at stride 2; (B, T, C) → (B, ⌈T / 2⌉, C)."""

    def forward(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return max_pool(x, keep), halve(keep)


class LocalGlobalBlock(nn.Module):
    """Pool if it begins a level; local and global halves side by side; 1×1 fusion; residual."""

    def __init__(self, config: LocalGlobalConfig, stride: int):
        super().__init__()
        half = config.width // 2
        self.stride = stride
        self.norm = nn.LayerNorm(config.width)
        self.local_block = LocalTemporalBlock(half, config.kernels)
        self.global_block = GlobalContextBlock(half, config.heads, config.latents) if config.latents else None
        self.fuse = nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(2 * config.width, config.width)
        self.drop = DropPath(config.width, config.drop_path, scale=0.1)

    def forward(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.stride == 2:
            x, keep = max_pool(x, keep), halve(keep)
        near, far = self.norm(x).chunk(2, -1)
        both = torch.cat(
            [self.local_block(near, keep), self.global_block(far, keep) if self.global_block else far], -1
        )
        return self.drop(x, masked(self.out(F.gelu(self.fuse(both))), keep)), keep


@register(
    "local_global",
    family="one_stage",
    paper=LocalGlobalConfig(width=256, head_width=256, embedding_layers=2),
    compact=LocalGlobalConfig(width=96, head_width=96),
)
class LocalGlobal(PyramidDetector):
    """With `regressions="both"`, forward adds segments (B, P, 2) and confidences (B, P, 2).

    A segment is a shift of the centre and the logarithm of a duration, in strides.
    """

    config: LocalGlobalConfig

    def block(self, stride: int) -> LocalGlobalBlock:
        return LocalGlobalBlock(self.config, stride)

    def build_pyramid(self) -> None:
        super().build_pyramid()
        if not self.config.level_blocks:
            self.branch = nn.ModuleList(Pool() for _ in self.branch)
            self.neck = nn.ModuleList(nn.Identity() for _ in self.neck)

    def build_heads(self) -> None:
        c = self.config
        self.class_tower = Tower(c.width, c.head_width, c.head_layers, c.norm)
        self.class_out = self.class_output(c.head_width)
        self.regression_tower = Tower(c.width, c.head_width, c.head_layers, c.norm)
        # boundary 2, segment 2, confidences 2
        self.regression_out = TemporalConv(c.head_width, 6 if c.regressions == "both" else 2)
        nn.init.zeros_(self.regression_out.bias)  # pyright: ignore[reportArgumentType]
        self.scales = Scales(len(c.ranges))
        self.votes = BoundaryVotes(c.head_width, c.vote_reach) if c.vote_reach else None

    def heads(self, x: Tensor, keep: Tensor | None, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
        logits = self.class_out(self.class_tower(x, keep, sizes), keep, sizes)
        tower = self.regression_tower(x, keep, sizes)
        boundary, *others = self.regression_out(tower, keep, sizes).split(2, -1)
        outputs = (logits, F.softplus(self.scales(boundary, sizes)), *others)
        if self.votes is None:
            return outputs
        steps = sizes[0]  # the finest level
        return *outputs, self.votes(tower[:, :steps], None if keep is None else keep[:, :steps])

    def decode_boundary(self, outputs, points: Points, at: At) -> Tensor:
        """Segments (N, 2) of the boundary head, in steps."""
        return super().decode(outputs, points, at)

    def decode_segment(self, outputs, points: Points, at: At) -> Tensor:
        """Segments (N, 2) of the segment head, in steps."""
        shift, log_duration = outputs[2][at.batch, at.row].unbind(-1)
        stride = points.stride[at.row]
        centre, half = points.position[at.row] + shift * stride, log_duration.clamp(max=6).exp() * stride
        return torch.stack([centre - half, centre + half], -1)

    def decode_heads(self, outputs, points: Points, at: At) -> Tensor:
        """The heads' answers, weighed by their confidences, before any vote."""
        if self.config.regressions == "boundary":
            return self.decode_boundary(outputs, points, at)
        weight = outputs[3][at.batch, at.row].softmax(-1)
        return weight[:, :1] * self.decode_boundary(outputs, points, at) + weight[
            :, 1:
        ] * self.decode_segment(outputs, points, at)

    def decode(self, outputs, points: Points, at: At) -> Tensor:
        segments = self.decode_heads(outputs, points, at)
        return segments if self.votes is None else self.votes.refine(segments, at.batch, outputs[-1])

    def regression_loss(self, outputs, points: Points, at: At, targets: Tensor) -> Tensor:
        loss = lambda decode: diou(decode(outputs, points, at), targets)
        if self.config.regressions == "boundary":
            return loss(self.decode_boundary)
        return loss(self.decode_heads) + 0.5 * (loss(self.decode_boundary) + loss(self.decode_segment))

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        losses = super().loss(outputs, batch)
        if self.votes is None:
            return losses
        votes = self.votes.loss(outputs[-1], batch.mask, batch.segments)
        losses["total"] = losses["total"] + self.config.vote_weight * votes
        return losses | {"votes": votes.detach()}
