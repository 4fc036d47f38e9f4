"""Diagnosis figures: errors, and difficult segments."""

import numpy as np
import pandas as pd

from tal_lib.reports.figures.axes import coloured_matrix, fraction_axis
from tal_lib.reports.theme import new_axes

ERRORS = {
    "true positive": "#009E73",
    "double detection": "#56B4E9",
    "wrong label": "#D55E00",
    "localization": "#E69F00",
    "confusion": "#CC79A7",
    "background": "#999999",
}


def class_matrix(table: pd.DataFrame, ax=None):
    """AP of every class (rows) by every model (columns). table: classes × models, in %."""
    ax = new_axes(ax, figsize=(6.4, 0.26 * len(table) + 1.6))
    return coloured_matrix(
        ax,
        table,
        table.map("{:.0f}".format),
        "AP, mean over tIoUs (%)",
        table > 65,
        cmap="YlGnBu",
        vmin=0,
        vmax=100,
    )


def error_profile(profile: pd.DataFrame, ax=None):
    """Error kinds of the best detections: one stacked bar per group of G detections.

    profile: `bucket, error, value` (%).
    """
    table = profile.pivot(index="bucket", columns="error", values="value")[list(ERRORS)]
    ax = new_axes(ax, figsize=(5.6, 2.8))
    bottom = np.zeros(len(table))
    for kind, colour in ERRORS.items():
        ax.bar(table.index, table[kind], bottom=bottom, color=colour, label=kind, width=0.75)
        bottom += table[kind].to_numpy()
    ax.set(
        xlabel="best detections, in groups of G (annotated segments)", ylabel="detections (%)", ylim=(0, 100)
    )
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
        values = rows.pivot(index="bucket", columns="analysis", values="value").loc[
            list(dict.fromkeys(rows.bucket))
        ]
        x = place + np.arange(len(values))
        ax.plot(
            x,
            values.map_n,
            color="#0072B2",
            marker="o",
            markersize=4,
            label=None if place else "normalized mAP",
        )
        ax.plot(
            x, values.missed, color="#D55E00", marker="s", markersize=4, label=None if place else "missed"
        )
        ax.text(x.mean(), 1.02, name, transform=ax.get_xaxis_transform(), ha="center", fontsize="small")
        ticks, labels, place = [*ticks, *x], [*labels, *values.index], x[-1] + 2
    for analysis, colour in (("map_n", "#0072B2"), ("missed", "#D55E00")):
        ax.axhline(whole[analysis], color=colour, linestyle="--", linewidth=0.7)
    ax.set_xticks(ticks, labels)
    ax.set(ylabel="mAP, or missed segments (%)", ylim=(0, 102))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax


def errors_by_fraction(table: pd.DataFrame, ax=None):
    """Errors among the G best detections by fraction of the training recordings, mean over models.

    table: `fraction, error, value` (%).
    """
    ax = new_axes(ax, figsize=(5.6, 3.0))
    for kind, colour in list(ERRORS.items())[1:]:
        rows = table[table.error == kind].sort_values("fraction")
        ax.plot(rows.fraction, rows.value, color=colour, marker="o", markersize=4, label=kind)
    fraction_axis(ax, table)
    ax.set(ylabel="fraction of the G best detections (%)", ylim=(0, None))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax


def error_impact(table: pd.DataFrame, ax=None):
    """Points of avg mAP gained without each kind of error: one stacked bar per model, largest at the bottom.

    table: `model, error, value`.
    """
    wide = table.pivot(index="model", columns="error", values="value").clip(lower=0)
    wide = wide.loc[
        wide.sum(axis=1).sort_values(ascending=False).index, [kind for kind in ERRORS if kind in wide]
    ]
    ax = new_axes(ax, figsize=(5.6, 0.24 * len(wide) + 0.9))
    left = np.zeros(len(wide))
    for kind in wide:
        ax.barh(wide.index, wide[kind], left=left, color=ERRORS[kind], label=kind)
        left += wide[kind].to_numpy()
    ax.set(xlabel="gain of avg mAP without these errors (points)")
    ax.grid(axis="y", visible=False)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax
