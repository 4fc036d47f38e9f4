"""Accuracy figures: learning curves, comparisons, recall, unseen classes, variants."""

import numpy as np
import pandas as pd

from tal_lib.reports.figures.axes import (
    VARIANTS,
    coloured_matrix,
    draw_points,
    fraction_axis,
    legend_beside,
    space_by_what_is_missing,
)
from tal_lib.reports.figures.families import MOST, family_panels
from tal_lib.reports.tables.summaries import SHOWN_VARIANT, split_name
from tal_lib.reports.theme import new_axes, style


def data_efficiency(summary: pd.DataFrame, ax=None):
    """avg mAP against the fraction of training recordings, with 95 % intervals; many models have a panel per
    family.

    summary: `model, fraction, mean, low, high` (in %), one benchmark.
    """
    if ax is None and summary.model.nunique() > MOST:
        names = {"fraction": "x", "mean": "y"}
        ordered = summary.sort_values("fraction")[["model", *names, "low", "high"]].rename(columns=names)
        lines = {str(model): rows for model, rows in ordered.groupby("model", sort=False)}

        def prepare(ax):
            fraction_axis(ax, summary, apart=1.4)
            space_by_what_is_missing(ax, summary)
            ax.set(xlabel="label fraction (%)", ylabel="")

        return family_panels(lines, prepare, "avg mAP (%), log scale of 100 − avg mAP")
    ax = new_axes(ax, figsize=(5.6, 3.6))
    for model, rows in summary.sort_values("fraction").groupby("model", sort=False):
        colour, marker = style(model)
        ax.plot(
            rows.fraction, rows["mean"], marker=marker, color=colour, label=model, markersize=4, linewidth=1.3
        )
        ax.fill_between(rows.fraction, rows.low, rows.high, color=colour, alpha=0.15, linewidth=0)
    fraction_axis(ax, summary)
    space_by_what_is_missing(ax, summary)
    legend_beside(ax, summary.groupby("model")["mean"].last())
    return ax


def probability_matrix(matrix: pd.DataFrame, ax=None):
    """Probability that a run of the row's model beats a run of the column's.

    matrix: models × models, best first, NaN on the diagonal.
    """
    ax = new_axes(ax, figsize=(6.4, 5.6))
    texts = matrix.map(
        lambda value: "" if value != value else f"{value:.2f}".lstrip("0") if value < 1 else "1"
    )
    return coloured_matrix(
        ax,
        matrix,
        texts,
        "P(row better than column)",
        matrix.map(lambda value: abs(value - 0.5) > 0.35),
        cmap="RdBu",
        vmin=0,
        vmax=1,
    )


def map_by_tiou(table: pd.DataFrame, ax=None):
    """mAP at each tIoU. table: `model, tiou, map` (in %), averaged over runs."""
    ax = new_axes(ax, figsize=(5.6, 3.2))
    for place, (model, rows) in enumerate(table.groupby("model", sort=False)):
        colour, marker = style(model, place)
        rows = rows.groupby("tiou")["map"].mean()
        ax.plot(rows.index, rows, marker=marker, color=colour, label=model, markersize=4)
    ax.set(xlabel="tIoU", ylabel="mAP (%)", ylim=(0, 100), xticks=sorted(table.tiou.unique()))
    legend_beside(ax, table.groupby("model")["map"].mean())
    return ax


def average_recall(table: pd.DataFrame, ax=None):
    """Average recall against the number of proposals per recording.

    table: `model, an, ar` (in %), averaged over runs.
    """
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
    ax.set(xlabel="proposals per recording (AN)", ylabel="average recall (%)", ylim=(0, 100))
    legend_beside(ax, table.groupby("model").ar.max())
    return ax


def open_set(summary: pd.DataFrame, ax=None):
    """mAP of zero-shot classes, compared with wrong names and with the seen classes; 95 % intervals over
    splits.

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
        part_rows = rows[rows.part == part]
        if len(part_rows):  # the legend lacks arms that were not run
            draw_points(
                ax, part_rows, [names.index(row) + offset for row in part_rows.row], colour, marker, part
            )
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel="avg mAP (%)", xlim=(0, None))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax


def variants(summary: pd.DataFrame, ax=None):
    """Variants of each model side by side: avg mAP with its interval.

    summary: `model, variant, mean, low, high` (in %).
    """
    order = summary.groupby("model")["mean"].max().sort_values()
    kinds = list(dict.fromkeys(summary.variant))
    ax = new_axes(ax, figsize=(5.6, (0.32 if len(order) > 1 else 0.9) * len(order) + 1.0))
    for index, kind in enumerate(kinds):
        variant_rows = summary[summary.variant == kind]
        spread = 0.18 if len(order) > 1 else 0.3
        y = [
            order.index.get_loc(model) + spread * (1 - 2 * index / max(1, len(kinds) - 1))
            for model in variant_rows.model
        ]
        colour, marker = VARIANTS[index % len(VARIANTS)]
        draw_points(ax, variant_rows, y, colour, marker, SHOWN_VARIANT.get(kind, kind))
    ax.set(
        yticks=range(len(order)), yticklabels=order.index, xlabel="avg mAP (%)", ylim=(-0.6, len(order) - 0.4)
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax
