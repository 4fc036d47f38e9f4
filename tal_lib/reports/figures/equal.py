"""Figures of the equal arm: architecture × recipe, and what tuning buys."""

import pandas as pd

from tal_lib.evaluation.nested import LEVEL
from tal_lib.reports.figures.axes import note, short_names
from tal_lib.reports.figures.families import GREY, draw_lines, finish, looks_of, name_at_right, stacked
from tal_lib.reports.theme import SMALL, WIDTH, new_axes

PLAIN, EQUAL, FLOOR, TOLD_APART = "#E69F00", "#0072B2", "#777777", "#009E73"
BEST = 5  # models in colour, where all share a panel


def factorial(table: pd.DataFrame, floors: dict[tuple[str, float], float]):
    """Architecture and recipe: avg mAP of each model with the plain and with the tuned equal recipe.

    A row of panels per benchmark, a panel per label fraction. Models are sorted by the equal arm, mean over
    the fractions, the best on top. The vertical line is the floor.

    Args:
        table: `benchmark, fraction, model, plain, equal` (avg mAP, %); if known, `equal_low, equal_high`, the
            interval of equal, and `p_adjusted` of the difference.
        floors: (benchmark, fraction) → avg mAP (%) of the floor; NaN: not known.

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
        figsize=(WIDTH, 0.145 * sum(heights) + 0.9),
    )
    orders = table.groupby(["benchmark", "model"]).equal.mean().sort_values()
    for ax, key, rows in _each(axes, panels, table):
        order = orders[key[0]].index
        places = order.get_indexer(rows.model)
        apart = rows.p_adjusted < LEVEL if "p_adjusted" in rows else rows.plain != rows.plain
        links = [TOLD_APART if known else "#bbbbbb" for known in apart]
        ax.hlines(places, rows.plain, rows.equal, color=links, linewidth=2.4, zorder=1)
        ax.scatter(
            rows.plain, places, s=14, color="white", edgecolor=PLAIN, linewidth=1.2, label="plain recipe"
        )
        ax.scatter(rows.equal, places, s=14, color=EQUAL, label="equal recipe, tuned")
        if "equal_low" in rows:
            ax.hlines(places, rows.equal_low, rows.equal_high, color=EQUAL, linewidth=0.8)
        if (floor := floors.get(key, float("nan"))) == floor:
            ax.axvline(floor, color=FLOOR, linestyle="--", linewidth=1, label="floor (timeline_prior)")
        ax.set_yticks(range(len(order)), order, fontsize=SMALL)
        ax.set(ylim=(-0.7, len(order) - 0.3))
        ax.set_title(_title(*key, "\n"), fontsize=SMALL)
        ax.grid(axis="y", visible=False)
    for ax in axes[-1]:
        ax.set_xlabel("avg mAP (%)")
    _one_legend(axes)
    bars = ""
    if "equal_low" in table:
        bars = "Bars: 95 % interval of the equal recipe's score; the plain one has none here. "
    if "p_adjusted" in table:
        bars += "Green link: the gain can be told apart from zero (Holm over the models of a panel). "
    order = "Sorted by the mean of the equal recipe over the label fractions. "
    note(axes.flat[0], f"{bars}{order}{classified}")
    return list(axes.flat)


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
        ends = {model: (line.x.iloc[-1], line.y.iloc[-1]) for model, line in lines.items()}
        name_at_right(ax, ends, {model: looks[model][0] if model in best else GREY for model in lines})
    about = (
        f"The {BEST} best are in colour. Expected best: mean over all choices of this number of trials. "
        f"There was one search per model, so there is no interval. {classified}"
    )
    finish(axes, "number of trials", "expected best avg mAP on the validation recordings (%)", about)
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


def _title(benchmark, fraction, between=", "):
    where = "mean over benchmarks" if benchmark == "mean" else benchmark
    return f"{where}{between}{100 * fraction:g} % of the labels"


def _one_legend(axes):
    """One legend above all panels."""
    handles = {}
    for ax in axes.flat:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels())))
    axes.flat[0].figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles), columnspacing=1.0
    )
