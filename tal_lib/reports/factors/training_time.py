"""The same training time on one core for more data, more steps or a larger model: the sweep `time_budget`.

The base of a label fraction is a short training. The other three take about twice its time: twice the
steps on the same data; twice the steps on twice the data, so that each recording is seen about as often;
or a model of twice the width, with as many steps as fit (from the measured time of a step,
`experiments/time_budget.py`). More data has twice the annotation. Batches of two do not divide five
recordings: at 10 % one batch in three has a single recording, so that more data takes more time there
than more steps.
"""

import itertools
import re

import pandas as pd

from tal_lib.data.registry import group_name, group_names
from tal_lib.evaluation.nested import LEVEL, holm, nested_estimate, paired_estimate
from tal_lib.reports import figures, tables
from tal_lib.reports.equal.arms import percent
from tal_lib.reports.equal.pairs import tested
from tal_lib.reports.factors.runs import people_of_sweep, signed_range

SWEEP = "time_budget"
BASE, STEPS, DATA, WIDTH = "base", "more steps", "more data", "larger model"
STEPS_OF = r"min_steps=(\d+)"
USES = (BASE, STEPS, WIDTH, DATA)
SCORES = ["benchmark", "model", "fraction", "use", "labels", "steps", "folds", "mean", "low", "high"]
PAIRS = ["benchmark", "model", "fraction", "use", "other", "difference", "low", "high", "p", "p_adjusted"]


def scores(data: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every use of the time (`SCORES`), and every pair of uses (`PAIRS`), per model and base label fraction.

    `fraction` is that of the base, `labels` that of the use. p-values are Holm-adjusted over the pairs of a
    benchmark.
    """
    people = with_uses(people_of_sweep(data, SWEEP, factors=("fraction", "recipe")))
    rows, pairs = [], []
    for key, group in people.groupby(["benchmark", "model", "base_fraction"], sort=False):
        uses = {use: part for use, part in group.groupby("use")}
        for use in [name for name in USES if name in uses]:
            known, first = nested_estimate(uses[use]), uses[use].iloc[0]
            values = known.folds, known.mean, known.low, known.high
            rows.append((*key, use, first.fraction, first.steps, *values))
        for other, use in itertools.combinations([name for name in USES if name in uses], 2):
            known = paired_estimate(uses[use], uses[other])
            pairs.append((*key, use, other, known.mean, known.low, known.high, known.p, float("nan")))
    table = pd.DataFrame(pairs, columns=PAIRS)
    for _, group in table.groupby("benchmark"):
        table.loc[group.index, "p_adjusted"] = holm(group.p)
    return pd.DataFrame(rows, columns=SCORES), table


def with_uses(people: pd.DataFrame) -> pd.DataFrame:
    """The rows with `use, base_fraction, steps`. Rows that are no use of any base are left out.

    A run with options has the larger model; its label fractions are those of the bases, and its recipe is
    theirs but for the number of steps. Of the other runs, the longest take twice the steps of the base. Twice
    the data is twice the label fraction of a base.
    """
    people = people.assign(steps=people.recipe.map(_steps), use="", base_fraction=people.fraction)
    of_model = people.groupby(["benchmark", "model"], sort=False)
    return pd.concat([_uses_of_model(rows) for _, rows in of_model]) if len(people) else people


def _uses_of_model(people):
    """The rows of one model on one benchmark that are a use, with its name."""
    people = people.copy()
    recipe = people.recipe.str.replace(STEPS_OF, "", regex=True)
    wide = people.options != ""
    usual = ~wide & recipe.isin(recipe[wide])
    longest = people.steps[usual].max()
    longer, short = usual & (people.steps == longest), usual & (people.steps == longest / 2)
    bases = people.fraction[wide].unique()
    based, doubled = people.fraction.isin(bases), (people.fraction / 2).isin(bases)
    people.loc[wide, "use"] = WIDTH
    people.loc[short & based, "use"] = BASE
    people.loc[longer & based, "use"] = STEPS
    more = longer & ~based & doubled
    people.loc[more, "use"] = DATA
    people.loc[more, "base_fraction"] = people.fraction[more] / 2
    return people[people.use != ""]


def _steps(recipe):
    match = re.search(STEPS_OF, recipe)
    return int(match[1]) if match else 0


def sentence(pairs: pd.DataFrame) -> str:
    """The answer in words, from the table `PAIRS`; empty without one."""
    parts = []
    for benchmark, group in pairs.groupby("benchmark", sort=False):
        any_told = (group.p_adjusted < LEVEL).any()
        parts.append(
            f"On {benchmark}, about twice the time of a short training is spent in three ways."
            f"{'' if any_told else ' No difference is significant.'} More data has twice the annotation. "
            "Ranges are points of avg mAP above the short training (plain recipe), over models and label "
            "fractions."
        )
        above = group[group.other == BASE]
        for use in above.groupby("use").difference.mean().sort_values(ascending=False).index:
            rows = above[above.use == use]
            told = f", {(rows.p_adjusted < LEVEL).sum()} of {len(rows)} significant" if any_told else ""
            parts.append(f"{use.capitalize()}: {signed_range(rows.difference)}{told}.")
    return " ".join(parts)


def write(table: pd.DataFrame, pairs: pd.DataFrame, out) -> None:
    """Write both tables, tidy and for readers, and the figure."""
    if not len(table):
        return
    out.data(table, "training_time")
    out.data(pairs, "training_time_pairs")
    for benchmark, rows in table.groupby("benchmark", sort=False):
        unit = group_name(benchmark)
        caption = (
            f"Twice the training time (about), spent in three ways, on {benchmark}: avg mAP (%), plain "
            f"recipe. Mean over folds with 95 % interval over folds and {group_names(benchmark)}."
        )
        out.table(_by_use(rows), f"training_time_{benchmark}", caption, tables.Best(high=USES, by_row=True))
        here = pairs[pairs.benchmark == benchmark]
        shown = pd.DataFrame(
            {
                "model": here.model,
                "label fraction": list(map(percent, here.fraction)),
                "pair": [f"{row.use} − {row.other}" for row in here.itertuples()],
                **tested(here),
            }
        )
        caption = (
            f"Pairs of uses of the training time on {benchmark}: points of avg mAP, paired by {unit}, with "
            "95 % interval; p-values: Holm over all pairs."
        )
        out.table(shown, f"training_time_pairs_{benchmark}", caption)
        caption = (
            f"avg mAP on {benchmark} of a short training, and of three that take about twice its time. They "
            "have more steps, more data (with twice the annotation), or a larger model. Plain recipe."
        )
        out.figure(figures.training_time(rows)[0], f"training_time_{benchmark}", caption)


def _by_use(rows):
    """A row per model and label fraction, a column per use of the time."""
    texts = rows.assign(text=tables.with_interval(rows))
    keys = texts[["model", "fraction"]].drop_duplicates()
    text = texts.set_index(["model", "fraction", "use"]).text
    shown = pd.DataFrame({"model": keys.model, "label fraction": list(map(percent, keys.fraction))})
    for use in USES:
        shown[use] = [text.get((*key, use), "–") for key in keys.itertuples(index=False)]
    return shown
