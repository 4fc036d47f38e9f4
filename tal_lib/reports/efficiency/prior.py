"""Our ranking of the models and the prior study's."""

import pandas as pd
from scipy import stats

from tal_lib.reports import figures
from tal_lib.reports.efficiency.runs import about_recipes, collapsed_runs, unequal_first
from tal_lib.reports.layout import Layout

PRIOR = Layout().prior / "data_efficiency.csv"


def beside_prior(summary: pd.DataFrame) -> pd.DataFrame:
    """`model, fraction, map, ours, low, high` of models and label fractions that both studies have.

    `low, high` is the interval of ours.
    """
    prior = pd.read_csv(PRIOR).dropna(subset=["map"])
    ours = [name for name in ("model", "fraction", "mean", "low", "high") if name in summary]
    return prior.merge(summary[ours].rename(columns={"mean": "ours"}), on=["model", "fraction"])


def write_prior(rows: pd.DataFrame, runs: pd.DataFrame, benchmark: str, out) -> None:
    """Write both rankings for readers, and both learning curves as a figure.

    Args:
        rows: summary of the runs on the benchmark: `model, fraction, mean, low, high`.
        runs: `model, fraction, recipe, avg_map`, a row per run. One collapsed training decides the order of
            means, so the order of the median runs is written too.
    """
    both = beside_prior(rows)
    if both.model.nunique() < 2:
        return
    of_both = runs[runs.model.isin(both.model)]
    first = unequal_first(of_both)
    shown = (
        f"Learning curves of {both.model.nunique()} models: this study on {benchmark} with compact sizes, "
        f"the prior study on THUMOS14 with published sizes. {first}A panel per study."
    )
    axes = figures.curves_beside_prior(both, benchmark, first + collapsed_runs(of_both))
    out.figure(axes, f"prior_data_efficiency_{benchmark}", shown)
    lines = []
    for fraction, models in both.groupby("fraction"):
        medians = runs[runs.fraction == fraction].groupby("model").avg_map.median()
        models = models.assign(median=models.model.map(medians))
        line = [f"{100 * fraction:g} %", _order(models, "map")]
        for column in ("ours", "median"):
            tau = (
                stats.kendalltau(models["map"], models[column]).statistic if len(models) > 2 else float("nan")
            )
            line += [_order(models, column), round(tau, 2)]
        lines.append(line)
    table = pd.DataFrame(
        lines,
        columns=[
            "label fraction",
            "order on THUMOS14, prior study",
            f"order on {benchmark}, this study, by mean",
            "Kendall's τ",
            "by median run",
            "τ of medians",
        ],
    )
    caption = (
        f"{about_recipes(of_both, 'order of the models that both studies have')}, by label fraction. Prior "
        "study: Warchocki et al., 2023 (THUMOS14, I3D features, published sizes). This study: "
        f"{benchmark}, compact sizes."
    )
    out.table(table, f"prior_data_efficiency_{benchmark}", caption)


def _order(models, column):
    """Names of the models, the highest value first."""
    return " > ".join(models.sort_values(column, ascending=False, kind="stable").model)
