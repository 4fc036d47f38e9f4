"""Lines and points of many models: one panel per family, with the other families in grey."""

import textwrap
from collections.abc import Callable, Collection, Mapping

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from tal_lib.models import every_name
from tal_lib.models.parts.registry import family
from tal_lib.reports.figures.axes import note
from tal_lib.reports.theme import SMALL, WIDTH, new_axes, style

MOST = 6  # models in colour in one panel
TOGETHER = {"one_stage": "one stage", "proposals": "proposals"}  # families with a panel of their own
OTHERS = "other families"
GREY, DIM, INK = "#cccccc", "#777777", "#222222"
PANEL = 1.5  # inches, the height of one of several panels
LINE = 0.125  # inches between two names
SECOND = {"bfloat16": "--", "tf32": ":", "compiled": "-."}  # precision → style of a model's further line
LONGEST = 58  # letters of a line below the panels, which leave place for names at the right
FAR = 0.9  # beside lines, a name's line that begins further left is grey, so that nobody reads it as data

Looks = Mapping[str, tuple[str, str]]  # name → colour, marker


def groups_of(models: list[str], most: int = MOST) -> dict[str, list[str]]:
    """Title of a panel → its lines, at most `most`. Small families, and models that are not registered,
    share one; a larger group has several panels, filled in the given order. All lines of a model (`bsn`;
    `bsn, bfloat16`) are in one panel."""
    groups: dict[str, dict[str, list[str]]] = {title: {} for title in (*TOGETHER.values(), OTHERS)}
    for line in models:
        model = model_of(line)
        name = model.split(" + ")[0].split(" (")[0]
        kind = family(name) if name in every_name() else ""
        groups[TOGETHER.get(kind, OTHERS)].setdefault(model, []).append(line)
    panels: dict[str, list[str]] = {}
    for title, lines in groups.items():
        at_once = max(1, most // max(map(len, lines.values()), default=1))
        parts = np.array_split(list(lines), -(-len(lines) // at_once)) if lines else []
        for place, part in enumerate(parts, 1):
            members = [line for model in part for line in lines[model]]
            panels[f"{title} ({place} of {len(parts)})" if len(parts) > 1 else title] = members
    return panels


def model_of(line: str) -> str:
    """The model of a line's name: `bsn` of `bsn, bfloat16`."""
    model, _, precision = line.rpartition(", ")
    return model if precision in SECOND else line


def looks_of(lines) -> dict[str, tuple[str, str]]:
    """Colour and marker of each line, those of its model; models without their own get different ones."""
    places = {model: place for place, model in enumerate(dict.fromkeys(map(model_of, lines)))}
    return {line: style(model_of(line), places[model_of(line)]) for line in lines}


def stacked(count: int, height: float = PANEL, sharey=True):
    """Panels (count,) below each other with one x axis; inches of height for each."""
    size = (WIDTH, height * count + 0.5)
    axes = new_axes(nrows=count, squeeze=False, sharex=True, sharey=sharey, figsize=size)
    return list(axes.flat)


def model_panels(
    lines: Mapping[str, pd.DataFrame],
    prepare: Callable,
    xlabel: str,
    ylabel: str,
    about: str,
    draw: Callable | None = None,
    bold: Collection[str] = (),
    far: float = FAR,
):
    """Draw each model in the panel of its family, named at its end; few models share one panel.

    Args:
        lines: model → `x, y` and, where intervals are known, `low, high`, sorted by x.
        prepare: called with each panel; it sets scales and ticks.
        xlabel, ylabel: of all panels, which have the same axes.
        about: the words below, on runs and intervals.
        draw: draws the models of a panel, instead of `draw_lines`; it has the same arguments.
        bold: models whose names stand out.
        far: see `name_at_right`.

    Returns:
        the first panel.
    """
    by_end = sorted(lines, key=lambda model: -lines[model].y.iloc[-1])
    few = len(lines) <= MOST
    groups = {"": by_end} if few else groups_of(by_end)
    axes, looks = stacked(len(groups), 2.3 if few else PANEL), looks_of(lines)
    for ax, (title, members) in zip(axes, groups.items(), strict=True):
        (draw or draw_lines)(ax, lines, {model: looks[model] for model in members})
        prepare(ax)
        ax.set_title(title, loc="left")
    for ax, members in zip(axes, groups.values(), strict=True):  # when all limits are known
        ends = {model: (lines[model].x.iloc[-1], lines[model].y.iloc[-1]) for model in members}
        name_at_right(ax, ends, {model: looks[model][0] for model in members}, bold, far)
    finish(axes, xlabel, ylabel, about if few else f"{about} Grey: the models of the other panels.")
    return axes[0]


def finish(axes, xlabel: str, ylabel: str, about: str) -> None:
    """Label the lowest x axis and all y axes together, and write the words below the panels."""
    axes[-1].set_xlabel("\n".join(textwrap.wrap(xlabel, LONGEST)))
    if len(axes) == 1:
        axes[0].set_ylabel(ylabel)
    else:
        axes[0].figure.supylabel(ylabel, fontsize=8)
    note(axes[0], about)


def draw_lines(ax, lines: Mapping[str, pd.DataFrame], looks: Looks) -> None:
    """Draw the lines that have a look, with their intervals as bars; all other lines are grey.

    A further line of a model (`bsn, bfloat16`) is dashed, with hollow markers.
    """
    for model, line in lines.items():
        if model not in looks:
            ax.plot(line.x, line.y, color=GREY, linewidth=0.7, zorder=1)
    for model, (colour, marker) in looks.items():
        line, dashes = lines[model], SECOND.get(model.rpartition(", ")[2], "-")
        ax.plot(
            line.x,
            line.y,
            color=colour,
            marker=marker,
            markersize=3.2,
            linewidth=1.1,
            linestyle=dashes,
            markerfacecolor=colour if dashes == "-" else "#ffffff",
            label=model,
            markevery=max(1, len(line) // 12),
        )
        if "low" in line:
            ax.vlines(line.x, line.low, line.high, color=colour, linewidth=0.9)


def name_at_right(
    ax, points: Mapping[str, tuple[float, float]], colours: Mapping[str, str], bold=(), far: float = FAR
) -> None:
    """Write names right of the panel, as near to the heights of their points as they fit, each with a thin
    line from its point. They stay within the height of the panel, whose title and neighbours are near.

    points: name → x, y in the units of the axes; bold: names that stand out; far: part of the width up to
    which a name's line begins grey instead of in the name's colour."""
    ax.autoscale_view()
    to_share = (ax.transData + ax.transAxes.inverted()).transform
    places = sorted(((*map(float, to_share(point)), name) for name, point in points.items()), key=_height)
    gap = LINE / (0.72 * ax.figure.get_figheight() / ax.get_gridspec().nrows)  # the rest is around panels
    heights = spread_out([y for _, y, _ in places], gap)
    for height, (x, y, name) in zip(heights, places, strict=True):
        ax.annotate(
            name,
            (x, y),
            (1.06, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            fontsize=SMALL,
            color=INK if colours[name] != GREY else DIM,
            fontweight="bold" if name in bold else "normal",
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colours[name] if x >= far else GREY,
                "linewidth": 0.8,
                "linestyle": (0, (1, 1.5)),  # unlike lines and intervals
                "shrinkA": 0,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def _height(place):
    return place[1], place[2]


def spread_out(values: list[float], gap: float) -> np.ndarray:
    """Sorted values, moved as little as possible (least squares) so that neighbours are `gap` apart.

    All are between 0 and 1, if so many fit there.
    """
    apart = gap * np.arange(len(values))
    moved = isotonic_regression(np.asarray(values) - apart).x
    if apart[-1] <= 1:  # with constant bounds, the cut solution is the best one
        moved = moved.clip(0, 1 - apart[-1])
    return moved + apart
