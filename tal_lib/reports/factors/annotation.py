"""Many people with few annotated segments each, or few people with many: the sweep `annotation`.

A share of the training people is annotated, and of each of their recordings a share of the segments (a
connected part of the timeline). Settings with the same product of both shares have about the same number of
segments. What differs is how many people they come from.
"""

import pandas as pd

from tal_lib.data.registry import group_name
from tal_lib.evaluation.nested import LEVEL, holm, paired_estimate
from tal_lib.reports import figures, tables
from tal_lib.reports.equal.arms import percent
from tal_lib.reports.equal.pairs import interval, p_text
from tal_lib.reports.factors.runs import EVERY_MODEL, mean_over_models, people_of_sweep, score, shown_model

SWEEP = "annotation"
SHARES = ["benchmark", "people", "annotated"]
SCORES = [*SHARES, "model", "options", "folds", "people_trained", "segments_trained", "mean", "low", "high"]
PAIRS = [
    "benchmark",
    "budget",
    "model",
    "options",
    "many_people",
    "few_people",
    "many_segments",
    "few_segments",
]
PAIRS += ["many", "few", "difference", "low", "high", "p", "p_adjusted"]


def scores(data: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every setting (`SCORES`), and many people against few with as many segments (`PAIRS`).

    `budget` is the share of all segments. p-values are Holm-adjusted over all rows of the models of a
    benchmark, and over the budgets of the mean over the models. Models with options are rows of their own;
    they are not in the mean.
    """
    people = people_of_sweep(data, SWEEP, factors=("people", "annotated"))
    if not len(people):
        return pd.DataFrame(columns=SCORES), pd.DataFrame(columns=PAIRS)
    means = mean_over_models(people[people.options == ""], SHARES)
    people = pd.concat([people.assign(model=[*map(_with_options, people.model, people.options)]), means])
    rows, pairs = [], []
    people = people.fillna({"options": ""})
    for (benchmark, model, options), group in people.groupby(["benchmark", "model", "options"], sort=False):
        known_shares = people[people.benchmark == benchmark].groupby(["people", "annotated"]).groups
        settings = {key: part for key, part in group.groupby(["people", "annotated"])}
        for key in sorted(settings, reverse=True):
            known = score(settings[key])
            numbers = settings[key].people_trained.mean(), settings[key].segments_trained.mean()
            rows.append(
                (benchmark, *key, model, options, known.folds, *numbers, known.mean, known.low, known.high)
            )
        for budget, many, few in _opposites(known_shares):
            if many not in settings or few not in settings:
                continue
            sides = settings[many], settings[few]
            known = paired_estimate(*sides)
            numbers = [side[f"{name}_trained"].mean() for name in ("people", "segments") for side in sides]
            means = [score(side).mean for side in sides]
            values = known.mean, known.low, known.high, known.p
            pairs.append((benchmark, budget, model, options, *numbers, *means, *values, float("nan")))
    table = pd.DataFrame(pairs, columns=PAIRS)
    of_mean = table.model == EVERY_MODEL
    for _, group in table.groupby(["benchmark", of_mean]):
        table.loc[group.index, "p_adjusted"] = holm(group.p)
    return pd.DataFrame(rows, columns=SCORES), table


def _with_options(model, options):
    return f"{model} ({options})" if options else model


def _opposites(shares):
    """(budget, most people, fewest people) of the shares (people, annotated) with the same product."""
    budgets = {}
    for people, annotated in shares:
        budgets.setdefault(round(people * annotated, 9), []).append((people, annotated))
    return [(budget, max(keys), min(keys)) for budget, keys in sorted(budgets.items()) if len(keys) > 1]


def sentence(pairs: pd.DataFrame) -> str:
    """The answer in words, from the table `PAIRS`; empty without one."""
    parts = []
    pairs = pairs.fillna({"options": ""})
    for benchmark, group in pairs[pairs.model == EVERY_MODEL].groupby("benchmark", sort=False):
        ours = pairs[(pairs.benchmark == benchmark) & (pairs.model != EVERY_MODEL)]
        parts.append(
            f"On {benchmark}, many people with few segments each are compared with few people with many, at "
            "about the same number of segments (points of avg mAP, plain recipe, mean over "
            f"{ours[ours.options == ''].model.nunique()} models)."
        )
        parts += [
            f"{row.many_segments:.0f} segments of {row.many_people:.0f} against {row.few_people:.0f} people: "
            f"{interval(row.difference, row.low, row.high)}."
            for row in group.itertuples()
        ]
        parts.append(_told((group.p_adjusted < LEVEL).sum(), len(group)))
        parts += [
            f"{row.model} alone, {row.many_segments:.0f} segments: "
            f"{interval(row.difference, row.low, row.high)}, told apart from zero."
            for row in ours[ours.p_adjusted < LEVEL].itertuples()
        ] or ["Nor for any single model."]
    return " ".join(parts)


def _told(apart, count):
    if not apart:
        return "No difference can be told apart from zero."
    return (
        "All can be told apart from zero."
        if apart == count
        else (f"{apart} of {count} can be told apart from zero.")
    )


def write(table: pd.DataFrame, pairs: pd.DataFrame, out) -> None:
    """Write both tables, tidy and for readers, and the figure."""
    if not len(table):
        return
    out.data(table, "annotation_budget")
    out.data(pairs, "people_or_segments")
    for benchmark, rows in table.groupby("benchmark", sort=False):
        unit = group_name(benchmark)
        caption = (
            f"Annotation budget on {benchmark}: avg mAP (%), plain recipe, mean over folds with 95 % "
            f"interval over folds and test groups ({unit}). People and segments are means over folds."
        )
        out.table(_by_model(rows), f"annotation_budget_{benchmark}", caption)
        here = pairs[pairs.benchmark == benchmark]
        shown = pd.DataFrame(
            {
                "segments": [
                    f"{row.many_segments:.0f} / {row.few_segments:.0f}" for row in here.itertuples()
                ],
                "people": [f"{row.many_people:.0f} / {row.few_people:.0f}" for row in here.itertuples()],
                "model": here.model.map(shown_model),
                "many people": here.many.round(1),
                "few people": here.few.round(1),
                "difference": [interval(row.difference, row.low, row.high) for row in here.itertuples()],
                "adjusted p": list(map(p_text, here.p_adjusted)),
            }
        )
        caption = (
            f"Many people with few segments each, or few people with many, on {benchmark}: avg mAP (%), "
            f"plain recipe. Differences are paired by {unit}, with 95 % interval; p-values: Holm over "
            "budgets and models."
        )
        best = tables.Best(high=("many people", "few people"), by_row=True)
        out.table(shown, f"people_or_segments_{benchmark}", caption, best)
        caption = (
            f"avg mAP against the number of annotated training segments on {benchmark}, by the share of the "
            "people that they come from; plain recipe."
        )
        out.figure(
            figures.annotation_budget(rows[rows.options == ""])[0], f"annotation_budget_{benchmark}", caption
        )


def _by_model(rows):
    """A row per setting, a column per model with its mean and interval."""
    texts = rows.assign(text=[interval(row.mean, row.low, row.high, ".1f") for row in rows.itertuples()])
    wide = texts.pivot(index=["people", "annotated"], columns="model", values="text").sort_index(
        ascending=False
    )
    numbers = rows.groupby(["people", "annotated"])[["people_trained", "segments_trained"]].mean()
    numbers = numbers.reindex(wide.index)
    shown = pd.DataFrame(
        {
            "people": [
                f"{count:.0f} ({percent(share)})" for (share, _), count in numbers.people_trained.items()
            ],
            "segments of each": [percent(share) for _, share in wide.index],
            "segments": [f"{count:.0f}" for count in numbers.segments_trained],
        }
    )
    for model in dict.fromkeys(rows.model):
        shown[shown_model(model)] = wide[model].fillna("–").to_list()
    return shown
