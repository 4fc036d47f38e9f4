"""Axes, legends and marks that several figures share."""

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

VARIANTS = [
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#000000", "D"),
    ("#CC79A7", "v"),
    ("#E69F00", "P"),
]


def space_by_what_is_missing(ax, table):
    """Scale a y axis of avg mAP so that halving the gap to 100 always has the same height.

    This separates the best models. table: `mean, low, high`; the intervals may be NaN.
    """
    beyond = 101.0  # so that 100 has a finite place
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
    ax.set(ylabel="avg mAP (%), log scale of 100 − avg mAP")
    ax.minorticks_off()


def spread_ticks(values, apart: float) -> list:
    """The values, sorted, without those that are less than `apart` times their predecessor."""
    ticks: list = []
    for value in sorted(values):
        if not ticks or value >= apart * ticks[-1]:
            ticks.append(value)
    return ticks


def fraction_axis(ax, table, apart: float = 1.0):
    """Set the x axis to fractions of the training recordings. `apart`: see `spread_ticks`."""
    ticks = spread_ticks(table.fraction.unique(), apart)
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{100 * tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel="label fraction (% of training recordings)")


def coloured_matrix(ax, table, texts, label, dark, **colours):
    """Draw a table as coloured squares with their values. `dark`: the cells with white text."""
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


def draw_points(ax, rows, y, colour, marker, label):
    """Draw means with horizontal intervals. A single run has no interval."""
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


def plain_log(axis):
    """Ticks 1, 2, 5, 10, … written as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def legend_beside(ax, final: pd.Series):
    """Put a legend next to the axes, in the order in which the lines end."""
    handles, labels = ax.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: -float(final.get(labels[i], 0)))
    ax.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        fontsize="small",
    )
