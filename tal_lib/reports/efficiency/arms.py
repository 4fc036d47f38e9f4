"""The arms next to the main arm: other recipes, other options of our model, and the sources of variance."""

import pandas as pd

from tal_lib.evaluation import statistics
from tal_lib.reports import tables
from tal_lib.reports.efficiency.runs import OUR_MODEL
from tal_lib.reports.tables.names import about_settings


def write_arms(runs: pd.DataFrame, benchmark: str, out) -> None:
    """Write other recipes, variants of our model, and the sources of variance."""
    plain = runs[(runs.options == "") & (runs.preset == "compact")]
    recipes = plain[plain.subset_seed < 0]
    if recipes.recipe.nunique() > 1:
        _recipes(recipes, benchmark, out)
    our_runs = runs[
        runs.model.str.fullmatch(rf"{OUR_MODEL}( \(.*\))?") & (runs.preset == "compact") & (runs.stream == "")
    ]
    our_runs = our_runs[our_runs.subset_seed < 0]
    if our_runs.options.nunique() > 1:
        _every_variant(runs[runs.subset_seed < 0], benchmark, out)
    crossed = runs[(runs.subset_seed >= 0) & (runs.recipe == "")]
    if len(crossed):
        _variance(crossed, benchmark, out)


def recipe_gains(runs: pd.DataFrame) -> pd.DataFrame:
    """Each other recipe compared with the model's own recipe, paired by seed.

    `recipe, model, fraction, plain, changed, difference, low, high, pairs`.
    """
    rows = []
    keys = ["model", "fraction"]
    plain = runs[runs.recipe == ""].set_index([*keys, "seed"]).avg_map
    for (recipe, model, fraction), group in runs[runs.recipe != ""].groupby(["recipe", *keys], sort=False):
        both = (
            group.set_index([*keys, "seed"])
            .avg_map.to_frame("changed")
            .join(plain.rename("plain"), how="inner")
        )
        if len(both):
            rows.append(
                (
                    recipe,
                    model,
                    fraction,
                    both.plain.mean(),
                    both.changed.mean(),
                    *statistics.mean_interval(both.changed - both.plain),
                    len(both),
                )
            )
    return pd.DataFrame(
        rows,
        columns=["recipe", "model", "fraction", "plain", "changed", "difference", "low", "high", "pairs"],
    )


def _recipes(runs, benchmark, out):
    table = recipe_gains(runs)
    text = table.assign(text=[f"{row.changed:.1f} ({row.difference:+.1f})" for row in table.itertuples()])
    shown = text.pivot(index=["recipe", "model"], columns="fraction", values="text").fillna("")
    order = table.groupby(["recipe", "model"]).changed.mean().sort_values(ascending=False).index
    shown = shown.loc[sorted(order, key=lambda key: key[0])]
    shown.columns = [f"{100 * fraction:g} %" for fraction in shown.columns]
    out.data(table, f"recipes_values_{benchmark}")
    seeds = tables.number_of_runs(table.rename(columns={"pairs": "runs"}), "seeds", by="recipe")
    caption = (
        f"avg mAP (%) on {benchmark} with another training recipe, by label fraction. In brackets: "
        f"difference from the model's own recipe on the same recordings. Mean of {seeds}."
        f"{about_settings(table.recipe)}"
    )
    best = tables.Best(high=tuple(shown.columns), within=("recipe",))
    out.table(shown.reset_index(), f"recipes_{benchmark}", caption, best)


def _every_variant(runs, benchmark, out):
    summary = statistics.summarise(runs, ["model", "recipe", "fraction"], "avg_map")
    wide = (
        summary.assign(text=tables.with_interval(summary))
        .pivot(index=["model", "recipe"], columns="fraction", values="text")
        .fillna("")
    )
    wide = wide.loc[summary.groupby(["model", "recipe"])["mean"].mean().sort_values(ascending=False).index]
    wide.columns = [f"{100 * fraction:g} %" for fraction in wide.columns]
    caption = (
        f"Every tested model, option and recipe on {benchmark}: avg mAP (%) by label fraction, mean "
        f"of {tables.number_of_runs(summary, 'seeds')} with 95 % interval (Student's t). An empty recipe is "
        "the model's own."
    )
    out.table(wide.reset_index(), f"variants_{benchmark}", caption, tables.Best(high=tuple(wide.columns)))


def _variance(runs, benchmark, out):
    rows = []
    for (model, fraction), group in runs.groupby(["model", "fraction"], sort=False):
        try:
            parts = statistics.variance_components(group)
        except ValueError:  # the crossed design is incomplete
            continue
        rows.append(
            {
                "model": model,
                "fraction": fraction,
                **parts,
                "subsets": group.subset_seed.nunique(),
                "seeds": group.seed.nunique(),
                "mean": group.avg_map.mean(),
            }
        )
    if not rows:
        return
    table = pd.DataFrame(rows)
    shown = pd.DataFrame(
        {
            "model": table.model,
            "label fraction": [f"{100 * fraction:g} %" for fraction in table.fraction],
            "avg mAP": table["mean"].round(1),
            "subset sample": table.subset.round(2),
            "training seed": table.seed.round(2),
            "interaction and residual": table.interaction.round(2),
            "design": [f"{row.subsets} × {row.seeds}" for row in table.itertuples()],
        }
    )
    caption = (
        f"Sources of variance on {benchmark}: standard deviation of avg mAP (points). Sources: the subset "
        "sample, the training seed, and their interaction with the residual. Crossed design (subset samples "
        "× training seeds), two-way random effects."
    )
    out.data(table, f"variance_values_{benchmark}")
    out.table(shown, f"variance_{benchmark}", caption)
