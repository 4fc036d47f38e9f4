"""Tables and figures for readers: proposals, zero-shot localization, and variants of models."""

import pandas as pd

from tal_lib.data.registry import BENCHMARKS
from tal_lib.reports import figures, tables
from tal_lib.reports.efficiency.runs import (
    about_recipes,
    collapsed_runs,
    main_arm,
    own_recipes,
    unequal_first,
)
from tal_lib.reports.figures.axes import FEWEST, with_enough_runs

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
    runs_of, known = main_arm(data["proposals"]), data.get("data_efficiency", ())
    means = tables.average_map(main_arm(known)) if len(known) else None
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
        first, runs = unequal_first(runs), tables.with_shown_names(runs)
        shown = (
            f"Average recall of class-agnostic proposals on {benchmark} by number of proposals per "
            f"recording: {most.model.nunique()} models with 95 % intervals over seeds. {first}"
        ).strip()
        if means is not None:
            of_these = (means.benchmark == benchmark) & (means.fraction == rows.fraction.max())
            first += collapsed_runs(tables.short_names(means[of_these])[0])
        runs = runs[runs.fraction == rows.fraction.max()].assign(ar=lambda table: 100 * table.ar)
        out.figure(figures.average_recall(runs, first), f"average_recall_{benchmark}", shown)


def write_open_set(data: dict[str, pd.DataFrame], out) -> None:
    """Write the results on unseen classes, and those with wrong names."""
    summary = tables.open_set_summary(data["open_set"])
    out.data(summary, "open_set_summary")
    for benchmark, rows in summary.groupby("benchmark", sort=False):
        keep, misnamed = rows.keep.iloc[0], rows[rows.part == tables.MISNAMED].runs
        knows = benchmark in BENCHMARKS and BENCHMARKS[benchmark].supervised
        caption = (
            f"Zero-shot localization on {benchmark}"
            f"{' (not strictly: its features were trained with all classes)' * knows}: avg mAP (%) of unseen "
            "classes, mean over overlapping splits of the classes with 95 % interval (Student's t). Test "
            f"recordings and seed are the same. Trained on {TRAINED_ON.get(keep, keep)} without unseen "
            "classes. All names: seen and unseen classes compete. Wrong names: permuted, for the same "
            f"detections or in training{_of_splits(misnamed)}.{_of_older_code(data, benchmark)}"
        )
        table = tables.open_set_table(summary, benchmark)
        best = tables.Best(high=(...,), within=("classes", "data", "splits"))
        out.table(table, f"open_set_{benchmark}", caption, best)
        most = rows[rows.fraction == rows.fraction.max()]
        out.figure(figures.open_set(most), f"open_set_{benchmark}", caption)


def _of_splits(counts):
    """The least number of splits, in brackets; empty without any."""
    return f" ({counts.min():g} split{'s' * int(counts.min() > 1)})" if len(counts) else ""


def _of_older_code(data, benchmark):
    """A sentence that names the models of which runs were computed by older code."""
    rows = data["open_set"]
    if "older" not in rows:
        return ""
    runs = tables.open_set_runs(rows[rows.benchmark == benchmark])
    older = runs.cell.isin(rows[rows.older].cell).groupby(runs.model).any()
    named = ", ".join(older.index[older])
    return f" Some runs are of older code, so do not compare these models: {named}." if named else ""


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
        enough = rows.runs >= FEWEST
        some = "" if enough.all() else f" of {FEWEST} or more runs"
        caption += f"{INTERVAL}{some}." if enough.any() else "."
        rows = with_enough_runs(rows)
        stem = f"{name}_{benchmark}_{100 * fraction:g}"
        table = shape(rows, benchmark)
        columns = [column for column in table if column not in ("model", "variant", "runs")]
        best = tables.Best(high=tuple(columns) if name == "streams" else ("avg mAP",))
        out.table(table, stem, caption, best)
        out.figure(figures.variants(rows), stem, caption.replace(SIZES, ""))
