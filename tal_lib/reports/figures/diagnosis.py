"""Diagnosis figures: errors, and difficult segments."""

import numpy as np
import pandas as pd

from tal_lib.evaluation.statistics import summarise
from tal_lib.reports.figures.axes import (
    coloured_matrix,
    draw_points,
    fraction_axis,
    legend_above,
    note,
    runs_note,
    with_enough_runs,
)
from tal_lib.reports.figures.families import draw_lines, finish, stacked
from tal_lib.reports.figures.labels import name_at_right
from tal_lib.reports.tables.names import short_names
from tal_lib.reports.tables.summaries import number_of_runs
from tal_lib.reports.theme import SMALL, WIDTH, new_axes

ERRORS = {  # DETAD's name → colour
    "true positive": "#009E73",
    "double detection": "#56B4E9",
    "wrong label": "#D55E00",
    "localization": "#E69F00",
    "confusion": "#CC79A7",
    "background": "#999999",
}
NAMES = "Wrong label: a classification error; confusion: wrong label and boundaries."
ANALYSES = {
    "map_n": ("normalized\nmAP (%)", "#0072B2", "o"),
    "missed": ("missed\nsegments (%)", "#D55E00", "s"),
}
SORTED_BY = {  # characteristic → in words
    "coverage": "coverage (% of the recording)",
    "length": "length (s)",
    "instances": "instances per recording",
}
MARKERS = dict(zip(ERRORS, ("P", "o", "s", "D", "^", "v")))
FEW = 30  # segments


def class_matrix(table: pd.DataFrame, about: str = "Mean over tIoUs and seeds."):
    """AP of every class (rows) by every model (columns).

    table: classes × models, in %. about: the words below, on runs and recipes.
    """
    names, classified = short_names(pd.DataFrame({"model": table.columns}))
    table = table.set_axis(names.model, axis=1)
    return coloured_matrix(
        table,
        table.map("{:.0f}".format),
        "AP (%) of every class (row) by every model (column)",
        f"{about} {classified}",
        table > 65,
        cmap="YlGnBu",
        vmin=0,
        vmax=100,
    )


def error_profile(profile: pd.DataFrame):
    """Types of errors of the best detections: one stacked bar per group of G detections; G is the number of
    annotated segments.

    profile: `bucket, error, value` (%).
    """
    table = profile.pivot_table(index="bucket", columns="error", values="value")[list(ERRORS)]
    ax = new_axes(figsize=(WIDTH, 3.0))
    bottom = np.zeros(len(table))
    for kind, colour in ERRORS.items():
        ax.bar(table.index, table[kind], bottom=bottom, color=colour, label=kind, width=0.75)
        bottom += table[kind].to_numpy()
    ax.set(xlabel="rank of the detections by score", ylabel="detections (%)", ylim=(0, 100))
    ax.set_xticks(range(len(table)), [_ranks(bucket) for bucket in table.index])
    ax.grid(axis="x", visible=False)
    legend_above(ax, 3)
    note(
        ax,
        "G: the number of annotated segments; 1 to G are the G best detections. A detector without errors "
        f"has only true positives there. {NAMES} {_means(profile)}",
    )
    return ax


def _ranks(bucket):
    """`1G` → `1 to G`; `2G` → `G to 2G`."""
    last = int(str(bucket).removesuffix("G"))
    return "1 to G" if last == 1 else f"{'' if last == 2 else last - 1}G to {last}G"


def _means(table):
    """How many runs the values of a profile are means of, as a sentence. table: one row per run and value."""
    runs = table.groupby(["bucket", "error"]).size().rename("runs").reset_index()
    if runs.runs.max() == 1:
        return "One run each, so there is no interval."
    return f"Mean of {number_of_runs(runs, 'seeds')}; parts of a bar have no interval."


def sensitivity(buckets: pd.DataFrame, whole: pd.Series):
    """Normalized mAP and missed segments by bucket of each characteristic; dashed: all segments.

    buckets: `analysis, characteristic, bucket, value` (%) and, if known, `span` (the bucket's range) and
    `segments` (their number), one row per run; whole: value by analysis.
    """
    for name, unknown in (("span", ""), ("segments", FEW)):
        buckets = buckets.assign(**{name: buckets[name].fillna(unknown) if name in buckets else unknown})
    buckets = buckets.assign(row=list(zip(buckets.characteristic, buckets.bucket)))
    ranges = buckets.groupby("row", sort=False).agg(span=("span", "first"), segments=("segments", "max"))
    place, ticks = {}, {}  # from the top, with a line for the name of a characteristic
    for (name, bucket), (span, count) in zip(ranges.index, ranges.itertuples(index=False)):
        if (name, "") not in place:
            place[name, ""] = -len(place)
            ticks[place[name, ""]] = SORTED_BY.get(name, name)
        place[name, bucket] = -len(place)
        few = f" (n = {count:g})" if count < FEW else ""
        span = _percent(span) if name == "coverage" else span
        ticks[place[name, bucket]] = f"{bucket}: {span}{few}" if span else f"{bucket}{few}"
    size = (WIDTH, 0.17 * len(place) + 1.0)
    axes = new_axes(ncols=2, sharey=True, squeeze=False, figsize=size).flat
    summary = with_enough_runs(summarise(buckets, ["analysis", "row"], "value"))
    about_runs = runs_note(summary)
    summary = summary.assign(low=summary.low.clip(lower=0), high=summary.high.clip(upper=100))
    for ax, (analysis, (label, colour, marker)) in zip(axes, ANALYSES.items(), strict=True):
        points = summary[summary.analysis == analysis]
        y = [place[row] for row in points.row]
        draw_points(ax, points, y, colour, marker, label, clip_on=False)  # whole markers at 0 and 100
        ax.axvline(whole[analysis], color=colour, linestyle="--", linewidth=0.8)
        ax.set(xlabel=label, xlim=(0, None if analysis == "missed" else 104), ylim=(-len(place), 1))
    axes[0].set_yticks(list(ticks), list(ticks.values()), fontsize=SMALL)
    for text in axes[0].get_yticklabels():
        text.set_fontweight("bold" if text.get_text() in SORTED_BY.values() else "normal")
    few = " n: number of segments, where few." if (ranges.segments < FEW).any() else ""
    fifths = "XS to XL: fifths of the segments, where equal values stay together."
    note(axes[0], f"{fifths} Dashed: all segments. {about_runs}{few}")
    return axes[0]


def _percent(span):
    """A range of shares in %: `0.00526–0.0116` → `0.53–1.2`."""
    return "–".join(f"{100 * float(end):.2g}" for end in span.split("–")) if span else span


def errors_by_fraction(table: pd.DataFrame, first: str = ""):
    """Errors among the G best detections by label fraction, mean over models, with intervals over seeds.

    table: `fraction, error, value` (%), one row per seed; optionally `models`, their number. first: words
    that the note begins with.
    """
    summary = with_enough_runs(summarise(table, ["error", "fraction"], "value"))
    summary = summary.rename(columns={"fraction": "x", "mean": "y"})
    lines = {kind: rows.sort_values("x") for kind, rows in summary.groupby("error") if kind in ERRORS}
    looks = {kind: (colour, "o") for kind, colour in list(ERRORS.items())[1:] if kind in lines}
    axes = stacked(1, 2.5)
    draw_lines(axes[0], {label: lines[label] for label in looks}, looks)
    fraction_axis(axes[0], table)
    axes[0].set_ylim(0, None)
    ends = {label: (lines[label].x.iloc[-1], lines[label].y.iloc[-1]) for label in looks}
    name_at_right(axes[0], ends, {label: colour for label, (colour, _) in looks.items()})
    models = f"Mean over {table.models.max():g} models. " if "models" in table else "Mean over models. "
    finish(
        axes,
        "label fraction (% of the training recordings, log scale)",
        "G best detections with this error (%)",
        f"{first}{models}Errors among the G best detections; G: number of annotated segments. {NAMES} "
        f"{runs_note(summary)}",
    )
    return axes[0]


def error_impact(table: pd.DataFrame):
    """Points of avg mAP gained without each type of error: a row per model, the largest gains at the bottom.

    Each type is taken away alone. Gains do not add up, so they are points, not parts of a bar.

    table: `model, error, value`, one row per run.
    """
    table, classified = short_names(table)
    summary = with_enough_runs(summarise(table, ["model", "error"], "value"))
    cut = " Bars are cut at 0." * bool((summary.low < 0).any())
    summary = summary.assign(low=summary.low.clip(lower=0))
    about_runs = runs_note(summary) + cut
    models = summary.groupby("model")["mean"].sum().sort_values(ascending=False).index
    kinds = [kind for kind in ERRORS if (summary.error == kind).any()]
    ax = new_axes(figsize=(WIDTH, 0.34 * len(models) + 1.5))
    for index, kind in enumerate(kinds):
        rows = summary[summary.error == kind]
        offset = 0.3 * (1 - 2 * index / (len(kinds) - 1)) if len(kinds) > 1 else 0.0
        y = models.get_indexer(rows.model) + offset
        draw_points(ax, rows, y, ERRORS[kind], MARKERS[kind], kind, markersize=3.5)
    for row in range(1, len(models)):
        ax.axhline(row - 0.5, color="#dddddd", linewidth=0.6, zorder=0)
    ax.set_yticks(range(len(models)), models)
    ax.set(xlabel="gain of avg mAP without these errors (points)", xlim=(0, None))
    ax.set_ylim(-0.6, len(models) - 0.4)
    ax.grid(axis="y", visible=False)
    legend_above(ax, 3)
    note(ax, f"Errors by DETAD, each type taken away alone. {NAMES} {about_runs} {classified}")
    return ax
