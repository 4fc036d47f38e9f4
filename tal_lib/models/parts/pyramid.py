"""One-stage, anchor-free detection on a feature pyramid: what its models share.

A model gives `pyramid(x, keep)`; embedding, heads, assignment, losses and decoding are here.
Source: Zhang et al., ActionFormer (ECCV 2022).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.models.parts.assignment import Points, centre_assignment, pyramid_points
from tal_lib.models.parts.blocks import ConvNormReLU, zero_biases
from tal_lib.models.parts.candidates import Candidates
from tal_lib.models.parts.conv import TemporalConv, masked, to_keep
from tal_lib.models.parts.detector import Detector, DetectorConfig
from tal_lib.models.parts.losses import diou, sigmoid_focal
from tal_lib.models.parts.position import Sinusoids
from tal_lib.validation import (
    BelowOne,
    Finite,
    NotNegative,
    OddSize,
    OpenProbability,
    Positive,
    Probability,
    Size,
    SizeOrZero,
    require,
)


@dataclass(frozen=True)
class At:
    """Chosen points: index of recording, row among the points, class; each (N,)."""

    batch: Tensor
    row: Tensor
    label: Tensor


MOST_LEVELS = 20  # the last one strides 2^19 steps
RANGES = ((0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 10_000))
# what ActionFormer's code and its descendants do at the start of a training and in assignment
AUTHORS = {"closed_ranges": True, "bias_init": "zero"}


@dataclass(frozen=True, kw_only=True)
class PyramidConfig(DetectorConfig):
    """Options of every pyramid detector."""

    width: Size = 512  # channels C of the pyramid
    embedding_layers: Size = 2  # convolutions before it
    embedding_kernel: OddSize = 3  # of the first of them; the others see three steps
    # of embedding and heads: layer, over channels, as published; or instance, over a recording's steps
    norm: Literal["layer", "instance", "half"] = "layer"
    stem_blocks: SizeOrZero = 2  # at stride 1, before the levels
    head_width: Size = 512  # channels of the heads
    head_layers: Size = 2  # k3 convolutions before the output convolution
    # of each level, on the larger distance to a segment's ends, in steps
    ranges: tuple[tuple[NotNegative, NotNegative], ...] = RANGES
    centre_radius: Positive = 1.5  # of centre sampling, in strides
    prior: OpenProbability = 0.01  # initial class probability
    # initial distances, in strides; 0 as published, 1 keeps the ReLU from dying at the start
    distance_bias: Finite = 0.0
    regression_weight: NotNegative = 1.0  # of the boundary loss beside the class loss
    loss_norm: Positive = 100.0  # initial running mean of positives in a batch
    loss_norm_momentum: Probability = 0.9  # of that running mean
    label_smoothing: BelowOne = 0.0  # of the class targets
    # as in the authors' code where `AUTHORS` sets them; other values are this project's
    closed_ranges: bool = False  # a distance at the upper end of a range is in the range
    bias_init: Literal["uniform", "zero"] = "uniform"  # of the pyramid's linear layers
    # length of the table of sinusoids that is added after the embedding; 0: no positions
    position_steps: SizeOrZero = 0

    def check(self):
        super().check()
        levels = len(self.ranges)
        require(1 <= levels <= MOST_LEVELS, f"ranges: {levels} levels", f"Give 1 to {MOST_LEVELS} ranges.")
        for low, high in self.ranges:
            require(
                low < high, f"ranges: {low:g} is not below {high:g}", "Give each level its lower end first."
            )


class Tower(nn.Module):
    """Convolutions of a head, shared by all levels."""

    def __init__(self, inputs: int, width: int, layers: int, norm: str = "layer"):
        super().__init__()
        self.layers = nn.ModuleList(
            ConvNormReLU(inputs if i == 0 else width, width, norm=norm) for i in range(layers)
        )

    def forward(self, x: Tensor, keep: Tensor | None, sizes: tuple[int, ...]) -> Tensor:
        for layer in self.layers:
            x = layer(x, keep, sizes)
        return x


class Scales(nn.Module):
    """One learnable factor a level."""

    def __init__(self, levels: int):
        super().__init__()
        self.values = nn.Parameter(torch.ones(levels))

    def forward(self, x_BPC: Tensor, sizes: tuple[int, ...]) -> Tensor:
        return x_BPC * torch.cat([value.expand(size) for value, size in zip(self.values, sizes)])[:, None]


def join_levels(
    levels: list[Tensor], keeps: list[Tensor | None]
) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
    """Levels end to end (B, P, C), their mask and their sizes.

    A shared head is then mostly one product, instead of one per level.
    """
    keep = None if keeps[0] is None else torch.cat(keeps, 1)  # pyright: ignore[reportArgumentType]
    return torch.cat(levels, 1), keep, tuple(level.shape[1] for level in levels)


class PyramidDetector(Detector):
    """Embedding → pyramid → class and boundary heads.

    forward: features (B, D, T) → class logits (B, P, K) and distances to start and end (B, P, 2), in strides,
    ≥ 0. P points, finest level first.
    """

    config: PyramidConfig

    def __init__(self, config: PyramidConfig, input_dim: int, num_classes: int):
        super().__init__(config, input_dim, num_classes)
        self.embedding = nn.ModuleList(
            ConvNormReLU(
                config.width if i else input_dim,
                config.width,
                3 if i else config.embedding_kernel,
                norm=config.norm,
            )
            for i in range(config.embedding_layers)
        )
        self.position = Sinusoids(config.position_steps, config.width) if config.position_steps else None
        self.build_pyramid()
        if config.bias_init == "zero":
            zero_biases(self)
        self.build_heads()
        self.positives: Tensor
        self.register_buffer("positives", torch.tensor(float(config.loss_norm)))

    # what a model defines

    def block(self, stride: int) -> nn.Module:
        """A block `(x, keep) → (x, keep)` of stride 1 (stem) or 2 (the first of a level)."""
        raise NotImplementedError

    def build_pyramid(self) -> None:
        """Create the layers that `pyramid` uses: a stem, a block a level, a norm a level."""
        config = self.config
        self.stem = nn.ModuleList(self.block(1) for _ in range(config.stem_blocks))
        self.branch = nn.ModuleList(self.block(2) for _ in config.ranges[1:])
        self.neck = nn.ModuleList(nn.LayerNorm(config.width) for _ in config.ranges)

    def pyramid(self, x: Tensor, keep: Tensor | None) -> tuple[list[Tensor], list[Tensor | None]]:
        """Embedded features (B, T, C) → features and masks of each level."""
        for block in self.stem:
            x, keep = block(x, keep)
        levels, keeps = [x], [keep]
        for block in self.branch:
            x, keep = block(x, keep)
            levels.append(x)
            keeps.append(keep)
        return [norm(level) for norm, level in zip(self.neck, levels)], keeps

    def build_heads(self) -> None:
        """Create the layers that `heads` uses."""
        config = self.config
        self.class_tower = Tower(config.width, config.head_width, config.head_layers, config.norm)
        self.class_out = self.class_output(config.head_width)
        self.boundary_tower = Tower(config.width, config.head_width, config.head_layers, config.norm)
        self.boundary_out = TemporalConv(config.head_width, 2)
        nn.init.constant_(self.boundary_out.bias, config.distance_bias)  # pyright: ignore[reportArgumentType]
        self.scales = Scales(len(config.ranges))

    def class_output(self, width: int) -> TemporalConv:
        """The last class convolution; starts at the prior probability."""
        layer = TemporalConv(width, self.num_classes)
        nn.init.constant_(layer.bias, -math.log((1 - self.config.prior) / self.config.prior))  # pyright: ignore[reportArgumentType]
        return layer

    def heads(self, x: Tensor, keep: Tensor | None, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Outputs at the points, from joined levels."""
        logits = self.class_out(self.class_tower(x, keep, sizes), keep, sizes)
        distances = self.boundary_out(self.boundary_tower(x, keep, sizes), keep, sizes)
        return logits, F.relu(self.scales(distances, sizes))

    def decode(self, outputs: tuple[Tensor, ...], points: Points, at: At) -> Tensor:
        """Segments (N, 2) in steps of the chosen points."""
        distances = outputs[1][at.batch, at.row] * points.stride[at.row, None]
        position = points.position[at.row]
        return torch.stack([position - distances[:, 0], position + distances[:, 1]], -1)

    def assign(self, outputs: tuple[Tensor, ...], points: Points, valid: Tensor, batch: Batch):
        """Targets of all points: classes (B, P, K), segments (B, P, 2) in steps, positive (B, P)."""
        targets = [
            centre_assignment(
                points,
                segments,
                labels,
                self.num_classes,
                self.config.centre_radius,
                closed=self.config.closed_ranges,
            )
            for segments, labels in zip(batch.segments, batch.labels)
        ]
        return tuple(torch.stack(part) for part in zip(*targets))

    def positives_of(self, classes: Tensor, positive: Tensor) -> At:
        """The points that learn a segment, from targets (B, P, K) and (B, P)."""
        batch, row = positive.nonzero(as_tuple=True)
        return At(batch, row, classes[batch, row].argmax(-1))

    def regression_loss(self, outputs: tuple[Tensor, ...], points: Points, at: At, targets: Tensor) -> Tensor:
        """Loss (N,) of the positive points; targets (N, 2) in steps."""
        return diou(self.decode(outputs, points, at), targets)

    def class_weights(
        self, outputs: tuple[Tensor, ...], points: Points, at: At, targets: Tensor
    ) -> Tensor | None:
        """Weights (N,) of the positive points' class loss; None: all one."""
        return None

    # what they share

    def embed(self, x: Tensor, keep: Tensor | None) -> Tensor:
        for layer in self.embedding:
            x = layer(x, keep)
        return masked(x, keep)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        keep = to_keep(mask, features)
        x = self.embed(features.transpose(1, 2), keep)
        levels, keeps = self.pyramid(x if self.position is None else self.position(x, keep), keep)
        return self.heads(*join_levels(levels, keeps))

    def points(self, steps: int) -> Points:
        return pyramid_points(steps, self.config.ranges, self.positives.device)

    def level_mask(self, mask: Tensor) -> Tensor:
        """Mask (B, T) of steps → (B, P) of points."""
        return torch.cat([mask[:, :: 2**level] for level in range(len(self.config.ranges))], 1)

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        points, valid = self.points(batch.mask.shape[1]), self.level_mask(batch.mask)
        classes, segments, positive = self.assign(outputs, points, valid, batch)
        at = self.positives_of(classes, positive & valid)
        targets = segments[at.batch, at.row]
        if self.training:
            momentum = self.config.loss_norm_momentum
            count = (positive & valid).sum().clamp(min=1)
            self.positives.mul_(momentum).add_((1 - momentum) * count)
        smooth = self.config.label_smoothing
        focal = sigmoid_focal(outputs[0], classes * (1 - smooth) + smooth / (self.num_classes + 1))
        weights = self.class_weights(outputs, points, at, targets)
        if weights is not None:
            factor = torch.ones_like(focal)
            factor[at.batch, at.row, at.label] = weights
            focal = focal * factor
        classification = focal[valid].sum() / self.positives
        regression = self.regression_loss(outputs, points, at, targets).sum() / self.positives
        return {
            "total": classification + self.config.regression_weight * regression,
            "classification": classification.detach(),
            "regression": regression.detach(),
        }

    def probabilities(self, outputs: tuple[Tensor, ...]) -> Tensor:
        """Scores (B, P, K) in [0, 1]."""
        return outputs[0].sigmoid()

    def candidates(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        points = self.points(mask.shape[1])
        return self.best_points(
            self.probabilities(outputs), lambda at: self.decode(outputs, points, at), points, mask
        )

    def combined_candidates(
        self, members: "list[PyramidDetector]", outputs, weights, mask: Tensor
    ) -> list[Candidates]:
        """At every point the members' mean score, and their mean segment."""
        points = self.points(mask.shape[1])
        mean = lambda parts: sum(weight * part for part, weight in zip(parts, weights))
        return self.best_points(
            mean(member.probabilities(member_outputs) for member, member_outputs in zip(members, outputs)),  # pyright: ignore[reportArgumentType]
            lambda at: mean(
                member.decode(member_outputs, points, at) for member, member_outputs in zip(members, outputs)
            ),
            points,
            mask,
        )

    separate_boundaries = False  # whether a point's segment differs by class

    def every_point(self, outputs: tuple[Tensor, ...], mask: Tensor) -> tuple[Tensor, Tensor]:
        """Segments (B, P, 1 or K, 2) in steps and scores (B, P, K) of all points, for export."""
        scores, points = self.probabilities(outputs), self.points(mask.shape[1])
        batch, count, classes = scores.shape
        shape = (batch, count, classes if self.separate_boundaries else 1)
        index = [
            torch.arange(size, device=scores.device)
            .view([-1 if axis == dimension else 1 for axis in range(3)])
            .expand(shape)
            .reshape(-1)
            for dimension, size in enumerate(shape)
        ]
        return self.decode(outputs, points, At(*index)).reshape(*shape, 2), scores * self.level_mask(mask)[
            ..., None
        ]

    def best_points(self, probabilities: Tensor, decode, points: Points, mask: Tensor) -> list[Candidates]:
        """The best points of each level, from scores (B, P, K) and `decode(at)` → segments (N, 2)."""
        valid, post, candidates = self.level_mask(mask), self.config.post, []
        for index in range(len(mask)):
            rows, labels, scores, first = [], [], [], 0
            for size in points.level_sizes:
                level = (
                    probabilities[index, first : first + size] * valid[index, first : first + size, None]
                ).flatten()
                best, at = level.topk(min(post.max_candidates, len(level)))
                at = at[best > post.score_threshold]
                rows.append(first + at // self.num_classes)
                labels.append(at % self.num_classes)
                scores.append(best[: len(at)])
                first += size
            row, label = torch.cat(rows), torch.cat(labels)
            segments = decode(At(torch.full_like(row, index), row, label))
            candidates.append(Candidates(segments, torch.cat(scores), label))
        return candidates
