"""AFSD: coarse segments, refined by the features at their boundaries.

Source: Lin et al., Learning Salient Boundary Feature for Anchor-free Temporal Action Localization, CVPR 2021.

`paper` follows the authors' code (TencentYoutuResearch/ActionDetection-AFSD) from the features on: a pyramid
of strided convolutions with group norms, exponential coarse distances, boundary max-pooling on frame-level
features and on the features of each head, refinement, quality, softmax over the classes and the background,
boundary consistency and boundary contrast. Raw outputs, losses and gradients are equal. Deviations kept
(reasons in docs/fidelity.md): features enter through one 1×1 convolution, where the authors have two 3-D
convolutions on maps of an I3D network that they train too; recordings shorter than a clip are masked; the
last clip is not moved back; segments are placed by the benchmark's time axis; the last candidate of a class
is kept, where their soft-NMS drops it.

`compact` keeps the idea, in lighter layers: layer norms, pooling on the pyramid, sigmoid class scores, centre
sampling and range limits as all pyramids here. It leaves the contrast out, which needs a second pass over
altered recordings.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.models.parts.assignment import Points, inside_assignment
from tal_lib.models.parts.boundary_contrast import choose_cut
from tal_lib.models.parts.boundary_pooling import boundary_pooling, end_features
from tal_lib.models.parts.candidates import PostProcess
from tal_lib.models.parts.conv import TemporalConv, ceil_div
from tal_lib.models.parts.losses import giou, sigmoid_focal
from tal_lib.models.parts.pyramid import RANGES, At, Scales, Tower, join_levels
from tal_lib.models.parts.registry import register
from tal_lib.models.parts.saliency import ConvGroupNorm
from tal_lib.models.parts.saliency_loss import light_boundary_loss
from tal_lib.models.parts.saliency_pyramid import Saliency, SaliencyConfig
from tal_lib.segments import interval_iou
from tal_lib.validation import NotNegative, require


@dataclass(frozen=True, kw_only=True)
class AFSDConfig(SaliencyConfig):
    """THUMOS14 values of the published code by default.

    The published head has no use for `norm`, `embedding_layers`, `embedding_kernel`, `prior`, `loss_norm`,
    `centre_radius`, `distance_bias` and `label_smoothing`; the light one for none of what only that has.
    """

    head: Literal["published", "light"] = "published"  # layers, assignment and losses: see the top
    regression_weight: NotNegative = 1.0  # of the boundary losses beside the class loss

    def check(self):
        super().check()
        require(
            self.head == "light" or self.head_width == self.width,
            f"head_width: {self.head_width} with width {self.width}",
            "The published head has one width: set both.",
        )


PUBLISHED_POST = PostProcess(
    score_threshold=0.01,
    max_candidates=5000,
    min_segment_steps=0.0,
    max_detections=5000,
    voting_tiou=0.0,
)
LIGHT = {
    "width": 128,
    "head_width": 128,
    "groups": 16,
    "contrast_weight": 0.0,
    "head": "light",
    "ranges": RANGES,
    "clip_steps": 0,
    "clip_overlap": 0,
}


@register(
    "afsd",
    family="one_stage",
    paper=AFSDConfig(post=PUBLISHED_POST),
    compact=AFSDConfig(**LIGHT),
    paper_activitynet=AFSDConfig(
        # 768 frames; the published limits 30, 60, 120, 240 and 768 in steps of 8 frames
        ranges=((0, 3.75), (1.875, 7.5), (3.75, 15), (7.5, 30), (12, 96), (32, 96)),
        clip_steps=96,
        clip_overlap=0,
        frames=8,
        distance_unit=0.5,
        distance_by_level=True,
        location_weight=1.0,
        piou=0.6,
        smooth_offsets=True,
        best_is_good=True,
        post=replace(PUBLISHED_POST, nms_sigma=0.85, score_threshold=1e-9, min_score=1e-9),
    ),
)
class AFSD(Saliency):
    """forward returns, with distances in strides and offsets in half-lengths of the coarse segment:

    coarse logits (B, P, K), coarse distances (B, P, 2), refined logits (B, P, K), offsets (B, P, 2), quality
    (B, P, 1), boundary curves (B, T, 2).

    The published head has logits of K + 1 classes, the background first, and offsets that point outwards. It
    has P points in all clips, curves of all their frames (B, F, 2), and curves of both heads at the finest
    level (B, T, 4).
    """

    config: AFSDConfig

    @property
    def published(self) -> bool:
        """Whether the layers and losses are those of the authors' code."""
        return self.config.head == "published"

    def build_pyramid(self) -> None:
        c = self.config
        if self.published:
            return self.build_saliency_pyramid()
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
        if self.published:
            return self.build_saliency_heads()
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

    def network(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, ...]:
        """Outputs from features (B, T, D) of whole recordings or of clips."""
        x = self.embed(x, keep)
        return self.heads_on(x, keep, *self.pyramid(x, keep))

    def points_of_clip(self, steps: int) -> Points:
        """Points of one clip. The published head has them in the middle of their stride."""
        points = super().points_of_clip(steps)
        if not self.published:
            return points
        return replace(points, position=points.position + (points.stride - 1) / 2)

    def heads_on(
        self, x: Tensor, keep: Tensor | None, levels: list[Tensor], keeps: list[Tensor | None]
    ) -> tuple[Tensor, ...]:
        """Outputs at the points, from the embedded features (B, T, C) and the pyramid's levels."""
        if self.published:
            return self.saliency(x, keep, levels, keeps)
        joined, joined_keep, sizes = join_levels(levels, keeps)
        logits = self.class_out(self.class_tower(joined, joined_keep, sizes), joined_keep, sizes)
        distances = self.boundary_out(self.boundary_tower(joined, joined_keep, sizes), joined_keep, sizes)
        distances = self.scales(distances, sizes).clamp(max=8).exp()

        frame = self.frame_features(x, keep)
        points = self.points_of_clip(x.shape[1])
        coarse = self.coarse_segments(distances.detach(), points)
        count = self.valid_steps(x, keep)
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
        """Embedded features (B, T, C) → frame-level features (B, F, C); F = T in the light head."""
        if self.published:
            return self.saliency_frames(x, keep)
        for conv in self.frame:
            x, _ = conv(x, keep)
        return x

    def decode(self, outputs: tuple[Tensor, ...], points: Points, at: At) -> Tensor:
        """Refined segments: the coarse ends moved by offsets in half-lengths."""
        coarse = super().decode(outputs, points, at)
        half = (coarse[:, 1:] - coarse[:, :1]) / 2
        offsets = outputs[3][at.batch, at.row]
        if not self.published:
            return coarse + offsets * half
        return self.inside_clip(coarse + offsets * half * offsets.new_tensor([-1.0, 1.0]), at)

    def probabilities(self, outputs: tuple[Tensor, ...]) -> Tensor:
        if self.published:
            return self.saliency_probabilities(outputs)
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

    def assign(self, outputs: tuple[Tensor, ...], points: Points, valid: Tensor, batch: Batch):
        if not self.published:
            return super().assign(outputs, points, valid, batch)
        targets = [
            inside_assignment(points, segments, labels, self.num_classes)
            for segments, labels in zip(batch.segments, batch.labels)
        ]
        return tuple(torch.stack(part) for part in zip(*targets))

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        c = self.config
        if self.published:
            return self.saliency_loss(outputs, batch)
        losses = super().loss(outputs, batch)
        points, valid = self.points(batch.mask.shape[1]), self.level_mask(batch.mask)
        classes, segments, positive = self.assign(outputs, points, valid, batch)
        good = interval_iou(self.coarse_segments(outputs[1].detach(), points), segments) >= c.piou
        classes = classes * (positive & good).unsqueeze(-1)
        refined = sigmoid_focal(outputs[2], classes)[valid].sum() / self.positives
        boundary = light_boundary_loss(outputs[5], batch)
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
