"""The arms of the study, and the scores of the tested people in them.

The arm of a cell is its sweep. A cell that two sweeps share lies in the ledger of the sweep that ran first:
runs of other sweeps with the settings of an arm belong to it too.

A person's score is the jackknife's pseudo-value of the fold's avg mAP (`evaluation.nested`). Here the scores
of a fold are moved so that their mean is the fold's avg mAP itself: the number that any evaluation tool
gives. Only the jackknife's correction of its bias is left out; the variance stays as it is.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tal_lib.reports import tables
from tal_lib.reports.efficiency.runs import FLOOR, with_all_data

MAIN, PLAIN, TUNING, VARIANCE = "equal", "plain", "tuning", "variance"
TUNED = ("hapt", "sfinge3d", "rendered", "urfall")  # the mean over benchmarks is over these
SETTINGS_OF = {"hapt_recomposed": "hapt", "hapt_recomposed_test": "hapt"}  # whose trials another has
MEAN = "mean"  # in place of a benchmark's name
CELL = ["benchmark", "fraction", "model", "fold"]


@dataclass(frozen=True)
class Scores:
    """The scores of an arm on one benchmark at one label fraction, in % of avg mAP.

    Attributes:
        people: a row per tested person, index `fold, person`; a column per model that has every fold.
        folds: avg mAP: a row per fold, a column per model that has every fold.
        corrected: the same with the jackknife's correction of its bias.
        floor: scores of `timeline_prior`: `fold, person, value`; empty if it did not run.
        left_out: model → the folds that it has, of models that lack one.
    """

    people: pd.DataFrame
    folds: pd.DataFrame
    corrected: pd.DataFrame
    floor: pd.DataFrame
    left_out: dict[str, tuple[int, ...]]

    @property
    def models(self) -> list[str]:
        """The models that have every fold, the best first."""
        return list(self.folds.mean().sort_values(ascending=False, kind="stable").index)

    def by_fold(self, values: pd.Series) -> list[np.ndarray]:
        """Values of people, index `fold, person`, as one array per fold."""
        return [rows.to_numpy() for _, rows in values.dropna().groupby(level="fold")]


def failures(scores: dict[tuple[str, float], Scores], benchmarks, fractions) -> str:
    """A sentence for a caption on trainings that detected nothing; empty if there are none.

    Args:
        scores: of one arm.
        benchmarks: the benchmarks of the table; fractions: its label fractions.
    """
    failed = [
        (model, [f"{fold}" for fold in folds.index[folds == 0]], f"of {benchmark} ({percent(fraction)})")
        for (benchmark, fraction), here in scores.items()
        if benchmark in benchmarks and fraction in fractions
        for model, folds in here.folds.items()
    ]
    where = [
        f"{model} on fold{'s' * (len(folds) > 1)} {', '.join(folds)} {on}"
        for model, folds, on in failed
        if folds
    ]
    count = sum(len(folds) for _, folds, _ in failed)
    return f" {'; '.join(where)} detected nothing and count{'s' * (count == 1)} as 0." * bool(where)


def runs_on_folds(data: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """All runs of compact models on folds, a row per cell of the tidy table `data_efficiency`.

    Beside its columns `avg_map` (%); `subset_seed` is the one that was used; an empty `recipe`, `options` or
    `stream` is a text. Empty without such runs.
    """
    table = data.get("data_efficiency", pd.DataFrame())
    if not len(table) or not {"fold", "sweep", "utc"} <= set(table):
        return pd.DataFrame()
    table = table.fillna({"recipe": "", "options": "", "stream": ""})
    table = table[(table.fold >= 0) & (table.preset == "compact") & (table.stream == "")]
    means = 100 * table.groupby("cell")["map"].mean()
    runs = table.drop_duplicates("cell")
    subset_seed = runs.subset_seed.where(runs.subset_seed >= 0, runs.seed)
    return runs.assign(avg_map=runs.cell.map(means), subset_seed=subset_seed)


def runs_of(data: dict[str, pd.DataFrame], arm: str) -> pd.DataFrame:
    """The runs of an arm on folds, a row per cell.

    `benchmark, fraction, model, fold, subset_seed, seed, settings, avg_map` (%), `cell`. If a model has
    several settings on a benchmark at a label fraction, the newest count.
    """
    columns = [*CELL, "subset_seed", "seed", "settings", "avg_map", "cell"]
    runs = runs_on_folds(data)
    if not len(runs):
        return pd.DataFrame(columns=columns)
    runs = with_all_data(runs).reset_index(drop=True)
    runs = runs.assign(settings=runs.recipe + "; " + runs.options)
    rows = _of_arm(runs, arm, data.get("tuning_trials", pd.DataFrame()))
    newest = rows.sort_values("utc", kind="stable").groupby(["benchmark", "fraction", "model"]).settings
    rows = rows[rows.settings == newest.transform("last").reindex(rows.index)]
    rows = rows.sort_values("utc", kind="stable").drop_duplicates([*CELL, "subset_seed", "seed"], keep="last")
    names = tables.with_shown_names(rows[["model", "preset"]]).model
    return rows.assign(model=names)[columns].sort_values(columns[:6], ignore_index=True)


def training_segments(data: dict[str, pd.DataFrame], arm: str) -> dict[tuple[str, float], float]:
    """(benchmark, label fraction) → annotated training segments of a run, mean over the folds."""
    runs = runs_of(data, arm)
    if "train_segments" not in data["data_efficiency"]:  # tables of others
        return {}
    of_cell = data["data_efficiency"].drop_duplicates("cell").set_index("cell").train_segments
    runs = runs.assign(segments=runs.cell.map(of_cell))
    of_fold = runs.groupby(["benchmark", "fraction", "fold"]).segments.mean()
    return of_fold.groupby(["benchmark", "fraction"]).mean().to_dict()


def _of_arm(runs, arm, trials):
    """The runs of an arm; those that another sweep ran first are among them.

    If tuning chose the plain recipe, all runs of a model may be of another sweep: `trials` tell its settings.
    """
    runs = runs.assign(all_labels=runs.fraction == 1)
    first = (runs.seed == 0) & (runs.subset_seed == 0)
    if arm == VARIANCE:
        rows = runs[(runs.sweep == arm) & (runs.model != FLOOR)]
        keys, others = ["benchmark", "fraction", "model"], runs[runs.sweep != arm]
    else:  # one search chose the settings of all fractions below 100 %, another those of 100 %
        rows = runs[(runs.sweep == arm) & first]
        every = [] if arm == PLAIN else ["all_labels"]  # one plain recipe for all fractions
        keys, others = ["benchmark", *every, "model"], runs[(runs.sweep != arm) & first]
    keys = [*keys, "settings"]
    wanted = rows[keys]
    if arm == MAIN and len(trials):
        chosen = trials[trials.chosen & trials.benchmark.isin(rows.benchmark)]
        settings = chosen.recipe.fillna("") + "; " + chosen.options.fillna("")
        wanted = pd.concat([wanted, chosen.assign(all_labels=chosen.fraction == 1, settings=settings)[keys]])
    sorted_text = lambda frame: frame.assign(settings=frame.settings.map(_in_order))
    shared = pd.MultiIndex.from_frame(sorted_text(others[keys])).isin(
        pd.MultiIndex.from_frame(sorted_text(wanted))
    )
    return pd.concat([rows, others[shared]])


def _in_order(settings):
    """The text of settings with the names in order: sweeps may give them in different orders."""
    return "; ".join(", ".join(sorted(part.split(", "))) for part in settings.split("; "))


def people_of(data: dict[str, pd.DataFrame], runs: pd.DataFrame) -> pd.DataFrame:
    """The tested people of runs: the columns of the runs, and `person, segments, score` (%), `value` (%).

    `score` is the pseudo-value, `value` the score after the move that this module describes.
    """
    table = data.get("people", pd.DataFrame())
    if not len(table) or not len(runs):
        return runs.iloc[:0].assign(person="", segments=0, score=0.0, value=0.0)
    people = runs.merge(table[["cell", "person", "segments", "score"]], on="cell")
    people["score"] *= 100
    of_fold = people.groupby("cell").score.transform("mean")
    return people.assign(value=people.score - of_fold + people.avg_map)


def scores_of(data: dict[str, pd.DataFrame], arm: str) -> dict[tuple[str, float], Scores]:
    """(benchmark, label fraction) → the scores of an arm. Benchmarks without two complete models are absent.

    A model counts as complete if it has every fold that any model has in this arm on the benchmark.
    """
    runs = runs_of(data, arm)
    people = people_of(data, runs[runs.model != FLOOR])
    floor = people_of(data, _floor_runs(data, runs))
    scores = {}
    for benchmark, rows in people.groupby("benchmark", sort=False):
        wanted = sorted(rows.fold.unique())
        for fraction, group in rows.groupby("fraction"):
            have = group.groupby("model").fold.unique().map(lambda folds: tuple(sorted(map(int, folds))))
            whole = [model for model, folds in have.items() if len(folds) == len(wanted)]
            wide = lambda value: group[group.model.isin(whole)].pivot(  # noqa: B023
                index=["fold", "person"], columns="model", values=value
            )
            if len(whole) < 2 or len(wanted) < 2:
                continue
            below = floor[(floor.benchmark == benchmark) & (floor.fraction == fraction)]
            by_fold = group[group.model.isin(whole)].groupby(["fold", "model"])
            scores[str(benchmark), float(fraction)] = Scores(
                wide("value"),
                by_fold.avg_map.first().unstack(),
                by_fold.score.mean().unstack(),
                below if below.fold.nunique() == len(wanted) else below.iloc[:0],
                {str(model): folds for model, folds in have.items() if model not in whole},
            )
    return dict(sorted(scores.items(), key=lambda item: (place(item[0][0]), item[0])))


def _floor_runs(data, runs):
    """The runs of the floor in any arm, on the folds and subset samples of the runs."""
    anywhere = [runs_of(data, arm) for arm in (MAIN, PLAIN)]
    floor = pd.concat([table[table.model == FLOOR] for table in anywhere]).drop_duplicates(CELL)
    return floor[pd.MultiIndex.from_frame(floor[CELL[:2]]).isin(pd.MultiIndex.from_frame(runs[CELL[:2]]))]


def place(benchmark: str) -> int:
    """The place of a benchmark in tables: the tuned ones first, the mean over benchmarks last."""
    order = (*TUNED, MEAN)
    return order.index(benchmark) if benchmark in TUNED else len(order) - (benchmark != MEAN)


def tuned_benchmarks(trials: pd.DataFrame) -> set[str]:
    """The benchmarks on which the models of the main arm have tuned settings, not the plain recipe.

    They have trials, or take those of another benchmark. The mean over benchmarks is among them.

    Args:
        trials: the tidy table `tuning_trials`; it may be empty.
    """
    searched = {*TUNED, *(trials.benchmark if len(trials) else ())}
    return searched | {MEAN} | {name for name, source in SETTINGS_OF.items() if source in searched}


def recipe_of(benchmark: str, tuned: set[str]) -> str:
    """What recipe the models have on a benchmark in the main arm, in words. tuned: `tuned_benchmarks`."""
    if benchmark in SETTINGS_OF:
        return f"settings tuned on {SETTINGS_OF[benchmark]}"
    return "each model tuned" if benchmark in tuned else "plain recipe, untuned"


def percent(fraction: float) -> str:
    """0.1 → `10 %`."""
    return f"{100 * fraction:g} %"
