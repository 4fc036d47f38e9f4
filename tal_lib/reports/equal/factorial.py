"""Architecture × recipe: what the recipe is worth, and how far apart architectures are with and without it.

The recipe is the equal one (augmentation and tuning), against the plain arm. Its worth is the mean over the
models of equal − plain of a person, with the nested interval over people. The models are a fixed choice.

The spread between architectures is the standard deviation and the range of their means. Even equal models
would have some spread, from noise: `noise` is the standard deviation that models without true differences
would show, from the variances of all paired differences.
"""

import numpy as np
import pandas as pd

from tal_lib.data.registry import group_name
from tal_lib.evaluation.nested import LEVEL, estimate, holm, mean_of, nested_estimate
from tal_lib.reports import figures, tables
from tal_lib.reports.efficiency.runs import FLOOR
from tal_lib.reports.equal.arms import MEAN, TUNED, Scores, failures, percent
from tal_lib.reports.equal.pairs import differences, interval, p_text, tested

MODELS = ["benchmark", "fraction", "model", "plain", "equal", "difference", "low", "high", "p", "p_adjusted"]
MODELS += ["equal_low", "equal_high", "plain_low", "plain_high"]
SPREADS = ["sd", "range", "noise"]
SPREAD_COLUMNS = [*(f"plain_{name}" for name in SPREADS), *(f"equal_{name}" for name in SPREADS), "floor"]
SUMMARY = [
    "benchmark",
    "fraction",
    "models",
    "recipe",
    "recipe_low",
    "recipe_high",
    "recipe_p",
    "recipe_p_adjusted",
    *SPREAD_COLUMNS,
]
WITHOUT = ["without", "without_recipe", "without_low", "without_high", "without_p"]  # of the mean alone


def factorial(
    equal: dict[tuple[str, float], Scores], plain: dict[tuple[str, float], Scores]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both arms of every model (`MODELS`), and the decomposition per benchmark and fraction (`SUMMARY`).

    Only models that have every fold in both arms count. `low, high` are the interval of the difference,
    `equal_low, equal_high, plain_low, plain_high` those of the scores. The mean over the tuned benchmarks,
    where all of them are finished, is the benchmark `mean`: there, spreads are means over them. p-values of
    the recipe are Holm-adjusted over the benchmarks and fractions, and over the fractions of `mean`.

    A mean can be the gain of a single benchmark. So its rows have `WITHOUT` too: the benchmark with the
    largest gain or loss, and the mean over the others.
    """
    rows, summary, recipes, each_model = [], [], {}, {}
    for key in [key for key in equal if key in plain]:
        both = [equal[key], plain[key]]
        models = [model for model in both[0].models if model in both[1].folds]
        if len(models) < 2:
            continue
        gains = _aligned(both[0].people[models], both[1].people[models])
        each_model[key] = {
            model: [
                estimate(arm.by_fold(values[model]))
                for arm, values in zip((*both, both[0]), (both[0].people, both[1].people, gains), strict=True)
            ]
            for model in models
        }
        rows += _models(*key, each_model[key])
        recipe = estimate(both[0].by_fold(gains.mean(axis=1)))
        floor = nested_estimate(both[0].floor).mean if len(both[0].floor) else float("nan")
        spreads = [*spread(both[1], models), *spread(both[0], models)]
        values = recipe.mean, recipe.low, recipe.high, recipe.p, float("nan")
        summary.append((*key, len(models), *values, *spreads, floor))
        recipes[key] = recipe
    table = pd.DataFrame(summary, columns=SUMMARY)
    table["recipe_p_adjusted"] = holm(table.recipe_p)
    means = []
    for fraction, group in table[table.benchmark.isin(TUNED)].groupby("fraction"):
        if len(group) == len(TUNED):
            here = [each_model[name, fraction] for name in group.benchmark]
            shared = [model for model in here[0] if all(model in models for models in here)]
            parts = {model: zip(*(models[model] for models in here), strict=True) for model in shared}
            rows += _models(MEAN, fraction, {model: [*map(mean_of, parts[model])] for model in shared})
            known = mean_of([recipes[name, fraction] for name in group.benchmark])
            averaged = group[SPREAD_COLUMNS].mean(skipna=False)
            values = group.models.min(), known.mean, known.low, known.high, known.p, float("nan")
            largest = group.benchmark[group.recipe.abs().idxmax()]
            rest = mean_of([recipes[name, fraction] for name in group.benchmark if name != largest])
            without = largest, rest.mean, rest.low, rest.high, rest.p
            means.append((MEAN, fraction, *values, *averaged, *without))
    if means:
        averages = pd.DataFrame(means, columns=[*SUMMARY, *WITHOUT])
        table = pd.concat([table, averages.assign(recipe_p_adjusted=holm(averages.recipe_p))])
    return pd.DataFrame(rows, columns=MODELS), table.reset_index(drop=True)


def _models(benchmark, fraction, known):
    """Rows of `MODELS`. known: model -> its estimates of equal, plain and equal − plain."""
    adjusted = holm([gain.p for _, _, gain in known.values()])
    return [
        (benchmark, fraction, model, plain.mean, equal.mean, gain.mean, gain.low, gain.high, gain.p, p)
        + (equal.low, equal.high, plain.low, plain.high)
        for (model, (equal, plain, gain)), p in zip(known.items(), adjusted, strict=True)
    ]


def _aligned(equal, plain):
    """Equal − plain of the people that both have."""
    return (equal - plain).dropna(how="all")


def spread(scores: Scores, models: list[str]) -> tuple[float, float, float]:
    """Standard deviation and range of the models' means, and the standard deviation by noise alone."""
    means = scores.folds[models].mean()
    variances = [known.between + known.within for known in differences(scores, models).values()]
    return float(means.std()), float(np.ptp(means)), float(np.mean(variances) / 2) ** 0.5


def sentence(row) -> str:
    """The decomposition of a benchmark in words. row: of `SUMMARY`."""
    text = (
        f"On {row.benchmark} with {percent(row.fraction)} of the labels, the recipe (augmentation and "
        f"tuning) adds {interval(row.recipe, row.recipe_low, row.recipe_high)} points, averaged over "
        f"{row.models:g} models."
    )
    text += (
        f" The standard deviation between architectures is {row.plain_sd:.1f} points without the recipe and "
        f"{row.equal_sd:.1f} with it. Noise alone would "
        f"give {row.plain_noise:.1f} and {row.equal_noise:.1f}."
    )
    return text + (f" The floor, {FLOOR}, has {row.floor:.1f} avg mAP." if row.floor == row.floor else "")


def of_mean(summary: pd.DataFrame) -> str:
    """What the recipe adds in the mean over the tuned benchmarks, by label fraction, and what it adds without
    the benchmark where it changes most.

    summary: the rows of `SUMMARY` of this mean.
    """
    gains, rests = [], []
    for row in summary.itertuples():
        labels = f"with {percent(row.fraction)}"
        what = "it" if gains else "the recipe (augmentation and tuning)"
        of_what = "" if gains else " of the labels"
        gain = interval(row.recipe, row.recipe_low, row.recipe_high)
        gains.append(f"{labels.capitalize()}{of_what}, {what} adds {gain} points.")
        rest = interval(row.without_recipe, row.without_low, row.without_high)
        rests.append(f"Without {row.without}, where the gain {labels} is farthest from zero, it is {rest}.")
    models = " to ".join(dict.fromkeys(f"{count:g}" for count in sorted(summary.models)))
    return " ".join([*gains, f"These are means over {models} models and the tuned benchmarks.", *rests])


def overview(summary: pd.DataFrame) -> list[str]:
    """The decompositions of several benchmarks in two paragraphs: the recipe's, then the architectures'.

    summary: the table `SUMMARY`, without the mean over benchmarks.
    """
    told = [
        f"{interval(row.recipe, row.recipe_low, row.recipe_high)} ({row.benchmark}, {percent(row.fraction)})"
        for row in summary.itertuples()
        if row.recipe_p_adjusted < LEVEL
    ]
    verdict = f"Told apart from zero: {'; '.join(told)}." if told else "No gain can be told apart from zero."
    return [
        "The recipe (augmentation and tuning) gains "
        f"{summary.recipe.min():+.1f} to {summary.recipe.max():+.1f} points of avg mAP, averaged over the "
        f"models of each benchmark and label fraction. {verdict}",
        "With the equal recipe, the standard deviation between architectures is "
        f"{summary.equal_sd.min():.1f} to {summary.equal_sd.max():.1f} points. Noise alone would give "
        f"{summary.equal_noise.min():.1f} to {summary.equal_noise.max():.1f}.",
    ]


def _failures(arms, benchmarks, fractions):
    """Sentences on the failed trainings of the arms. arms: name -> scores."""
    texts = {name: failures(scores, benchmarks, fractions) for name, scores in arms.items()}
    return "".join(f" {name.capitalize()} recipe:{text}" for name, text in texts.items() if text)


def write(models: pd.DataFrame, summary: pd.DataFrame, arms: dict[str, dict], segments: dict, out) -> None:
    """Write both tables, tidy and for readers, and the figure.

    Args:
        arms: `plain` and `equal` → their scores, as of `factorial`.
        segments: (benchmark, fraction) → annotated training segments of a run.
    """
    if not len(summary):
        return
    counts = [segments.get(key) for key in zip(summary.benchmark, summary.fraction)]
    out.data(models, "factorial")
    out.data(summary.assign(segments=counts), "factorial_summary")
    rows = list(summary.itertuples())
    shown = pd.DataFrame(
        {
            "benchmark": ["mean over benchmarks" if row.benchmark == MEAN else row.benchmark for row in rows],
            "label fraction": [percent(row.fraction) for row in rows],
            "models": summary.models,
            "recipe effect": [interval(row.recipe, row.recipe_low, row.recipe_high) for row in rows],
            "adjusted p": list(map(p_text, summary.recipe_p_adjusted)),
            "architectures, plain": [
                f"{row.plain_sd:.1f} ({row.plain_range:.1f}; {row.plain_noise:.1f})" for row in rows
            ],
            "architectures, equal": [
                f"{row.equal_sd:.1f} ({row.equal_range:.1f}; {row.equal_noise:.1f})" for row in rows
            ],
            "floor": summary.floor.round(1),
        }
    )
    caption = (
        "Recipe effect: points of avg mAP from augmentation and tuning, mean over models with 95 % interval. "
        "It is not adjusted; p-values: Holm over benchmarks and label fractions (of the mean: over "
        "fractions). "
        "Architectures: standard deviation of their means (range; standard deviation from noise alone), by "
        "recipe. In the last rows these are means of the rows above, not the range of the models' means."
    )
    out.table(shown, "factorial", caption)
    for benchmark, group in models.groupby("benchmark", sort=False):
        shown = pd.DataFrame(
            {
                "label fraction": list(map(percent, group.fraction)),
                "model": group.model,
                "plain": group.plain.round(1),
                "equal": group.equal.round(1),
                **tested(group),
            }
        )
        where = "averaged over the tuned benchmarks" if benchmark == MEAN else f"on {benchmark}"
        names = TUNED if benchmark == MEAN else (benchmark,)
        unit = group_name(*names)
        caption = (
            f"Plain and equal recipe {where}: avg mAP (%), mean over folds. Differences are paired by "
            f"{unit}, with 95 % nested interval (not adjusted). p-values are Holm-adjusted over models."
            f"{_failures(arms, names, set(group.fraction))}"
        )
        best = tables.Best(high=("plain", "equal"), within=("label fraction",))
        out.table(shown, f"factorial_{benchmark}", caption, best)
    floors = summary.set_index(["benchmark", "fraction"]).floor.to_dict()
    folds = {len(scores.folds) for arm in arms.values() for scores in arm.values()}
    of_mean = models.benchmark == MEAN
    for name, part in (("factorial", models[~of_mean]), ("factorial_mean", models[of_mean])):
        if not len(part):
            continue
        on = TUNED if name == "factorial_mean" else tuple(dict.fromkeys(part.benchmark))
        where = f"{'averaged over' if name == 'factorial_mean' else 'on'} {', '.join(on)}"
        runs = f"Mean of {max(folds)} folds, one training each." if len(folds) == 1 else ""
        runs = f"{runs}{_failures(arms, on, set(part.fraction))}".strip()
        shown = (
            f"Architecture and recipe: avg mAP of {part.model.nunique()} models with the plain recipe (open "
            f"circles) and with the tuned equal recipe (dots), {where}, by label fraction. "
            f"{f'{runs} ' * bool(runs)}The floor is {FLOOR}, which reads no features."
        )
        out.figure(figures.factorial(part, floors, segments, runs)[0], name, shown, dark=True)
