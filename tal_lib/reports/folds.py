"""Cross-validation for readers: avg mAP of each model on each fold, and over the folds."""

import pandas as pd

from tal_lib.data.registry import VALIDATION
from tal_lib.reports import tables
from tal_lib.reports.efficiency.runs import about_recipes, default_recipes, main_arm, own_recipes

KEYS = ["benchmark", "fraction", "model", "fold"]


def on_official_split(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the official split: those of folds are left out."""
    return table[table.fold < 0].reset_index(drop=True) if "fold" in table else table


def on_folds(efficiency: pd.DataFrame) -> pd.DataFrame:
    """The rows of the main arm on folds.

    Validation parts are left out: `validation_runs` and the equal arm's `tuning` have them.

    Args:
        efficiency: the tidy table `data_efficiency`.
    """
    rows = efficiency[efficiency.fold >= 0] if "fold" in efficiency else efficiency.iloc[:0]
    return main_arm(rows[~rows.benchmark.str.endswith(VALIDATION)]) if len(rows) else rows


def fold_means(rows: pd.DataFrame) -> pd.DataFrame:
    """`benchmark, fraction, model, fold, avg_map, runs`: avg mAP (%) of a fold, mean over its seeds.

    Args:
        rows: from `on_folds`.
    """
    if not len(rows):
        return pd.DataFrame(columns=[*KEYS, "avg_map", "runs"])
    runs = tables.average_map(rows)
    runs["fold"] = runs.cell.map(rows.drop_duplicates("cell").set_index("cell").fold)
    means = runs.groupby(KEYS, as_index=False).agg(avg_map=("avg_map", "mean"), runs=("cell", "nunique"))
    return means.sort_values(KEYS, ignore_index=True)


def fold_table(means: pd.DataFrame) -> pd.DataFrame:
    """Table for readers of one benchmark and fraction: a row per model, a column per fold, and their mean.

    The best model is first. The mean is empty where a model lacks a fold that another has.
    """
    wide = means.pivot(index="model", columns="fold", values="avg_map")
    wide.columns = [f"fold {number:g}" for number in wide.columns]
    table = wide.assign(mean=wide.mean(axis=1, skipna=False))
    order = wide.mean(axis=1).sort_values(ascending=False, kind="stable").index
    return in_tenths(table.loc[order]).reset_index()


def in_tenths(table: pd.DataFrame) -> pd.DataFrame:
    """The numbers as texts with one digit after the point; NaN is empty."""
    return table.map(lambda value: "" if value != value else f"{value:.1f}")


def of_shared_folds(means: pd.DataFrame) -> pd.DataFrame:
    """The rows of folds that several models share: those that most models of a benchmark have, without the
    models that lack one; or those that all of them have, if these are more rows."""
    return pd.concat([_shared(rows) for _, rows in means.groupby("benchmark", sort=False)])


def _shared(rows):
    models = rows.groupby("fold").model.transform("nunique")
    most, all_models = rows[models > rows.model.nunique() / 2], rows[models == rows.model.nunique()]
    without = most[most.groupby("model").fold.transform("nunique") == most.fold.nunique()]
    return max(all_models, without, key=len)


def benchmark_table(means: pd.DataFrame) -> pd.DataFrame:
    """Table for readers: a row per model, a column per benchmark, trained on all labels.

    The mean is over the folds of `of_shared_folds`; a model that lacks one of them has no value. A single
    fold is named in the head of its column. Models are in the order of their means.

    Args:
        means: from `fold_means`, of one label fraction.
    """
    shared = of_shared_folds(means)
    wide = shared.pivot_table(index="model", columns="benchmark", values="avg_map", aggfunc="mean")
    wide = wide[list(dict.fromkeys(shared.benchmark))]
    order = wide.mean(axis=1).sort_values(ascending=False, kind="stable").index
    folds = shared.groupby("benchmark").fold.unique()
    single = {name: f"{name} (fold {int(at[0])})" for name, at in folds.items() if len(at) == 1}
    return in_tenths(wide.loc[order]).rename(columns=single).reset_index()


def folds_of(means: pd.DataFrame) -> str:
    """Of which folds the columns of `benchmark_table` are the mean, as a sentence."""
    by_folds: dict[str, list[str]] = {}
    for benchmark, rows in of_shared_folds(means).groupby("benchmark", sort=True):
        folds = ", ".join(f"{number:g}" for number in sorted(rows.fold.unique()))
        by_folds.setdefault(folds, []).append(str(benchmark))
    parts = [f"{folds} on {', '.join(names)}" for folds, names in by_folds.items()]
    return f"Cross-validation folds: {'; '.join(parts)}."


def table_name(benchmark: str, fraction: float = 1.0) -> str:
    """Name of the table of all folds at a label fraction."""
    return f"folds_{benchmark}" if fraction == 1 else f"folds_{benchmark}_{100 * fraction:g}"


def write(data: dict[str, pd.DataFrame], out) -> None:
    """Write the means of all folds, and a table per benchmark and label fraction.

    Tuned runs have no part in the table of all benchmarks.
    """
    runs = on_folds(data.get("data_efficiency", pd.DataFrame()))
    means = fold_means(runs)
    if not len(means):
        return
    out.data(means, "folds")
    for (benchmark, fraction), rows in means.groupby(["benchmark", "fraction"], sort=False):
        of_these = runs[(runs.benchmark == benchmark) & (runs.fraction == fraction)]
        caption = about_recipes(
            of_these,
            f"avg mAP (%) on the cross-validation folds of {benchmark}, trained on {100 * fraction:g} % of a "
            "fold's training recordings; mean over seeds.",
        )
        table = fold_table(rows)
        best = None if own_recipes(of_these) else tables.Best(high=tuple(table.columns[1:]))
        out.table(table, table_name(benchmark, fraction), caption, best)
    tuned = [name for name, of in runs.groupby("benchmark") if own_recipes(of) and not default_recipes(of)]
    whole = means[(means.fraction == 1) & ~means.benchmark.isin(tuned)]
    if whole.benchmark.nunique() > 1:
        caption = (
            f"avg mAP (%) on each benchmark, all labels; untuned, one training seed. {folds_of(whole)} "
            "Empty: the model lacks one of these folds. Differences are not tested. "
            "timeline_prior reads no features. The features of 50salads are class scores "
            "of a supervised frame classifier, so that column says nothing about few labels."
        )
        out.table(benchmark_table(whole), "folds_by_benchmark", caption)
