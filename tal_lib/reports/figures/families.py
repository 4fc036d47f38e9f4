"""Lines and points of many models: one panel per family, with the other families in grey."""

import textwrap
from collections.abc import Callable, Collection, Mapping

import numpy as np
import pandas as pd

from tal_lib.models import every_name
from tal_lib.models.parts.registry import family
from tal_lib.reports.figures.axes import note
from tal_lib.reports.figures.labels import GREY, name_at_right
from tal_lib.reports.theme import WIDTH, new_axes, style

MOST = 6  # models in colour in one panel
TOGETHER = {"one_stage": "one stage", "proposals": "proposals"}  # families with a panel of their own
OTHERS = "other families"
PANEL = 1.5  # inches, the height of one of several panels
SECOND = {"bfloat16": "--", "tf32": ":", "compiled": "-."}  # precision → style of a model's further line
LONGEST = 58  # letters of a line below the panels, which leave place for names at the right

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
            panels[title if place == 1 else f"{title}, panel {place}"] = members
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
    name: Callable = name_at_right,
):
    """Draw each model in the panel of its family, named at its end; few models share one panel.

    Args:
        lines: model → `x, y` and, where intervals are known, `low, high`, sorted by x.
        prepare: called with each panel; it sets scales and ticks.
        xlabel, ylabel: of all panels, which have the same axes.
        about: the words below, on runs and intervals.
        draw: draws the models of a panel, instead of `draw_lines`; it has the same arguments.
        bold: models whose names stand out.
        name: writes the names, one of `figures.labels`.

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
    finish(axes, xlabel, ylabel, about if few else f"{about} Grey: the models of the other panels.")
    for ax, members in zip(axes, groups.values(), strict=True):  # when all limits are known
        ends = {model: (lines[model].x.iloc[-1], lines[model].y.iloc[-1]) for model in members}
        name(ax, ends, {model: looks[model][0] for model in members}, bold)
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
