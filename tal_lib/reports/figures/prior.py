"""Figures that compare this study with the prior study."""

import pandas as pd

from tal_lib.reports.figures.axes import fraction_axis
from tal_lib.reports.figures.families import draw_lines, finish, looks_of, stacked
from tal_lib.reports.figures.labels import name_at_right

PRIOR = "Warchocki et al., 2023"


def beside_prior(table: pd.DataFrame, quantity: str, label: str, comparable: bool = False, about: str = ""):
    """A cost by recording length: a panel of this study, and one of the prior study.

    table: `model, length_steps, <quantity>, our_<quantity>`.
    comparable: both panels have the same y axis.
    about: how each study has measured.
    """
    ours, theirs = (
        _lines(table, "length_steps", f"{prefix}{quantity}", sort=["length_steps"]) for prefix in ("our_", "")
    )
    axes = _two_panels(ours, theirs, ("this study", PRIOR), lambda ax: ax.set(ylim=(0, None)), comparable)
    finish(axes, "recording length (steps)", label, about)
    return axes[0]


def curves_beside_prior(table: pd.DataFrame, benchmark: str, first: str = ""):
    """Learning curves (avg mAP by label fraction) of the models that both studies have: a panel each.

    table: `model, fraction, map, ours` (in %), and `low, high` of ours if intervals are known; first: words
    that the note begins with.
    """
    ours, theirs = (_lines(table, "fraction", name, sort=["fraction"]) for name in ("ours", "map"))
    if {"low", "high"} <= set(table):
        ordered = table.sort_values("fraction")
        for model, rows in ordered.groupby("model", sort=False):
            rows = rows.dropna(subset=["ours"])
            ours[str(model)] = ours[str(model)].assign(low=rows.low.to_numpy(), high=rows.high.to_numpy())

    def prepare(ax):
        fraction_axis(ax, table)
        ax.set(ylim=(0, 100))

    titles = (f"this study: {benchmark}", f"{PRIOR}: THUMOS14")
    axes = _two_panels(ours, theirs, titles, prepare, True)
    about = first + ("Bars: 95 % interval over seeds. " if "low" in table else "")
    about += f"The prior study has published means only.{_without_the_largest(table)}"
    finish(axes, "label fraction (% of the training recordings, log scale)", "avg mAP (%)", about)
    return axes[0]


def _without_the_largest(table):
    """A sentence on curves that end earlier in both panels, where one of the studies has no value."""
    ends, largest = table.dropna(subset=["map"]).groupby("model").fraction.max(), table.fraction.max()
    shorter = sorted(ends.index[ends < largest])
    return f" Not in both studies: {', '.join(shorter)} at {100 * largest:g} %." if shorter else ""


def _lines(table, x, y, sort):
    rows = table.sort_values(sort).dropna(subset=[y])
    return {
        str(model): group[[x, y]].set_axis(["x", "y"], axis=1)
        for model, group in rows.groupby("model", sort=False)
    }


def _two_panels(ours, theirs, titles, prepare, sharey):
    axes, looks = stacked(2, 1.7, sharey=sharey), looks_of([*ours, *theirs])
    for ax, lines, title in zip(axes, (ours, theirs), titles, strict=True):
        draw_lines(ax, lines, {model: looks[model] for model in lines})
        ax.set_title(title, loc="left")
    for ax, lines in zip(axes, (ours, theirs), strict=True):  # both are drawn: shared axes fit both
        prepare(ax)
        ends = {model: (line.x.iloc[-1], line.y.iloc[-1]) for model, line in lines.items()}
        name_at_right(ax, ends, {model: looks[model][0] for model in lines})
    return axes
