"""What a benchmark consists of, and how much of it follows a script."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tal_lib.data.benchmark import Benchmark


@dataclass(frozen=True, kw_only=True)
class Composition:
    """Counts of a benchmark, and how predictable its sequences of labels are."""

    recordings: int
    people: int | None  # None: unknown
    hours: float
    classes: int
    segments: int
    action_share: float  # share of the time with at least one action
    same_sequence: float  # share of the recordings that have the most frequent sequence of labels
    label_bits: float  # entropy of a label
    next_label_bits: float  # entropy of a label, given the label before it in the recording
    empty_recordings: int  # recordings without any segment
    folds: int


def composition(benchmark: Benchmark) -> Composition:
    """The composition of all splits together. No feature is read."""
    annotations, durations = benchmark.annotations(), benchmark.table().set_index("recording").duration
    sequences = label_sequences(annotations, list(durations.index))
    labels = [label for sequence in sequences for label in sequence]
    return Composition(
        recordings=len(durations),
        people=len(benchmark.people) or None,
        hours=float(durations.sum() / 3600),
        classes=len(benchmark.classes),
        segments=len(annotations),
        action_share=float(annotated_seconds(annotations, durations) / durations.sum()),
        same_sequence=max(Counter(sequences).values()) / len(sequences),
        label_bits=entropy(labels),
        next_label_bits=conditional_entropy(sequences),
        empty_recordings=sum(not sequence for sequence in sequences),
        folds=len(benchmark.folds),
    )


def label_sequences(annotations: pd.DataFrame, recordings: Sequence[str]) -> list[tuple[str, ...]]:
    """The labels of each recording in the order of their starts (of their ends, if these are equal)."""
    ordered = annotations.sort_values(["recording", "start", "end"], kind="stable")
    labels = {recording: tuple(rows.label) for recording, rows in ordered.groupby("recording", sort=False)}
    return [labels.get(recording, ()) for recording in recordings]


def annotated_seconds(annotations: pd.DataFrame, durations: pd.Series) -> float:
    """Seconds with at least one action, inside the recordings."""
    total = 0.0
    for recording, rows in annotations.groupby("recording"):
        limit = float(durations[recording])  # pyright: ignore[reportArgumentType]
        at = 0.0  # until here all is counted
        for start, end in rows[["start", "end"]].sort_values("start").to_numpy():  # pyright: ignore[reportCallIssue]
            total += max(0.0, min(end, limit) - max(start, at))
            at = max(at, min(end, limit))
    return total


def gaps(annotations: pd.DataFrame) -> pd.Series:
    """Seconds between the end of a segment and the start of the next in its recording (negative: overlap).

    Segments are in the order of their starts.
    """
    ordered = annotations.sort_values(["recording", "start", "end"], kind="stable")
    between = ordered.start - ordered.groupby("recording").end.shift()
    rounded = between.dropna().round(9)  # a rounding error of 1e-13 s is no overlap
    return rounded.rename("gap_s").reset_index(drop=True)


def entropy(values: Iterable[Hashable]) -> float:
    """Entropy of the observed frequencies, in bits; 0 without values."""
    counts = np.array(list(Counter(values).values()), dtype=float)
    shares = counts / counts.sum() if len(counts) else counts
    return float(abs((shares * np.log2(shares)).sum()))


def conditional_entropy(sequences: Iterable[Sequence[str]]) -> float:
    """Entropy (bits) of what follows, given what was before: H(next | label) over all neighbours."""
    pairs = [pair for sequence in sequences for pair in zip(sequence[:-1], sequence[1:])]
    return max(0.0, entropy(pairs) - entropy(first for first, _ in pairs))
