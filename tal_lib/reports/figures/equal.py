"""Figures of the equal arm: architecture × recipe, and what tuning buys."""

from collections.abc import Mapping

import pandas as pd

from tal_lib.evaluation.nested import LEVEL
from tal_lib.reports.figures.axes import GAP_AXIS, STRETCHED, note, space_by_what_is_missing
from tal_lib.reports.figures.families import draw_lines, finish, looks_of, stacked
from tal_lib.reports.figures.labels import GREY, name_at_right
from tal_lib.reports.tables.names import short_names
from tal_lib.reports.theme import SMALL, WIDTH, new_axes

PLAIN, EQUAL = "#E69F00", "#0072B2"
ASIDE = 0.19  # rows that the two recipes are above and below the model's place
BEST = 5  # models in colour, where all share a panel


def factorial(
    table: pd.DataFrame,
    floors: Mapping[tuple[str, float], float],
    segments: Mapping[tuple[str, float], float] | None = None,
    runs: str = "",
):
    """Architecture and recipe: avg mAP of each model with the plain and with the tuned equal recipe.

    A row of panels per benchmark, a panel per label fraction. Models are sorted by the equal arm, mean over
    the fractions, the best on top. The floor is a number in the title: drawn, it would press all models
    together at the right.

    Args:
        table: `benchmark, fraction, model, plain, equal` (avg mAP, %); if known, `plain_low, plain_high,
            equal_low, equal_high`, their intervals, and `p_adjusted` of the difference.
        floors: (benchmark, fraction) → avg mAP (%) of the floor; NaN: not known.
        segments: (benchmark, fraction) → annotated training segments of a run, where known.
        runs: the words on the runs that the note begins with.

    Returns:
        the axes, a flat list.
    """
    table, classified = short_names(table)
    panels, shape = _panels(table)
    heights = [table[table.benchmark == row[0][0]].model.nunique() + 4 for row in panels]
    axes = new_axes(
        nrows=shape[0],
        ncols=shape[1],
        squeeze=False,
        sharey="row",
        height_ratios=heights,
        figsize=(WIDTH, 0.145 * sum(heights) + 0.1 * len(panels) + 0.9),
    )
    orders, has_floor = table.groupby(["benchmark", "model"]).equal.mean().sort_values(), False
    for ax, key, rows in _each(axes, panels, table):
        order = orders[key[0]].index
        places = order.get_indexer(rows.model)
        for arm, label, face, edge, height in (
            ("plain", "plain recipe", "white", PLAIN, places - ASIDE),
            ("equal", "equal recipe, tuned", EQUAL, EQUAL, places + ASIDE),
        ):
            if f"{arm}_low" in rows:
                ends = rows[f"{arm}_low"], rows[f"{arm}_high"]
                ax.hlines(height, *ends, color=edge, linewidth=0.9, zorder=1)
            ax.scatter(rows[arm], height, s=13, color=face, edgecolor=edge, linewidth=1.1, label=label)
        if "p_adjusted" in rows:
            for row, place in zip(rows.itertuples(), places, strict=True):
                if row.p_adjusted < LEVEL:
                    _star(ax, row, place)
        floor = floors.get(key, float("nan"))
        has_floor = has_floor or floor == floor
        ax.set_yticks(range(len(order)), order, fontsize=SMALL)
        ax.set(ylim=(-0.7, len(order) - 0.3))
        lines = [_title(*key, "\n", short=shape[1] > 2)]
        lines += [f"{segments[key]:,.0f} training segments"] if segments and key in segments else []
        lines += [f"floor {floor:.1f}"] if floor == floor else []
        ax.set_title("\n".join(lines), fontsize=SMALL)
        ax.grid(axis="y", visible=False)
    for ax in axes[-1]:
        ax.set_xlabel("avg mAP (%)")
    _one_legend(axes)
    words = [runs] if runs else []
    if {"equal_low", "plain_low"} <= set(table):
        words += ["Bars: 95 % interval of the score, over folds and people or recordings."]
    if "p_adjusted" in table:
        words += ["*: the difference of the recipes is significant (Holm over the models of a panel)."]
    words += ["Sorted by the mean of the equal recipe over the label fractions."]
    words += ["The axes differ."] if len(axes.flat) > 1 else []
    if has_floor:
        words += ["Floor: timeline_prior, which reads no features."]
    note(axes.flat[0], " ".join([*words, classified]))
    return list(axes.flat)


def _star(ax, row, place):
    """Mark a significant difference, right of the row's bars."""
    ends = [getattr(row, name, float("nan")) for name in ("plain", "equal", "plain_high", "equal_high")]
    place = max(end for end in ends if end == end), place
    ax.annotate("*", place, (3, -4), textcoords="offset points", fontsize=9, fontweight="bold")


def expected_best(table: pd.DataFrame):
    """Expected best validation score by number of tuning trials: a panel per benchmark and fraction.

    In each, the best models are in colour.

    Args:
        table: `benchmark, fraction, model, trials, expected` (%).

    Returns:
        the axes, a flat list.
    """
    table, classified = short_names(table)
    table = table.rename(columns={"trials": "x", "expected": "y"})
    keys = list(dict.fromkeys(zip(table.benchmark, table.fraction)))
    axes, looks = stacked(len(keys), 1.7, sharey=False), looks_of(table.model)
    for ax, (benchmark, fraction) in zip(axes, keys, strict=True):
        rows = table[(table.benchmark == benchmark) & (table.fraction == fraction)]
        lines = {str(model): line for model, line in rows.sort_values("x").groupby("model", sort=False)}
        best = sorted(lines, key=lambda model: -lines[model].y.iloc[-1])[:BEST]
        draw_lines(ax, lines, {model: looks[model] for model in best})
        ax.set_title(_title(benchmark, fraction), loc="left")
        ax.set_xticks(sorted(table.x.unique()))
        space_by_what_is_missing(ax, rows.assign(mean=rows.y, low=float("nan"), high=float("nan")))
        ends = {model: (line.x.iloc[-1], line.y.iloc[-1]) for model, line in lines.items()}
        name_at_right(ax, ends, {model: looks[model][0] if model in best else GREY for model in lines})
    about = (
        f"The {BEST} best are in colour. Expected best: mean over all choices of this number of trials, "
        f"on the validation recordings. There was one search per model, so there is no interval. {STRETCHED} "
        f"{classified}"
    )
    finish(axes, "number of trials", GAP_AXIS.replace("avg mAP", "expected best"), about)
    return axes


def _panels(table):
    """(benchmark, fraction) of each panel by row and column, and the numbers of rows and columns."""
    benchmarks, fractions = list(dict.fromkeys(table.benchmark)), sorted(table.fraction.unique())
    return [[(name, fraction) for fraction in fractions] for name in benchmarks], (
        len(benchmarks),
        len(fractions),
    )


def _each(axes, panels, table):
    """(axes, key, rows) of each panel; a panel without rows is hidden."""
    for line, keys in zip(axes, panels, strict=True):
        for ax, (benchmark, fraction) in zip(line, keys, strict=True):
            rows = table[(table.benchmark == benchmark) & (table.fraction == fraction)]
            if len(rows):
                yield ax, (benchmark, fraction), rows
            else:
                ax.set_visible(False)


def _title(benchmark, fraction, between=", ", short=False):
    where = "mean over benchmarks" if benchmark == "mean" and not short else benchmark
    return f"{where}{between}{100 * fraction:g} % of the labels"


def _one_legend(axes):
    """One legend above all panels."""
    handles = {}
    for ax in axes.flat:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels())))
    axes.flat[0].figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles), columnspacing=1.0
    )
