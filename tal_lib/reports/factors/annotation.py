"""Many people with few annotated segments each, or few people with many: the sweep `annotation`.

A share of the training people is annotated, and of each of their recordings a share of the segments (a
connected part of the timeline). Settings with the same product of both shares have about the same number of
segments. Not only the number of people differs between them. Parts are shorter than whole recordings and have
fewer classes, and at a fixed number of steps each of their segments is seen less often.
"""

import itertools

import pandas as pd

from tal_lib.data.registry import group_name, group_names
from tal_lib.evaluation.nested import LEVEL, holm, nested_estimate, paired_estimate
from tal_lib.reports import figures, tables
from tal_lib.reports.equal.arms import percent
from tal_lib.reports.equal.pairs import interval, tested
from tal_lib.reports.equal.sentences import listed
from tal_lib.reports.factors.runs import (
    EVERY_MODEL,
    PERSON,
    mean_over_models,
    people_of_sweep,
    shown_model,
    signed_range,
)

SWEEP = "annotation"
SHARES = ["benchmark", "people", "annotated"]
SCORES = [*SHARES, "model", "options", "folds", "people_trained", "segments_trained", "mean", "low", "high"]
PAIRS = ["benchmark", "budget", "model", "options"]
PAIRS += ["many_people", "few_people", "many_segments", "few_segments"]
PAIRS += ["many", "few", "difference", "low", "high", "p", "p_adjusted"]
WITHOUT = ["without", "without_difference", "without_low", "without_high"]  # of the mean alone
CHANGE = ["change", "change_low", "change_high", "change_p"]  # of models with options alone


def scores(data: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every setting (`SCORES`), and many people against few with as many segments (`PAIRS`).

    `budget` is the share of all segments. Models with options are rows of their own, and not in the mean
    over the models. p-values are Holm-adjusted over three families of rows of a benchmark: the models, the
    models with options, and the mean.

    A mean can be the effect of a single model. So its rows have `WITHOUT` too: the model with the largest
    difference, and the mean over the others. Rows with options have `CHANGE`: their difference minus that of
    the model without options, paired by person.
    """
    people = people_of_sweep(data, SWEEP, factors=("people", "annotated"))
    columns = [*PAIRS, *WITHOUT, *CHANGE]
    if not len(people):
        return pd.DataFrame(columns=SCORES), pd.DataFrame(columns=columns)
    people = people.assign(base=people.model, model=[*map(_with_options, people.model, people.options)])
    usual = people[people.options == ""]
    means = mean_over_models(usual, SHARES).assign(options="", base=EVERY_MODEL)
    everything = pd.concat([people, means])
    rows, pairs = [], []
    keys = ["benchmark", "model", "options", "base"]
    for (benchmark, model, options, base), group in everything.groupby(keys, sort=False):
        settings = {key: part for key, part in group.groupby(["people", "annotated"])}
        for key in sorted(settings, reverse=True):
            known = nested_estimate(settings[key])
            numbers = settings[key].people_trained.mean(), settings[key].segments_trained.mean()
            values = known.folds, *numbers, known.mean, known.low, known.high
            rows.append((benchmark, *key, model, options, *values))
        plain = usual[usual.benchmark == benchmark]
        for budget, many, few in _opposites(settings):
            sides = settings[many], settings[few]
            known = paired_estimate(*sides)
            numbers = [side[f"{name}_trained"].mean() for name in ("people", "segments") for side in sides]
            values = (
                *(nested_estimate(side).mean for side in sides),
                known.mean,
                known.low,
                known.high,
                known.p,
            )
            row = dict(zip(PAIRS, (benchmark, budget, model, options, *numbers, *values), strict=False))
            if model == EVERY_MODEL:
                row |= dict(zip(WITHOUT, _without_largest(plain, many, few), strict=False))
            elif options and len(usual_gain := _gain(plain[plain.model == base], many, few)):
                change = paired_estimate(_gain(group, many, few), usual_gain)
                row |= dict(zip(CHANGE, (change.mean, change.low, change.high, change.p), strict=True))
            pairs.append(row)
    table = pd.DataFrame(pairs, columns=columns)
    for _, group in table.groupby(["benchmark", table.model == EVERY_MODEL, table.options == ""]):
        table.loc[group.index, "p_adjusted"] = holm(group.p)
    return pd.DataFrame(rows, columns=SCORES), table


def _with_options(model, options):
    return f"{model} ({options})" if options else model


def _opposites(shares):
    """(budget, more people, fewer people): all pairs of shares (people, annotated) with the same product."""
    budgets = {}
    for people, annotated in sorted(shares, reverse=True):
        budgets.setdefault(round(people * annotated, 9), []).append((people, annotated))
    return [
        (budget, *pair) for budget in sorted(budgets) for pair in itertools.combinations(budgets[budget], 2)
    ]


def _gain(people, many, few):
    """`fold, person, value`: a person's value with many people minus that with few, per model."""
    sides = [
        people[(people.people == first) & (people.annotated == second)][[*PERSON, "model", "value"]]
        for first, second in (many, few)
    ]
    both = sides[0].merge(sides[1], on=[*PERSON, "model"], suffixes=("", "_few"))
    return both.assign(value=both.value - both.value_few)


def _without_largest(people, many, few):
    """The model with the largest difference, and the mean difference of the others with its interval."""
    gain = _gain(people, many, few)
    models = gain.groupby("model").apply(lambda rows: nested_estimate(rows).mean, include_groups=False)
    if len(models) < 2:
        return ()
    largest = models.abs().idxmax()
    rest = nested_estimate(gain[gain.model != largest])
    return largest, rest.mean, rest.low, rest.high


def sentence(pairs: pd.DataFrame) -> str:
    """The answer in words, from the table `PAIRS`; empty without one."""
    parts = []
    pairs = pairs.fillna({"options": ""})
    for benchmark, group in pairs[pairs.model == EVERY_MODEL].groupby("benchmark", sort=False):
        models = pairs[(pairs.benchmark == benchmark) & (pairs.model != EVERY_MODEL)]
        planned, added = models[models.options == ""], models[models.options != ""]
        segments = group[["many_segments", "few_segments"]]
        told = planned[planned.p_adjusted < LEVEL]
        names = list(dict.fromkeys(told.model))
        if not names:
            parts.append(f"On {benchmark}, it is not shown that more people are better.")
        parts.append(
            f"{'Many' if not names else f'On {benchmark}, many'} people with few segments each are compared "
            f"with few people with many, at equal numbers of segments ({segments.min(axis=None):.0f} to "
            f"{segments.max(axis=None):.0f}). "
            f"{_significant(names)} a significant difference ({planned.model.nunique()} tested)."
        )
        if names:
            parts.append(f"Many minus few, points of avg mAP: {'; '.join(map(_single, told.itertuples()))}.")
        parts.append(
            f"Many minus few, mean over {planned.model.nunique()} models: {signed_range(group.difference)} "
            f"points; {(group.p_adjusted < LEVEL).sum()} of {len(group)} comparisons are significant. "
            f"Without {listed(dict.fromkeys(group.without), 'or')}, which differs most, it is "
            f"{signed_range(group.without_difference)}."
        )
        parts += [_changed(row) for row in added.dropna(subset=CHANGE).itertuples()]
    return " ".join(parts)


def _significant(names):
    if len(names) == 1:
        return f"Only {names[0]} shows"
    return f"{listed(names, 'and')} show" if names else "No model shows"


def _single(row):
    difference = interval(row.difference, row.low, row.high)
    return f"{row.model} {difference} ({_where(row)})"


def _where(row):
    return f"{row.many_segments:.0f} segments of {row.many_people:.0f} against {row.few_people:.0f} people"


def _changed(row):
    """What the options of a model change in its difference."""
    change = interval(row.change, row.change_low, row.change_high)
    before = interval(row.difference - row.change, float("nan"), float("nan"))
    return (
        f"Added later: many minus few of {row.model} is {interval(row.difference, row.low, row.high)}, with "
        f"its default options {before} ({_where(row)}). The change is {change}."
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
            f"interval over folds and {group_names(benchmark)}. People and segments are means over folds."
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
                **tested(here),
            }
        )
        caption = (
            f"Many people with few segments each, or few people with many, on {benchmark}: avg mAP (%), "
            f"plain recipe. Differences are paired by {unit}, with 95 % interval; p-values: Holm over "
            "the rows of the models, of the models with options, and of the mean."
        )
        best = tables.Best(high=("many people", "few people"), by_row=True)
        out.table(shown, f"people_or_segments_{benchmark}", caption, best)
        caption = (
            f"avg mAP against the number of annotated training segments on {benchmark}, by the fraction of "
            "the people that they come from; plain recipe."
        )
        out.figure(
            figures.annotation_budget(rows[rows.options == ""])[0], f"annotation_budget_{benchmark}", caption
        )


def _by_model(rows):
    """A row per setting, a column per model with its mean and interval."""
    texts = rows.assign(text=tables.with_interval(rows))
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
