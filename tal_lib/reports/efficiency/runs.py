"""Selects the runs to compare: with one recipe, on the same recordings."""

import numpy as np
import pandas as pd

OUR_MODEL = "local_global"  # this study's model
FLOOR = "timeline_prior"  # reads no feature


def main_arm(efficiency: pd.DataFrame) -> pd.DataFrame:
    """The runs of the main arm: the models' own recipe and options, subsets drawn with the training seed, all
    people, annotations and feature steps.

    A benchmark without any run of the own recipe, as in a quick study, uses its most frequent recipe. The
    floor, which has no recipe, is always there.
    """
    alike = efficiency[(efficiency.options == "") & (efficiency.subset_seed < 0)]
    alike = with_all_data(alike)
    trained = alike[alike.model != FLOOR]
    chosen = trained.groupby("benchmark").recipe.agg(
        lambda recipes: "" if (recipes == "").any() else recipes.mode().iloc[0]
    )
    return alike[(alike.recipe == alike.benchmark.map(chosen).fillna("")) | (alike.model == FLOOR)]


def own_recipes(runs: pd.DataFrame) -> bool:
    """Whether every model had a recipe of its own, as in docs/first-study.md: then no ranking is fair."""
    return bool((runs[runs.model != FLOOR].recipe == "").any())


def about_recipes(runs: pd.DataFrame, text: str) -> str:
    """A caption that first says whether the models had one recipe."""
    return f"{'Unequal, each model by its own recipe' if own_recipes(runs) else 'One recipe'}: {text}"


def unequal_first(runs: pd.DataFrame) -> str:
    """The words that the note of a figure begins with if the models had recipes of their own."""
    return "Unequal: each model by its own recipe. " if own_recipes(runs) else ""


def with_all_data(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of runs with all people, annotations and feature steps."""
    for name in {"people", "annotated", "skip"} & set(table):
        table = table[table[name].fillna(1) == 1]
    return table


def with_settings_of(table: pd.DataFrame, sweep: str, keys: list[str]) -> pd.DataFrame:
    """The rows that have the settings of a sweep, whichever sweep ran them: `keys` as in one of its rows."""
    wanted = pd.MultiIndex.from_frame(table.loc[table.sweep == sweep, keys].drop_duplicates())
    return table[pd.MultiIndex.from_frame(table[keys]).isin(wanted)]


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the label fractions that most models of the benchmark have."""
    models = lambda *by: table.groupby(list(by)).model.transform("nunique")
    return table[models("benchmark", "fraction") > models("benchmark") / 2]


def complete(runs: pd.DataFrame) -> pd.DataFrame:
    """The largest block of runs in which every model has every (fraction, seed)."""
    table = runs.pivot_table(index=["fraction", "seed"], columns="model", values="avg_map")
    there, best = table.notna(), (0, None)
    for count in sorted(there.sum(1).unique()):
        pairs = there[there.sum(1) >= count]
        models = pairs.columns[pairs.all()]
        best = max(best, (len(pairs) * len(models), (pairs.index, models)), key=lambda block: block[0])
    pairs, models = best[1]
    return runs[runs.model.isin(models) & pd.MultiIndex.from_frame(runs[["fraction", "seed"]]).isin(pairs)]


def strata(runs: pd.DataFrame) -> dict[str, list[np.ndarray]]:
    """Each model's avg mAP, one array per fraction."""
    return {
        model: [
            at_fraction.avg_map.to_numpy() for _, at_fraction in rows.sort_values("seed").groupby("fraction")
        ]
        for model, rows in runs.groupby("model", sort=False)
    }
