"""Figures of single factors with the plain recipe: annotation, training time, size."""

import numpy as np
import pandas as pd

from tal_lib.reports.figures.axes import legend_above, note, plain_log
from tal_lib.reports.figures.families import draw_lines, finish, looks_of, stacked
from tal_lib.reports.figures.labels import name_at_right
from tal_lib.reports.tables.names import short_names
from tal_lib.reports.theme import SMALL, WIDTH, new_axes

SHADES = ("#0072B2", "#E69F00", "#D55E00", "#009E73")  # of the shares of people, the largest first
MARKERS = ("o", "s", "^", "D")
ASIDE = (1.03, 1.0, 0.97, 0.94)  # factors of x, so that bars do not hide each other
BARS = "Bars: 95 % interval over folds and people or recordings."
COSTS = {
    "macs": ("GMACs of 576 steps, log scale", 1e-9),
    "latency_s": ("latency of 576 steps on one CPU thread (ms, log scale)", 1e3),
}


def annotation_budget(table: pd.DataFrame):
    """avg mAP against the number of annotated segments, a line per share of the people that they come from.

    A panel per model.

    Args:
        table: `model, people, segments_trained, mean, low, high`; `people` is a share, scores in %. The model
            `mean` is the mean over the models.

    Returns:
        the axes, a flat list.
    """
    table, classified = short_names(table)
    models = list(dict.fromkeys(table.model))
    axes = stacked(len(models), 1.25)
    shares = sorted(table.people.unique(), reverse=True)
    for ax, model in zip(axes, models, strict=True):
        rows = table[table.model == model].sort_values("segments_trained")
        for colour, marker, share, aside in zip(SHADES, MARKERS, shares, ASIDE, strict=False):
            line = rows[rows.people == share]
            x = line.segments_trained * aside
            label = f"{100 * share:g} % of the people"
            ax.plot(x, line["mean"], color=colour, marker=marker, markersize=3.5, linewidth=1.1, label=label)
            ax.vlines(x, line.low, line.high, color=colour, linewidth=0.9)
        ax.set(xscale="log")
        ax.set_title("mean over the models" if model == "mean" else model, loc="left", fontsize=SMALL)
    for ax in axes:
        plain_log(ax.xaxis)
    legend_above(axes[0], len(shares))
    apart = "Neighbouring points have similar numbers of segments; they are offset for legibility."
    about = f"{apart} {BARS} {classified}"
    finish(axes, "annotated training segments (log scale)", "avg mAP (%)", about)
    return axes


def training_time(table: pd.DataFrame):
    """avg mAP of a short training, and of three of about twice its time: a panel per base label fraction.

    Args:
        table: `model, fraction, use, mean, low, high`; scores in %.

    Returns:
        the axes, a flat list.
    """
    table, classified = short_names(table)
    fractions, models = sorted(table.fraction.unique()), list(dict.fromkeys(table.model))
    uses = list(dict.fromkeys(table.use))
    size = (WIDTH, 0.28 * len(fractions) * len(uses) + 1.2)
    axes = list(new_axes(nrows=len(fractions), squeeze=False, sharex=True, figsize=size).flat)
    looks = looks_of(models)
    for ax, fraction in zip(axes, fractions, strict=True):
        for shift, model in enumerate(models):
            rows = table[(table.fraction == fraction) & (table.model == model)].set_index("use").reindex(uses)
            places = [-index + 0.12 * (len(models) - 1) - 0.24 * shift for index in range(len(uses))]
            colour, marker = looks[model]
            ax.hlines(places, rows.low, rows.high, color=colour, linewidth=1)
            ax.plot(
                rows["mean"], places, color=colour, marker=marker, markersize=4, linestyle="none", label=model
            )
        ax.set_yticks([-index for index in range(len(uses))], uses)
        ax.set_ylim(-len(uses) + 0.4, 0.6)
        ax.set_title(f"{100 * fraction:g} % of the labels in the base", loc="left", fontsize=SMALL)
        ax.grid(axis="y", visible=False)
    legend_above(axes[0], len(models))
    axes[-1].set_xlabel("avg mAP (%)")
    about = (
        "Plain recipe. All but the base take about twice its training time; more data: twice the annotation."
    )
    note(axes[0], f"{about} {BARS} {classified}")
    return axes


def size_curves(table: pd.DataFrame, cost: str, front: pd.DataFrame):
    """avg mAP of models at several widths against a cost: a panel per benchmark and label fraction. The grey
    line is the highest curve; the names of its models are bold.

    Args:
        table: `benchmark, fraction, model, mean, low, high` and the cost; scores in %.
        cost: a column, of `COSTS`.
        front: `benchmark, fraction, cost, model, from_cost, to_cost`: which curve is the highest, from where
            to where.

    Returns:
        the axes, a flat list.
    """
    table, classified = short_names(table)
    label, unit = COSTS[cost]
    table = table.assign(x=unit * table[cost], y=table["mean"])
    front = short_names(front[front.cost == cost])[0]
    panels = list(table.groupby(["benchmark", "fraction"], sort=False))
    axes, looks = stacked(len(panels), 1.6, sharey=False), looks_of(table.model)
    for ax, ((benchmark, fraction), rows) in zip(axes, panels, strict=True):
        lines = {str(model): line for model, line in rows.sort_values("x").groupby("model")}
        draw_lines(ax, lines, looks)
        highest = front[(front.benchmark == benchmark) & (front.fraction == fraction)]
        for part in highest.itertuples():
            line = lines[part.model]
            x = np.geomspace(unit * part.from_cost, unit * part.to_cost)
            y = np.interp(np.log(x), np.log(line.x), np.maximum.accumulate(line.y))
            ax.plot(x, y, color="#999999", linewidth=3, alpha=0.6, zorder=0)
        ax.set(xscale="log")
        plain_log(ax.xaxis)
        ax.set_title(f"{benchmark}, {100 * fraction:g} % of the labels", loc="left", fontsize=SMALL)
        ends = {model: (line.x.iloc[-1], line.y.iloc[-1]) for model, line in lines.items()}
        name_at_right(ax, ends, {model: looks[model][0] for model in lines}, set(highest.model))
    words = [BARS]
    if len(front):
        words += ["Thick grey line: the highest curve so far, from the cost at which every model has one."]
        words += ["Not tested; bold: its models."]
    finish(axes, label, "avg mAP (%)", " ".join([*words, classified]))
    return axes
