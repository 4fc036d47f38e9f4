"""TCANet: refines the proposals of another model in three steps, by local and global context.

Source: Qing et al., Temporal Context Aggregation Network for Temporal Action Proposal Refinement, CVPR 2021,
and its published code (qinzhi-0110/Temporal-Context-Aggregation-Network-Pytorch), which is for HACS.

The paper refines stored proposals. Here the generator is part of the model and trains with it, without a
gradient from the refinement, so that one run on one subset gives both.

The presets `paper…` are that code: with its weights and proposals, context, refinements, losses and gradients
agree. docs/fidelity.md has the reasons for what differs on purpose. The encoder sees windows of a long
recording, not 1,000 steps at once. It never attends to padding. The regions of a proposal's ends are clipped
to the recording; theirs to the padded 1,000 steps. A refined proposal is at least half a step long. Segments
are clipped to the recording before soft-NMS, as those of all models. The warm-up is linear over a twentieth
of the steps; theirs is 1,000 steps of a cosine. Annotations shorter than one second are kept; theirs are
dropped.

`compact` differs in size, and by the options that `COMPACT` lists.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.errors import TalError
from tal_lib.models.bmn import grouped
from tal_lib.models.parts.attention import LGTE
from tal_lib.models.parts.candidates import PostProcess, suppress
from tal_lib.models.parts.conv import TemporalConv, ceil_div, to_keep
from tal_lib.models.parts.proposals import (
    ACTIVITYNET_WINDOW,
    ProposalConfig,
    ProposalDetector,
    balanced_by_overlap,
    join,
    sampled_by_overlap,
)
from tal_lib.models.parts.registry import build, config, register
from tal_lib.models.parts.sampling import sample_linear, sample_segments
from tal_lib.segments import interval_iou
from tal_lib.validation import (
    BelowOne,
    NotNegative,
    Positive,
    Probability,
    Size,
    SizeOrZero,
    require,
    require_divides,
)


@dataclass(frozen=True, kw_only=True)
class TCANetConfig(ProposalConfig):
    """THUMOS14 values by default. Where the published code and its paper differ, the default is the code.

    `proposals` are those of a recording.
    """

    generator: str = "bmn"  # the model whose proposals are refined, in the preset of `generator_preset`
    generator_preset: str = "paper"  # preset of the generator
    width: Size = 512  # channels of the network
    groups: Size = 4  # of the base's convolutions
    heads: Size = 8  # of the attention, half of them local
    attention_window: Size = 9  # steps that the local heads see, the own included
    feed_forward: Size = 256  # hidden channels of an encoder
    encoders: SizeOrZero = 2  # local-global encoders
    attention_dropout: BelowOne = 0.1  # of the attention's weights, beside that of its result
    thresholds: tuple[Probability, ...] = (
        0.5,
        0.6,
        0.7,
    )  # tIoU from which on a proposal teaches each refinement
    points: Size = 32  # sampled at each end, twice as many inside
    regressor: Literal["published", "light"] = "published"  # light: a linear last layer on the whole
    # the half length that is sampled at each end: beyond it, at the middles of equal parts, inside the
    # recording; or around it, from end to end
    end_regions: Literal["beyond", "around"] = "beyond"
    boundary_scale: NotNegative = 0.2  # of the start and end offsets at inference; training takes them whole
    # targets of centre and width are divided by the variances by which their decoding multiplies
    scaled_targets: bool = False
    match: Literal["once", "each"] = "once"  # whether each refinement chooses its proposals' targets again
    through: bool = True  # whether gradients pass from a refinement to the one before
    # overlaps that teach the confidence: as many middle and low ones, drawn at random, as high ones (above
    # the threshold); or all, the three groups weighing the same
    overlap_sampling: Literal["random", "expected"] = "random"
    confidence_beta: Positive = 1.0  # where the smooth L1 of the confidence turns from square to linear
    final_confidence: Literal["last", "product"] = "last"  # of the three, in a proposal's score
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
            "Choose a number of groups that divides a quarter of the width.",
        )
        require(len(self.thresholds) > 0, "thresholds: the list is empty", "Give at least one.")

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

    Args:
        light: the whole's last layer is linear, and the ends' convolutions narrow down later.
        beyond: see `end_regions` of the config.

    Source: section 3.3, and the published code.
    """

    def __init__(self, width: int, points: int, groups: int, *, light: bool = False, beyond: bool = True):
        super().__init__()
        self.points, self.beyond = points, beyond
        conv = lambda inputs, outputs: nn.Conv1d(inputs, outputs, 3, stride=2, padding=1, groups=groups)
        quarter = lambda size: ceil_div(ceil_div(size, 2), 2)  # steps behind two convolutions

        def convs(first: int, second: int) -> nn.Sequential:
            return nn.Sequential(conv(width, first), nn.ReLU(), conv(first, second), nn.ReLU())

        def end() -> nn.Sequential:
            layers = convs(width if light else narrow, narrow)
            return layers.extend([nn.Flatten(), nn.Linear(quarter(points) * narrow, 1)])

        narrow, steps = width // 4, quarter(4 * points)
        self.ends = nn.ModuleList(end() for _ in range(2))
        if light:
            self.whole = convs(width, narrow).extend([nn.Flatten(), nn.Linear(steps * narrow, 3)])
            for head in (*self.ends, self.whole):
                nn.init.normal_(head[-1].weight, std=1e-3)  # pyright: ignore[reportArgumentType, reportIndexIssue]
                nn.init.zeros_(head[-1].bias)  # pyright: ignore[reportArgumentType, reportIndexIssue]
        else:
            self.whole = convs(width, width).extend(
                [nn.Conv1d(width, width, steps, groups=groups), nn.ReLU(), nn.Flatten(), nn.Linear(width, 3)]
            )

    def regions(self, segments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is sampled of segments (B, P, 2): around the start, inside, around the end. Both of the ends'
        regions are half as long as the proposal."""
        start, end = segments.split(1, -1)
        reach = (end - start) / (2 if self.beyond else 4)
        if self.beyond:
            return torch.cat([start - reach, start], -1), segments, torch.cat([end, end + reach], -1)
        around = lambda at: torch.cat([at - reach, at + reach], -1)
        return around(start), segments, around(end)

    def sample(self, x: Tensor, region: Tensor, points: int, lengths: Tensor) -> Tensor:
        """Features (B · P, C, points) of regions (B, P, 2) in steps; lengths (B,): valid steps."""
        if not self.beyond:
            sampled = sample_segments(x, region, points)
        else:  # at the middles of equal parts, inside the recording
            region = torch.minimum(region.clamp(min=-0.5), lengths[:, None, None] - 0.5)
            middle = (torch.arange(points, device=x.device) + 0.5) / points
            at = region[..., :1] + (region[..., 1:] - region[..., :1]) * middle
            sampled = sample_linear(x, at.flatten(1)).unflatten(1, at.shape[1:])
        return sampled.flatten(0, 1).transpose(1, 2)

    def forward(self, x: Tensor, segments: Tensor, lengths: Tensor) -> Tensor:
        """Features (B, T, C), segments (B, P, 2) in steps, valid steps (B,) → (B, P, 5): offsets of start,
        end, centre, width; confidence logit."""
        start, inside, end = self.regions(segments)
        before, behind = (self.sample(x, region, self.points, lengths) for region in (start, end))
        middle = self.sample(x, inside, 2 * self.points, lengths)
        ends = [head(part) for head, part in zip(self.ends, (before, behind))]
        whole = self.whole(torch.cat([before, middle, behind], 2))
        return torch.cat([*ends, whole], -1).unflatten(0, segments.shape[:2])


CENTRE_VARIANCE, WIDTH_VARIANCE = 0.1, 0.2


def refine(segments: Tensor, offsets: Tensor, boundary_scale: float = 1.0) -> Tensor:
    """Segments (..., 2) moved by offsets (..., ≥ 4): the mean of the decoded ends and of the decoded centre
    and width."""
    length = segments[..., 1:] - segments[..., :1]
    ends = segments + boundary_scale * offsets[..., :2] * length
    centre = segments.mean(-1, keepdim=True) + CENTRE_VARIANCE * offsets[..., 2:3] * length
    half = length * (WIDTH_VARIANCE * offsets[..., 3:4]).clamp(max=2).exp() / 2
    return (ends + torch.cat([centre - half, centre + half], -1)) / 2


def wanted_offsets(segments: Tensor, targets: Tensor, scaled: bool = True) -> Tensor:
    """The four offsets by which `refine` leads from segments (N, 2) to targets (N, 2).

    Not `scaled`: those of centre and width without the variances, which `refine` follows a tenth and a fifth
    of the way.
    """
    centre_variance, width_variance = (CENTRE_VARIANCE, WIDTH_VARIANCE) if scaled else (1.0, 1.0)
    length = segments[:, 1:] - segments[:, :1]
    ends = (targets - segments) / length
    centre = (targets.mean(1, keepdim=True) - segments.mean(1, keepdim=True)) / length / centre_variance
    width = ((targets[:, 1:] - targets[:, :1]) / length).clamp(min=1e-3).log() / width_variance
    return torch.cat([ends, centre, width], 1)


COMPACT = {
    "generator_preset": "compact",
    "width": 64,
    "heads": 4,
    "feed_forward": 128,
    "attention_dropout": 0.0,
    "points": 8,
    "classifier_width": 64,
    "regressor": "light",
    "end_regions": "around",
    "boundary_scale": 1.0,
    "scaled_targets": True,
    "match": "each",
    "through": False,
    "overlap_sampling": "expected",
    "confidence_beta": 0.1,
    "final_confidence": "product",
}
POST = PostProcess(
    nms_sigma=0.4, nms_power=2.5, min_score=0.0, score_threshold=1e-4, max_detections=100, voting_tiou=0.0
)


@register(
    "tcanet",
    family="proposals",
    paper=TCANetConfig(post=replace(POST, max_detections=200)),
    compact=TCANetConfig(**COMPACT),
    paper_activitynet=TCANetConfig(generator_preset="paper_activitynet", **ACTIVITYNET_WINDOW, post=POST),
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
            LGTE(c.width, c.heads, c.attention_window, c.feed_forward, c.attention_dropout)
            for _ in range(c.encoders)
        )
        self.regressors = nn.ModuleList(
            TBR(
                c.width,
                c.points,
                c.groups,
                light=c.regressor == "light",
                beyond=c.end_regions == "beyond",
            )
            for _ in c.thresholds
        )

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
        stages, segments, scores = self.refined(self.encode(x, keep), segments, scores, every.sum(1))
        recording_features = self.classifier.features(x, keep)
        return (
            stages,
            *generated,
            recording_features,
            segments,
            scores,
            self.classifier(recording_features, segments),
        )

    def refined(
        self, context: Tensor, segments: Tensor, scores: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Context (B, T, C), proposals (B, P, 2) and their scores (B, P), valid steps (B,) → the refinements'
        outputs (B, P, 3 · 7), refined proposals and scores."""
        c, stages, product = self.config, [], scores
        confidence = torch.ones_like(scores)
        for regressor in self.regressors:
            answer = regressor(context, segments, lengths)
            stages.append(torch.cat([segments, answer], -1))
            scale = 1.0 if self.training else c.boundary_scale
            segments = refine(segments, answer if c.through else answer.detach(), scale)
            if c.end_regions == "beyond":
                segments = segments.clamp(min=-0.5)
            segments = torch.stack(
                [segments[..., 0], torch.maximum(segments[..., 1], segments[..., 0] + 0.5)], -1
            )
            confidence = answer[..., 4].detach().sigmoid()
            product = product * confidence
        final = product if c.final_confidence == "product" else scores * confidence
        return torch.cat(stages, -1), segments.detach(), final

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        stages, *generated, recording_features, proposals, scores, logits = outputs
        generator = self.generator.loss(tuple(generated), batch)["total"]
        exists = scores > 0
        losses = {
            "generator": generator,
            "classification": self.class_loss(recording_features, proposals, scores, logits, batch),
        }
        first = stages[..., :2].detach()
        for index, (stage, threshold) in enumerate(zip(stages.split(7, -1), self.config.thresholds), 1):
            matched = first if self.config.match == "once" else stage[..., :2]
            losses[f"refinement_{index}"] = self.stage_loss(
                stage, exists, best_targets(matched, batch.segments), threshold
            )
        return {"total": sum(losses.values())} | {name: value.detach() for name, value in losses.items()}  # pyright: ignore[reportReturnType]

    def stage_loss(self, stage: Tensor, exists: Tensor, target: Tensor, threshold: float) -> Tensor:
        """Loss of one refinement (B, P, 7): offsets of proposals above the threshold, and confidence against
        the overlap with their targets (B, P, 2)."""
        c, segments = self.config, stage[..., :2]
        overlap = interval_iou(segments, target) * (target[..., 1] > target[..., 0])
        good = exists & (overlap >= threshold)
        offsets = F.smooth_l1_loss(
            stage[..., 2:6][good],
            wanted_offsets(segments[good], target[good], c.scaled_targets),
            reduction="sum",
        )
        error = F.smooth_l1_loss(stage[..., 6].sigmoid(), overlap, reduction="none", beta=c.confidence_beta)
        if c.overlap_sampling == "random":
            confidence = sampled_by_overlap(error, overlap, exists, (0.3, threshold))
        else:
            confidence = balanced_by_overlap(error, overlap, exists)
        return offsets / good.sum().clamp(min=1) + confidence


def best_targets(segments: Tensor, truth: tuple[Tensor, ...]) -> Tensor:
    """The annotated segment that each proposal (B, P, 2) overlaps best; [0, 0] where a recording has none."""
    targets = torch.zeros_like(segments)
    for index, annotated in enumerate(truth):
        if len(annotated):
            which = interval_iou(segments[index][:, None], annotated[None]).argmax(1)
            targets[index] = annotated[which]
    return targets
