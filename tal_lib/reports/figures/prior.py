"""Figures that compare this study with the prior study."""

import pandas as pd

from tal_lib.reports.figures.axes import fraction_axis
from tal_lib.reports.theme import new_axes, style


def beside_prior(table: pd.DataFrame, quantity: str, label: str, ax=None):
    """A cost from this study (lines) and from the prior study (open markers, dashed).

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
            label=f"{model}, this study",
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
    """avg mAP against the fraction of training recordings, in both studies.

    This study is filled with lines, the prior study (THUMOS14) open and dashed.

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
            label=f"{model}, {benchmark}, this study",
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
    fraction_axis(ax, table)
    ax.set(ylabel="avg mAP (%)", ylim=(0, 100))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax
