"""Remarks on a data set: what looks wrong but stops nothing. Each has a kind, and concerns one or all
recordings."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

ALL = "all recordings"
USUAL_RATES = (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 100, 120)  # frames per second
FAR = 1.5  # times the duration: a later end is not a rounding error
LONGEST_LISTED = 5  # number of labels in one remark


@dataclass(frozen=True)
class Remark:
    """One remark. As text: `recording: text`."""

    recording: str  # id, or `ALL`
    kind: str  # repaired, as published, labels, length, suspect, …
    text: str

    def __str__(self):
        return f"{self.recording}: {self.text}"


def far_beyond(segments: pd.DataFrame, durations: pd.Series) -> pd.Series:
    """Which segments start after the end of their recording, or end after `FAR` times its duration (s)."""
    limit = segments.recording.map(durations).astype(float)
    return (segments.start >= limit) | (segments.end > FAR * limit)


def looks_like(segments: pd.DataFrame, durations: pd.Series, rates: pd.Series | None = None) -> str:
    """The likely unit of times that are not seconds: frames at a usual rate, milliseconds, or unknown.

    The last segment of a recording usually ends shortly before the recording does. If times are frames, its
    end is a little below `rate × duration`.

    Args:
        durations: recording id → seconds; rates: recording id → frames per second, NaN if not stated.
    """
    last = segments.groupby("recording").end.max()
    ratio = (last / durations.reindex(last.index)).astype(float)
    highest, typical = float(ratio.quantile(0.95)), float(ratio.median())
    text = f"a recording's last segment ends at {typical:.3g} times its duration"
    stated = rates.reindex(last.index).astype(float) if rates is not None else None
    if stated is not None and ((ratio <= 1.05 * stated) & (ratio >= 0.1 * stated)).mean() > 0.5:
        return f"{text}, as frame numbers at the stated {float(stated.median()):g} frames a second would"
    rate = next((rate for rate in USUAL_RATES if rate >= 0.98 * highest), None)
    if rate is not None and highest >= 0.98 * USUAL_RATES[0] / 2:
        return f"{text}, as frame numbers at about {rate:g} frames a second would"
    if 0.98 * USUAL_RATES[-1] < highest <= 1050 and typical > 500:
        return f"{text}, as milliseconds would"
    return text


def beyond_remarks(segments: pd.DataFrame, durations: pd.Series, rates=None) -> list[Remark]:
    """A remark on all recordings if some segments lie far beyond their recording."""
    far = far_beyond(segments, durations)
    if not far.any():
        return []
    text = f"{int(far.sum()):,} of {len(segments):,} segments lie far beyond their recording"
    return [
        Remark(
            ALL,
            "suspect",
            f"{text} "  # what the times may be instead
            f"({looks_like(segments[far], durations, rates)})",  # pyright: ignore[reportArgumentType]
        )
    ]


def label_remarks(segments: pd.DataFrame) -> list[Remark]:
    """A remark for each group of labels that differ only in case, blanks or underscores; most likely one
    class."""
    counts = segments.label.value_counts()
    groups: dict[str, list[str]] = {}
    for label in sorted(counts.index):
        groups.setdefault(same_label(label), []).append(label)
    remarks = [
        Remark(
            ALL,
            "labels",
            " and ".join(f"{label!r} ({counts[label]:,} segments)" for label in labels[:LONGEST_LISTED])
            + (f" and {len(labels) - LONGEST_LISTED} more" if len(labels) > LONGEST_LISTED else "")
            + " differ only in case, blanks or underscores, and count as classes of their own",
        )
        for labels in groups.values()
        if len(labels) > 1
    ]
    blank = [
        label for label in counts.index if label != label.strip() and len(groups[same_label(label)]) == 1
    ]
    return remarks + [
        Remark(ALL, "labels", f"{label!r} begins or ends with a blank") for label in sorted(blank)
    ]


def same_label(label: str) -> str:
    """A key that is equal for labels that differ only in case, blanks or underscores."""
    return " ".join(label.replace("_", " ").split()).casefold()


def length_remarks(
    segments: pd.DataFrame, *, deviations: float = 5.0, factor: float = 5.0, least: int = 5
) -> list[Remark]:
    """A remark for each segment whose length is an outlier of its class: often a typing error.

    Lengths are compared as logarithms, so that twice as long and half as long count alike. An outlier is more
    than `deviations` median absolute deviations from its class's median, and differs from it by more than
    `factor`. The first rule allows for classes with widely spread lengths, the second for classes with almost
    equal lengths. Classes of fewer than `least` segments are left out.

    Source: the rule of Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993), on log lengths.
    """
    remarks = []
    for label, rows in segments.groupby("label", sort=True):
        lengths = (rows.end - rows.start).to_numpy(float)
        if len(lengths) < least or not (lengths > 0).all():
            continue
        logs = np.log(lengths)
        distance = np.abs(logs - np.median(logs))
        bound = max(deviations * float(np.median(distance)), np.log(factor))
        row: Any
        for row, length, far in zip(rows.itertuples(index=False), lengths, distance > bound):
            if far:
                remarks.append(
                    Remark(
                        row.recording,
                        "length",
                        f"segment {row.start:g}–{row.end:g} s of {label!r} lasts {length:.3g} s; "
                        f"the class's median is {np.median(lengths):.3g} s",
                    )
                )
    return remarks
