"""The runs that are compared: by one recipe, on the same recordings."""

import numpy as np
import pandas as pd

OWN = "local_global"  # the model that the study puts forward


def main_arm(efficiency: pd.DataFrame) -> pd.DataFrame:
    """Runs by the models' own recipe and options on subsets drawn with the training's seed: what models are
    compared by.

    A benchmark on which no run has a model's own recipe, as in a quick study, is judged by the most frequent
    one.
    """
    alike = efficiency[(efficiency.options == "") & (efficiency.subset_seed < 0)]
    main = alike.groupby("benchmark").recipe.transform(
        lambda recipes: "" if (recipes == "").any() else recipes.mode().iloc[0]
    )
    return alike[alike.recipe == main]


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of those shares of the recordings that most models of their benchmark have."""
    models = lambda *by: table.groupby(list(by)).model.transform("nunique")
    return table[models("benchmark", "fraction") > models("benchmark") / 2]


def complete(runs: pd.DataFrame) -> pd.DataFrame:
    """The largest block of runs in which every model has every (fraction, seed): what models are compared
    on."""
    table = runs.pivot_table(index=["fraction", "seed"], columns="model", values="avg_map")
    there, best = table.notna(), (0, None)
    for count in sorted(there.sum(1).unique()):
        pairs = there[there.sum(1) >= count]
        models = pairs.columns[pairs.all()]
        best = max(best, (len(pairs) * len(models), (pairs.index, models)), key=lambda block: block[0])
    pairs, models = best[1]
    return runs[runs.model.isin(models) & pd.MultiIndex.from_frame(runs[["fraction", "seed"]]).isin(pairs)]


def strata(runs: pd.DataFrame) -> dict[str, list[np.ndarray]]:
    """Each model's avg mAP, one array a fraction."""
    return {
        model: [
            at_fraction.avg_map.to_numpy() for _, at_fraction in rows.sort_values("seed").groupby("fraction")
        ]
        for model, rows in runs.groupby("model", sort=False)
    }


def span(counts) -> str:
    """The numbers of runs that a caption gives: `5`, or `2–5`."""
    return f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()}–{counts.max()}"
