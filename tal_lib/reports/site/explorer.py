"""The data of the start page's explorer, computed from the tidy tables in `results/tables`."""

import math

import pandas as pd

from tal_lib.evaluation.nested import estimate, mean_of
from tal_lib.evaluation.statistics import summarise
from tal_lib.reports import tables, theme
from tal_lib.reports.costs.accuracy import medians
from tal_lib.reports.costs.shapes import COSTS
from tal_lib.reports.efficiency.runs import FIRST_STUDY, FLOOR, main_arm, with_all_data
from tal_lib.reports.equal.arms import MAIN, MEAN, PLAIN, TUNED, TUNING, place, runs_of, scores_of
from tal_lib.reports.folds import on_official_split
from tal_lib.reports.layout import Layout
from tal_lib.reports.site.pages import download

OWN_RECIPES = "own recipes"
ELSEWHERE = "hapt"  # its costs stand in for those of benchmarks that have none
KEYS = ["arm", "benchmark", "fraction", "model"]
COLUMNS = [*KEYS, "mean", "low", "high", "runs", "group", "params", "train_s"]
ABOUT = {
    MAIN: "The same search space and number of tuning trials for every model; cross-validation. "
    "Intervals: 95 %, nested over folds and people (or recordings, where people are unknown). Models that "
    "share a letter in the column group cannot be told apart. Parameters are those of the tuned models; "
    "MACs, latency and memory those of the preset.",
    PLAIN: "One plain recipe for every model, without augmentation, untuned; cross-validation. "
    "Intervals: 95 %, nested over folds and people (or recordings, where people are unknown).",
    OWN_RECIPES: f"Unequal: every model has its own recipe. On HAPT, {FIRST_STUDY}. Official split. "
    "Intervals: 95 % over seeds, Student's t.",
}
SWEEP = "Runs of the sweep {}. Intervals: 95 % over runs, Student's t; a single run has none."
WORDS = {  # arm or sweep → how it is called in the list of arms; another sweep has its own name there
    MAIN: "equal recipe, tuned",
    PLAIN: "plain recipe, untuned",
    OWN_RECIPES: "own recipes, first study (unequal)",
    "frame_skip": "features at a lower rate",
    "hapt_arms": "first study, other recipes",
    "mixed_precision": "mixed precision",
    "own_design": "variants of local_global",
    "released_models": "released models",
    "size": "three model sizes",
    "steps": "number of steps",
    "time_budget": "equal training time",
    "variance": "many runs of three models",
    "worlds": "plain recipe, fold 0 alone",
}
RECIPE = {  # name in a recipe → in words, with its value
    "exchange": "instance mixing {}",
    "min_steps": "at least {} steps",
    "rotate": "random rotation (°) {}",
}
READERS = {  # arm or sweep → topic and name of its table for readers
    MAIN: ("equal", "equal_{}"),
    PLAIN: ("equal", "factorial_{}"),
    OWN_RECIPES: ("accuracy", "data_efficiency_{}"),
    "hapt_arms": ("accuracy", "recipes_{}"),
    "worlds": ("accuracy", "folds_{}"),
}
# key in a cost's row: (words of its axis, unit by which the measured value is divided)
AXES = {name: (label, unit) for name, label, unit in COSTS.values()}
AXES |= {"params": ("parameters (millions)", 1e6), "train": ("training time (s, mean over runs)", 1.0)}


def explorer_data(layout: Layout) -> dict | None:
    """All that the explorer shows, ready for JSON; None without runs of data efficiency.

    `arms` (id, name, text, benchmark → files of its table for readers), `models` (name → colour),
    `columns` and `rows` of accuracy (avg mAP in %), `costs` (benchmark → length in steps and a row per model,
    in the units of `axes`, `noisy`: cost → models whose third digit does not repeat; or the benchmark whose
    costs stand in), `axes` (id → words).
    """
    read = lambda name: tables.read_csv(layout.table(name), low_memory=False)
    efficiency = read("data_efficiency")
    if efficiency.empty:
        return None
    efficiency = efficiency.fillna({"recipe": "", "options": "", "stream": ""})
    data = {"data_efficiency": efficiency, "people": read("people")}
    arms = [*_equal(data, read), *_own_recipes(efficiency)]
    shown = {cell for arm in arms for cells in arm.cells.dropna() for cell in cells}
    accuracy = pd.concat([*arms, *_sweeps(efficiency, shown)])
    rows = _with_training(accuracy, read("training_cost"))
    rows = rows.assign(order=rows.benchmark.map(place)).sort_values("order", kind="stable")
    costs = _costs(read("inference_cost"), rows)
    names, called = sorted(rows.model.unique()), names_of_arms(list(rows.arm.unique()))
    return {
        "arms": [
            _arm(layout, arm, called[arm], list(group.benchmark))
            for arm, group in rows.groupby("arm", sort=False)
        ],
        "models": {name: theme.style(name, number)[0] for number, name in enumerate(names)},
        "floor": FLOOR,
        "axes": {name: label for name, (label, _) in AXES.items()},
        "columns": COLUMNS,
        "rows": [[_plain(value) for value in row] for row in rows[COLUMNS].itertuples(index=False)],
        "costs": costs,
    }


def _equal(data, read):
    """The equal arm as its table has it, and the plain arm by the same estimates."""
    equal = read("equal_values")
    if len(equal):
        shown = equal.rename(columns={"letters": "group", "folds": "runs"})
        cells = runs_of(data | {"tuning_trials": read("tuning_trials")}, MAIN)
        yield _with_cells(shown.assign(arm=MAIN), cells)
    known = {
        (benchmark, fraction, model): estimate(here.by_fold(here.people[model]))
        for (benchmark, fraction), here in scores_of(data, PLAIN).items()
        for model in here.models
    }
    for fraction, model in dict.fromkeys(key[1:] for key in known):
        of_tuned = [known.get((benchmark, fraction, model)) for benchmark in TUNED]
        if all(of_tuned):
            known[MEAN, fraction, model] = mean_of(of_tuned)
    rows = [(PLAIN, *key, each.mean, each.low, each.high, each.folds) for key, each in known.items()]
    if rows:
        yield _with_cells(pd.DataFrame(rows, columns=COLUMNS[:8]), runs_of(data, PLAIN))


def _own_recipes(efficiency):
    """The models' own recipes on the official split: what `data_efficiency_summary` has."""
    official = on_official_split(efficiency)
    if len(official):
        runs = tables.average_map(main_arm(official))
        yield _with_cells(_summary(runs).assign(arm=OWN_RECIPES), runs)


def _sweeps(efficiency, shown):
    """An arm per sweep, one per recipe if it compares recipes, of the models that have runs beside those in
    `shown` (cells).
    """
    whole = with_all_data(efficiency[efficiency.stream == ""])
    for sweep, rows in whole.groupby("sweep", sort=True):
        if sweep in (MAIN, PLAIN, TUNING):
            continue
        runs = tables.average_map(rows)
        compared = runs.groupby(KEYS[1:]).recipe.nunique().max() > 1
        for recipe, of_recipe in runs.groupby("recipe") if compared else [("", runs)]:
            arm = f"{sweep}: {recipe or 'own recipe'}" if compared else str(sweep)
            is_new = ~of_recipe.cell.isin(shown)
            of_recipe = of_recipe[is_new.groupby([of_recipe[key] for key in KEYS[1:]]).transform("any")]
            if len(of_recipe):
                yield _with_cells(_summary(of_recipe).assign(arm=arm), of_recipe)


def _summary(runs):
    return summarise(runs, ["benchmark", "model", "fraction"], "avg_map")


def _with_cells(summary, runs):
    """The summary with the runs behind each row, whose training times are averaged later."""
    cells = runs.groupby(KEYS[1:]).cell.agg(list).rename("cells").reset_index()
    return summary.merge(cells, on=KEYS[1:], how="left")


def _with_training(accuracy, training):
    """Parameters, and training seconds as the mean over a row's runs on the machine with the most rows."""
    accuracy = accuracy.reset_index(drop=True).reindex(columns=[*COLUMNS[:9], "cells"])
    if training.empty:
        return accuracy.assign(params=math.nan, train_s=math.nan)
    training = tables.on_main_machine(training).drop_duplicates("cell").set_index("cell")
    cells = accuracy.cells.explode().dropna()
    for name, column in (("params", "params"), ("train_s", "train_seconds")):
        accuracy[name] = cells.map(training[column]).astype(float).groupby(level=0).mean()
    return accuracy.assign(params=accuracy.params.where(accuracy.model != FLOOR))


def _costs(cost, rows):
    """benchmark → length in steps, machine, benchmark that the costs are of, and model → costs in the units
    of their axes.

    A benchmark without measured costs has only the name of one that has them, `ELSEWHERE`.
    """
    costs = {}
    for benchmark in dict.fromkeys([*rows.benchmark, ELSEWHERE]) if len(cost) else ():
        steps, measured = medians(cost.fillna({"options": ""}), benchmark)
        if measured.empty:
            costs[benchmark] = {"of": ELSEWHERE}
        else:
            of_model = {
                row.model: {
                    name: _plain(getattr(row, column) / unit) for column, (name, _, unit) in COSTS.items()
                }
                for row in measured.itertuples()
            }
            machine = tables.main_machine(cost[cost.device == "cpu"])
            noisy = list(measured.model[measured.memory_digits < 3])
            about = {"steps": int(steps), "machine": machine, "of": benchmark, "noisy": {"memory": noisy}}
            costs[benchmark] = about | {"models": of_model}
    if "models" in costs.get(ELSEWHERE, {}):
        return costs
    return {benchmark: about for benchmark, about in costs.items() if "models" in about}


def names_of_arms(arms: list[str]) -> dict[str, str]:
    """Arm → its name in the list: the sweep in words, and where its recipe differs from the others."""
    recipes = {}
    for arm in arms:
        sweep, _, recipe = arm.partition(": ")
        recipes.setdefault(sweep, {})[arm] = recipe.split(", ")
    names = {}
    for sweep, of_arm in recipes.items():
        common = set.intersection(*map(set, of_arm.values())) if len(of_arm) > 1 else set()
        for arm, parts in of_arm.items():
            settings = [part.partition("=") for part in parts if part and part not in common]
            words = [RECIPE.get(name, f"{name} {{}}").format(value).strip() for name, _, value in settings]
            names[arm] = ": ".join([WORDS.get(sweep, sweep), *[", ".join(words)] * bool(words)])
    return names


def _arm(layout, arm, name, benchmarks):
    sweep = arm.partition(":")[0]
    topic, stem = READERS.get(sweep, ("accuracy", ""))
    files = {}
    for benchmark in dict.fromkeys(benchmarks) if stem else ():
        path = layout.reader(topic, stem.format(benchmark))
        if path.is_file():
            files[benchmark] = [download(topic, path.stem, suffix) for suffix in (".csv", ".tex")]
    return {"id": arm, "name": name, "about": ABOUT.get(arm, SWEEP.format(sweep)), "files": files}


def _plain(value):
    """A value for JSON: no NaN, five significant digits: the start page must stay light."""
    if pd.isna(value):
        return None
    return float(f"{value:.5g}") if isinstance(value, float) else getattr(value, "item", lambda: value)()
