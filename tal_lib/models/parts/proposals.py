"""Propose first, classify after: shared by the models of the proposal family.

Recordings are cut into overlapping windows of a fixed number of steps. A model finds class-agnostic proposals
in each window; the segment classifier labels them. A window proposes only what lies inside it, but its
targets are overlaps with the whole segment. A segment that is cut by a window's end therefore scores low
there, and high in the window that contains it. Windows overlap by the longest proposal.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tal_lib.data.batches import Batch
from tal_lib.models.parts.candidates import Candidates
from tal_lib.models.parts.conv import ceil_div, exporting, masked, to_keep
from tal_lib.models.parts.detector import Detector, DetectorConfig
from tal_lib.models.parts.sampling import proposal_grid
from tal_lib.models.parts.segment_classifier import SegmentClassifier, class_targets, classification_loss
from tal_lib.segments import interval_iou
from tal_lib.validation import Size, SizeOrZero, require

MOST_CELLS = 2**20  # proposals of a window; the published maps have 8,192 and 10,000
WINDOWS_AT_ONCE = 16  # at inference


# ActivityNet's recordings, resized to 100 steps, are one window
ACTIVITYNET_WINDOW: dict[str, Any] = {"window": 100, "overlap": 50, "max_duration": 100}


def check_share(least_share: float) -> None:
    """Refuse a least share of positives that negatives could not have too."""
    require(
        least_share < 0.5,
        f"least_share: {least_share:g} is not below 0.5",
        "Give a small one, such as 0.001.",
    )


@dataclass(frozen=True, kw_only=True)
class ProposalConfig(DetectorConfig):
    """Options of every model that proposes first."""

    window: Size = 128  # steps
    overlap: SizeOrZero = 64  # of neighbouring windows, steps
    max_duration: Size = 64  # of a proposal, steps
    proposals: Size = 100  # a window
    classifier_width: Size = 512  # hidden channels of the study's classifier of proposals

    def check(self):
        super().check()
        require(
            self.overlap < self.window and self.max_duration <= self.window,
            f"window={self.window}, overlap={self.overlap}, max_duration={self.max_duration}",
            "Keep overlap < window and max_duration <= window.",
        )
        cells = self.window * self.max_duration
        require(
            cells <= MOST_CELLS,
            f"window={self.window}, max_duration={self.max_duration}: {cells:,} proposals in a window",
            f"Keep their product at most {MOST_CELLS:,}.",
        )


# windows


def window_starts(steps: int, window: int, overlap: int, device=None) -> Tensor:
    """First steps (W,) of the windows that cover a recording; the last one may reach beyond its end."""
    stride = window - overlap
    return torch.arange(max(1, ceil_div(steps - overlap, stride)), device=device) * stride


def cut(x: Tensor, starts: Tensor, window: int, overlap: int) -> Tensor:
    """(B, T, C) → windows (B · W, window, C), zero beyond the end."""
    return (
        F.pad(x, (0, 0, 0, window))
        .unfold(1, window, window - overlap)[:, : starts.shape[0]]
        .flatten(0, 1)
        .transpose(1, 2)
    )


def join(windows: Tensor, starts: Tensor, steps: int) -> Tensor:
    """Windows (B · W, window, C) → (B, T, C); where they overlap, their mean."""
    count, window = len(starts), windows.shape[1]
    at = (starts[:, None] + torch.arange(window, device=windows.device)).flatten()
    total = windows.new_zeros(len(windows) // count, int(starts[-1]) + window, windows.shape[2])
    total = total.index_add(1, at, windows.reshape(-1, count * window, windows.shape[2]))
    times = windows.new_zeros(total.shape[1]).index_add(0, at, windows.new_ones(len(at)))
    return (total / times[:, None])[:, :steps]


# targets


def region_targets(regions: Tensor, steps: int) -> Tensor:
    """Fraction of each step [t − 0.5, t + 0.5] that lies in a region: (M, 2) → (T,), the maximum over all
    regions."""
    if not len(regions):
        return torch.zeros(steps, device=regions.device)
    at = torch.arange(steps, device=regions.device)[:, None]
    inside = torch.minimum(at + 0.5, regions[:, 1]) - torch.maximum(at - 0.5, regions[:, 0])
    return inside.clamp(0, 1).max(1).values


def curve_targets(segments: Tensor, steps: int, boundary: float = 0.1, least_boundary: float = 1.0) -> Tensor:
    """Start, end and action curves (T, 3) of segments (M, 2) in steps.

    The region of a boundary extends to either side by `boundary` of the segment's length, at least by
    `least_boundary` steps. A tenth is BSN's paper; the published codes of BSN and BMN take less.

    Source: BSN (ECCV 2018), section 3.4.
    """
    length = segments[:, 1:] - segments[:, :1]
    reach = (length / (1 / boundary) if boundary else length * 0).clamp(min=least_boundary)
    around = lambda at: torch.cat([at - reach, at + reach], 1)
    return torch.stack(
        [
            region_targets(around(segments[:, :1]), steps),
            region_targets(around(segments[:, 1:]), steps),
            region_targets(segments, steps),
        ],
        1,
    )


def overlap_map(segments: Tensor, steps: int, max_duration: int) -> Tensor:
    """Largest tIoU with any segment (M, 2) of every proposal of the grid, (T, D)."""
    grid = proposal_grid(steps, max_duration, segments.device)
    if not len(segments):
        return torch.zeros(grid.shape[:2], device=segments.device)
    return interval_iou(grid[:, :, None], segments).amax(2)


def moved(segments: Tensor) -> Tensor:
    """Annotated segments (M, 2) with each end moved by up to a tenth of the length: examples of good
    proposals."""
    return segments + (torch.rand_like(segments) - 0.5) * 0.2 * (segments[:, 1:] - segments[:, :1])


# losses


def balanced_bce(logits: Tensor, positive: Tensor, valid: Tensor, least_share: float = 1e-3) -> Tensor:
    """Binary cross-entropy in which positives and negatives weigh the same. Source: BSN, equation 4.

    logits, positive (bool), valid (bool): same shape. The share of either counts as at least `least_share`,
    which bounds the weight of few positives.
    """
    weight = valid.to(logits.dtype)
    share = ((positive & valid).sum() / weight.sum().clamp(min=1)).clamp(least_share, 1 - least_share)
    weight = weight * torch.where(positive, 0.5 / share, 0.5 / (1 - share))
    loss = F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), reduction="none")
    return (loss * weight).sum() / valid.sum().clamp(min=1)


def balanced_by_overlap(
    loss: Tensor, overlap: Tensor, valid: Tensor, bounds: tuple[float, float] = (0.3, 0.7)
) -> Tensor:
    """Mean over low, middle and high overlaps with equal weight: the expectation of sampling them 1 : 1
    : 1.
    """
    bins = torch.bucketize(
        overlap.contiguous(), torch.tensor(bounds, device=loss.device, dtype=overlap.dtype)
    )
    means = [loss[chosen].mean() for bin in range(3) if bool((chosen := valid & (bins == bin)).any())]
    return torch.stack(means).mean() if means else loss.sum() * 0


def sampled_by_overlap(
    loss: Tensor, overlap: Tensor, valid: Tensor, bounds: tuple[float, float] = (0.3, 0.7)
) -> Tensor:
    """Mean over all high overlaps and as many middle and low ones, drawn at random, as the published codes
    sample.

    Of fewer middle or low ones than high ones, all are taken. Without a high one the loss is zero (the
    published codes divide by zero).
    """
    low, high = bounds
    chosen = valid & (overlap > high)
    count = chosen.sum()
    for group in (valid & (overlap > low) & (overlap <= high), valid & (overlap <= low)):
        chance = count / group.sum().clamp(min=1)
        chosen = chosen | (group & (torch.rand(overlap.shape, device=overlap.device) > 1 - chance))
    return (loss * chosen).sum() / chosen.sum().clamp(min=1)


# from curves to proposals


def boundary_candidates(curve: Tensor) -> Tensor:
    """Steps of a curve (N, T) that are peaks or above half of its maximum. Source: BSN, section 3.3."""
    left, right = F.pad(curve[:, :-1], (1, 0), value=-1), F.pad(curve[:, 1:], (0, 1), value=-1)
    return ((curve > left) & (curve > right)) | (curve > 0.5 * curve.amax(1, keepdim=True))


def at_ends(curve: Tensor, max_duration: int) -> Tensor:
    """Value of a curve (N, T) at the end of every proposal of the grid: (N, T, D), zero behind the window."""
    return F.pad(curve, (0, max_duration)).unfold(1, max_duration + 1, 1)[..., 1:]


def best_of_grid(scores: Tensor, allowed: Tensor, count: int, peaks: bool = True) -> tuple[Tensor, Tensor]:
    """The best allowed proposals of score maps (N, T, D): segments (N, P, 2) in steps of the window, scores
    (N, P).

    Scores are 0 where there are too few. With `peaks`, only local maxima of the map (start or duration one
    step off) are taken: otherwise the many versions of a long segment would displace the short ones.
    """
    _, steps, max_duration = scores.shape
    scores = scores * allowed
    if peaks:
        scores = scores * (scores >= F.max_pool2d(scores.unsqueeze(1), 3, stride=1, padding=1).squeeze(1))
    best, index = scores.flatten(1).topk(min(count, steps * max_duration))
    index = index * (best > 0)  # where too few are allowed: [0, 1], the same wherever the graph runs
    start = index // max_duration
    return torch.stack([start, start + 1 + index % max_duration], -1).float(), best


def inside(keep: Tensor, max_duration: int) -> Tensor:
    """Whether each proposal of the grid covers valid steps only, up to the very edge: (N, T) → (N, T, D)."""
    valid = keep > 0
    return valid.unsqueeze(2) & (
        F.pad(valid.to(keep.dtype), (0, max_duration)).unfold(1, max_duration + 1, 1)[..., :-1] > 0
    )


def held_behind(curve: Tensor, valid: Tensor) -> Tensor:
    """A curve (N, T), zero where invalid, and one step longer: the last valid value once more behind it."""
    valid = F.pad(valid, (0, 1))
    curve = F.pad(curve, (0, 1)) * valid
    return curve + (1 - valid) * F.pad(curve[:, :-1], (1, 0))


def pair_boundaries(
    start: Tensor,
    end: Tensor,
    keep: Tensor,
    max_duration: int,
    *,
    edge: bool = True,
    every: bool = False,
    ends_are_candidates: bool = False,
) -> tuple[Tensor, Tensor]:
    """Score start × end of every proposal, and whether it is a candidate inside: (N, T, D) each.

    Args:
        start, end: probabilities (N, T); keep: (N, T, 1).
        edge: whether a proposal may end exactly at the edge, one step behind the last valid step, whose end
            probability it takes.
        every: whether all pairs are candidates, or only those of `boundary_candidates`.
        ends_are_candidates: whether the first and the last valid step are candidates in any case.
    """
    valid = keep[..., 0]
    start, end = start * valid, end * valid
    starts, ends = valid > 0, valid
    if not every:
        starts, ends = (boundary_candidates(curve) & (valid > 0) for curve in (start, end))
        if ends_are_candidates:
            first_or_last = (valid > 0) & (F.pad(valid[:, 1:], (0, 1)) * F.pad(valid[:, :-1], (1, 0)) == 0)
            starts, ends = starts | first_or_last, ends | first_or_last
        ends = ends.to(end.dtype)
    steps = start.shape[1]
    if edge:
        end, ends = held_behind(end, valid), held_behind(ends, valid)
    allowed = starts.unsqueeze(2) & (at_ends(ends, max_duration)[:, :steps] > 0)
    return start.unsqueeze(2) * at_ends(end, max_duration)[:, :steps], allowed


class ProposalDetector(Detector):
    """Base of the proposal family. A subclass gives `build_network`, `windows` and `proposal_loss`.

    forward: the outputs of `windows`, then the classifier's features (B, T, C'), segments (B, P, 2) in steps,
    proposal scores (B, P) and class logits (B, P, K + 1), for the P proposals of all windows.
    """

    config: ProposalConfig
    separate_classifier = True
    unordered = ((-3, -2, -1),)

    def __init__(self, config: ProposalConfig, input_dim: int, num_classes: int):
        super().__init__(config, input_dim, num_classes)
        self.build_network()
        self.classifier = SegmentClassifier(input_dim, config.classifier_width, num_classes)

    def build_network(self) -> None:
        raise NotImplementedError

    def windows(self, x: Tensor, keep: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """Windows (N, T, D) and masks (N, T, 1) → outputs for the loss, segments (N, P, 2) in steps, scores
        (N, P)."""
        raise NotImplementedError

    def proposal_loss(
        self, outputs: tuple[Tensor, ...], segments: list[Tensor], keep: Tensor
    ) -> dict[str, Tensor]:
        """Losses by name, from the outputs of `windows` and the segments (M, 2) of each window, in its steps;
        keep (N, T)."""
        raise NotImplementedError

    def starts(self, steps: int, device) -> Tensor:
        return window_starts(steps, self.config.window, self.config.overlap, device)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        x, keep = features.transpose(1, 2), to_keep(mask, features)
        outputs, segments, scores = self.propose_in(x, keep)
        recording_features = self.classifier.features(x, keep)
        return *outputs, recording_features, segments, scores, self.classifier(recording_features, segments)

    def in_windows(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, T, C) and their mask → windows (B · W, window, C), their masks, and their first steps
        (W,)."""
        starts, shape = self.starts(x.shape[1], x.device), (self.config.window, self.config.overlap)
        inside = x.new_ones(*x.shape[:2], 1) if keep is None else keep
        return cut(masked(x, keep), starts, *shape), cut(inside, starts, *shape), starts

    def propose_in(self, x: Tensor, keep: Tensor | None) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """Features (B, T, D) → outputs for the loss, segments (B, P, 2) in steps of the recordings, scores
        (B, P)."""
        windows, masks, starts = self.in_windows(x, keep)
        if torch.is_grad_enabled() or exporting():
            outputs, segments, scores = self.windows(windows, masks)
        else:  # a few at a time, so that memory hardly grows with the length
            parts = [
                self.windows(*part)
                for part in zip(windows.split(WINDOWS_AT_ONCE), masks.split(WINDOWS_AT_ONCE))
            ]
            outputs = tuple(map(torch.cat, zip(*(part[0] for part in parts))))
            segments, scores = (torch.cat([part[i] for part in parts]) for i in (1, 2))  # pyright: ignore[reportArgumentType]
        segments = segments.detach().unflatten(0, (-1, starts.shape[0])) + starts[:, None, None]
        return outputs, segments.flatten(1, 2), scores.unflatten(0, (-1, starts.shape[0])).flatten(1)

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        *network_outputs, recording_features, proposals, scores, logits = outputs
        losses = self.proposal_loss(tuple(network_outputs), *self.window_targets(batch))
        losses |= {"classification": self.class_loss(recording_features, proposals, scores, logits, batch)}
        return {"total": sum(losses.values())} | {name: value.detach() for name, value in losses.items()}  # pyright: ignore[reportReturnType]

    def window_targets(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """Each window's segments (M, 2) in its own steps, and its valid steps (N, T)."""
        window, starts = self.config.window, self.starts(batch.mask.shape[1], batch.mask.device)
        inside = lambda shifted: shifted[(shifted[:, 1] > -0.5) & (shifted[:, 0] < window - 0.5)]
        segments = [inside(annotated - start) for annotated in batch.segments for start in starts]
        return segments, cut(batch.mask[..., None].float(), starts, window, self.config.overlap)[..., 0] > 0

    def class_loss(
        self, recording_features: Tensor, proposals: Tensor, scores: Tensor, logits: Tensor, batch: Batch
    ) -> Tensor:
        """Of the classifier: on the model's proposals and on the annotated segments, a little moved."""
        every_logit, every_target = [], []
        for index, (segments, labels) in enumerate(zip(batch.segments, batch.labels)):
            some = scores[index] > 0
            every_logit.append(logits[index][some])
            every_target.append(class_targets(proposals[index][some], segments, labels, self.num_classes))
            if len(segments):
                every_logit.append(
                    self.classifier(recording_features[index : index + 1], moved(segments)[None])[0].float()
                )
                every_target.append(labels)
        return classification_loss(torch.cat(every_logit), torch.cat(every_target))

    def candidates(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        """Every class of every proposal: proposal score × class probability."""
        *_, segments, scores, logits = outputs
        candidates = []
        for index, valid in enumerate(mask.sum(1).tolist()):
            chance = scores[index][:, None] * logits[index].softmax(-1)[:, :-1]
            row, label = (chance > self.config.post.score_threshold).nonzero(as_tuple=True)
            candidates.append(
                Candidates(segments[index][row].clamp(-0.5, valid - 0.5), chance[row, label], label)
            )
        return candidates

    def class_agnostic(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        *_, segments, scores, _ = outputs
        return [
            Candidates(
                segments[i].clamp(-0.5, valid - 0.5), scores[i], torch.zeros_like(scores[i], dtype=torch.long)
            )
            for i, valid in enumerate(mask.sum(1).tolist())
        ]
