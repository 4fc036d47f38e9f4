"""Selects the runs to compare: with one recipe, on the same recordings."""

import numpy as np
import pandas as pd

OUR_MODEL = "local_global"  # this study's model
FLOOR = "timeline_prior"  # reads no feature
FIRST_VERSION = "0.1.0"  # of the library, by which the first study was run
FIRST_STUDY = f"{OUR_MODEL} alone had augmentation, in its former design"
COLLAPSED = 20  # points of avg mAP: a training so far below the median of its model has failed


def main_arm(efficiency: pd.DataFrame) -> pd.DataFrame:
    """The runs of the main arm: the models' own recipe and options, subsets drawn with the training seed, all
    people, annotations and feature steps.

    A benchmark where few models ran with the own recipe, as in a quick study, uses the recipe that most of
    its models have. If no recipe has more than half of them, as in tuned runs, each model has its most
    frequent settings at a label fraction; `recipe` then names the options too. The floor, which has no
    recipe, is always there.
    """
    alike = with_all_data(efficiency[efficiency.subset_seed < 0])
    groups = alike.groupby("benchmark", sort=False).indices.values()
    parts = [_of_main_arm(alike.iloc[places]) for places in groups]
    return pd.concat(parts).sort_index(kind="stable") if parts else alike


def _of_main_arm(rows):
    """The runs of one benchmark that are of its main arm."""
    default, floor = rows.options == "", rows.model == FLOOR
    counts = rows[default & ~floor].groupby("recipe").model.agg(["nunique", "size"])
    common = counts[2 * counts["nunique"] > rows[~floor].model.nunique()]
    if len(common):
        recipe = "" if "" in common.index else common.sort_values(["nunique", "size"]).index[-1]
        return rows[default & ((rows.recipe == recipe) | floor)]
    settings = rows.recipe + "; " + rows.options
    frequent = settings.groupby([rows.model, rows.fraction]).transform(lambda values: values.mode().iloc[0])
    chosen = (settings == frequent) & ~floor | default & floor
    return rows.assign(recipe=settings.mask(floor, ""), options="")[chosen]


def default_recipes(runs: pd.DataFrame) -> bool:
    """Whether the models had the recipes that are their defaults, as in docs/first-study.md."""
    return bool((runs[runs.model != FLOOR].recipe == "").any())


def own_recipes(runs: pd.DataFrame) -> bool:
    """Whether the models had different recipes, by default or by tuning: these rows give no fair ranking."""
    recipes = runs[runs.model != FLOOR].groupby("model").recipe.agg(frozenset)
    return default_recipes(runs) or recipes.nunique() > 1


def about_recipes(runs: pd.DataFrame, text: str) -> str:
    """A caption that first says whether the models had one recipe."""
    return f"{_unequal(runs) if own_recipes(runs) else 'One recipe'}: {text}"


def unequal_first(runs: pd.DataFrame) -> str:
    """The words that the note of a figure begins with if the models had recipes of their own."""
    return f"{_unequal(runs)}. " if own_recipes(runs) else ""


def _unequal(runs):
    """How the recipes differ. runs: `model`, and `tal_lib_version` where it is known."""
    ours = runs[runs.model == OUR_MODEL]
    first = "tal_lib_version" in ours and (ours.tal_lib_version == FIRST_VERSION).any()
    return f"Unequal, {FIRST_STUDY if first else 'each model by its own recipe'}"


def collapsed_runs(runs: pd.DataFrame) -> str:
    """The words on trainings that failed, which make intervals wide. runs: `model, fraction, avg_map` (%)."""
    median = runs.groupby(["model", "fraction"]).avg_map.transform("median")
    counts = runs[runs.avg_map < median - COLLAPSED].model.value_counts().sort_index()
    if not len(counts):
        return ""
    named = ", ".join(f"{count} of {model}" for model, count in counts.items())
    below = f"more than {COLLAPSED} points of avg mAP below the median of their model"
    return f"Collapsed trainings, {below}: {named}. "


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
