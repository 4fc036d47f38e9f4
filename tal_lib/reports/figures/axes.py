"""Axes, legends and marks that several figures share."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from tal_lib.reports.tables.summaries import number_of_runs
from tal_lib.reports.theme import SMALL, WIDTH, new_axes

FEWEST = 3  # runs with an interval in a figure; most tables have those of two, too
LINE = 0.13  # inches, the height of a line of the words below a figure
FITTING = 14  # columns of a matrix with three figures each
GAP_AXIS = "avg mAP (%), stretched near 100"
STRETCHED = "The vertical axis is logarithmic in 101 − avg mAP, which separates the best models."

VARIANTS = [
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#000000", "D"),
    ("#CC79A7", "v"),
    ("#E69F00", "P"),
    ("#56B4E9", "X"),
]


def space_by_what_is_missing(ax, table):
    """Scale a y axis of avg mAP so that halving the gap to 100 always has the same height.

    This separates the best models; the axis is called `GAP_AXIS`, and the note has `STRETCHED`.

    table: `mean, low, high`; the intervals may be NaN.
    """
    beyond = 101.0  # so that 100 has a finite place
    low, high = table.low.fillna(table["mean"]).min(), table.high.fillna(table["mean"]).max()
    low, high = max(0.0, low), min(100.0, high)  # an interval of few runs may pass the ends of the scale
    ax.set_yscale(
        "function",
        functions=(lambda y: -np.log(np.clip(beyond - y, 1e-9, None)), lambda z: beyond - np.exp(-z)),
    )
    missing = beyond - low, beyond - high
    room = (missing[0] / missing[1]) ** 0.04
    ax.set_ylim(max(0, beyond - missing[0] * room), min(100, beyond - missing[1] / room))
    least, ticks = np.log(missing[0] / missing[1]) / 8, []
    for tick in (0, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99, 100):
        if ax.get_ylim()[0] <= tick <= ax.get_ylim()[1] and (
            not ticks or np.log((beyond - ticks[-1]) / (beyond - tick)) >= least
        ):
            ticks.append(tick)
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
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


def coloured_matrix(table, texts, label, about, dark, **colours):
    """Draw a table as coloured squares with their values, and what they are above them.

    Args:
        texts: the values as text, short enough for a square; dark: the cells with white text.
        label: what the values are; about: the words below.
    """
    ax = new_axes(figsize=(WIDTH, 0.165 * len(table) + 1.4))
    ax.imshow(table.to_numpy(), aspect="auto", **colours)
    for count, line in zip(table.shape, (ax.axhline, ax.axvline)):
        for place in range(1, count):
            line(place - 0.5, color="white", linewidth=0.8)
    full = texts == "100"
    if table.shape[1] > FITTING and full.any(axis=None):  # else they run together
        texts, about = texts.mask(full, ""), f"{about} Dark blue without a number: 100."
    for (row, column), text in np.ndenumerate(texts.to_numpy()):
        ax.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=SMALL,
            color="white" if dark.iat[row, column] else "black",
        )
    ax.set_xticks(range(table.shape[1]), table.columns, rotation=90, fontsize=SMALL)
    ax.set_yticks(range(len(table)), table.index, fontsize=SMALL)
    ax.tick_params(length=0, pad=2)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    ax.figure.suptitle(label, x=0.01, ha="left", fontsize=8)
    note(ax, about)
    return ax


def draw_points(ax, rows, y, colour, marker, label, **style):
    """Draw means with horizontal intervals. A single run has no interval. style: of the points."""
    error = np.stack([rows["mean"] - rows.low, rows.high - rows["mean"]])
    ax.errorbar(
        rows["mean"],
        y,
        xerr=np.nan_to_num(error),
        color=colour,
        marker=marker,
        label=label,
        **{"markersize": 4.5, "linestyle": "none", "linewidth": 1} | style,
    )


def plain_log(axis):
    """Ticks 1, 2, 5, 10, … written as plain numbers; only 1, 10, … where more would be crowded, and more of
    them where the axis has less than a decade."""
    axis.axes.autoscale_view()
    low, high = axis.get_view_interval()
    close = (1, 1.5, 2, 3, 4, 5, 7) if high < 6 * low else (1, 2, 5)
    axis.set_major_locator(LogLocator(subs=close if high < 300 * low else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def legend_above(ax, columns: int) -> None:
    """Put a legend above the figure, at the left."""
    ax.figure.legend(
        *ax.get_legend_handles_labels(),
        loc="outside upper left",
        ncols=columns,
        columnspacing=1.0,
        handletextpad=0.4,
    )


def note(ax, text: str) -> None:
    """Write words below a figure: on runs, intervals, and what else the axes cannot say."""
    _write_note(ax.figure, _lines(text))


def say_first(figure, sentence: str) -> None:
    """Begin the words below a figure with what it shows, so that a figure alone says it. The figure grows."""
    lines = _lines(sentence)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + LINE * len(lines))
    _write_note(figure, [*lines, *figure.get_supxlabel().splitlines()])


def _lines(text):
    return textwrap.wrap(text, 80, break_on_hyphens=False)


def _write_note(figure, lines):
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=SMALL, color="#444444")


def with_enough_runs(table: pd.DataFrame) -> pd.DataFrame:
    """The table without the intervals of fewer than three runs, which would hide all points.

    table: `low, high` and, if known, `runs`.
    """
    if "runs" not in table:
        return table
    enough = table.runs >= FEWEST
    return table.assign(low=table.low.where(enough), high=table.high.where(enough))


def runs_note(table: pd.DataFrame, bars: str = "95 % interval", runs: str = "seeds") -> str:
    """What a point is the mean of, and what its bars are.

    table: `low, high` (%) and, if known, `runs`; NaN where there is no interval.
    """
    counts = table.runs if "runs" in table else pd.Series([], dtype=int)
    known = "low" in table and table.low.notna().any()
    most = counts.max() if len(counts) else 0
    number = number_of_runs(table, runs) if most else ""
    if not known:
        unknown = f"Mean of {number}, without intervals." if most else "No intervals are known."
        return "One run each, so there is no interval." if most == 1 else unknown
    text = f"Mean of {number}; bars: {bars}." if most else f"Bars: {bars}."
    if table.low.isna().any():
        few = len(counts) and (counts[table.low.isna()] > 1).any()
        text += " Fewer than three runs, or equal ones, have no bar." if few else " One run has no bar."
    if "high" in table and ((table.high > 100) | (table.low < 0)).any():
        text += " Bars are cut at 0 and 100."
    return text
