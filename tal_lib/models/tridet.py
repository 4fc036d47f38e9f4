"""TriDet: scalable-granularity perception blocks, and boundaries as expectations over relative bins.

Source: Shi et al., TriDet: Temporal Action Detection with Relative Boundary Modeling, CVPR 2023. Means and
group norms run over the valid steps. In the authors' code they run over its padding too: `padding="authors"`
computes that, and `load_checkpoint` chooses it. Their code votes in class-agnostic NMS only, so the preset
`paper` does not vote on THUMOS14. A detection whose clipped segment has length zero is dropped; theirs is
kept. The derivative of tIoU^0.2 is infinite at a tIoU of zero. Their loss then has a NaN gradient; ours is
zero there. docs/fidelity.md compares both.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.parts.assignment import Points
from tal_lib.models.parts.blocks import DropPath, MaskedGroupNorm, mlp
from tal_lib.models.parts.candidates import PostProcess
from tal_lib.models.parts.conv import DepthwiseConv, TemporalConv, halve, masked, max_pool
from tal_lib.models.parts.published import PUBLISHED_POST, PublishedConfig, PublishedPyramid
from tal_lib.models.parts.pyramid import AUTHORS, At, Scales, Tower
from tal_lib.models.parts.registry import register
from tal_lib.segments import interval_iou
from tal_lib.validation import (
    LARGEST_SIZE,
    BelowOne,
    NotNegative,
    OddSize,
    Positive,
    Size,
    require,
    require_divides,
)


@dataclass(frozen=True, kw_only=True)
class TriDetConfig(PublishedConfig):
    """THUMOS14 values by default."""

    window: OddSize = 1  # w: kernel of the window branch
    scale: Positive = 5.0  # k: the wide kernel is (w + 1) · k, made odd
    mlp_width: Size = 768  # hidden channels of the MLP
    groups: Size = 16  # of the group norm
    drop_path: BelowOne = 0.1  # probability that a block's branch is left out in training
    bins: Size = 16  # B: relative positions on either side, besides the point's own
    iou_power: NotNegative = 0.2  # class loss of positives × tIoU to this power
    iou_gradient: bool = False  # whether the class loss also teaches that tIoU, as released
    # initial, of the depthwise kernels; with 0, as released for THUMOS14, every branch of SGP stays zero
    weight_std: NotNegative = 1.0

    def check(self):
        super().check()
        require_divides(self, "width", "groups")
        wide = wide_kernel(self)
        require(
            wide <= LARGEST_SIZE,
            f"scale: {self.scale:g} makes a kernel of {wide:,} steps",
            "Choose a smaller one.",
        )


def wide_kernel(config: TriDetConfig, window: int | None = None) -> int:
    """Steps that the wide kernel beside a window (None: the config's) sees: an odd number."""
    wide = round(((config.window if window is None else window) + 1) * config.scale)
    return wide + 1 - wide % 2


class Residual(nn.Module):
    """A plain residual."""

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + branch


class SGPBlock(nn.Module):
    """Scalable-granularity perception: an instant branch gated by the recording's mean, and a window branch.

    (B, T, C) → (B, ceil(T / stride), C). Source: section 3.2, equations 1–4.
    """

    sees_padding = False  # set by `see_padding`

    def __init__(self, c: TriDetConfig, stride: int):
        super().__init__()
        self.stride = stride
        self.norm = nn.LayerNorm(c.width)
        conv = lambda kernel: DepthwiseConv(c.width, kernel, bias=True)
        self.fc, self.global_fc = conv(1), conv(1)
        window = c.window if stride > 1 else 1  # blocks at stride 1 see one step, as released
        self.psi, self.convw, self.convkw = conv(window), conv(window), conv(wide_kernel(c, window))
        for layer in (self.fc, self.global_fc, self.psi, self.convw, self.convkw):
            nn.init.normal_(layer.weight, 0, c.weight_std)
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
        self.group_norm = MaskedGroupNorm(c.groups, c.width)
        self.mlp_in, self.mlp_out = nn.Linear(c.width, c.mlp_width), nn.Linear(c.mlp_width, c.width)
        # blocks at stride 1 have plain residuals, as released
        self.drop1, self.drop2 = (
            DropPath(c.width, c.drop_path) if stride > 1 else Residual() for _ in range(2)
        )

    def forward(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.sees_padding:
            return self._with_padding(x, keep)
        if self.stride == 2:
            x, keep = max_pool(x, keep), halve(keep)
        x = masked(self.drop1(x, self.branches(masked(self.norm(x), keep), keep)), keep)
        x = self.drop2(x, mlp(self.group_norm(x, keep), self.mlp_in, self.mlp_out))
        return masked(x, keep), keep

    def branches(self, u: Tensor, keep: Tensor | None) -> Tensor:
        """Instant branch, window branch and u itself, summed."""
        mean = (
            u.mean(1, keepdim=True)
            if keep is None
            else u.sum(1, keepdim=True) / keep.sum(1, keepdim=True).clamp(min=1)
        )
        instant = self.fc(u) * F.relu(self.global_fc(mean))
        window = (self.convw(u) + self.convkw(u)) * self.psi(u)
        return instant + window + u

    def _with_padding(self, x, keep):
        """The authors' block: only the residual is masked."""
        if self.stride == 2:
            x, keep = max_pool(x), halve(keep)
        x = self.drop1(masked(x, keep), self.branches(self.norm(x), None))
        return self.drop2(x, mlp(self.group_norm(x), self.mlp_in, self.mlp_out)), keep


@register(
    "tridet",
    family="one_stage",
    paper=TriDetConfig(
        iou_gradient=True, weight_std=0.0, post=replace(PUBLISHED_POST, max_detections=2000), **AUTHORS
    ),
    compact=TriDetConfig(width=128, head_width=128, mlp_width=192),
    paper_activitynet=TriDetConfig(
        width=256,
        head_width=512,
        window=15,
        scale=1.3,
        mlp_width=2048,
        bins=12,
        iou_power=1.0,
        iou_gradient=True,
        weight_std=0.2,
        loss_norm=400,
        label_smoothing=0.1,
        position_steps=768,
        padded_steps=768,
        post=PostProcess(
            min_segment_steps=0.1, max_detections=200, nms_sigma=0.7, multiclass=False, voting_tiou=0.95
        ),
        **AUTHORS,
    ),
)
class TriDet(PublishedPyramid):
    """forward: class logits (B, P, K), bin offsets (B, P, 2, bins + 1), start and end scores (B, P, K)
    each.
    """

    config: TriDetConfig

    separate_boundaries = True

    def block(self, stride: int) -> SGPBlock:
        return SGPBlock(self.config, stride)

    def padding_multiple(self) -> int:
        return super().padding_multiple() * self.config.window

    def build_heads(self) -> None:
        c = self.config
        tower = lambda: Tower(c.width, c.head_width, c.head_layers, c.norm)
        self.class_tower, self.start_tower, self.end_tower, self.boundary_tower = (tower() for _ in range(4))
        self.class_out, self.start_out, self.end_out = (self.class_output(c.head_width) for _ in range(3))
        self.boundary_out = TemporalConv(c.head_width, 2 * (c.bins + 1))
        nn.init.zeros_(self.boundary_out.bias)  # pyright: ignore[reportArgumentType]
        self.scales = Scales(len(c.ranges))

    def heads(self, x: Tensor, keep: Tensor | None, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
        still = x.detach()  # boundaries do not teach the pyramid
        logits = self.class_out(self.class_tower(x, keep, sizes), keep, sizes)
        start, end = (
            masked(out(tower(still, keep, sizes), keep, sizes), keep)
            for out, tower in ((self.start_out, self.start_tower), (self.end_out, self.end_tower))
        )
        bins = F.relu(self.scales(self.boundary_out(self.boundary_tower(x, keep, sizes), keep, sizes), sizes))
        return logits, bins.unflatten(-1, (2, -1)), start, end

    def decode(self, outputs: tuple[Tensor, ...], points: Points, at: At) -> Tensor:
        """Expected distances over the bins, for the class in question. Source: section 3.3, equations 5–8."""
        bins = torch.arange(self.config.bins + 1, device=at.row.device)
        first = points.first[at.row]

        def expected(scores, rows, offsets, distance):  # rows (N, B + 1); outside the level a score of zero
            inside = (rows >= 0) & (rows < points.first.shape[0])
            inside = inside & (points.first[rows.clamp(0, points.first.shape[0] - 1)] == first[:, None])
            near = scores[at.batch[:, None], rows.clamp(0, scores.shape[1] - 1), at.label[:, None]] * inside
            return ((near + offsets).softmax(-1) * distance).sum(-1)

        offsets, row, stride = outputs[1][at.batch, at.row], at.row[:, None], points.stride[at.row]
        to_start = expected(outputs[2], row - bins.flip(0), offsets[:, 0], bins.flip(0))
        to_end = expected(outputs[3], row + bins, offsets[:, 1], bins)
        position = points.position[at.row]
        return torch.stack([position - to_start * stride, position + to_end * stride], -1)

    def positives_of(self, classes: Tensor, positive: Tensor) -> At:
        return At(*((classes > 0) & positive[..., None]).nonzero(as_tuple=True))

    def class_weights(self, outputs, points: Points, at: At, targets: Tensor) -> Tensor:
        learned = self.config.iou_gradient and torch.is_grad_enabled()
        with torch.set_grad_enabled(learned):
            overlap = interval_iou(self.decode(outputs, points, at), targets)
            # the derivative of a power below one is infinite at zero
            return (overlap.clamp(min=1e-30) if learned else overlap) ** self.config.iou_power
