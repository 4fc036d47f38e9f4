"""The data-efficiency study for readers.

runs.py        which runs are compared          annotation.py  how much annotation a wanted accuracy takes
comparison.py  who is better, and how surely    arms.py        other recipes, options, subset samples
prior.py       the prior study's ranking
"""

import pandas as pd

from tal_lib.reports import figures, tables
from tal_lib.reports.efficiency.annotation import HELD_BACK, WANTED, annotation, write_annotation
from tal_lib.reports.efficiency.arms import recipe_gains, write_arms
from tal_lib.reports.efficiency.comparison import (
    against_the_best,
    aggregate_ranking,
    comparison,
    write_against_the_best,
    write_aggregate_ranking,
    write_comparison,
)
from tal_lib.reports.efficiency.prior import PRIOR, beside_prior, write_prior
from tal_lib.reports.efficiency.runs import (
    OUR_MODEL,
    about_recipes,
    collapsed_runs,
    compared,
    complete,
    main_arm,
    own_recipes,
    strata,
    unequal_first,
)

__all__ = [
    "HELD_BACK",
    "OUR_MODEL",
    "PRIOR",
    "WANTED",
    "against_the_best",
    "annotation",
    "beside_prior",
    "compared",
    "comparison",
    "complete",
    "main_arm",
    "recipe_gains",
    "aggregate_ranking",
    "strata",
    "write",
]


def write(data: dict[str, pd.DataFrame], out) -> None:
    """Write all tables and figures of the study that the runs allow.

    Args:
        data: tidy tables; `data_efficiency` is read.
        out: a `tal_lib.reports.output.Output`.
    """
    efficiency = data["data_efficiency"]
    summary = tables.efficiency_summary(main_arm(efficiency))
    out.data(summary, "data_efficiency_summary")
    for benchmark, rows in compared(summary).groupby("benchmark", sort=False):
        all_runs = efficiency[efficiency.benchmark == benchmark]
        _write_curves(all_runs, rows, benchmark, out)
        runs = compared(tables.average_map(main_arm(all_runs)))
        if runs.model.nunique() > 1:
            write_aggregate_ranking(runs, benchmark, out)
            write_comparison(runs, benchmark, out)
            write_against_the_best(runs, benchmark, out)
            write_annotation(runs, benchmark, out)
        write_arms(tables.average_map(all_runs), benchmark, out)
        if PRIOR.is_file():
            write_prior(rows, runs, benchmark, out.about("prior"))


def _write_curves(runs, rows, benchmark, out):
    """Write avg mAP against the fraction of the recordings, and mAP by tIoU with all recordings."""
    chosen = main_arm(runs)
    first, means = unequal_first(chosen), tables.average_map(chosen)
    caption = about_recipes(
        chosen,
        f"avg mAP (%) on {benchmark} by label fraction (of the training recordings), mean of "
        f"{tables.number_of_runs(rows, 'seeds')} with 95 % interval (Student's t).",
    )
    if rows.fraction.nunique() > 1:
        shown = (
            f"Learning curves on {benchmark}: avg mAP of {rows.model.nunique()} models by label fraction, "
            f"with 95 % intervals over seeds; a panel per family. {first}"
        ).strip()
        axes = figures.data_efficiency(rows, first + collapsed_runs(means))
        out.figure(axes, f"data_efficiency_{benchmark}", shown)
    most = tables.with_shown_names(chosen[chosen.fraction == rows.fraction.max()])
    shown = (
        f"mAP by tIoU on {benchmark} with {100 * rows.fraction.max():g} % of the labels: "
        f"{most.model.nunique()} models, with 95 % intervals over seeds; a panel per family. {first}"
    ).strip()
    failed = collapsed_runs(means[means.fraction == rows.fraction.max()])
    axes = figures.map_by_tiou(most.assign(map=100 * most["map"]), first + failed)
    out.figure(axes, f"map_by_tiou_{benchmark}", shown)
    table = tables.efficiency_table(rows, benchmark)
    best = None if own_recipes(chosen) else tables.HIGHEST  # unequal recipes have no winner
    out.table(table, f"data_efficiency_{benchmark}", caption, best)
