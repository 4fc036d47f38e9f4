"""TCANet: refines the proposals of another model in three steps, by local and global context.

Source: Qing et al., Temporal Context Aggregation Network for Temporal Action Proposal Refinement, CVPR 2021.
The paper refines stored proposals. Here the generator is part of the model and trains with it, without a
gradient from the refinement, so that one run on one subset gives both.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.errors import TalError
from tal_lib.models.bmn import ACTIVITYNET, grouped
from tal_lib.models.parts.attention import LGTE
from tal_lib.models.parts.candidates import PostProcess, suppress
from tal_lib.models.parts.conv import TemporalConv, ceil_div, to_keep
from tal_lib.models.parts.proposals import ProposalConfig, ProposalDetector, balanced_by_overlap, join
from tal_lib.models.parts.registry import build, config, register
from tal_lib.models.parts.sampling import sample_segments
from tal_lib.segments import interval_iou
from tal_lib.validation import Probability, Size, SizeOrZero, require, require_divides


@dataclass(frozen=True, kw_only=True)
class TCANetConfig(ProposalConfig):
    """THUMOS14 values by default. `proposals` are those of a recording."""

    generator: str = "bmn"  # the model whose proposals are refined, in the preset of `generator_preset`
    generator_preset: str = "paper"
    width: Size = 512
    groups: Size = 4
    heads: Size = 8
    attention_window: Size = 9  # steps that the local heads see, the own included
    feed_forward: Size = 256
    encoders: SizeOrZero = 2
    thresholds: tuple[Probability, ...] = (
        0.5,
        0.6,
        0.7,
    )  # tIoU from which on a proposal teaches each refinement
    points: Size = 32  # sampled at each end, twice as many inside
    # from the generator's candidates to the proposals that are refined
    generator_post: PostProcess = field(
        default_factory=lambda: PostProcess(
            nms_sigma=0.5, max_detections=100, voting_tiou=0.0, min_score=0.0, score_threshold=0.0
        )
    )

    def check(self):
        super().check()
        require_divides(self, "width", "heads", "groups")
        require(
            self.width >= 4 and self.width // 4 % self.groups == 0,
            f"groups: {self.groups} does not divide {self.width // 4}, a quarter of the width",
            "Choose width and groups so that it does.",
        )
        require(len(self.thresholds) > 0, "thresholds: there is none", "Give at least one.")

    def check_models(self):
        require(
            self.generator != "tcanet",
            "generator: tcanet would refine itself",
            "Name another model, such as bmn.",
        )
        try:
            config(self.generator, self.generator_preset)
        except TalError as error:
            raise error.at("generator, generator_preset") from None


class TBR(nn.Module):
    """Temporal boundary regressor: the ends from the features around them, centre and width from the whole.

    Source: section 3.3.
    """

    def __init__(self, width: int, points: int, groups: int):
        super().__init__()
        self.points = points
        conv = lambda inputs, outputs: nn.Conv1d(inputs, outputs, 3, stride=2, padding=1, groups=groups)
        half = lambda size: ceil_div(size, 2)
        self.ends = nn.ModuleList(
            nn.Sequential(
                conv(width, width),
                nn.ReLU(),
                conv(width, width // 4),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(half(half(points)) * (width // 4), 1),
            )
            for _ in range(2)
        )
        self.whole = nn.Sequential(
            conv(width, width),
            nn.ReLU(),
            conv(width, width // 4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(half(half(4 * points)) * (width // 4), 3),
        )
        for head in (*self.ends, self.whole):
            nn.init.normal_(head[-1].weight, std=1e-3)  # pyright: ignore[reportArgumentType, reportIndexIssue]
            nn.init.zeros_(head[-1].bias)  # pyright: ignore[reportArgumentType, reportIndexIssue]

    def forward(self, x: Tensor, segments: Tensor) -> Tensor:
        """Features (B, T, C), segments (B, P, 2) in steps → (B, P, 5): offsets of start, end, centre, width;
        confidence logit."""
        reach = (
            segments[..., 1:] - segments[..., :1]
        ) / 4  # each end's region is half as long as the proposal
        around = [
            sample_segments(x, torch.cat([at - reach, at + reach], -1), self.points)
            for at in segments.split(1, -1)
        ]
        inside = sample_segments(x, segments, 2 * self.points)
        channels_first = lambda part: part.flatten(0, 1).transpose(1, 2)
        ends = [head(channels_first(part)) for head, part in zip(self.ends, around)]
        whole = self.whole(channels_first(torch.cat([around[0], inside, around[1]], 2)))
        return torch.cat([*ends, whole], -1).unflatten(0, segments.shape[:2])


CENTRE_VARIANCE, WIDTH_VARIANCE = 0.1, 0.2


def refine(segments: Tensor, offsets: Tensor) -> Tensor:
    """Segments (..., 2) moved by offsets (..., ≥ 4): the mean of the decoded ends and of the decoded centre
    and width."""
    length = segments[..., 1:] - segments[..., :1]
    ends = segments + offsets[..., :2] * length
    centre = segments.mean(-1, keepdim=True) + CENTRE_VARIANCE * offsets[..., 2:3] * length
    half = length * (WIDTH_VARIANCE * offsets[..., 3:4]).clamp(max=2).exp() / 2
    return (ends + torch.cat([centre - half, centre + half], -1)) / 2


def wanted_offsets(segments: Tensor, targets: Tensor) -> Tensor:
    """The four offsets by which `refine` leads from segments (N, 2) to targets (N, 2)."""
    length = segments[:, 1:] - segments[:, :1]
    ends = (targets - segments) / length
    centre = (targets.mean(1, keepdim=True) - segments.mean(1, keepdim=True)) / length / CENTRE_VARIANCE
    width = ((targets[:, 1:] - targets[:, :1]) / length).clamp(min=1e-3).log() / WIDTH_VARIANCE
    return torch.cat([ends, centre, width], 1)


@register(
    "tcanet",
    family="proposals",
    paper=TCANetConfig(),
    compact=TCANetConfig(
        generator_preset="compact", width=64, heads=4, feed_forward=128, points=8, classifier_width=64
    ),
    paper_activitynet=TCANetConfig(generator_preset="paper_activitynet", **ACTIVITYNET),
)
class TCANet(ProposalDetector):
    """The generator's outputs follow `stages` (B, P, 3 · 7): the input segment and the five outputs of each
    refinement."""

    not_exportable = "it suppresses proposals inside the network"
    config: TCANetConfig

    def build_network(self) -> None:
        c = self.config
        self.generator = build(
            c.generator, input_dim=self.input_dim, num_classes=self.num_classes, preset=c.generator_preset
        )
        self.base = nn.ModuleList(
            [
                TemporalConv(self.input_dim, c.width, groups=grouped(self.input_dim, c.groups)),
                TemporalConv(c.width, c.width, groups=c.groups),
            ]
        )
        self.encoders = nn.ModuleList(
            LGTE(c.width, c.heads, c.attention_window, c.feed_forward) for _ in range(c.encoders)
        )
        self.regressors = nn.ModuleList(TBR(c.width, c.points, c.groups) for _ in c.thresholds)

    def encode(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """Features (B, T, D) → context (B, T, C): computed in windows, averaged where they overlap."""
        windows, inside, starts = self.in_windows(x, keep)
        for conv in self.base:
            windows = F.relu(conv(windows, inside))
        for encoder in self.encoders:
            windows = encoder(windows, inside)
        return join(windows, starts, x.shape[1])

    @torch.no_grad()
    def first_proposals(self, outputs: tuple[Tensor, ...], mask: Tensor) -> tuple[Tensor, Tensor]:
        """The generator's best proposals after NMS: segments (B, P, 2) in steps and scores (B, P), padded
        with zeros."""
        count = self.config.proposals
        segments, scores = (mask.new_zeros(len(mask), count, *more, dtype=torch.float) for more in ((2,), ()))
        segments[..., 1] = 1
        for index, candidates in enumerate(self.generator.class_agnostic(outputs, mask)):
            best, score, _ = suppress(candidates, self.config.generator_post)
            best, score = torch.from_numpy(best[:count]), torch.from_numpy(score[:count])
            segments[index, : len(best)], scores[index, : len(best)] = best.to(segments), score.to(scores)
        return segments, scores

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        every = torch.ones_like(features[:, 0], dtype=torch.bool) if mask is None else mask
        generated = self.generator(features, mask)
        segments, scores = self.first_proposals(generated, every)
        x, keep = features.transpose(1, 2), to_keep(mask, features)
        context, stages = self.encode(x, keep), []
        for regressor in self.regressors:
            answer = regressor(context, segments)
            stages.append(torch.cat([segments, answer], -1))
            segments = refine(segments, answer.detach())
            segments = torch.stack(
                [segments[..., 0], torch.maximum(segments[..., 1], segments[..., 0] + 0.5)], -1
            )
            scores = scores * answer[..., 4].detach().sigmoid()
        recording_features = self.classifier.features(x, keep)
        return (
            torch.cat(stages, -1),
            *generated,
            recording_features,
            segments,
            scores,
            self.classifier(recording_features, segments),
        )

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        stages, *generated, recording_features, proposals, scores, logits = outputs
        generator = self.generator.loss(tuple(generated), batch)["total"]
        exists = scores > 0
        losses = {
            "generator": generator,
            "classification": self.class_loss(recording_features, proposals, scores, logits, batch),
        }
        for index, (stage, threshold) in enumerate(zip(stages.split(7, -1), self.config.thresholds), 1):
            losses[f"refinement_{index}"] = self.stage_loss(stage, exists, batch.segments, threshold)
        return {"total": sum(losses.values())} | {name: value.detach() for name, value in losses.items()}  # pyright: ignore[reportReturnType]

    @staticmethod
    def stage_loss(stage: Tensor, exists: Tensor, truth: tuple[Tensor, ...], threshold: float) -> Tensor:
        """Loss of one refinement: offsets of proposals above the threshold, and confidence against their
        overlap."""
        overlaps, targets = [], []
        for segments, recording_truth in zip(stage[..., :2], truth):
            if len(recording_truth):
                overlap, which = interval_iou(segments[:, None], recording_truth[None]).max(1)
                overlaps.append(overlap)
                targets.append(recording_truth[which])
            else:
                overlaps.append(torch.zeros_like(segments[:, 0]))
                targets.append(segments)
        overlap, target = torch.stack(overlaps), torch.stack(targets)
        good = exists & (overlap >= threshold)
        offsets = F.smooth_l1_loss(
            stage[..., 2:6][good], wanted_offsets(stage[..., :2][good], target[good]), reduction="sum"
        )
        error = F.smooth_l1_loss(stage[..., 6].sigmoid(), overlap, reduction="none", beta=0.1)
        return offsets / good.sum().clamp(min=1) + balanced_by_overlap(error, overlap, exists)
