"""SSN: proposals grouped from actionness, then classified by content and by completeness.

Source: Zhao et al., Temporal Action Detection with Structured Segment Networks, ICCV 2017. The preset
`paper` has the classifiers' inputs, losses, roles of proposals and suppression of the authors' code
(yjxiong/action-detection). Different on purpose: two convolutions over given features replace their image
network; actionness trains with the rest, on the same recordings; every proposal of a recording teaches, not
eight sampled ones; regression targets are not standardised; segments are suppressed after the regression, not
before it; Adam, not SGD. `docs/fidelity.md` has the list with the reasons.

The paper has one actionness curve, which cannot separate an action from a next one without a gap; the preset
`compact` (`actionness = "class"`) groups one curve per class instead.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.models.parts.blocks import ConvNormReLU
from tal_lib.models.parts.candidates import Candidates, PostProcess
from tal_lib.models.parts.conv import masked, to_keep
from tal_lib.models.parts.detector import Detector, DetectorConfig
from tal_lib.models.parts.proposals import balanced_bce, moved, region_targets
from tal_lib.models.parts.registry import register
from tal_lib.models.parts.sampling import sample_segments
from tal_lib.models.parts.segment_classifier import IGNORED, classification_loss
from tal_lib.segments import interval_iou, nms
from tal_lib.validation import BelowOne, Fraction, NotNegative, Positive, Probability, Size, require


@dataclass(frozen=True, kw_only=True)
class SSNConfig(DetectorConfig):
    """THUMOS14 values by default."""

    width: Size = 512  # channels of the convolutions
    actionness: Literal["binary", "class"] = "binary"  # one curve, or one per class
    # of water, and of the share that is wet
    levels: tuple[Probability, ...] = tuple(round(0.05 * i, 2) for i in range(1, 20))
    duplicate_tiou: Fraction = 0.95  # proposals closer than this are one
    proposals: Size = 400  # a recording
    part_points: Size = 8  # samples averaged in each part of the pyramid
    hard_share: Probability = 1 / 6  # of the incomplete proposals, the hardest teach completeness
    completeness_weight: NotNegative = 0.1  # of the loss of completeness
    regression_weight: NotNegative = 0.1  # of the loss of the location
    regression_beta: Positive = 1.0  # where the smooth L1 loss of the location becomes linear
    dropout: BelowOne = 0.8  # before the classifiers
    # input of the activity classifier: the mean of the course, or every part of its pyramid
    activity_input: Literal["mean", "pyramid"] = "mean"
    # of a proposal that overlaps no segment by 0.3: the part inside a segment that makes it incomplete
    incomplete_inside: Probability = 0.01
    # shortest background proposal, as a fraction of the recording
    background_coverage: Probability = 0.02
    # whether the background takes part in the softmax of the detections' scores
    softmax_background: bool = False

    def check(self):
        super().check()
        require(len(self.levels) > 0, "levels: the list is empty", "Give at least one.")


def actionness_groups(curve: np.ndarray, levels) -> np.ndarray:
    """Temporal actionness grouping: segments (N, 2) in steps, from a curve (T,) in [0, 1].

    For every level, the runs of steps above it are basins. From each basin on, following ones are added as
    long as basins make up at least a given share of the whole; every level is tried as that share.

    Source: section 5, after watershed segmentation.
    """
    groups = []
    for level in levels:
        change = np.diff(np.concatenate([[0], curve > level, [0]]).astype(np.int8))
        first, end = (change == 1).nonzero()[0], (change == -1).nonzero()[0]
        if not len(first):
            continue
        wet = np.concatenate([[0], np.cumsum(end - first)])
        for some in range(0, len(first), 256):  # seeds of a block with all that follow
            seed, last = np.arange(some, min(some + 256, len(first)))[:, None], np.arange(some, len(first))
            length = np.maximum(end[last] - first[seed], 1)
            share = np.where(last >= seed, (wet[last + 1] - wet[seed]) / length, np.inf)
            lowest = np.minimum.accumulate(
                share, axis=1
            )  # grouping stops at the first basin that dilutes too much
            for least in levels:
                groups.append(first[seed[:, 0]] * (len(curve) + 1) + end[some + (lowest >= least).sum(1) - 1])
    each = np.unique(np.concatenate(groups)) if groups else np.zeros(0, dtype=np.int64)
    return (
        np.stack(np.divmod(each, len(curve) + 1), 1).astype(np.float32) - 0.5
    )  # step t is [t − 0.5, t + 0.5]


def contrast(curve: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Mean of a curve (T,) inside segments (N, 2) of whole steps, minus its mean around them.

    Around means half of the length on either side; outside the recording the curve is zero.
    """
    sums = np.concatenate([[0.0], curve.cumsum(dtype=float)])
    first, end = (segments + 0.5).astype(int).T
    flank = np.maximum(1, (end - first) // 2)
    total = lambda a, b: sums[np.clip(b, 0, len(curve))] - sums[np.clip(a, 0, len(curve))]
    return total(first, end) / (end - first) - (total(first - flank, first) + total(end, end + flank)) / (
        2 * flank
    )


@register(
    "ssn",
    family="proposals",
    paper=SSNConfig(post=PostProcess(nms="hard", nms_tiou=0.2, voting_tiou=0.0, max_detections=2000)),
    compact=SSNConfig(
        width=128,
        actionness="class",
        levels=tuple(round(0.1 * i, 1) for i in range(1, 10)),
        regression_beta=0.1,
        dropout=0.5,
        activity_input="pyramid",
        incomplete_inside=0.8,
        background_coverage=0.0,
        softmax_background=True,
    ),
    paper_activitynet=SSNConfig(
        incomplete_inside=0.7,
        post=PostProcess(nms="hard", nms_tiou=0.6, voting_tiou=0.0, max_detections=60),
    ),
)
class SSN(Detector):
    """forward returns actionness logits (B, T, 1 or K), features (B, T, C), segments (B, P, 2) in steps and
    existence (B, P).

    For each segment follow activity logits (B, P, K + 1), completeness (B, P, K), and class-wise shift and
    log scale (B, P, K, 2).
    """

    not_exportable = "it groups a curve by watershed inside the network"
    config: SSNConfig

    def __init__(self, config: SSNConfig, input_dim: int, num_classes: int):
        super().__init__(config, input_dim, num_classes)
        width = config.width
        self.convs = nn.ModuleList(ConvNormReLU(input_dim if i == 0 else width, width) for i in range(2))
        self.actionness = nn.Linear(width, 1 if config.actionness == "binary" else num_classes)
        self.drop = nn.Dropout(config.dropout)
        # class K is background
        self.activity = nn.Linear(width * (3 if config.activity_input == "pyramid" else 1), num_classes + 1)
        self.completeness, self.regression = (
            nn.Linear(5 * width, num_classes),
            nn.Linear(5 * width, 2 * num_classes),
        )
        for layer in (self.activity, self.completeness, self.regression):
            nn.init.normal_(layer.weight, std=1e-3)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        x, keep = features.transpose(1, 2), to_keep(mask, features)
        for conv in self.convs:
            x = conv(x, keep)
        x = masked(x, keep)
        actionness = self.actionness(x)
        segments, exist = self.group(masked(actionness.sigmoid(), keep))
        return actionness, x, segments, exist, *self.classify(x, segments)

    @torch.no_grad()
    def group(self, curves: Tensor) -> tuple[Tensor, Tensor]:
        """Curves (B, T, A) → the segments of highest contrast to their surroundings (B, P, 2), and existence
        (B, P)."""
        c = self.config
        segments = curves.new_zeros(len(curves), c.proposals, 2, dtype=torch.float)
        exist = torch.zeros_like(segments[..., 0], dtype=torch.bool)
        segments[..., 1] = 1
        for index, recording_curves in enumerate(curves.float().cpu().numpy()):
            groups = [actionness_groups(curve, c.levels) for curve in recording_curves.T]
            scores = [contrast(curve, segments) for curve, segments in zip(recording_curves.T, groups)]
            kept, _, _ = nms(
                np.concatenate(groups),
                np.concatenate(scores) + 1,
                tiou_threshold=c.duplicate_tiou,
                max_detections=c.proposals,
            )
            segments[index, : len(kept)] = torch.from_numpy(kept).to(segments)
            exist[index, : len(kept)] = True
        return segments, exist

    def classify(self, x: Tensor, segments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Structured temporal pyramid: start, course (whole and halves) and end. Source: section 3.2."""
        start, end = segments.split(1, -1)
        middle, half = (start + end) / 2, (end - start) / 2
        pool = lambda a, b: sample_segments(x, torch.cat([a, b], -1), self.config.part_points).mean(2)
        course = torch.cat([pool(start, end), pool(start, middle), pool(middle, end)], -1)
        stages = self.drop(torch.cat([pool(start - half, start), course, pool(end, end + half)], -1))
        regression = self.regression(stages).unflatten(-1, (self.num_classes, 2))
        content = course[..., : self.activity.in_features]  # the first part is the whole course
        return self.activity(self.drop(content)), self.completeness(stages), regression

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        actionness, x, proposals, exist, *answers = outputs
        steps, parts = batch.mask.shape[1], []
        inside = torch.stack(
            [self.actionness_targets(*annotation, steps) for annotation in zip(batch.segments, batch.labels)]
        )
        losses = {
            "actionness": balanced_bce(actionness, inside > 0.5, batch.mask[..., None].expand_as(actionness))
        }
        for index, (segments, labels) in enumerate(zip(batch.segments, batch.labels)):
            if not len(segments):
                continue
            some = exist[index]
            sampled = training_segments(segments)
            extra = [part.float() for part in self.classify(x[index : index + 1], sampled[None])]
            parts.append(
                (
                    *roles(
                        torch.cat([proposals[index][some], sampled]),
                        segments,
                        labels,
                        self.config.incomplete_inside,
                        self.config.background_coverage * float(batch.mask[index].sum()),
                    ),
                    *(torch.cat([answer[index][some], more[0]]) for answer, more in zip(answers, extra)),
                )
            )
        if parts:
            role, label, target, segment, activity, completeness, regression = (
                torch.cat(part) for part in zip(*parts)
            )
            losses |= self.proposal_losses(role, label, target, segment, activity, completeness, regression)
        return {"total": sum(losses.values())} | {name: value.detach() for name, value in losses.items()}  # pyright: ignore[reportReturnType]

    def actionness_targets(self, segments: Tensor, labels: Tensor, steps: int) -> Tensor:
        """(T, 1 or K)."""
        if self.config.actionness == "binary":
            return region_targets(segments, steps)[:, None]
        return torch.stack(
            [region_targets(segments[labels == label], steps) for label in range(self.num_classes)], 1
        )

    def proposal_losses(
        self, role, label, target, segment, activity, completeness, regression
    ) -> dict[str, Tensor]:
        """Losses of activity (complete and background proposals), completeness (hinge, hardest incomplete)
        and location."""
        c = self.config
        complete, incomplete, background = (role == name for name in (COMPLETE, INCOMPLETE, BACKGROUND))
        at = torch.arange(len(role), device=role.device)
        taught = torch.where(complete, label, torch.where(background, self.num_classes, IGNORED))
        entropy = classification_loss(activity, taught)
        of_label = completeness[at, label]
        wrong = (1 + of_label[incomplete]).relu()
        wrong = wrong.topk(max(1, round(len(wrong) * c.hard_share))).values if len(wrong) else wrong
        right = (1 - of_label[complete]).relu()
        hinge = (right.sum() + wrong.sum()) / max(1, len(right) + len(wrong))
        length = segment[:, 1] - segment[:, 0]
        scale = ((target[:, 1] - target[:, 0]) / length).clamp(min=1e-3).log()
        wanted = torch.stack([(target.mean(1) - segment.mean(1)) / length, scale], 1)
        location = F.smooth_l1_loss(
            regression[at, label][complete], wanted[complete], reduction="sum", beta=c.regression_beta
        )
        return {
            "activity": entropy,
            "completeness": c.completeness_weight * hinge,
            "location": c.regression_weight * location / complete.sum().clamp(min=1),
        }

    def candidates(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        """Activity probability × exp(completeness), at the class's own location."""
        _, _, segments, exist, activity, completeness, regression = outputs
        candidates = []
        for index, valid in enumerate(mask.sum(1).tolist()):
            if self.config.softmax_background:
                content = activity[index].softmax(-1)[:, :-1]
            else:
                content = activity[index][:, :-1].softmax(-1)
            chance = content * (completeness[index] - 1).exp() * exist[index][:, None]
            row, label = (chance > self.config.post.score_threshold).nonzero(as_tuple=True)
            segment, (shift, scale) = segments[index][row], regression[index][row, label].unbind(-1)
            length = segment[:, 1] - segment[:, 0]
            centre, half = segment.mean(1) + shift * length, length * scale.clamp(-2, 2).exp() / 2
            candidates.append(
                Candidates(
                    torch.stack([centre - half, centre + half], 1).clamp(-0.5, valid - 0.5),
                    chance[row, label],
                    label,
                )
            )
        return candidates


COMPLETE, INCOMPLETE, BACKGROUND, UNUSED = range(4)


def training_segments(segments: Tensor, incomplete: int = 6) -> Tensor:
    """The annotated segments (M, 2), slightly moved, and incomplete parts of them, 1 to 6 as the paper
    samples."""
    length, whole = segments[:, 1:] - segments[:, :1], moved(segments)
    every, long = segments.repeat(incomplete, 1), length.repeat(incomplete, 1)
    share = 0.05 + 0.25 * torch.rand_like(long)
    first = every[:, :1] + (1 - share) * long * torch.rand_like(long)
    return torch.cat([whole, torch.cat([first, first + share * long], 1)])


def roles(proposals: Tensor, segments: Tensor, labels: Tensor, inside: float = 0.8, shortest: float = 0.0):
    """The role of each proposal (P, 2) in training, its label, its target segment, and itself.

    Complete from tIoU 0.7 on; incomplete below 0.3 if at least the fraction `inside` of it lies in a segment;
    otherwise background below 0.01, if it is longer than `shortest` steps.

    Source: section 4.2 (80 %); the authors' code takes 1 % on THUMOS14 and 70 % on ActivityNet.
    """
    overlap, best = interval_iou(proposals[:, None], segments).max(1)
    shared = (
        torch.minimum(proposals[:, None, 1], segments[:, 1])
        - torch.maximum(proposals[:, None, 0], segments[:, 0])
    ).clamp(min=0)
    length = proposals[:, 1] - proposals[:, 0]
    contained, around = (shared / length[:, None].clamp(min=1e-6)).max(1)
    role = torch.full_like(best, UNUSED)
    role[(overlap < 0.01) & (length > shortest)] = BACKGROUND
    role[(overlap < 0.3) & (contained >= inside)] = INCOMPLETE
    role[overlap >= 0.7] = COMPLETE
    which = torch.where(role == INCOMPLETE, around, best)
    return role, labels[which], segments[which], proposals
