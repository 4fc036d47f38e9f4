"""Model comparison with uncertainty: aggregate ranking, all pairs, and our model against the best other."""

import pandas as pd

from tal_lib.evaluation import learning_curves, statistics
from tal_lib.reports import figures, tables
from tal_lib.reports.efficiency.runs import OUR_MODEL, about_recipes, complete, strata


def aggregate_ranking(runs: pd.DataFrame) -> pd.DataFrame:
    """The aggregate ranking: `model, iqm, low, high, rank, area`; best first.

    `iqm` is the interquartile mean over fractions and seeds, `rank` the mean rank, and `area` the mean over
    log recordings.
    """
    runs = complete(runs)
    ranks = statistics.mean_ranks(runs)
    rows = []
    for model, values in strata(runs).items():
        curve = (
            runs[runs.model == model]
            .groupby("fraction")
            .agg(amount=("train_recordings", "mean"), score=("avg_map", "mean"))
        )
        rows.append(
            (
                model,
                *statistics.interquartile_interval(values),
                ranks[model],
                learning_curves.area_under(curve.amount, curve.score) if len(curve) > 1 else float("nan"),
            )
        )
    table = pd.DataFrame(rows, columns=["model", "iqm", "low", "high", "rank", "area"])
    return table.sort_values("iqm", ascending=False, ignore_index=True)


def write_aggregate_ranking(runs: pd.DataFrame, benchmark: str, out) -> None:
    """Write the aggregate ranking, as a tidy table and for readers."""
    table = aggregate_ranking(runs)
    shown = pd.DataFrame(
        {
            "model": table.model,
            "IQM": [f"{row.iqm:.1f} [{row.low:z.1f}, {row.high:z.1f}]" for row in table.itertuples()],
            "mean rank": table["rank"].round(2),
            "area": table.area.round(1),
        }
    )
    used = complete(runs)
    counts = used.groupby(["model", "fraction"]).seed.nunique().rename("runs").reset_index()
    seeds = tables.number_of_runs(counts, "seeds")
    fractions = used.fraction.nunique()
    caption = about_recipes(
        runs,
        f"aggregate ranking on {benchmark}, {fractions} label fraction{'s' * (fractions > 1)}, "
        f"{seeds}. IQM: interquartile mean of avg mAP (%) with stratified bootstrap interval, which "
        "covers 88 % with five seeds. Mean rank: 1 is best. Area: mean along the curve over log recordings.",
    )
    out.data(table, f"aggregate_ranking_values_{benchmark}")
    best = tables.Best(high=("IQM", "area"), low=("mean rank",))
    out.table(shown, f"aggregate_ranking_{benchmark}", caption, best)


def comparison(runs: pd.DataFrame) -> pd.DataFrame:
    """Every ordered pair of models.

    `model, other, probability, low, high, difference, difference_low, difference_high, pairs`. `probability`:
    a run of `model` has a higher avg mAP than a run of `other`, mean over fractions. `difference` is paired
    by training recordings.
    """
    runs = complete(runs)
    values = strata(runs)
    rows = []
    for model in values:
        for other in values:
            if model != other:
                rows.append(
                    (
                        model,
                        other,
                        *statistics.probability_of_improvement(values[model], values[other]),
                        *statistics.paired_difference(runs, model, other),
                    )
                )
    return pd.DataFrame(
        rows,
        columns=[
            "model",
            "other",
            "probability",
            "low",
            "high",
            "difference",
            "difference_low",
            "difference_high",
            "pairs",
        ],
    )


def write_comparison(runs: pd.DataFrame, benchmark: str, out) -> None:
    """Write every pair of models, as a tidy table, for readers, and as a figure."""
    table = comparison(runs)
    if table.empty:
        return
    order = list(aggregate_ranking(runs).model)
    matrix = table.pivot(index="model", columns="other", values="probability").loc[order, order]
    shown = matrix.map(lambda value: "" if value != value else f"{value:.2f}").reset_index()
    caption = about_recipes(
        runs,
        f"probability of improvement on {benchmark}, mean over label fractions. A run of the row's "
        "model has a higher avg mAP than a run of the column's model. With few runs 1.00 is no certainty.",
    )
    out.figure(
        figures.probability_matrix(matrix),
        f"probability_of_improvement_{benchmark}",
        caption,
    )
    out.data(table, f"comparison_{benchmark}")
    out.table(shown, f"probability_of_improvement_{benchmark}", caption)


def against_the_best(runs: pd.DataFrame, model: str = OUR_MODEL) -> pd.DataFrame:
    """Our model and the best other model at each fraction.

    `fraction, best, own_mean, best_mean, difference, low, high, probability, p_low, p_high, pairs`.
    """
    rows = []
    for fraction, group in runs.groupby("fraction"):
        means = group.groupby("model").avg_map.mean()
        others = means.drop(model, errors="ignore")
        if model not in means or others.empty:
            continue
        best = others.idxmax()
        values = strata(group)
        difference, low, high, pairs = statistics.paired_difference(group, model, best)
        rows.append(
            (
                fraction,
                best,
                means[model],
                means[best],
                difference,
                low,
                high,
                *statistics.probability_of_improvement(values[model], values[best]),
                pairs,
            )
        )
    return pd.DataFrame(
        rows,
        columns=[
            "fraction",
            "best",
            "own_mean",
            "best_mean",
            "difference",
            "low",
            "high",
            "probability",
            "p_low",
            "p_high",
            "pairs",
        ],
    )


def write_against_the_best(runs: pd.DataFrame, benchmark: str, out) -> None:
    """Write our model and the best other model, as a tidy table and for readers."""
    table = against_the_best(runs)
    if table.empty:
        return
    shown = pd.DataFrame(
        {
            "label fraction": [f"{100 * fraction:g} %" for fraction in table.fraction],
            "best other": table.best,
            OUR_MODEL: table.own_mean.round(1),
            "best other, avg mAP": table.best_mean.round(1),
            "difference": [
                f"{row.difference:+z.1f}"
                + (f" [{row.low:+z.1f}, {row.high:+z.1f}]" if row.low == row.low else "")
                for row in table.itertuples()
            ],
            "P(improvement)": [
                f"{row.probability:.2f}"
                + (f" [{row.p_low:.2f}, {row.p_high:.2f}]" if row.p_low == row.p_low else "")
                for row in table.itertuples()
            ],
        }
    )
    caption = about_recipes(
        runs,
        f"{OUR_MODEL} against the best other model on {benchmark}: mean avg mAP (%), difference on "
        "the same recordings (Student's interval), and probability of improvement (Newcombe's interval). "
        "The best other model is selected on these results, which favours it.",
    )
    out.data(table, f"against_the_best_values_{benchmark}")
    best = tables.Best(high=(OUR_MODEL, "best other, avg mAP"), by_row=True)
    out.table(shown, f"against_the_best_{benchmark}", caption, best)
