"""Tables and figures for readers: proposals, zero-shot classes, and variants of models."""

import pandas as pd

from tal_lib.reports import figures, tables
from tal_lib.reports.efficiency.runs import about_recipes, main_arm, own_recipes, unequal_first
from tal_lib.reports.figures.axes import FEWEST

INTERVAL = " with 95 % interval (Student's t)"
SIZES = "; GMACs at 720 steps"  # a column of the tables, not in the figures
CAPTIONS = {
    "streams": "each stream alone, both streams joined before the network (early fusion), and the averaged "
    "scores of one model per stream (late fusion)",
    "distillation": f"a teacher, its student trained alone, and the distilled student{SIZES}",
    "ablation": f"the model without some of its parts{SIZES}",
}

TRAINED_ON = {"stretches": "clips"}  # in words, where it differs from the parameter `keep`


def write_subsets(data: dict[str, pd.DataFrame], out) -> None:
    """Write the recordings of every subset sample and fraction, one id per line."""
    groups = data["subset_recordings"].groupby(["benchmark", "fraction", "subset_seed"])
    for (benchmark, fraction, seed), rows in groups:
        out.subset(list(rows.recording), f"{benchmark}_{100 * fraction:g}_seed{seed}")


def write_proposals(data: dict[str, pd.DataFrame], out) -> None:
    """Write the average recall of class-agnostic proposals at the largest fraction."""
    runs_of = main_arm(data["proposals"])
    summary = tables.proposal_summary(runs_of)
    for benchmark, rows in summary.groupby("benchmark", sort=False):
        most = rows[rows.fraction == rows.fraction.max()]
        runs = runs_of[runs_of.benchmark == benchmark]
        caption = about_recipes(
            runs,
            f"class-agnostic proposals on {benchmark}: average recall (%) over tIoU 0.5–0.95 with AN "
            "proposals per recording (AR@AN), and the area under it up to AN = 100 (AUC). "
            f"{100 * most.fraction.max():g} % of the training recordings, mean over seeds.",
        )
        table = tables.short_names(tables.proposal_table(summary, benchmark))[0]  # it has no part in it
        best = None if own_recipes(runs) else tables.HIGHEST  # unequal recipes have no winner
        out.table(table, f"proposals_{benchmark}", caption, best)
        shown = (
            f"Average recall of class-agnostic proposals on {benchmark} by number of proposals per "
            f"recording: {most.model.nunique()} models with 95 % intervals over seeds."
        )
        first, runs = unequal_first(runs), tables.with_shown_names(runs)
        runs = runs[runs.fraction == rows.fraction.max()].assign(ar=lambda table: 100 * table.ar)
        out.figure(figures.average_recall(runs, first), f"average_recall_{benchmark}", shown)


def write_open_set(data: dict[str, pd.DataFrame], out) -> None:
    """Write the results on zero-shot classes, and those with wrong names."""
    summary = tables.open_set_summary(data["open_set"])
    out.data(summary, "open_set_summary")
    for benchmark, rows in summary.groupby("benchmark", sort=False):
        keep = rows.keep.iloc[0]
        caption = (
            f"Open-set localization on {benchmark}: avg mAP (%) of zero-shot classes, mean over splits of "
            "the classes with 95 % interval (Student's t). Models are trained on "
            f"{TRAINED_ON.get(keep, keep)} without unseen classes. Wrong names: class names are permuted, "
            "for the same detections or already in training."
        )
        table = tables.open_set_table(summary, benchmark)
        best = tables.Best(high=(...,), within=("classes", "data", "splits"))
        out.table(table, f"open_set_{benchmark}", caption, best)
        most = rows[rows.fraction == rows.fraction.max()]
        out.figure(figures.open_set(most), f"open_set_{benchmark}", caption)


def write_variants(name: str, data: dict[str, pd.DataFrame], out) -> None:
    """Write each model's variants side by side. name: `streams`, `distillation` or `ablation`."""
    summary = tables.variant_summary(data[name])
    out.data(summary, f"{name}_summary")
    shape = tables.streams_table if name == "streams" else tables.variants_table
    for (benchmark, fraction), rows in summary.groupby(["benchmark", "fraction"], sort=False):
        caption = (
            f"avg mAP (%) on {benchmark} with {100 * fraction:g} % of the training recordings: "
            f"{CAPTIONS[name]}. Mean over seeds"
        )
        of_table, of_figure = (
            f"{caption}{INTERVAL if (rows.runs >= fewest).any() else ''}." for fewest in (2, FEWEST)
        )
        stem = f"{name}_{benchmark}_{100 * fraction:g}"
        table = shape(rows, benchmark)
        columns = [column for column in table if column not in ("model", "variant", "runs")]
        best = tables.Best(high=tuple(columns) if name == "streams" else ("avg mAP",))
        out.table(table, stem, of_table, best)
        out.figure(figures.variants(rows), stem, of_figure.replace(SIZES, ""))
