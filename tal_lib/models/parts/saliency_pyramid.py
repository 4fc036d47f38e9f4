"""AFSD as its authors' code has it: pyramid, heads and losses.

Source: Lin et al., AFSD (CVPR 2021); BDNet.py, multisegment_loss.py and train.py of the authors' repository.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.models.parts.assignment import Points
from tal_lib.models.parts.boundary_contrast import spliced
from tal_lib.models.parts.boundary_pooling import pool_regions, pooling_regions
from tal_lib.models.parts.clips import ClipConfig, ClipPyramid
from tal_lib.models.parts.conv import TemporalConv, ceil_div
from tal_lib.models.parts.pyramid import At, Scales, join_levels
from tal_lib.models.parts.saliency import (
    Downsampling,
    GroupNormConv,
    GroupNormTower,
    SaliencyHead,
    activation,
    glorot,
)
from tal_lib.models.parts.saliency_loss import (
    boundary_consistency,
    boundary_contrast,
    boundary_targets,
    detection_losses,
)
from tal_lib.validation import NotNegative, Positive, Probability, Size, SizeOrZero, require, require_divides

ANY = ((0, 10_000),) * 6  # six levels without range limits


@dataclass(frozen=True, kw_only=True)
class SaliencyConfig(ClipConfig):
    """Options of AFSD and what is built on it, with the values of the published code for THUMOS14."""

    embedding_layers: Size = 1
    ranges: tuple[tuple[NotNegative, NotNegative], ...] = ANY
    groups: Size = 32  # of the group norms
    piou: Probability = 0.5  # refinement learns from coarse segments of at least this tIoU
    location_weight: NotNegative = 10.0  # of the boundary losses
    class_weight: NotNegative = 1.0  # of the class losses
    boundary_weight: NotNegative = 1.0  # of boundary consistency
    contrast_weight: NotNegative = 0.1  # of boundary contrast
    clip_steps: SizeOrZero = 64
    clip_overlap: SizeOrZero = 32
    # of the published layers and losses:
    frames: Size = 4  # frame-level positions a step
    distance_unit: Positive = 0.25  # steps that a coarse distance of 1 spans
    distance_by_level: bool = False  # that unit grows with the stride of the level
    smooth_offsets: bool = False  # smooth-L1 loss of the offsets, not L1
    best_is_good: bool = False  # a recording's best coarse segment is refined whatever its tIoU

    def check(self):
        super().check()
        require_divides(self, "width", "groups")
        require(
            self.width % 2 == 0,
            f"width: {self.width} is odd",
            "Choose an even width: half of the channels predict starts.",
        )


class Saliency(ClipPyramid):
    """Layers and losses of the published code, for a model that has them as one of its forms."""

    config: SaliencyConfig

    def build_saliency_pyramid(self) -> None:
        """Create the layers up to the pyramid."""
        c = self.config
        conv = lambda kernel: GroupNormConv(c.width, c.width, kernel, c.groups)
        self.embedding = nn.ModuleList([GroupNormConv(self.input_dim, c.width, 1, c.groups)])
        self.branch = nn.ModuleList(Downsampling(c.width, c.groups) for _ in c.ranges[1:])
        self.frame = nn.ModuleList([conv(3), conv(3), conv(1)])

    def build_saliency_heads(self) -> None:
        """Create the layers behind the pyramid."""
        c = self.config
        self.scales = Scales(len(c.ranges))
        self.class_tower, self.boundary_tower = (
            GroupNormTower(c.width, c.head_layers, c.groups) for _ in range(2)
        )
        self.class_out, self.boundary_out = (
            glorot(TemporalConv(c.width, count)) for count in (self.num_classes + 1, 2)
        )
        self.refinement = SaliencyHead(c.width, c.groups, self.num_classes + 1)

    @staticmethod
    def valid_steps(x: Tensor, keep: Tensor | None) -> Tensor:
        """Number of valid steps (B, 1), at least 1."""
        if keep is None:
            return torch.full((x.shape[0], 1), x.shape[1], device=x.device).clamp(min=1)
        return keep.sum(1).long().clamp(min=1)

    def saliency(
        self, x: Tensor, keep: Tensor | None, levels: list[Tensor], keeps: list[Tensor | None]
    ) -> tuple[Tensor, ...]:
        """Outputs at the points, from the embedded features (B, T, C) and the pyramid's levels."""
        c = self.config
        joined, joined_keep, sizes = join_levels(levels, keeps)
        of_class = self.class_tower(joined, joined_keep, sizes)
        of_location = self.boundary_tower(joined, joined_keep, sizes)
        logits = self.class_out(of_class, joined_keep, sizes)
        points, count = self.points_of_clip(x.shape[1]), self.valid_steps(x, keep)
        unit = c.distance_unit if c.distance_by_level else c.distance_unit / points.stride[:, None]
        distances = self.scales(self.boundary_out(of_location, joined_keep, sizes), sizes)
        distances = distances.clamp(max=8).exp() * unit

        frame = self.frame_features(x, keep)
        coarse = self.coarse_segments(distances.detach(), points)
        in_frames = pooling_regions((coarse + 0.5) * c.frames, extra=1.0)
        around = pool_regions(frame, in_frames, count * c.frames)
        cell = (torch.arange(joined.shape[1], device=x.device) - points.first)[:, None]
        reach = distances.detach()
        in_cells = pooling_regions(torch.cat([cell - reach[..., :1], cell + reach[..., 1:]], -1))
        pool = lambda ends: torch.cat(
            [
                pool_regions(part, regions, ceil_div(count, 2**level))
                for level, (part, regions) in enumerate(zip(ends.split(sizes, 1), in_cells.split(sizes, 1)))
            ],
            1,
        )
        again, offsets, quality, *ends = self.refinement(
            of_class, of_location, around, pool, joined_keep, sizes
        )
        curves = torch.cat([activation(part[:, : sizes[0]]) for part in ends], -1)
        return logits, distances, again, offsets, quality, activation(frame), curves

    def frame_features(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """Embedded features (B, T, C) → frame-level features (B, F, C), which the model's class defines."""
        raise NotImplementedError

    def saliency_frames(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """Frame-level features (B, F, C) of the finest level (B, T, C)."""
        x = x.repeat_interleave(self.config.frames, 1)
        keep = None if keep is None else keep.repeat_interleave(self.config.frames, 1)
        for conv in self.frame:
            x = conv(x, keep)
        return x

    @staticmethod
    def coarse_segments(distances: Tensor, points: Points) -> Tensor:
        """Segments (B, P, 2) in steps from distances in strides."""
        reach = distances * points.stride[:, None]
        return torch.stack([points.position - reach[..., 0], points.position + reach[..., 1]], -1)

    def inside_clip(self, segments: Tensor, at: At) -> Tensor:
        """Segments (N, 2) of the chosen points, clamped to the points' clips."""
        c = self.config
        if not c.clip_steps:
            return segments
        clip = at.row // len(self.points_of_clip(c.clip_steps).position)
        start = (clip * (c.clip_steps - c.clip_overlap))[:, None] - 0.5
        return torch.minimum(torch.maximum(segments, start), start + c.clip_steps)

    @staticmethod
    def saliency_probabilities(outputs: tuple[Tensor, ...]) -> Tensor:
        """Scores (B, P, K) of the classes without the background."""
        scores = 0.5 * (outputs[0].softmax(-1) + outputs[2].softmax(-1)) * outputs[4].sigmoid()
        return scores[..., 1:]

    def saliency_loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        """The losses of the authors' code."""
        c = self.config
        points, valid = self.points(batch.mask.shape[1]), self.level_mask(batch.mask)
        classes, segments, positive = self.assign(outputs, points, valid, batch)
        positive = positive & valid
        reach = outputs[1] * points.stride[:, None]  # (B, P, 2) in steps
        position = points.position[:, None]
        wanted = torch.cat([position - segments[..., :1], segments[..., 1:] - position], -1)
        labels = torch.where(positive, classes.argmax(-1) + 1, 0)
        losses = detection_losses(
            (outputs[0], reach, outputs[2], outputs[3], outputs[4][..., 0]),
            wanted,
            labels,
            valid,
            piou=c.piou,
            best_is_good=c.best_is_good,
            smooth=c.smooth_offsets,
        )
        if self.training:
            self.positives.fill_(positive.sum().clamp(min=1))
        at, step_valid = self.steps_of(batch.mask)
        frames = (at[:, None] * c.frames + torch.arange(c.frames, device=at.device)).flatten()
        near = torch.stack(
            [boundary_targets((segments + 0.5) * c.frames, frames) for segments in batch.segments]
        )
        coarse_near = near[:, :: c.frames]
        boundary = boundary_consistency(
            outputs[5], near, step_valid.repeat_interleave(c.frames, 1)
        ) + 0.1 * sum(
            boundary_consistency(curves, coarse_near, step_valid) for curves in outputs[6].split(2, -1)
        )
        losses["boundary"] = boundary
        weights = {
            "regression": c.location_weight,
            "offsets": c.location_weight,
            "boundary": c.boundary_weight,
        }
        if c.contrast_weight and self.training:
            losses["contrast"] = self.saliency_contrast(batch)
            weights["contrast"] = c.contrast_weight
        total = sum(weights.get(name, c.class_weight) * loss for name, loss in losses.items())
        return {"total": total} | {name: loss.detach() for name, loss in losses.items()}  # pyright: ignore[reportReturnType]

    def saliency_contrast(self, batch: Batch) -> Tensor:
        """Mean boundary contrast of the recordings that can be spliced, each at most a clip long."""
        c, losses = self.config, []
        for features, mask, segments in zip(batch.features, batch.mask, batch.segments):
            steps = int(mask.sum())
            if c.clip_steps and steps > c.clip_steps:
                continue
            altered = spliced(features[:, :steps].T, segments + 0.5)
            if altered is None:
                continue
            (x, pieces), sizes = altered, (steps,)
            x = self.embed(x[None], None)
            heads = (
                (1.0, self.frame_features(x, None), 1),
                (0.1, self.refinement.for_location.ends(self.boundary_tower(x, None, sizes)), c.frames),
                (0.1, self.refinement.for_class.ends(self.class_tower(x, None, sizes)), c.frames),
            )
            losses.append(
                sum(
                    weight * boundary_contrast(part, pieces, c.frames, scale) for weight, part, scale in heads
                )
            )
        return torch.stack(losses).mean() if losses else self.positives.new_zeros(())
