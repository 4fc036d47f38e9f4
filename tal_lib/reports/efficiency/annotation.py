"""How much annotation a target accuracy needs, and what a power law predicts for more annotation."""

import numpy as np
import pandas as pd

from tal_lib.evaluation import learning_curves
from tal_lib.reports import tables
from tal_lib.reports.efficiency.runs import about_recipes, complete, own_recipes

WANTED = (80, 90)  # target avg mAP (%)

HELD_BACK = 0.6  # learning curves are fitted up to this fraction of the recordings, and tested above it


def annotation(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per model: the annotated segments for each target mAP, and the prediction of a power law.

    `model, fewest, needs_80, needs_90, scale, exponent, floor, predicted, measured, error, no_gain`. `fewest`
    is the number of segments at the smallest fraction. The power law is fitted up to `HELD_BACK`. `predicted`
    is its value at all recordings, and `error` is predicted − measured. `no_gain` is the error of predicting
    no further gain.
    """
    rows = []
    for model, model_runs in complete(runs).groupby("model", sort=False):
        curve = model_runs.groupby("fraction").agg(
            segments=("train_segments", "mean"), score=("avg_map", "mean")
        )
        row = {"model": model, "fewest": curve.segments.min()}
        row |= {
            f"needs_{wanted}": learning_curves.needed_for(wanted, curve.segments, curve.score)
            for wanted in WANTED
        }
        known = model_runs[model_runs.fraction <= HELD_BACK]
        if known.fraction.nunique() >= 3 and curve.index.max() > HELD_BACK:
            law = learning_curves.fit_power_law(known.train_segments, known.avg_map)
            whole, before = curve.iloc[-1], curve[curve.index <= HELD_BACK].iloc[-1]
            row |= {
                "scale": law.scale,
                "exponent": law.exponent,
                "floor": law.floor,
                "predicted": float(law(whole.segments)),
                "measured": whole.score,
                "error": float(law(whole.segments)) - whole.score,
                "no_gain": before.score - whole.score,
            }
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values([f"needs_{WANTED[0]}", f"needs_{WANTED[-1]}"], ignore_index=True)


def write_annotation(runs: pd.DataFrame, benchmark: str, out) -> None:
    """Write the annotation that a target mAP needs, as a tidy table and for readers."""
    if "train_segments" not in runs or complete(runs).fraction.nunique() < 2:
        return
    table = annotation(runs)
    count = lambda value, least: "not reached" if np.isinf(value) else f"{'≤ ' * (value <= least)}{value:.0f}"
    shown = pd.DataFrame(
        {"model": table.model}
        | {
            f"segments for {wanted}": list(map(count, table[f"needs_{wanted}"], table.fewest))
            for wanted in WANTED
        }
    )
    caption = about_recipes(
        runs,
        f"annotated segments needed for a target avg mAP on {benchmark}. Linear interpolation over log "
        "segments between the measured label fractions.",
    )
    if "error" in table:
        shown = shown.assign(
            exponent=table.exponent.round(2),
            predicted=table.predicted.round(1),
            measured=table.measured.round(1),
            error=table.error.map("{:+.1f}".format),
            **{"no gain": table.no_gain.map("{:+.1f}".format)},
        )
        up_to = f"{100 * HELD_BACK:g} %"
        caption += (
            f" A power law with a floor is fitted to label fractions up to {up_to}; it predicts the avg mAP "
            f"with all recordings. “no gain”: the error of predicting the avg mAP at {up_to} instead."
        )
    out.data(table, f"annotation_values_{benchmark}")
    best = tables.Best(low=tuple(f"segments for {wanted}" for wanted in WANTED))
    out.table(shown, f"annotation_{benchmark}", caption, None if own_recipes(runs) else best)
