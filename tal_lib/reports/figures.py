"""The figures: tidy table in, axes out; one small function each."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from tal_lib.reports.tables import split_name
from tal_lib.reports.theme import new_axes, style


def loss_curve(history: pd.DataFrame, ax=None):
    """Training loss by epoch. history: `epoch, total`."""
    ax = new_axes(ax, figsize=(5.6, 2.4))
    ax.plot(history.epoch, history.total, color="#0072B2")
    ax.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    return ax


def ap_by_class(table: pd.DataFrame, ax=None):
    """Mean AP over the tIoUs of each class, worst at the bottom. table: `label, tiou, ap`."""
    means = 100 * table.groupby("label").ap.mean().sort_values()
    ax = new_axes(ax, figsize=(5.6, 0.22 * len(means) + 0.8))
    ax.barh(means.index, means, color="#56B4E9")
    ax.set(xlabel="average precision, mean over tIoUs (%)", xlim=(0, 100))
    ax.grid(axis="y", visible=False)
    return ax


def timeline(
    annotations: pd.DataFrame, detections: pd.DataFrame, duration: float, min_score: float = 0.3, ax=None
):
    """One recording: annotated segments (upper half of a row) over detections (lower half, opacity is the score)."""
    labels = sorted(
        set(annotations.label) | set(detections[detections.score >= min_score].label), reverse=True
    )
    row = {label: i for i, label in enumerate(labels)}
    ax = new_axes(ax, figsize=(5.6, 0.25 * max(2, len(labels)) + 0.8))
    for item in annotations.itertuples():
        ax.barh(row[item.label] + 0.2, item.end - item.start, left=item.start, height=0.35, color="#555555")
    for item in detections[detections.score >= min_score].itertuples():
        ax.barh(
            row[item.label] - 0.2,
            item.end - item.start,
            left=item.start,
            height=0.35,
            color="#D55E00",
            alpha=float(min(1.0, max(0.15, item.score))),
        )
    ax.set(yticks=range(len(labels)), yticklabels=labels, xlabel="time (s)", xlim=(0, duration))
    ax.set_title(f"annotated (grey) and detected with score ≥ {min_score:g} (orange)", fontsize="medium")
    return ax


def segment_lengths(annotations: pd.DataFrame, ax=None):
    """Durations of the annotated segments by class."""
    table = annotations.assign(seconds=annotations.end - annotations.start)
    order = table.groupby("label").seconds.median().sort_values().index
    ax = new_axes(ax, figsize=(5.6, 0.22 * len(order) + 0.8))
    sns.boxplot(
        table, x="seconds", y="label", order=order, ax=ax, color="#88CCEE", fliersize=2, linewidth=0.8
    )
    ax.set(xlabel="segment duration (s)", ylabel="", xscale="log")
    _plain_log(ax.xaxis)
    return ax


def data_efficiency(summary: pd.DataFrame, ax=None):
    """avg mAP against the fraction of training recordings, 95 % intervals as bands.

    summary: `model, fraction, mean, low, high` (in %), one benchmark.
    """
    ax = new_axes(ax, figsize=(5.6, 3.6))
    for model, rows in summary.sort_values("fraction").groupby("model", sort=False):
        colour, marker = style(model)
        ax.plot(
            rows.fraction, rows["mean"], marker=marker, color=colour, label=model, markersize=4, linewidth=1.3
        )
        ax.fill_between(rows.fraction, rows.low, rows.high, color=colour, alpha=0.15, linewidth=0)
    _fractions(ax, summary)
    _spaced_by_what_is_missing(ax, summary)
    _legend(ax, summary.groupby("model")["mean"].last())
    return ax


def _spaced_by_what_is_missing(ax, table):
    """A y axis of avg mAP on which halving what is missing to 100 is always the same way up: the best are told apart.

    table: `mean, low, high`, the intervals perhaps NaN.
    """
    beyond = 101.0  # so that 100 itself has a place
    low, high = table.low.fillna(table["mean"]).min(), table.high.fillna(table["mean"]).max()
    ax.set_yscale(
        "function",
        functions=(lambda y: -np.log(np.clip(beyond - y, 1e-9, None)), lambda z: beyond - np.exp(-z)),
    )
    missing = beyond - low, beyond - high
    room = (missing[0] / missing[1]) ** 0.04
    ax.set_ylim(max(0, beyond - missing[0] * room), min(100, beyond - missing[1] / room))
    least, ticks = np.log(missing[0] / missing[1]) / 12, []
    for tick in (0, 20, 40, 50, 60, 70, 75, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99, 100):
        if ax.get_ylim()[0] <= tick <= ax.get_ylim()[1] and (
            not ticks or np.log((beyond - ticks[-1]) / (beyond - tick)) >= least
        ):
            ticks.append(tick)
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set(ylabel="avg mAP (%), log of the error")
    ax.minorticks_off()


def _fractions(ax, table):
    """The x axis of shares of the training recordings."""
    ticks = sorted(table.fraction.unique())
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{100 * tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="training recordings used (%)")


def probability_matrix(matrix: pd.DataFrame, ax=None):
    """Probability that a run of the row's model beats one of the column's. matrix: models × models, best first, NaN on the diagonal."""
    ax = new_axes(ax, figsize=(6.4, 5.6))
    texts = matrix.map(
        lambda value: "" if value != value else f"{value:.2f}".lstrip("0") if value < 1 else "1"
    )
    return _matrix(
        ax,
        matrix,
        texts,
        "P(row better than column)",
        matrix.map(lambda value: abs(value - 0.5) > 0.35),
        cmap="RdBu",
        vmin=0,
        vmax=1,
    )


def class_matrix(table: pd.DataFrame, ax=None):
    """AP of every class (rows) by every model (columns). table: classes × models, in %."""
    ax = new_axes(ax, figsize=(6.4, 0.26 * len(table) + 1.6))
    return _matrix(
        ax,
        table,
        table.map("{:.0f}".format),
        "AP, mean over tIoUs (%)",
        table > 65,
        cmap="YlGnBu",
        vmin=0,
        vmax=100,
    )


def _matrix(ax, table, texts, label, dark, **colours):
    """A table as coloured squares with their values; `dark`: where the text is to be white."""
    picture = ax.imshow(table.to_numpy(), aspect="auto", **colours)
    for (row, column), text in np.ndenumerate(texts.to_numpy()):
        ax.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=6,
            color="white" if dark.iat[row, column] else "black",
        )
    ax.set_xticks(range(table.shape[1]), table.columns, rotation=45, ha="right", fontsize=7)
    ax.set_yticks(range(len(table)), table.index, fontsize=7)
    ax.grid(visible=False)
    ax.figure.colorbar(picture, ax=ax, shrink=0.6, label=label)
    return ax


def map_by_tiou(table: pd.DataFrame, ax=None):
    """mAP at each tIoU. table: `model, tiou, map` (in %), averaged over runs."""
    ax = new_axes(ax, figsize=(5.6, 3.2))
    for place, (model, rows) in enumerate(table.groupby("model", sort=False)):
        colour, marker = style(model, place)
        rows = rows.groupby("tiou")["map"].mean()
        ax.plot(rows.index, rows, marker=marker, color=colour, label=model, markersize=4)
    ax.set(xlabel="tIoU", ylabel="mAP (%)", ylim=(0, 100), xticks=sorted(table.tiou.unique()))
    _legend(ax, table.groupby("model")["map"].mean())
    return ax


def average_recall(table: pd.DataFrame, ax=None):
    """Average recall against the number of proposals a recording. table: `model, an, ar` (in %), averaged over runs."""
    ax = new_axes(ax, figsize=(5.6, 3.4))
    for model, rows in table.groupby("model", sort=False):
        colour, marker = style(model)
        rows = rows.groupby("an").ar.mean()
        ax.plot(
            rows.index,
            rows,
            marker=marker if len(rows) < 20 else None,
            color=colour,
            label=model,
            markersize=4,
        )
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100) if tick in set(table.an)]
    ax.set_xscale("log")
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="proposals a recording (AN)", ylabel="average recall (%)", ylim=(0, 100))
    _legend(ax, table.groupby("model").ar.max())
    return ax


def open_set(summary: pd.DataFrame, ax=None):
    """Unseen classes found by name, beside what wrong names give and what the seen classes reach; 95 % intervals over splits.

    summary: `seen, model, part, mean, low, high` (in %), one benchmark and fraction.
    """
    rows = summary.sort_values(["seen", "model"], ascending=[True, False])
    rows = rows.assign(row=[f"{model}, {split_name(seen)}" for seen, model in zip(rows.seen, rows.model)])
    names = list(dict.fromkeys(rows.row))
    ax = new_axes(ax, figsize=(5.6, 0.5 * len(names) + 1.0))
    looks = {
        "unseen": ("#D55E00", "o"),
        "unseen, all names": ("#E69F00", "D"),
        "unseen, wrong names": ("#777777", "x"),
        "unseen, trained with wrong names": ("#000000", "+"),
        "seen, all names": ("#56B4E9", "s"),
    }
    for offset, (part, (colour, marker)) in zip(np.linspace(0.24, -0.24, len(looks)), looks.items()):
        mine = rows[rows.part == part]
        if len(mine):  # an arm that was not run is not in the legend either
            _points(ax, mine, [names.index(row) + offset for row in mine.row], colour, marker, part)
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel="avg mAP (%)", xlim=(0, None))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax


def variants(summary: pd.DataFrame, ax=None):
    """Variants of each model side by side: avg mAP with its interval. summary: `model, variant, mean, low, high` (in %)."""
    order = summary.groupby("model")["mean"].max().sort_values()
    kinds = list(dict.fromkeys(summary.variant))
    ax = new_axes(ax, figsize=(5.6, (0.32 if len(order) > 1 else 0.9) * len(order) + 1.0))
    for index, kind in enumerate(kinds):
        mine = summary[summary.variant == kind]
        spread = 0.18 if len(order) > 1 else 0.3
        y = [
            order.index.get_loc(model) + spread * (1 - 2 * index / max(1, len(kinds) - 1))
            for model in mine.model
        ]
        colour, marker = _VARIANTS[index % len(_VARIANTS)]
        _points(ax, mine, y, colour, marker, kind)
    ax.set(
        yticks=range(len(order)), yticklabels=order.index, xlabel="avg mAP (%)", ylim=(-0.6, len(order) - 0.4)
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax


_VARIANTS = [
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#000000", "D"),
    ("#CC79A7", "v"),
    ("#E69F00", "P"),
]


def _points(ax, rows, y, colour, marker, label):
    """Means with horizontal intervals; none where there was one run."""
    error = np.stack([rows["mean"] - rows.low, rows.high - rows["mean"]])
    ax.errorbar(
        rows["mean"],
        y,
        xerr=np.nan_to_num(error),
        color=colour,
        marker=marker,
        markersize=4.5,
        linestyle="none",
        linewidth=1,
        label=label,
    )


def cost_against_length(table: pd.DataFrame, value: str, label: str, ax=None):
    """A cost against the recording length, both axes logarithmic. table: `model, length_steps, <value>`."""
    ax = new_axes(ax, figsize=(5.6, 3.4))
    table = table.dropna(subset=[value])
    for model, rows in table.sort_values("length_steps").groupby("model", sort=False):
        colour, marker = style(model)
        rows = rows.groupby("length_steps")[value].median()
        ax.plot(rows.index, rows, marker=marker, color=colour, label=model, markersize=4)
    ax.set(xscale="log", yscale="log", xlabel="recording length (steps)", ylabel=label)
    ticks = []
    for length in sorted(table.length_steps.unique()):
        if not ticks or length >= 1.3 * ticks[-1]:  # lengths that lie closer would be written over each other
            ticks.append(length)
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=30 if len(ticks) > 6 else 0)
    ax.xaxis.set_minor_locator(NullLocator())
    _plain_log(ax.yaxis)
    _legend(ax, table.sort_values("length_steps").groupby("model")[value].last())
    return ax


def inference_length(table: pd.DataFrame, ax=None):
    """avg mAP against the time for an hour of recording, a mark a window size, a line an overlap.

    table: `window, overlap` (steps; window 0 is the whole recording), `avg_map` (%), `seconds_per_hour`.
    """
    ax = new_axes(ax, figsize=(5.6, 3.2))
    windows = table[table.window > 0]
    shares = (windows.overlap / windows.window).round(2)
    for index, (share, rows) in enumerate(windows.groupby(shares)):
        colour, marker = _VARIANTS[index % len(_VARIANTS)]
        rows = rows.sort_values("window")
        ax.plot(
            rows.seconds_per_hour,
            rows.avg_map,
            marker=marker,
            color=colour,
            markersize=4.5,
            linewidth=0.9,
            label=f"windows, {100 * share:g} % overlap",
        )
        for row in rows.itertuples():
            ax.annotate(
                f"{row.window:g}",
                (row.seconds_per_hour, row.avg_map),
                xytext=(4, -9),
                textcoords="offset points",
                fontsize=7,
                color=colour,
            )
    whole = table[table.window == 0]
    ax.plot(
        whole.seconds_per_hour,
        whole.avg_map,
        marker="*",
        color="#000000",
        markersize=10,
        linestyle="none",
        label="whole recording",
    )
    ax.set(xlabel="seconds for an hour of recording", ylabel="avg mAP (%)", xscale="log")
    _plain_log(ax.xaxis)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax


def window_accuracy(table: pd.DataFrame, ax=None):
    """avg mAP by the window that a model is run on, with half-overlapping windows; at the right the whole recording.

    table: `model, window, overlap, avg_map` (%); window 0 is the whole recording.
    """
    ax = new_axes(ax, figsize=(5.6, 3.4))
    windows = sorted(set(table.window) - {0})
    for place, (model, rows) in enumerate(table.groupby("model", sort=False)):
        colour, marker = style(model, place)
        rows = rows[(rows.window == 0) | ((rows.overlap / rows.window.clip(lower=1)).round(2) == 0.5)]
        rows = rows.groupby("window").avg_map.mean()
        order = [*(window for window in windows if window in rows.index), 0]
        at = [len(windows) if window == 0 else windows.index(window) for window in order]
        ax.plot(at, rows.loc[order], marker=marker, color=colour, label=model, markersize=4, linewidth=1.2)
    ax.set_xticks(range(len(windows) + 1), [*(f"{window:g}" for window in windows), "whole"])
    ax.set(xlabel="window (steps), neighbours overlap by half", ylabel="avg mAP (%)")
    _legend(ax, table[table.window == 0].groupby("model").avg_map.mean())
    return ax


def beside_prior(table: pd.DataFrame, quantity: str, label: str, ax=None):
    """A cost as measured here (lines) and by the prior study (open marks, dashed).

    table: `model, length_steps, <quantity>, our_<quantity>`.
    """
    ax = new_axes(ax, figsize=(5.6, 3.4))
    for model, rows in table.sort_values("length_steps").groupby("model", sort=False):
        colour, marker = style(model)
        ax.plot(
            rows.length_steps,
            rows[f"our_{quantity}"],
            color=colour,
            marker=marker,
            markersize=3.5,
            linewidth=1.3,
            label=f"{model}, here",
        )
        theirs = rows.dropna(subset=[quantity])
        ax.plot(
            theirs.length_steps,
            theirs[quantity],
            color=colour,
            marker=marker,
            markerfacecolor="none",
            markersize=5,
            linestyle="--",
            linewidth=0.8,
            label=f"{model}, prior study",
        )
    ax.set(xlabel="recording length (steps)", ylabel=label, ylim=(0, None))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax


def curves_beside_prior(table: pd.DataFrame, benchmark: str, ax=None):
    """avg mAP against the share of training recordings: here (filled, lines) and in the prior study (open, dashed; THUMOS14).

    table: `model, fraction, map, ours` (in %).
    """
    ax = new_axes(ax, figsize=(6.8, 3.4))
    for model, rows in table.sort_values("fraction").groupby("model", sort=False):
        colour, marker = style(model)
        ax.plot(
            rows.fraction,
            rows.ours,
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.3,
            label=f"{model}, {benchmark}, here",
        )
        ax.plot(
            rows.fraction,
            rows["map"],
            color=colour,
            marker=marker,
            markerfacecolor="none",
            markersize=5,
            linestyle="--",
            linewidth=0.8,
            label=f"{model}, THUMOS14, prior study",
        )
    _fractions(ax, table)
    ax.set(ylabel="avg mAP (%)", ylim=(0, 100))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax


def changes(table: pd.DataFrame, ax=None):
    """What each variant changes, with its interval, a marker a fraction.

    table: `variant, fraction, difference, difference_low, difference_high`.
    """
    names = list(dict.fromkeys(table.variant))[::-1]
    fractions = sorted(table.fraction.unique())
    ax = new_axes(ax, figsize=(6.4, 0.34 * len(names) + 1.0))
    for offset, fraction, (colour, marker) in zip(
        np.linspace(0.2, -0.2, len(fractions)), fractions, _VARIANTS
    ):
        mine = table.loc[
            table.fraction == fraction, ["variant", "difference", "difference_low", "difference_high"]
        ]
        mine = mine.set_axis(["variant", "mean", "low", "high"], axis=1)
        _points(
            ax,
            mine,
            [names.index(name) + offset for name in mine.variant],
            colour,
            marker,
            f"{100 * fraction:g} %",
        )
    ax.axvline(0, color="#999999", linewidth=0.8, zorder=0)
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel="change of avg mAP (points)")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", title="recordings")
    return ax


_ERRORS = {
    "true positive": "#009E73",
    "double detection": "#56B4E9",
    "wrong label": "#D55E00",
    "localization": "#E69F00",
    "confusion": "#CC79A7",
    "background": "#999999",
}


def error_profile(profile: pd.DataFrame, ax=None):
    """What the best detections are: a bar a group of G, stacked by kind. profile: `bucket, error, value` (%)."""
    table = profile.pivot(index="bucket", columns="error", values="value")[list(_ERRORS)]
    ax = new_axes(ax, figsize=(5.6, 2.8))
    bottom = np.zeros(len(table))
    for kind, colour in _ERRORS.items():
        ax.bar(table.index, table[kind], bottom=bottom, color=colour, label=kind, width=0.75)
        bottom += table[kind].to_numpy()
    ax.set(xlabel="best detections, in groups of the G annotated segments", ylabel="share (%)", ylim=(0, 100))
    ax.grid(axis="x", visible=False)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", reverse=True)
    return ax


def sensitivity(buckets: pd.DataFrame, whole: pd.Series, ax=None):
    """Normalized mAP and missed segments by bucket of each characteristic; dashed: all segments.

    buckets: `analysis, characteristic, bucket, value` (%); whole: value by analysis.
    """
    ax = new_axes(ax, figsize=(6.4, 2.8))
    ticks, labels, place = [], [], 0
    for name, rows in buckets.groupby("characteristic", sort=False):
        mine = rows.pivot(index="bucket", columns="analysis", values="value").loc[
            list(dict.fromkeys(rows.bucket))
        ]
        x = place + np.arange(len(mine))
        ax.plot(
            x,
            mine.map_n,
            color="#0072B2",
            marker="o",
            markersize=4,
            label=None if place else "normalized mAP",
        )
        ax.plot(x, mine.missed, color="#D55E00", marker="s", markersize=4, label=None if place else "missed")
        ax.text(x.mean(), 1.02, name, transform=ax.get_xaxis_transform(), ha="center", fontsize="small")
        ticks, labels, place = [*ticks, *x], [*labels, *mine.index], x[-1] + 2
    for analysis, colour in (("map_n", "#0072B2"), ("missed", "#D55E00")):
        ax.axhline(whole[analysis], color=colour, linestyle="--", linewidth=0.7)
    ax.set_xticks(ticks, labels)
    ax.set(ylabel="%", ylim=(0, 102))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax


def errors_by_fraction(table: pd.DataFrame, ax=None):
    """Errors among the G best detections by share of training recordings, mean over models. table: `fraction, error, value` (%)."""
    ax = new_axes(ax, figsize=(5.6, 3.0))
    for kind, colour in list(_ERRORS.items())[1:]:
        rows = table[table.error == kind].sort_values("fraction")
        ax.plot(rows.fraction, rows.value, color=colour, marker="o", markersize=4, label=kind)
    _fractions(ax, table)
    ax.set(ylabel="share of the G best detections (%)", ylim=(0, None))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax


def error_impact(table: pd.DataFrame, ax=None):
    """Points of avg mAP won without each kind of error, stacked, a bar a model, most at the bottom. table: `model, error, value`."""
    wide = table.pivot(index="model", columns="error", values="value").clip(lower=0)
    wide = wide.loc[
        wide.sum(axis=1).sort_values(ascending=False).index, [kind for kind in _ERRORS if kind in wide]
    ]
    ax = new_axes(ax, figsize=(5.6, 0.24 * len(wide) + 0.9))
    left = np.zeros(len(wide))
    for kind in wide:
        ax.barh(wide.index, wide[kind], left=left, color=_ERRORS[kind], label=kind)
        left += wide[kind].to_numpy()
    ax.set(xlabel="avg mAP won without these errors (points)")
    ax.grid(axis="y", visible=False)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax


def speed_and_loss(table: pd.DataFrame, ax=None):
    """mAP lost against times as fast as float32, a mark a variant and model. table: `variant, speedup, map_lost` and perhaps `model`."""
    ax = new_axes(ax, figsize=(5.6, 3.0))
    for index, (variant, rows) in enumerate(table.groupby("variant", sort=False)):
        colour, marker = _VARIANTS[index % len(_VARIANTS)]
        ax.plot(
            rows.speedup,
            rows.map_lost,
            marker=marker,
            color=colour,
            linestyle="none",
            markersize=5,
            label=variant,
            markerfacecolor="none" if index >= len(_VARIANTS) else colour,
        )
    ax.axvline(1, color="#999999", linewidth=0.8, zorder=0)
    ax.axhline(0, color="#999999", linewidth=0.8, zorder=0)
    ax.set(xscale="log", xlabel="times as fast as float32", ylabel="avg mAP lost (points)")
    _plain_log(ax.xaxis)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax


def accuracy_over_time(curve: pd.DataFrame, ax=None):
    """avg mAP against the seconds trained so far; a line a model, the mean over its seeds. curve: `model, epoch, seconds, map` (in %)."""
    ax = new_axes(ax, figsize=(5.6, 3.6))
    for place, (model, rows) in enumerate(curve.groupby("model", sort=False)):
        colour, marker = style(model, place)
        rows = rows.groupby("epoch")[["seconds", "map"]].mean()
        ax.plot(
            rows.seconds, rows["map"], marker=marker, color=colour, label=model, markersize=3.5, linewidth=1.2
        )
    ax.set(xlabel="training time (s)", ylabel="avg mAP (%)", ylim=(0, 100), xscale="log")
    _plain_log(ax.xaxis)
    _legend(ax, curve.groupby("model")["map"].last())
    return ax


def accuracy_against_cost(table: pd.DataFrame, cost: str, label: str, ax=None):
    """avg mAP with its interval against a cost; the front of models that no other beats in both is drawn as a line.

    table: `model, mean, low, high` (in %), the cost column, and perhaps its own interval `cost_low, cost_high`.
    """
    ax = new_axes(ax, figsize=(5.6, 3.6))
    for row in table.itertuples():
        colour, marker = style(row.model)
        x, y = getattr(row, cost), row.mean
        across = [[x - row.cost_low], [row.cost_high - x]] if "cost_low" in table else None
        ax.errorbar(
            x,
            y,
            yerr=[[y - row.low], [row.high - y]],
            xerr=across,
            color=colour,
            marker=marker,
            capsize=2,
            linestyle="none",
            label=row.model,
        )
    front = pareto_front(table[cost].to_numpy(), table["mean"].to_numpy())
    line = table[front].sort_values(cost)
    ax.plot(line[cost], line["mean"], color="#999999", linewidth=0.8, zorder=0)
    ax.set(xscale="log", xlabel=label)
    _spaced_by_what_is_missing(ax, table)
    _plain_log(ax.xaxis)
    _legend(ax, table.set_index("model")["mean"])
    return ax


def pareto_front(cost: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Which points (N,) no other point beats: less cost and no less gain, or more gain at no more cost."""
    beaten = (
        (cost[None] <= cost[:, None])
        & (gain[None] >= gain[:, None])
        & ((cost[None] < cost[:, None]) | (gain[None] > gain[:, None]))
    ).any(1)
    return ~beaten


def _plain_log(axis):
    """Ticks 1, 2, 5, 10, … written as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(ax, final: pd.Series):
    """Legend beside the axes, in the order in which the lines end."""
    handles, labels = ax.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: -float(final.get(labels[i], 0)))
    ax.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        fontsize="small",
    )
