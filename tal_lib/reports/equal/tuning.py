"""The tuning of the equal arm: all trials, chosen settings, and expected best score per number of trials."""

import pandas as pd

from tal_lib.reports import figures, tables
from tal_lib.reports.equal.arms import TUNING, percent
from tal_lib.reports.tables.names import about_settings
from tal_lib.sweeps.search import VALIDATION, Trial, expected_best, trials_of, tuned

KEYS = ["benchmark", "fraction", "model"]


def trials(ledger) -> pd.DataFrame:
    """A row per trial: `benchmark, fraction, model, settings, recipe, options, avg_map` (%), `runs, chosen`.

    `settings` are those that differ between the trials of a model; the first trial of a search has none.
    `chosen` is the trial whose settings the equal arm takes (`sweeps.search.tuned`).
    """
    known = [trial for trial in trials_of(ledger) if trial.benchmark.endswith(VALIDATION)]
    searches: dict[tuple, list[Trial]] = {}
    for trial in known:
        name = trial.benchmark.removesuffix(VALIDATION)
        searches.setdefault((name, trial.fraction, trial.model, trial.preset, trial.fold), []).append(trial)
    rows = []
    for (benchmark, fraction, model, preset, fold), group in sorted(searches.items()):
        best = tuned(ledger, benchmark, model, preset, fraction, fold)
        fixed = {name for name in _settings(group[0]) if len({_value(each, name) for each in group}) == 1}
        for trial in sorted(group, key=lambda trial: -trial.score):
            searched = {name: value for name, value in _settings(trial).items() if name not in fixed}
            rows.append(
                (
                    benchmark,
                    fraction,
                    tables.shown_name(model, preset),
                    _text(searched),
                    _text(trial.recipe),
                    _text(trial.options),
                    100 * trial.score,
                    trial.runs,
                    trial == best,
                )
            )
    columns = [*KEYS, "settings", "recipe", "options", "avg_map", "runs", "chosen"]
    return pd.DataFrame(rows, columns=columns)


def _settings(trial):
    return trial.recipe | trial.options


def _value(trial, name):
    return repr(_settings(trial).get(name))


def _text(settings):
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def expected(table: pd.DataFrame) -> pd.DataFrame:
    """`benchmark, fraction, model, trials, expected`: expected best avg mAP (%) of so many trials."""
    rows = [
        (*key, count, value)
        for key, group in table.groupby(KEYS, sort=False)
        for count, value in enumerate(expected_best(group.avg_map), 1)
    ]
    return pd.DataFrame(rows, columns=[*KEYS, "trials", "expected"])


def _numbers(rows):
    """Whether the models have the same number of trials, as a sentence."""
    counts = rows.groupby(["fraction", "model"]).size()
    if counts.nunique() == 1:
        return "Every model has the same number of trials."
    return f"The numbers of trials are unequal: {counts.min()} to {counts.max()}."


def chosen_table(table: pd.DataFrame) -> pd.DataFrame:
    """Table for readers of one benchmark: a row per model and label fraction, with the chosen settings."""
    rows = []
    for (_, fraction, model), group in table.groupby(KEYS, sort=False):
        default, best = group[group.settings == ""], group[group.chosen]
        if len(best):
            rows.append(
                {
                    "label fraction": percent(fraction),
                    "model": model,
                    "trials": len(group),
                    "plain recipe": default.avg_map.iloc[0] if len(default) else float("nan"),
                    "best trial": best.avg_map.iloc[0],
                    "settings": best.settings.iloc[0] or "plain recipe",
                }
            )
    shown = pd.DataFrame(
        rows, columns=["label fraction", "model", "trials", "plain recipe", "best trial", "settings"]
    )
    return shown.round({"plain recipe": 1, "best trial": 1})


def write(out) -> pd.DataFrame:
    """Write the trials, the chosen settings and the expected best scores, if there is a search.

    Returns:
        the trials.
    """
    ledger = out.layout.ledger / f"{TUNING}.jsonl"
    table = trials(ledger) if ledger.is_file() else pd.DataFrame()
    if not len(table):
        return table
    best = expected(table)
    out.data(table, "tuning_trials")
    out.data(best, "tuning_expected")
    for benchmark, rows in table.groupby("benchmark", sort=False):
        caption = (
            f"Settings chosen by tuning on {benchmark}: validation avg mAP (%) of the plain recipe (no "
            f"tuning) and of the best trial. {_numbers(rows)}"
            f"{about_settings(rows[rows.chosen].settings)}"
        )
        within = tables.Best(high=("plain recipe", "best trial"), within=("label fraction",))
        out.table(chosen_table(rows), f"tuning_{benchmark}", caption, within)
        every = pd.DataFrame(
            {
                "label fraction": list(map(percent, rows.fraction)),
                "model": rows.model,
                "settings": rows.settings.replace("", "plain recipe"),
                "avg mAP": rows.avg_map.round(1),
                "chosen": rows.chosen.map({True: "yes", False: ""}),
            }
        )
        caption = (
            f"All trials of the tuning on {benchmark}: validation avg mAP (%).{about_settings(rows.settings)}"
        )
        out.table(every, f"tuning_trials_{benchmark}", caption)
        here = best[best.benchmark == benchmark]
        caption = (
            f"Expected best validation avg mAP (%) on {benchmark} by number of trials of the random search."
        )
        out.table(expected_table(here), f"expected_best_{benchmark}", caption, tables.HIGHEST)
        caption = (
            f"Expected best validation avg mAP by number of tuning trials on {benchmark}: a panel per label "
            "fraction; the best five models are in colour."
        )
        out.figure(figures.expected_best(here)[0], f"expected_best_{benchmark}", caption)
    return table


def expected_table(best: pd.DataFrame) -> pd.DataFrame:
    """Table for readers of one benchmark: a row per model and label fraction, a column per number of trials
    (1, 2, 4, … and all)."""
    counts = [count for count in sorted(best.trials.unique()) if count & (count - 1) == 0]
    counts = sorted({*counts, int(best.trials.max())})
    wide = best[best.trials.isin(counts)].pivot(
        index=["fraction", "model"], columns="trials", values="expected"
    )
    wide.columns = [f"{count} trial{'s' * (count > 1)}" for count in wide.columns]
    order = best.groupby(["fraction", "model"]).expected.max().sort_values(ascending=False).index
    wide = wide.loc[sorted(order, key=lambda key: key[0])].round(1).reset_index()
    return wide.assign(fraction=list(map(percent, wide.fraction))).rename(
        columns={"fraction": "label fraction"}
    )
