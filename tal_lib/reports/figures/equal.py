"""Figures of the equal arm: architecture × recipe, and what tuning buys."""

import pandas as pd

from tal_lib.reports.figures.axes import legend_beside
from tal_lib.reports.theme import WIDTH, new_axes, style

PLAIN, EQUAL, FLOOR = "#E69F00", "#0072B2", "#777777"


def factorial(table: pd.DataFrame, floors: dict[tuple[str, float], float]):
    """Each model with the plain and the equal recipe: a panel per benchmark and label fraction.

    Models are sorted by the equal arm, the best on top. The vertical line is the floor.

    Args:
        table: `benchmark, fraction, model, plain, equal` (avg mAP, %).
        floors: (benchmark, fraction) → avg mAP (%) of the floor; NaN: not known.

    Returns:
        the axes, a flat list.
    """
    panels, shape = _panels(table)
    most = table.groupby(["benchmark", "fraction"]).model.nunique().max()
    axes = new_axes(
        nrows=shape[0],
        ncols=shape[1],
        squeeze=False,
        figsize=(3.6 * shape[1], (0.17 * most + 0.6) * shape[0]),
    )
    for ax, key, rows in _each(axes, panels, table):
        rows = rows.sort_values("equal")
        places = range(len(rows))
        ax.hlines(places, rows.plain, rows.equal, color="#bbbbbb", linewidth=1.6, zorder=1)
        ax.scatter(
            rows.plain, places, s=22, color="white", edgecolor=PLAIN, linewidth=1.4, label="plain recipe"
        )
        ax.scatter(rows.equal, places, s=22, color=EQUAL, label="equal recipe, tuned")
        if (floor := floors.get(key, float("nan"))) == floor:
            ax.axvline(floor, color=FLOOR, linestyle="--", linewidth=1, label="floor (timeline_prior)")
        ax.set_yticks(places, rows.model, fontsize=7)
        ax.set(ylim=(-0.7, len(rows) - 0.3), xlabel="avg mAP (%)", title=_title(*key))
        ax.grid(axis="y", visible=False)
    _one_legend(axes)
    return list(axes.flat)


def expected_best(table: pd.DataFrame):
    """Expected best validation score against the number of trials: a panel per benchmark and fraction.

    table: `benchmark, fraction, model, trials, expected` (%). Returns the axes, a flat list.
    """
    panels, shape = _panels(table)
    axes = new_axes(nrows=shape[0], ncols=shape[1], squeeze=False, figsize=(WIDTH + 1.6, 2.6 * shape[0]))
    for ax, key, rows in _each(axes, panels, table):
        for place, (model, line) in enumerate(rows.groupby("model", sort=False)):
            colour, marker = style(str(model), place)
            ax.plot(line.trials, line.expected, color=colour, marker=marker, markersize=3.5, label=model)
        ax.set(xlabel="number of trials", ylabel="expected best avg mAP (%)", title=_title(*key))
        ax.set_xticks(sorted(rows.trials.unique()))
    last = table[table.trials == table.trials.max()].groupby("model").expected.mean()
    fullest = max(axes[:, -1], key=lambda ax: len(ax.get_legend_handles_labels()[0]))
    legend_beside(fullest, last)
    return list(axes.flat)


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


def _title(benchmark, fraction):
    return f"{benchmark}, {100 * fraction:g} % of the labels"


def _one_legend(axes):
    """One legend above all panels."""
    handles = {}
    for ax in axes.flat:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels())))
    axes.flat[0].figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles), fontsize="small"
    )
