"""Non-maximum suppression of 1-D segments: hard, soft, and score-weighted voting, for all classes at once.

`tal_lib.evaluation` also offers these functions. They are defined here because post-processing is part of a
detector.
"""

import numpy as np


def tiou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Temporal IoU of segments a (..., 2) and b (..., 2), broadcast; 0 where the union is empty."""
    inter = np.asarray(
        np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0])
    )  # also for one pair
    np.maximum(inter, 0, out=inter)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


# weight of the candidates (N,) that vote for kept segments (M,), from scores (N,) and tIoUs (M, N)
VOTING_WEIGHTS = {
    "score": lambda scores, overlap: scores,
    "score_tiou": lambda scores, overlap: scores * overlap,
}


def soft_nms(
    segments,
    scores,
    labels=None,
    *,
    sigma=0.5,
    min_score=0.001,
    max_detections=200,
    multiclass=True,
    voting_tiou=0.0,
    voting_weight="score",
    power=2.0,
    low=0.0,
    high=0.0,
    span=1.0,
):
    """Gaussian soft-NMS (Bodla et al., ICCV 2017) in 1-D, each class separately.

    Repeatedly keeps the best candidate and multiplies the scores of the others by `exp(-tIoU² / sigma)`. A
    candidate whose score falls below `min_score` is dropped.

    BMN's form lowers a score only above a tIoU that grows with the kept segment's length, from `low` at 0 to
    `high` at `span`. TCANet's takes another `power` of the tIoU.

    Args:
        segments: (N, 2) starts and ends; scores: (N,); labels: (N,) class indices, one class if None.
        max_detections: kept per class, and then over all classes.
        multiclass: False: candidates suppress, and vote for, those of other classes too.
        voting_tiou: if above 0, each kept segment becomes the weighted mean of all candidates of its class
            with at least this tIoU (ActionFormer's segment voting).
        voting_weight: of a candidate: `score`, or `score_tiou`, its score times this tIoU.

    Returns:
        (segments (M, 2), scores (M,), labels (M,)), best first.
    """

    def decay(overlap, length):
        raised = overlap * overlap if power == 2 else overlap**power
        factor = np.exp(-raised / sigma)
        if low == high == 0:
            return factor
        return np.where(overlap > low + (high - low) * length / span, factor, 1.0)

    return _suppress(
        segments, scores, labels, decay, min_score, max_detections, multiclass, voting_tiou, voting_weight
    )


def nms(
    segments,
    scores,
    labels=None,
    *,
    tiou_threshold=0.5,
    min_score=0.0,
    max_detections=200,
    multiclass=True,
    voting_tiou=0.0,
    voting_weight="score",
):
    """Hard NMS: as `soft_nms`, but drops a candidate that overlaps a kept one by `tiou_threshold` or more."""
    decay = lambda overlap, length: np.where(overlap >= tiou_threshold, 0.0, 1.0)
    return _suppress(
        segments, scores, labels, decay, min_score, max_detections, multiclass, voting_tiou, voting_weight
    )


def _suppress(
    segments, scores, labels, decay, min_score, max_detections, multiclass, voting_tiou, voting_weight
):
    segments = np.asarray(segments, dtype=np.float32).reshape(-1, 2)
    scores = np.asarray(scores, dtype=np.float32).reshape(-1)
    labels = np.zeros(len(scores), dtype=np.int64) if labels is None else np.asarray(labels).reshape(-1)
    alive = scores > min_score
    segments, scores, labels = segments[alive], scores[alive], labels[alive]
    if not len(scores):
        return segments, scores, labels

    # candidates suppress each other inside a pool: a class, or all classes together
    pools = labels if multiclass else np.zeros_like(labels)
    order = np.lexsort((-scores, pools))  # by pool, best first
    segments, scores, labels, pools = segments[order], scores[order], labels[order], pools[order]
    names, first, counts = np.unique(pools, return_index=True, return_counts=True)
    kept = [np.empty(0, dtype=np.int64)]
    kept_scores = [np.empty(0, dtype=np.float32)]
    # pools of similar size share a padded table, so that small pools stay cheap
    for group in np.array_split(np.argsort(counts), max(1, len(counts) // 8)):
        rows, values = _suppress_padded(
            segments, scores, first[group], counts[group], decay, min_score, max_detections
        )
        kept.append(rows)
        kept_scores.append(values)
    kept, kept_scores = np.concatenate(kept), np.concatenate(kept_scores)
    best = np.argsort(-kept_scores, kind="stable")[:max_detections]
    kept, kept_scores = kept[best], kept_scores[best]
    result = segments[kept]
    if voting_tiou > 0:
        result = _vote(
            result,
            pools[kept],
            segments,
            scores,
            zip(names, first, first + counts),
            voting_tiou,
            voting_weight,
        )
    return result, kept_scores, labels[kept]


def _suppress_padded(segments, scores, first, counts, decay, min_score, max_detections):
    """Greedy suppression in several classes in parallel; returns the kept rows and their decayed scores."""
    width = int(counts.max())
    index = np.minimum(first[:, None] + np.arange(width), len(scores) - 1)  # (K, N)
    live = np.where(np.arange(width) < counts[:, None], scores[index], -1.0).astype(np.float32)
    boxes = segments[index]  # (K, N, 2)
    lengths = boxes[..., 1] - boxes[..., 0]
    classes = np.arange(len(first))
    # a table of all pairs is faster while it is small
    table = (
        decay(tiou(boxes[:, :, None], boxes[:, None]), lengths[:, :, None]).astype(np.float32)
        if len(first) * width**2 <= 400_000
        else None
    )
    kept, values, count, weakest = [], [], 0, 0.0
    for _ in range(min(width, max_detections)):
        best = live.argmax(1)
        score = live[classes, best]
        # scores of a class only decrease: stop below the weakest of enough kept scores
        going = (score > min_score) & (score >= weakest)
        if not going.any():
            break
        if not going.all():
            classes, best, score = classes[going], best[going], score[going]
            live, boxes, lengths, index = live[going], boxes[going], lengths[going], index[going]
            table = None if table is None else table[going]
            classes = np.arange(len(best))
        kept.append(index[classes, best])
        values.append(score)
        count += len(score)
        if count >= max_detections:
            weakest = np.partition(np.concatenate(values), -max_detections)[-max_detections]
        factor = (
            table[classes, best]
            if table is not None
            else decay(tiou(boxes, boxes[classes, best][:, None]), lengths[classes, best][:, None])
        )
        live *= factor
        live[classes, best] = -1.0
        np.copyto(live, -1.0, where=live <= min_score)
    if not kept:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    return np.concatenate(kept), np.concatenate(values)


def _vote(kept, kept_pools, segments, scores, pools, threshold, weight):
    """Weighted means; `pools` are (name, first, end) of the rows of each pool."""
    result = kept.copy()
    for name, first, end in pools:
        members = np.flatnonzero(kept_pools == name)
        if len(members):
            pool = slice(first, end)
            overlap = tiou(kept[members, None], segments[None, pool])
            weights = np.where(overlap >= threshold, VOTING_WEIGHTS[weight](scores[pool], overlap), 0)
            total = weights.sum(1, keepdims=True)
            result[members] = np.where(
                total > 0, weights @ segments[pool] / np.maximum(total, 1e-12), kept[members]
            )
    return result


def interval_iou(a, b, eps: float = 1e-8):
    """tIoU of segments a and b, tensors (..., 2), element by element."""
    import torch  # here: evaluation needs this module without it

    inter = (torch.minimum(a[..., 1], b[..., 1]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)
    union = (a[..., 1] - a[..., 0]).clamp(min=0) + (b[..., 1] - b[..., 0]).clamp(min=0) - inter
    return inter / union.clamp(min=eps)
