"""From the candidates of a network to detections: post-processing, and merging the candidates of streams."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tal_lib.segments import interval_iou, nms, soft_nms
from tal_lib.validation import Checked, Count, NotNegative, Positive, Probability


@dataclass(frozen=True, kw_only=True)
class PostProcess(Checked):
    """Options of the way from candidates to detections."""

    score_threshold: Probability = 0.001  # candidates below are ignored
    max_candidates: Count = 2000  # kept per pyramid level (or recording) before NMS
    min_segment_steps: NotNegative = 0.05  # shorter candidates are dropped
    # soft: lower the scores of overlapping candidates; hard: drop these
    nms: Literal["soft", "hard", "none"] = "soft"
    nms_sigma: Positive = 0.5  # of soft-NMS
    nms_power: Positive = 2.0  # of the tIoU in its decay
    # soft-NMS lowers scores only above a tIoU. It grows with the kept segment's length: `nms_low` at zero,
    # `nms_high` at `nms_span` steps
    nms_low: Probability = 0.0
    nms_high: Probability = 0.0  # the tIoU at `nms_span` steps
    nms_span: Positive = 100.0  # steps at which the tIoU is `nms_high`
    nms_tiou: Probability = 0.5  # of hard NMS
    min_score: Probability = 0.001  # after suppression
    max_detections: Count = 200  # kept per recording
    # candidates suppress those of their class only; False: of every class, as for class-agnostic proposals
    multiclass: bool = True
    voting_tiou: Probability = 0.7  # 0: no voting
    voting_weight: Literal["score", "score_tiou"] = "score"  # of a candidate that votes


@dataclass(frozen=True)
class Candidates:
    """Scored segments of one recording before suppression; time in steps."""

    segments: Tensor  # (N, 2)
    scores: Tensor  # (N,)
    labels: Tensor  # (N,) class indices


def suppress(candidates: Candidates, post: PostProcess):
    """Drop too short and too weak candidates, then NMS; numpy (segments, scores, labels), best first."""
    good = (candidates.segments[:, 1] - candidates.segments[:, 0] > post.min_segment_steps) & (
        candidates.scores > post.score_threshold
    )
    segments, scores, labels = (
        part[good].float().cpu().numpy() if part.is_floating_point() else part[good].cpu().numpy()
        for part in (candidates.segments, candidates.scores, candidates.labels)
    )
    if post.nms == "none":
        order = scores.argsort()[::-1][: post.max_detections]
        return segments[order], scores[order], labels[order]
    shared = {
        "min_score": post.min_score,
        "max_detections": post.max_detections,
        "multiclass": post.multiclass,
        "voting_tiou": post.voting_tiou,
        "voting_weight": post.voting_weight,
    }
    if post.nms == "soft":
        return soft_nms(
            segments,
            scores,
            labels,
            sigma=post.nms_sigma,
            power=post.nms_power,
            low=post.nms_low,
            high=post.nms_high,
            span=post.nms_span,
            **shared,
        )
    return nms(segments, scores, labels, tiou_threshold=post.nms_tiou, **shared)


STRONGEST = 300  # candidates of a class and stream that take part in the support rule


def combine_streams(by_stream: list[list[Candidates]], shares: list[float]) -> list[Candidates]:
    """Merge the candidates of several streams (stream → recording), scored by the support rule (see
    fusion.py)."""
    return [_supported(streams, shares) for streams in zip(*by_stream)]


def _supported(streams, shares):
    parts = []
    streams = [_strongest(candidates) for candidates in streams]
    for candidates, share in zip(streams, shares):
        if not share:  # a stream without weight has nothing to propose either
            continue
        scores = share * candidates.scores
        for other, weight in zip(streams, shares):
            if other is not candidates and len(candidates.scores) and len(other.scores):
                overlap = interval_iou(candidates.segments[:, None], other.segments[None])
                same = candidates.labels[:, None] == other.labels[None]
                scores = scores + weight * (overlap * same * other.scores).amax(1)
        parts.append(Candidates(candidates.segments, scores, candidates.labels))
    return Candidates(
        *(torch.cat([getattr(item, name) for item in parts]) for name in ("segments", "scores", "labels"))
    )


def _strongest(candidates):
    """The best candidates of each class."""
    order = candidates.scores.argsort(descending=True)
    order = order[candidates.labels[order].argsort(stable=True)]
    labels = candidates.labels[order]
    first = torch.searchsorted(labels, labels)  # rank in the class: distance to the class's first row
    kept = order[torch.arange(len(order), device=order.device) - first < STRONGEST]
    return Candidates(candidates.segments[kept], candidates.scores[kept], candidates.labels[kept])
