"""Figures of recordings and of one training: features, segments, detections, loss, AP by class."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import MaxNLocator

from tal_lib.reports.figures.axes import plain_log
from tal_lib.reports.theme import WIDTH, new_axes


def loss_curve(history: pd.DataFrame, ax=None):
    """Training loss by epoch.

    history: `epoch, total`.
    """
    ax = new_axes(ax, figsize=(WIDTH, 2.4))
    ax.plot(history.epoch, history.total, color="#0072B2")
    ax.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def ap_by_class(table: pd.DataFrame, ax=None):
    """Mean AP over the tIoUs of each class, worst at the bottom.

    table: `label, tiou, ap`.
    """
    means = 100 * table.groupby("label").ap.mean().sort_values()
    ax = new_axes(ax, figsize=(WIDTH, 0.22 * len(means) + 0.8))
    ax.barh(means.index, means, color="#56B4E9")
    ax.set(xlabel="average precision, mean over tIoUs (%)", xlim=(0, 100))
    ax.grid(axis="y", visible=False)
    return ax


def recording(
    features: np.ndarray,
    annotations: pd.DataFrame,
    stride_s: float,
    window_s: float,
    duration: float,
    streams: Mapping[str, int],
    name: str = "",
):
    """Features of a recording over time, by stream, and its annotated segments.

    Args:
        features: (T, D), a step every `stride_s`, over `window_s` seconds.
        annotations: the recording's segments, `start, end, label`.
        streams: name → number of its columns, in their order.
    """
    rows, limit = max(3, annotations.label.nunique()), 3
    size = (WIDTH, 2.7 + 0.2 * rows)
    above, below = new_axes(nrows=2, sharex=True, figsize=size, height_ratios=[2, 0.2 * rows])
    first = (window_s - stride_s) / 2  # a step is drawn around the middle of its window
    image = above.imshow(
        features.T,
        aspect="auto",
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        interpolation="nearest",
        extent=(first, first + stride_s * len(features), features.shape[1], 0),
    )
    ends = np.cumsum(list(streams.values()))
    above.set_yticks(ends - np.array(list(streams.values())) / 2, list(streams))
    for boundary in ends[:-1]:
        above.axhline(boundary, color="#222222", linewidth=0.8)
    above.set(ylabel="columns of a stream", title=f"recording {name}" if name else "")
    above.grid(False)
    scale = above.figure.colorbar(image, ax=[above, below], shrink=0.5, anchor=(0, 1), extend="both")
    scale.set_label("value of the feature")
    _segments(below, annotations, sorted(set(annotations.label), reverse=True), duration)
    below.set_title("annotated segments", fontsize="medium")
    return above


def timeline(
    annotations: pd.DataFrame, detections: pd.DataFrame, duration: float, min_score: float = 0.3, ax=None
):
    """One recording: annotated segments (upper half of a row) and detections (lower half; opacity is the
    score)."""
    shown = detections[detections.score >= min_score]
    labels = sorted({*annotations.label, *shown.label}, reverse=True)
    ax = new_axes(ax, figsize=(WIDTH, 0.25 * max(2, len(labels)) + 0.8))
    row = _segments(ax, annotations, labels, duration)
    for item in shown.itertuples():
        ax.barh(
            row[item.label] - 0.2,
            item.end - item.start,
            left=item.start,
            height=0.35,
            color="#D55E00",
            alpha=float(min(1.0, max(0.15, item.score))),
        )
    both = f"annotated (grey) and detected with score ≥ {min_score:g} (orange)"
    alone = f"annotated (grey); no detection has a score ≥ {min_score:g}"
    ax.set_title(both if len(shown) else alone, fontsize="medium")
    return ax


def _segments(ax, annotations, labels, duration):
    """Draw annotated segments in the upper halves of rows, one per label. Returns label → row."""
    row = {label: i for i, label in enumerate(labels)}
    for item in annotations.itertuples():
        ax.barh(row[item.label] + 0.2, item.end - item.start, left=item.start, height=0.35, color="#555555")
    ax.set(yticks=range(len(labels)), yticklabels=labels, xlabel="time (s)", xlim=(0, duration))
    ax.set_ylim(-0.5, max(1, len(labels)) - 0.5)  # whole rows, also if one half is empty
    return row


def segment_lengths(annotations: pd.DataFrame, ax=None):
    """Durations of the annotated segments by class."""
    table = annotations.assign(seconds=annotations.end - annotations.start)
    order = table.groupby("label").seconds.median().sort_values().index
    ax = new_axes(ax, figsize=(WIDTH, 0.22 * len(order) + 0.8))
    sns.boxplot(
        table, x="seconds", y="label", order=order, ax=ax, color="#88CCEE", fliersize=2, linewidth=0.8
    )
    ax.set(xlabel="segment duration (s, log scale)", ylabel="", xscale="log")
    plain_log(ax.xaxis)
    return ax


def gap_lengths(gaps: pd.Series, ax=None):
    """Histogram of the gaps (s) between neighbouring segments, up to the 99th percentile."""
    ax = new_axes(ax, figsize=(WIDTH, 2.2))
    ax.hist(gaps[gaps <= gaps.quantile(0.99)], bins=40, color="#88CCEE")
    ax.axvline(0, color="#555555", linewidth=0.8)
    ax.set(xlabel="gap to the next segment (s); below 0: they overlap", ylabel="pairs of segments")
    return ax
