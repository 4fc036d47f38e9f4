"""Lines of many models: one panel per family, with the other families in grey."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from tal_lib.models import every_name
from tal_lib.models.parts.registry import family
from tal_lib.reports.theme import new_axes, style

MOST = 6  # models in one panel without families
TOGETHER = {"one_stage": "one stage", "proposals": "proposals"}  # families with a panel of their own
OTHERS = "other families"
GREY = "#cccccc"
GAP = 0.062  # least distance of two labels, as a share of the panel's height


def groups_of(models: list[str]) -> dict[str, list[str]]:
    """Title of a panel → its models. Small families, and models that are not registered, share one."""
    groups: dict[str, list[str]] = {title: [] for title in (*TOGETHER.values(), OTHERS)}
    for model in models:
        name = model.split(" + ")[0].split(",")[0]
        kind = family(name) if name in every_name() else ""
        groups[TOGETHER.get(kind, OTHERS)].append(model)
    return {title: names for title, names in groups.items() if names}


def family_panels(lines: Mapping[str, pd.DataFrame], prepare: Callable, ylabel: str):
    """Draw each model's line in the panel of its family, named at its end.

    Args:
        lines: model → `x, y` and, where intervals are known, `low, high`, sorted by x.
        prepare: called with each panel; it sets scales, ticks and the label of the x axis.
        ylabel: of the first panel; all panels have the same y axis.

    Returns:
        the first panel.
    """
    groups = groups_of(list(lines))
    axes = new_axes(ncols=len(groups), squeeze=False, sharey=True, figsize=(2.7 * len(groups) + 0.6, 3.2))
    for ax, (title, members) in zip(axes.flat, groups.items()):
        for model, line in lines.items():
            if model not in members:
                ax.plot(line.x, line.y, color=GREY, linewidth=0.8, zorder=1)
        for model in members:
            line, (colour, marker) = lines[model], style(model)
            ax.plot(line.x, line.y, color=colour, marker=marker, markersize=3.5, linewidth=1.3, label=model)
            if "low" in line:
                ax.vlines(line.x, line.low, line.high, color=colour, linewidth=0.9)
        prepare(ax)
        ax.set_title(title, fontsize="medium")
    axes.flat[0].set_ylabel(ylabel)
    for ax, members in zip(axes.flat, groups.values()):
        _name_at_ends(ax, {model: lines[model].y.iloc[-1] for model in members})
    return axes.flat[0]


def _name_at_ends(ax, ends):
    """Write the models' names right of the panel, as near to their lines' ends as their height allows."""
    to_share = (ax.transData + ax.transAxes.inverted()).transform
    x = ax.get_xlim()[1]
    by_height = sorted((float(to_share((x, value))[1]), model) for model, value in ends.items())
    apart = GAP * np.arange(len(by_height))
    nearest = isotonic_regression([height for height, _ in by_height] - apart).x + apart
    for height, (_, model) in zip(nearest, by_height):
        colour = style(model)[0]
        ax.text(1.03, height, model, transform=ax.transAxes, color=colour, fontsize=7, va="center")
