"""AFSD: coarse segments, refined by the features at their boundaries.

Source: Lin et al., Learning Salient Boundary Feature for Anchor-free Temporal Action Localization, CVPR 2021.
Kept from it: the pyramid of strided convolutions, exponential coarse distances, boundary max-pooling on the
frame-level features and on the features of each level, refinement, quality, boundary consistency and boundary
contrast. Assignment and range limits are those that all pyramids here share. The contrast needs a second pass
over altered recordings; the compact preset leaves it out.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.models.parts.assignment import Points
from tal_lib.models.parts.blocks import MaskedGroupNorm
from tal_lib.models.parts.candidates import PostProcess
from tal_lib.models.parts.conv import TemporalConv, ceil_div, exporting, halve, masked, to_keep
from tal_lib.models.parts.losses import giou, sigmoid_focal
from tal_lib.models.parts.pyramid import At, PyramidConfig, PyramidDetector, Scales, Tower, join_levels
from tal_lib.models.parts.registry import register
from tal_lib.segments import interval_iou
from tal_lib.validation import NotNegative, Probability, Size, require, require_divides


@dataclass(frozen=True, kw_only=True)
class AFSDConfig(PyramidConfig):
    """THUMOS14 values by default."""

    embedding_layers: Size = 1
    groups: Size = 32  # of the group norms
    piou: Probability = 0.5  # refinement learns from coarse segments of at least this tIoU
    location_weight: NotNegative = 10.0
    class_weight: NotNegative = 1.0
    boundary_weight: NotNegative = 1.0  # of boundary consistency
    contrast_weight: NotNegative = 0.1  # of boundary contrast
    regression_weight: NotNegative = 1.0

    def check(self):
        super().check()
        require_divides(self, "width", "groups")
        require(
            self.width % 2 == 0,
            f"width: {self.width} is odd",
            "Choose an even width: half of it looks for starts.",
        )


class ConvGroupNorm(nn.Module):
    """Convolution → group norm → ReLU; at stride 2 every other step is kept."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.conv, self.norm = TemporalConv(inputs, outputs, kernel), MaskedGroupNorm(groups, outputs)

    def forward(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = self.conv(x, keep)
        if self.stride == 2:
            x, keep = x[:, ::2], halve(keep)
        return masked(F.relu(self.norm(x, keep)), keep), keep


EXPORTED_POWERS = 15  # an exported model pools over ranges of up to 2^16 steps


def range_max(x: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Channel-wise maximum over ranges of steps, in O(T log T) for all ranges.

    Two windows of a power of two cover each range; their maxima are computed beforehand for all positions.

    Args:
        x: (B, T, C); first, last: (B, P) inclusive steps, clamped to the recording, first ≤ last.

    Returns:
        (B, P, C).
    """
    batch, steps, channels = x.shape
    first, last = first.clamp(0, steps - 1), last.clamp(0, steps - 1)
    size = last - first + 1
    power = (size.float() + 0.5).log2().floor().long()
    larger = lambda a, b: torch.where(a >= b, a, b)
    tables, table, span = [x], x, 1
    for _ in range(EXPORTED_POWERS if exporting() else 0):  # any length: no branch on it
        after = (torch.arange(steps, device=x.device) + span).clamp(max=steps - 1)
        table = torch.maximum(table, table[:, after])
        tables.append(table)
        span *= 2
    while not exporting() and 2 * span <= steps:
        table = torch.cat(
            [larger(table[:, :-span], table[:, span:]), table[:, -span:]], 1
        )  # the tail is never asked for
        tables.append(table)
        span *= 2
    power = power.clamp(max=len(tables) - 1)
    rows = torch.stack(tables, 1).reshape(-1, channels)  # (B · levels · T, C)
    offset = torch.arange(batch, device=x.device)[:, None] * len(tables) * steps + power * steps
    take = lambda at: rows.index_select(0, (offset + at).flatten()).unflatten(0, (batch, -1))
    return larger(take(first), take(last - 2**power + 1))


def boundary_pooling(x: Tensor, segments: Tensor, steps: Tensor) -> Tensor:
    """Boundary max-pooling: half of the channels from around the start, half from around the end.

    The start region is [start − len / 10, start + len / 4], the end region [end − len / 4, end + len / 10].

    Args:
        x: (B, T, C); segments: (B, P, 2) in steps of x; steps: (B, 1) valid steps.

    Source: section 3.3, equation 4.
    """
    length = (segments[..., 1] - segments[..., 0]).clamp(min=1)
    half = x.shape[-1] // 2
    parts = []
    for channels, at, before, after in (
        (x[..., :half], segments[..., 0], 0.1, 0.25),
        (x[..., half:], segments[..., 1], 0.25, 0.1),
    ):
        first = torch.minimum((at - before * length).floor().long().clamp(min=0), steps - 1)
        last = torch.maximum(torch.minimum((at + after * length).ceil().long(), steps - 1), first)
        parts.append(range_max(channels, first, last))
    return torch.cat(parts, -1)


def end_features(x: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima of features (1, T, C) around the starts and around the ends of segments (P, 2): (P, C) each."""
    length = (segments[:, 1] - segments[:, 0]).clamp(min=1)
    around = lambda at, before, after: range_max(
        x,
        (at - before * length).floor().long()[None],
        (at + after * length).ceil().long()[None],
    )[0]
    return around(segments[:, 0], 0.1, 0.25), around(segments[:, 1], 0.25, 0.1)


def choose_cut(segments: Tensor, steps: int, action: int = 8, background: int = 4):
    """A random action of at least `action` steps, and random background of at least `background` steps.

    No segment touches the background, and it is no longer than the action.

    Returns:
        ((start, end), (first, last)) in whole steps with exclusive ends; None if either is missing.
    """
    ends = segments.round().clamp(0, steps).long()
    long = ends[ends[:, 1] - ends[:, 0] >= action]
    free = torch.ones(steps + 2, dtype=torch.long)
    free[[0, -1]] = 0
    for start, end in ends.tolist():
        free[start + 1 : end + 1] = 0
    change = free.diff()
    gaps = torch.stack([(change == 1).nonzero()[:, 0], (change == -1).nonzero()[:, 0]], 1)
    gaps = gaps[gaps[:, 1] - gaps[:, 0] >= background]
    if not len(long) or not len(gaps):
        return None
    (start, end), (first, last) = (some[torch.randint(len(some), ())].tolist() for some in (long, gaps))
    return (start, end), (first, min(last, first + end - start))


@register(
    "afsd",
    family="one_stage",
    paper=AFSDConfig(),
    compact=AFSDConfig(width=128, head_width=128, groups=16, contrast_weight=0.0),
    paper_activitynet=AFSDConfig(loss_norm=200, post=PostProcess(max_detections=100, nms_sigma=0.85)),
)
class AFSD(PyramidDetector):
    """forward returns, with distances in strides and offsets in half-lengths of the coarse segment:

    coarse logits (B, P, K), coarse distances (B, P, 2), refined logits (B, P, K), offsets (B, P, 2), quality
    (B, P, 1), boundary curves (B, T, 2).
    """

    config: AFSDConfig

    def build_pyramid(self) -> None:
        c = self.config
        self.branch = nn.ModuleList(
            ConvGroupNorm(c.width, c.width, 3, c.groups, stride=2) for _ in c.ranges[1:]
        )
        self.frame = nn.ModuleList(ConvGroupNorm(c.width, c.width, 3, c.groups) for _ in range(3))

    def pyramid(self, x: Tensor, keep: Tensor | None):
        levels, keeps = [x], [keep]
        for conv in self.branch:
            x, keep = conv(x, keep)
            levels.append(x)
            keeps.append(keep)
        return levels, keeps

    def build_heads(self) -> None:
        c = self.config
        self.class_tower, self.boundary_tower = (
            Tower(c.width, c.head_width, c.head_layers, c.norm) for _ in range(2)
        )
        self.class_out, self.boundary_out = self.class_output(c.head_width), TemporalConv(c.head_width, 2)
        nn.init.zeros_(self.boundary_out.bias)  # pyright: ignore[reportArgumentType]
        self.scales = Scales(len(c.ranges))
        mix = lambda: nn.Sequential(nn.Linear(3 * c.width, c.width), nn.LayerNorm(c.width), nn.ReLU())
        self.class_mix, self.location_mix = mix(), mix()
        self.class_again, self.offset, self.quality = (
            nn.Linear(c.width, n) for n in (self.num_classes, 2, 1)
        )
        nn.init.constant_(self.class_again.bias, -math.log((1 - c.prior) / c.prior))

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        keep = to_keep(mask, features)
        x = self.embed(features.transpose(1, 2), keep)
        return self.heads_on(x, keep, *self.pyramid(x, keep))

    def heads_on(
        self, x: Tensor, keep: Tensor | None, levels: list[Tensor], keeps: list[Tensor | None]
    ) -> tuple[Tensor, ...]:
        """Outputs at the points, from the embedded features (B, T, C) and the pyramid's levels."""
        joined, joined_keep, sizes = join_levels(levels, keeps)
        logits = self.class_out(self.class_tower(joined, joined_keep, sizes), joined_keep, sizes)
        distances = self.boundary_out(self.boundary_tower(joined, joined_keep, sizes), joined_keep, sizes)
        distances = self.scales(distances, sizes).clamp(max=8).exp()

        frame = self.frame_features(x, keep)
        points = self.points(x.shape[1])
        coarse = self.coarse_segments(distances.detach(), points)
        count = (
            torch.full((x.shape[0], 1), x.shape[1], device=x.device) if keep is None else keep.sum(1).long()
        ).clamp(min=1)
        level_features, first = [], 0
        for level, (size, level_feature) in enumerate(
            zip(sizes, levels)
        ):  # the level's own feature, in its own steps
            here = coarse[:, first : first + size] / 2**level
            level_features.append(boundary_pooling(level_feature, here, ceil_div(count, 2**level)))
            first += size
        every = torch.cat([joined, boundary_pooling(frame, coarse, count), torch.cat(level_features, 1)], -1)
        for_class, for_location = self.class_mix(every), self.location_mix(every)
        half = frame.shape[-1] // 2
        curves = torch.stack([frame[..., :half].mean(-1), frame[..., half:].mean(-1)], -1)
        return (
            logits,
            distances,
            self.class_again(for_class),
            self.offset(for_location),
            self.quality(for_location),
            curves,
        )

    def frame_features(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """Embedded features (B, T, C) → frame-level features (B, T, C)."""
        for conv in self.frame:
            x, _ = conv(x, keep)
        return x

    @staticmethod
    def coarse_segments(distances: Tensor, points: Points) -> Tensor:
        """Segments (B, P, 2) in steps from distances in strides."""
        reach = distances * points.stride[:, None]
        return torch.stack([points.position - reach[..., 0], points.position + reach[..., 1]], -1)

    def decode(self, outputs: tuple[Tensor, ...], points: Points, at: At) -> Tensor:
        """Refined segments: the coarse ends moved by offsets in half-lengths."""
        coarse = super().decode(outputs, points, at)
        half = (coarse[:, 1:] - coarse[:, :1]) / 2
        return coarse + outputs[3][at.batch, at.row] * half

    def probabilities(self, outputs: tuple[Tensor, ...]) -> Tensor:
        return 0.5 * (outputs[0].sigmoid() + outputs[2].sigmoid()) * outputs[4].sigmoid()

    def regression_loss(self, outputs: tuple[Tensor, ...], points: Points, at: At, targets: Tensor) -> Tensor:
        c = self.config
        coarse = super().decode(outputs, points, at)
        overlap = interval_iou(coarse, targets).detach()
        half = ((coarse[:, 1:] - coarse[:, :1]) / 2).detach().clamp(min=1e-3)
        wanted = (targets - coarse.detach()) / half
        good = (overlap >= c.piou).to(coarse)
        refined = (outputs[3][at.batch, at.row] - wanted).abs().clamp(max=4).sum(-1) * good
        fits = interval_iou(self.decode(outputs, points, at), targets).detach()
        quality = F.binary_cross_entropy_with_logits(outputs[4][at.batch, at.row, 0], fits, reduction="none")
        # the refined class is learned where the coarse segment is good enough; `loss` adds the other points
        return c.location_weight / 10 * (giou(coarse, targets) + refined) + quality

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        c = self.config
        losses = super().loss(outputs, batch)
        points, valid = self.points(batch.mask.shape[1]), self.level_mask(batch.mask)
        classes, segments, positive = self.assign(outputs, points, valid, batch)
        good = interval_iou(self.coarse_segments(outputs[1].detach(), points), segments) >= c.piou
        classes = classes * (positive & good).unsqueeze(-1)
        refined = sigmoid_focal(outputs[2], classes)[valid].sum() / self.positives
        boundary = self.boundary_loss(outputs[5], batch)
        losses["total"] = losses["total"] + c.class_weight * refined + c.boundary_weight * boundary
        losses |= {"refined": refined.detach(), "boundary": boundary.detach()}
        if c.contrast_weight and self.training:
            contrast = self.contrast_loss(batch)
            losses["total"] = losses["total"] + c.contrast_weight * contrast
            losses["contrast"] = contrast.detach()
        return losses

    def contrast_loss(self, batch: Batch) -> Tensor:
        """Boundary contrast on an action that is cut open by a piece of background.

        The inner ends of the two halves must stay similar, and unlike the ends of the background. One action
        and one piece per recording are drawn at random; recordings without either contribute nothing. Source:
        section 3.4.
        """
        losses = [self.positives.new_zeros(())]
        for features, mask, segments in zip(batch.features, batch.mask, batch.segments):
            chosen = choose_cut(segments, int(mask.sum()))
            if chosen is None:
                continue
            (start, end), (first, last) = chosen
            middle, added = (start + end) // 2, last - first
            pasted = torch.cat(
                [features[:, :middle], features[:, first:last], features[:, middle : int(mask.sum())]], 1
            )
            frame = self.frame_features(self.embed(pasted.T[None], None), None)
            pieces = frame.new_tensor(
                [[start, middle], [middle, middle + added], [middle + added, end + added]]
            )
            starts, ends = (F.normalize(part, dim=-1) for part in end_features(frame, pieces))
            apart = lambda a, b: (a - b).square().sum()
            halves = apart(ends[0], starts[2])
            losses.append(
                F.relu(halves - apart(ends[0], starts[1]) + 1)
                + F.relu(halves - apart(starts[2], ends[1]) + 1)
            )
        return torch.stack(losses).sum() / max(1, len(losses) - 1)

    def boundary_loss(self, curves: Tensor, batch: Batch) -> Tensor:
        """Boundary consistency: the frame-level halves should be active at annotated starts and ends."""
        steps = torch.arange(curves.shape[1], device=curves.device, dtype=torch.float32)
        targets = torch.zeros_like(curves)
        for index, segments in enumerate(batch.segments):
            reach = ((segments[:, 1] - segments[:, 0]) / 10).clamp(min=1)
            for side in range(2):
                near = (steps[:, None] - segments[:, side]).abs() <= reach
                targets[index, :, side] = near.any(1).to(curves)
        p = curves.tanh().clamp(1e-4, 1 - 1e-4)  # the features are after a ReLU
        loss = F.binary_cross_entropy(p, targets, reduction="none", weight=1 + 4 * targets)
        return loss[batch.mask].mean()
