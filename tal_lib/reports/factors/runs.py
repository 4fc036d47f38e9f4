"""The runs of one factor's sweep on folds, and the scores of their tested people.

A factor is what the plain recipe's cells of a sweep differ in: how the annotation is spread, how the training
time is spent, how wide the model is. A setting is one value of each of `SETTING`.
"""

import pandas as pd

from tal_lib.reports import tables
from tal_lib.reports.efficiency.runs import with_settings_of
from tal_lib.reports.equal.arms import people_of, runs_on_folds
from tal_lib.reports.equal.pairs import interval

SETTING = ["benchmark", "model", "fraction", "people", "annotated", "options", "recipe"]
PERSON = ["fold", "person"]
EVERY_MODEL = "mean"  # in place of a model's name: the mean over the models


def people_of_sweep(data: dict[str, pd.DataFrame], sweep: str, factors: tuple[str, ...] = ()) -> pd.DataFrame:
    """A row per tested person of every finished setting of a sweep.

    Cells that another sweep ran first are not in the sweep's ledger. So all runs count that are as one of its
    cells, but for the values of `factors`.

    `SETTING`, `fold, person, value` (%; see `equal.arms`), and of the run `segments_trained, people_trained`.
    A setting is finished if it has every fold that any setting of its benchmark has.
    """
    columns = [*SETTING, *PERSON, "value", "segments_trained", "people_trained"]
    runs = runs_on_folds(data)
    if not len(runs):
        return pd.DataFrame(columns=columns)
    usual = {"people": 1, "annotated": 1, "skip": 1}
    runs = runs.fillna(usual).assign(**{name: 1 for name in usual if name not in runs})
    runs = runs[(runs.seed == 0) & (runs.subset_seed == 0) & (runs.skip == 1)]
    runs = with_settings_of(runs, sweep, [name for name in SETTING if name not in factors])
    runs = runs.sort_values("utc", kind="stable")
    runs = runs.drop_duplicates([*SETTING, "fold"], keep="last")
    runs = runs.assign(
        model=tables.with_shown_names(runs[["model", "preset"]]).model,
        segments_trained=runs.get("train_segments"),
        people_trained=runs.get("train_people"),
    )
    folds = runs.groupby(SETTING).fold.transform("nunique")
    runs = runs[folds == runs.groupby("benchmark").fold.transform("nunique")]
    people = people_of(data, runs[[*SETTING, "fold", "avg_map", "cell", *columns[-2:]]])
    return people[columns].sort_values([*SETTING, *PERSON], ignore_index=True)


def mean_over_models(people: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The mean over the models of a person's value, per group of `keys`, which begin with the benchmark.

    Only groups that every model of the benchmark has, and benchmarks with two models or more. The result has
    the columns of `people`, with `EVERY_MODEL` as model.
    """
    models = lambda *by: people.groupby(list(by)).model.transform("nunique")
    shared = people[(models(*keys) == models("benchmark")) & (models("benchmark") > 1)]
    numbers = {name: "mean" for name in ("value", "segments_trained", "people_trained")}
    means = shared.groupby([*keys, *PERSON], as_index=False).agg(numbers)
    return means.assign(model=EVERY_MODEL)


def shown_model(model: str) -> str:
    """The name of a model in tables: the mean over the models has its own words."""
    return "mean over models" if model == EVERY_MODEL else model


def signed_range(values: pd.Series) -> str:
    """The smallest and the largest value with signs: `-0.2 to +8.8`."""
    return " to ".join(interval(value, float("nan"), float("nan")) for value in (values.min(), values.max()))
