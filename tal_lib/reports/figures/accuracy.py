"""Accuracy figures: learning curves, comparisons, recall, zero-shot localization, variants."""

import numpy as np
import pandas as pd

from tal_lib.evaluation.statistics import summarise
from tal_lib.reports.figures.axes import (
    GAP_AXIS,
    STRETCHED,
    VARIANTS,
    coloured_matrix,
    draw_points,
    fraction_axis,
    legend_above,
    note,
    runs_note,
    space_by_what_is_missing,
    with_enough_runs,
)
from tal_lib.reports.figures.families import model_panels
from tal_lib.reports.tables.names import short_names
from tal_lib.reports.tables.summaries import MISNAMED, SHOWN_VARIANT
from tal_lib.reports.theme import WIDTH, new_axes

ROW = 0.19  # inches of a row with a name
FUSIONS = {"early": "early fusion", "late": "late fusion"}  # of streams, for readers


def lines_of(summary: pd.DataFrame, x: str) -> dict[str, pd.DataFrame]:
    """model → `x, y, low, high`, sorted by x. summary: `model, mean, low, high` and the column `x`."""
    ordered = summary.rename(columns={x: "x", "mean": "y"}).sort_values("x")
    return {
        str(model): rows[["x", "y", "low", "high"]] for model, rows in ordered.groupby("model", sort=False)
    }


def data_efficiency(summary: pd.DataFrame, first: str = ""):
    """Learning curves: avg mAP of each model by label fraction, with 95 % intervals; a panel per family.

    summary: `model, fraction, mean, low, high` (in %) and `runs`, one benchmark; first: words that the note
    begins with.
    """
    summary, classified = short_names(with_enough_runs(summary))

    def prepare(ax):
        fraction_axis(ax, summary, apart=1.2)
        space_by_what_is_missing(ax, summary)

    about = f"{first}{runs_note(summary)} {STRETCHED} {classified}"
    xlabel = "label fraction (% of the training recordings, log scale)"
    return model_panels(lines_of(summary, "fraction"), prepare, xlabel, GAP_AXIS, about)


def probability_matrix(matrix: pd.DataFrame):
    """Probability that a run of the row's model has a higher avg mAP than a run of the column's model.

    matrix: models × models, best first, NaN on the diagonal.
    """
    names, classified = short_names(pd.DataFrame({"model": matrix.index}))
    matrix = matrix.set_axis(names.model, axis=0).set_axis(names.model, axis=1)
    return coloured_matrix(
        matrix,
        matrix.map(lambda value: "" if value != value else f"{100 * value:.0f}"),
        "probability (%) that the model of the row is better than that of the column",
        f"Better: a run has a higher avg mAP; mean over fractions. Without intervals. {classified}",
        matrix.map(lambda value: abs(value - 0.5) > 0.35),
        cmap="RdBu",
        vmin=0,
        vmax=1,
    )


def map_by_tiou(table: pd.DataFrame, first: str = ""):
    """mAP of each model at each tIoU, with 95 % intervals; a panel per family.

    table: `model, tiou, map` (in %), one row per run; first: words that the note begins with.
    """
    table, classified = short_names(table)
    summary = with_enough_runs(summarise(table, ["model", "tiou"], "map"))

    def prepare(ax):
        space_by_what_is_missing(ax, summary)
        ax.set_xticks(sorted(table.tiou.unique()))

    about = f"{first}{runs_note(summary)} {STRETCHED.replace('avg mAP', 'mAP')} {classified}"
    xlabel, ylabel = "least tIoU of a correct detection", GAP_AXIS.replace("avg mAP", "mAP")
    return model_panels(lines_of(summary, "tiou"), prepare, xlabel, ylabel, about)


def average_recall(table: pd.DataFrame, first: str = ""):
    """Average recall of class-agnostic proposals by number of proposals per recording; a panel per family.

    table: `model, an, ar` (in %), one row per run; first: words that the note begins with.
    """
    table = short_names(table)[0]  # no classifier has a part in it
    summary = with_enough_runs(summarise(table, ["model", "an"], "ar"))
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100) if tick in set(table.an)]

    def prepare(ax):
        ax.set(ylim=(0, 100), xscale="log")
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()

    xlabel = "proposals per recording (AN, log scale)"
    about = f"{first}{runs_note(summary)} Class-agnostic; mean over tIoU 0.5 to 0.95."
    return model_panels(lines_of(summary, "an"), prepare, xlabel, "average recall (%)", about)


PARTS = {
    "unseen": ("unseen classes (zero-shot), their names alone", "#D55E00", "o"),
    "unseen, all names": ("unseen classes, all names", "#E69F00", "D"),
    "unseen, wrong names": ("unseen classes, wrong names", "#777777", "x"),
    MISNAMED: ("unseen classes, trained with wrong names", "#000000", "+"),
    "seen, all names": ("seen classes, all names", "#56B4E9", "s"),
}


def open_set(summary: pd.DataFrame):
    """avg mAP of unseen classes (zero-shot), compared with wrong names and with the seen classes; 95 %
    intervals over splits. A panel per share of seen classes, a row per model.

    summary: `seen, model, part, mean, low, high` (in %) and `runs`, one benchmark and fraction.
    """
    names_of_rows, splits = _with_runs(summary)
    rows = summary.assign(row=names_of_rows).sort_values(["seen", "row"], ascending=[True, False])
    shares = sorted(rows.seen.unique(), reverse=True)
    names = {seen: list(dict.fromkeys(rows[rows.seen == seen].row)) for seen in shares}
    heights = [len(names[seen]) + 1.0 for seen in shares]
    axes = new_axes(
        nrows=len(shares),
        sharex=True,
        squeeze=False,
        height_ratios=heights,
        figsize=(WIDTH, 0.3 * sum(heights) + 1.2),
    ).flat
    for ax, seen in zip(axes, shares, strict=True):
        place = {row: number for number, row in enumerate(names[seen])}
        for offset, (part, (label, colour, marker)) in zip(
            np.linspace(0.24, -0.24, len(PARTS)), PARTS.items()
        ):
            part_rows = rows[(rows.seen == seen) & (rows.part == part)]
            if len(part_rows):  # the legend lacks arms that were not run
                y = [place[row] + offset for row in part_rows.row]
                draw_points(ax, part_rows, y, colour, marker, label)
        for number in range(0, len(place), 2):  # which row a marker belongs to
            ax.axhspan(number - 0.5, number + 0.5, color="#f2f2f2", zorder=0)
        ax.set(yticks=range(len(place)), ylim=(-0.6, len(place) - 0.4), xlim=(0, None))
        ax.set_yticklabels(list(place))
        title = f"{100 * seen:g} % of the classes seen, {100 - 100 * seen:g} % unseen"
        ax.set_title(title, loc="left")
    axes[-1].set_xlabel("avg mAP (%)")
    handles = {}
    for ax in axes:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels())))
    axes[0].figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=1)
    about = (
        f"Mean of {splits:g} splits of the classes." if splits else "n: splits of the classes; their mean."
    )
    encoders = sorted(set(summary.model.str.extract(r"text=(\w+)")[0].dropna()))
    about += f" {', '.join(encoders)}: encoders of the class names." if encoders else ""
    misnamed = rows[rows.part == MISNAMED]
    if len(misnamed) and "runs" in misnamed:
        about += f" Trained with wrong names: n = {misnamed.runs.min():g}."
    note(axes[0], f"{about} Bars: 95 % interval; fewer than five splits have none.")
    return axes[0]


def _with_runs(summary):
    """The models' names with their options in short, and the number of runs if all have the same, else 0.

    Else each name has its least number. The arm that was trained with wrong names does not count.
    """
    names = [
        name.replace(" (text=", ", ").replace(" (", ", ").rstrip(")") if "(" in name else name
        for name in summary.model.astype(str)
    ]
    if "runs" not in summary:
        return names, 0
    keys = [name for name in ("seen", "model") if name in summary]
    arms = summary.runs.where(summary.part != MISNAMED) if "part" in summary else summary.runs
    least = arms.groupby([summary[key] for key in keys]).transform("min")
    if least.nunique() == 1:
        return names, least.iloc[0]
    return [f"{name} (n = {count:g})" for name, count in zip(names, least, strict=True)], 0


def variants(summary: pd.DataFrame):
    """Variants of each model side by side: avg mAP with its interval. One model has a row per variant.

    summary: `model, variant, mean, low, high` (in %) and `runs`.
    """
    summary, classified = short_names(with_enough_runs(summary))
    names, same = _with_runs(summary)
    few = "runs" in summary and not same
    summary = summary.assign(
        variant=summary.variant.replace(SHOWN_VARIANT | FUSIONS),
        row=names if few else summary.model.astype(str),
    )
    kinds = list(dict.fromkeys(summary.variant))
    about = f"{runs_note(summary)} {'n: their number. ' if few else ''}{classified}"
    if summary.model.nunique() == 1:
        return _variants_of_one(summary, f"{summary.model.iloc[0]}. {about}")
    order = summary.groupby("row")["mean"].max().sort_values()
    ax = new_axes(figsize=(WIDTH, 0.24 * len(order) + 1.1))
    for index, kind in enumerate(kinds):
        kind_rows = summary[summary.variant == kind]
        y = [
            order.index.get_loc(row) + 0.24 * (1 - 2 * index / max(1, len(kinds) - 1))
            for row in kind_rows.row
        ]
        colour, marker = VARIANTS[index % len(VARIANTS)]
        draw_points(ax, kind_rows, y, colour, marker, kind)
    _cut_at_0_and_100(ax)
    ax.set(yticks=range(len(order)), xlabel="avg mAP (%)", ylim=(-0.6, len(order) - 0.4))
    ax.set_yticklabels(order.index)
    legend_above(ax, len(kinds) if sum(map(len, kinds)) < 45 else 3)
    note(ax, about)
    return ax


def _cut_at_0_and_100(ax):
    """An interval of few runs may pass the ends of the scale."""
    least, most = ax.get_xlim()
    ax.set_xlim(max(0, least), min(100, most))


def _variants_of_one(summary, about):
    ax = new_axes(figsize=(WIDTH, ROW * len(summary) + 0.9))
    places = range(len(summary))[::-1]
    for place, (index, row) in zip(places, summary.reset_index(drop=True).iterrows()):
        colour, marker = VARIANTS[index % len(VARIANTS)]
        draw_points(ax, row.to_frame().T, [place], colour, marker, None)
    _cut_at_0_and_100(ax)
    ax.set(yticks=places, xlabel="avg mAP (%)", ylim=(-0.6, len(summary) - 0.4))
    ax.set_yticklabels(summary.variant)
    note(ax, about)
    return ax
