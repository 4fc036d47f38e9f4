"""Recall of proposals: AR@AN and its area, as the ActivityNet proposal task defines them.

Source: ActivityNet challenge, task 2 (Caba Heilbron et al., CVPR 2015; its evaluation script). AN is an
average: every recording keeps the same share of its proposals, best first, so long recordings may keep more.
"""

import numpy as np
import pandas as pd

from tal_lib.data.tables import check_annotations, check_proposals
from tal_lib.segments import tiou

TIOUS = np.linspace(0.5, 0.95, 10)
NUMBERS = tuple(range(1, 101))


def average_recall(
    annotations: pd.DataFrame, proposals: pd.DataFrame, numbers=NUMBERS, tious=TIOUS
) -> pd.Series:
    """AR@AN: share of the annotated segments that a kept proposal overlaps by the tIoU, mean over `tious`.

    Args:
        annotations: `recording, start, end, label`; labels are not used.
        proposals: `recording, start, end, score`.
        numbers: average numbers AN of proposals per recording, ascending.

    Returns:
        Average recall in [0, 1], indexed by AN (`an`). Only annotated recordings count. NaN if nothing is
            annotated.
    """
    annotations, proposals = check_annotations(annotations), check_proposals(proposals)
    numbers, tious = np.asarray(numbers), np.asarray(tious)
    recordings = annotations.recording.unique()
    if not len(recordings):
        return pd.Series(np.nan, index=pd.Index(numbers, name="an"), name="ar")
    by_recording = dict(iter(proposals.groupby("recording", sort=False)))
    # at most AN = max(numbers) on average; the limit is a share of each recording's proposals
    share = numbers.max() * len(recordings) / max(1, len(proposals))
    parts = []
    for recording, truth in annotations.groupby("recording", sort=False):
        kept = by_recording.get(recording)
        if kept is None:
            parts.append((0, np.full((len(truth), len(tious)), np.inf)))
            continue
        kept = kept.iloc[
            np.argsort(kept.score.to_numpy(), kind="stable")[::-1][: min(int(len(kept) * share), len(kept))]
        ]
        parts.append(
            (
                len(kept),
                first_hits(truth[["start", "end"]].to_numpy(), kept[["start", "end"]].to_numpy(), tious),
            )
        )
    total = sum(count for count, _ in parts)
    shares = numbers / max(total, 1) * len(recordings)
    hits = np.zeros((len(numbers), len(tious)))
    for count, first in parts:
        kept = np.minimum((count * shares).astype(int), count)
        hits += (first[None] < kept[:, None, None]).sum(1)
    return pd.Series(hits.mean(1) / len(annotations), index=pd.Index(numbers, name="an"), name="ar")


def first_hits(truth: np.ndarray, proposals: np.ndarray, tious: np.ndarray) -> np.ndarray:
    """Rank of the first proposal that overlaps each segment by at least each tIoU; infinite if none does.

    Args:
        truth: segments (M, 2); proposals: (N, 2), best first; tious: (J,).

    Returns:
        (M, J).
    """
    if not len(proposals):
        return np.full((len(truth), len(tious)), np.inf)
    good = tiou(truth[:, None], proposals[None])[:, :, None] >= tious
    return np.where(good.any(1), good.argmax(1), np.inf)


def area_under_recall(recall: pd.Series) -> float:
    """AUC in %: the area under AR over AN, divided by the largest AN."""
    return float(100 * np.trapezoid(recall.to_numpy(), recall.index.to_numpy()) / recall.index[-1])
