"""Mean average precision as the field's official script defines it, computed on whole tables.

Source: ActivityNet challenge evaluation (Caba Heilbron et al., CVPR 2015). The detections of a class are
taken by descending score. Each takes the annotation of its recording that it overlaps best, among those that
are free and reach the tIoU. AP is the area under the interpolated precision–recall curve. Ties in score and
in overlap go to the later row, as in the script.
"""

import numpy as np
import pandas as pd

from tal_lib.data.tables import check_annotations, check_detections
from tal_lib.errors import TalError


def average_precision(
    annotations: pd.DataFrame, detections: pd.DataFrame, tious, classes=None
) -> pd.DataFrame:
    """AP of every class at every tIoU.

    Args:
        annotations: `recording, start, end, label`; detections: the same and `score`.
        tious: thresholds in (0, 1]; classes: those to report, all annotated ones if None.

    Returns:
        One row per class and tIoU: `label, tiou, ap`. A class without annotations has no AP: NaN.
    """
    tious = check_tious(tious)
    annotations, detections = check_annotations(annotations), check_detections(detections)
    labels = list(dict.fromkeys(annotations.label)) if classes is None else list(classes)
    rows_of_detections, detection_class, totals, owners = _matched(annotations, detections, labels, tious)
    rows = []
    for tiou, owner in zip(tious, owners):
        for index, label in enumerate(labels):
            first, last = np.searchsorted(detection_class, [index, index + 1])
            rows.append((label, tiou, interpolated_ap(owner[first:last] >= 0, totals[index])))
    return pd.DataFrame(rows, columns=["label", "tiou", "ap"])


def matches(annotations: pd.DataFrame, detections: pd.DataFrame, tious) -> dict[float, np.ndarray]:
    """The annotation that each detection takes, as AP counts it.

    Returns:
        tIoU → (N,) row position of the annotation, −1 for a false positive.
    """
    tious = check_tious(tious)
    annotations, detections = check_annotations(annotations), check_detections(detections)
    rows, _, _, owners = _matched(annotations, detections, list(dict.fromkeys(annotations.label)), tious)
    owners_by_tiou = {}
    for tiou, owner in zip(tious, owners):
        owners_by_tiou[tiou] = np.full(len(detections), -1)
        owners_by_tiou[tiou][rows] = owner
    return owners_by_tiou


def _matched(annotations, detections, labels, tious):
    """Match the detections of the given classes with the annotations.

    Returns:
        Row positions of the detections, sorted by class and then by descending score; their class indices;
            the number of annotations of each class; and for each tIoU the row position of the annotation that
            each detection takes (−1: none).
    """
    label_index = {label: i for i, label in enumerate(labels)}
    truth_rows, detection_rows = (
        np.flatnonzero(table.label.isin(label_index)) for table in (annotations, detections)
    )
    truth, candidates = annotations.iloc[truth_rows], detections.iloc[detection_rows]
    truth_class = truth.label.map(label_index).to_numpy(dtype=np.int64)
    candidate_class = candidates.label.map(label_index).to_numpy(dtype=np.int64)
    # best first within a class; at equal scores the later row first
    order = np.lexsort((-np.arange(len(candidates)), -candidates.score.to_numpy(), candidate_class))
    candidates, candidate_class, detection_rows = (
        candidates.iloc[order],
        candidate_class[order],
        detection_rows[order],
    )
    pair_detection, pair_truth, overlap = _pairs(truth, truth_class, candidates, candidate_class)
    owners = []
    for tiou in tious:
        good = overlap >= tiou
        holder = _match(pair_detection[good], pair_truth[good], len(candidates), len(truth))
        owner = np.full(len(candidates) + 1, -1)
        owner[holder] = truth_rows
        owners.append(owner[:-1])  # the last entry collects unmatched annotations
    return detection_rows, candidate_class, np.bincount(truth_class, minlength=len(labels)), owners


def mean_average_precision(annotations: pd.DataFrame, detections: pd.DataFrame, tious) -> pd.Series:
    """mAP over the annotated classes, indexed by tIoU; its mean is the avg mAP. NaN if nothing is
    annotated.
    """
    table = average_precision(annotations, detections, tious)
    if table.empty:
        return pd.Series(np.nan, index=pd.Index(check_tious(tious), name="tiou"), name="map")
    return table.groupby("tiou", sort=False).ap.mean().rename("map")


def interpolated_ap(hit: np.ndarray, total: int) -> float:
    """Area under the interpolated precision–recall curve.

    Args:
        hit: (N,) whether each detection, best first, is a true positive; total: annotated segments.
    """
    if total == 0:
        return float("nan")
    if not len(hit):
        return 0.0
    return area_under(np.cumsum(hit) / np.arange(1, len(hit) + 1), hit, total)


def area_under(precision: np.ndarray, hit: np.ndarray, total: int) -> float:
    """Area under the interpolated precision–recall curve; the input is the precision (N,) after each
    detection."""
    ceiling = np.maximum.accumulate(precision[::-1])[::-1]  # best precision at this recall or beyond
    return float(ceiling[np.asarray(hit, dtype=bool)].sum() / total)


def check_tious(tious) -> list[float]:
    """tIoU thresholds as a list. `TalError` unless they are distinct and in (0, 1]."""
    tious = [float(tiou) for tiou in np.atleast_1d(tious)]
    if not tious or not all(0 < tiou <= 1 for tiou in tious) or len(set(tious)) < len(tious):
        raise TalError(
            f"tIoU thresholds {tious} are not distinct values in (0, 1]",
            remedy="Give thresholds such as 0.3 0.5 0.7.",
        )
    return tious


def _pairs(truth, truth_class, detections, detection_class):
    """Pair every detection with every annotation of its recording and class.

    Returns:
        Detection row, annotation row and tIoU of each pair that overlaps. Sorted by detection, then by
            descending tIoU; of equal tIoUs the later annotation comes first.
    """
    recordings = pd.Index(pd.unique(truth.recording))
    size = len(recordings) + 1
    truth_group = truth_class * size + recordings.get_indexer(truth.recording)
    detection_group = detection_class * size + np.where(
        (at := recordings.get_indexer(detections.recording)) < 0, size - 1, at
    )
    by_group = np.argsort(truth_group, kind="stable")
    first = np.searchsorted(truth_group[by_group], detection_group, side="left")
    count = np.searchsorted(truth_group[by_group], detection_group, side="right") - first
    detection = np.repeat(np.arange(len(detections)), count)
    within = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
    annotation = by_group[np.repeat(first, count) + within]

    start, end = truth.start.to_numpy()[annotation], truth.end.to_numpy()[annotation]
    detected_start, detected_end = (
        detections.start.to_numpy()[detection],
        detections.end.to_numpy()[detection],
    )
    inter = np.clip(np.minimum(end, detected_end) - np.maximum(start, detected_start), 0, None)
    overlap = inter / ((end - start) + (detected_end - detected_start) - inter)
    touching = overlap > 0
    detection, annotation, overlap = detection[touching], annotation[touching], overlap[touching]
    order = np.lexsort((-annotation, -overlap, detection))
    return detection[order], annotation[order], overlap[order]


def _match(detection, annotation, detections, annotations):
    """The row of the detection that takes each annotation; `detections` where no detection does.

    Detections choose in the order of their rows. This is computed as a stable matching: every detection
    proposes to its best annotation that has not refused it, and an annotation keeps the earliest row that
    asks. The sequential choice is the only stable outcome, and few rounds reach it.

    Args:
        detection, annotation: allowed pairs, sorted by detection, preferred annotation first.
    """
    holder = np.full(annotations, detections)  # detection row that holds each annotation
    if not len(detection):
        return holder
    starts = np.flatnonzero(np.r_[True, detection[1:] != detection[:-1]])
    ends = np.r_[starts[1:], len(detection)]
    owner = detection[starts]
    pointer, asking = starts.copy(), np.arange(len(starts))
    index_of = np.full(detections, -1)
    index_of[owner] = np.arange(len(owner))
    while len(asking):
        proposed = annotation[pointer[asking]]
        before = holder.copy()
        np.minimum.at(holder, proposed, owner[asking])
        refused = asking[holder[proposed] != owner[asking]]
        displaced = before[(before != holder) & (before < detections)]
        again = np.concatenate([refused, index_of[displaced]])
        pointer[again] += 1
        asking = again[pointer[again] < ends[again]]
    return holder
