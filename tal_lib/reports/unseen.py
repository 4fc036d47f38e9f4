"""Which models localize unseen classes best (zero-shot): pairs of models, paired by split of the classes.

Some splits of the classes are easier than others, for every model. So two models are compared on the splits
that both have: a paired t-test, Holm-adjusted over all others. The splits share classes, so its p-values are
somewhat too small.
"""

import pandas as pd

from tal_lib.data.registry import BENCHMARKS
from tal_lib.evaluation.nested import LEVEL, holm
from tal_lib.reports import tables
from tal_lib.reports.equal.arms import percent
from tal_lib.reports.equal.sentences import listed, value_range

FEWEST = 3  # common splits; fewer tell nothing


def beside_the_best(scores: pd.DataFrame) -> pd.DataFrame:
    """Models against the one with the highest mean, best first: index `model`; `mean, p_adjusted`.

    `p_adjusted` is NaN for the best model, and 1 for models with fewer than `FEWEST` splits in common.

    Args:
        scores: avg mAP (splits, models); NaN where a model lacks a split.
    """
    from scipy import stats  # here: the import takes long

    means = scores.mean().sort_values(ascending=False, kind="stable")
    best, *others = means.index
    p_values = []
    for model in others:
        both = scores[[best, model]].dropna()
        differences = both[best] - both[model]
        if len(both) < FEWEST:
            p_values.append(1.0)
        elif differences.nunique() == 1:  # no variance
            p_values.append(float(differences.iloc[0] == 0))
        else:
            p_values.append(float(stats.ttest_1samp(differences, 0).pvalue))
    adjusted = [float("nan"), *holm(p_values)]
    return pd.DataFrame({"mean": means.to_numpy(), "p_adjusted": adjusted}, index=means.index)


def answers(open_set: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """(situation, use, because, table) per benchmark: the models that are not told apart from the best.

    With the most labels and the largest fraction of seen classes of each benchmark. Left out: benchmarks
    whose models were only trained with wrong names, and those whose features know the unseen classes.
    """
    rows = []
    if not len(open_set):
        return rows
    runs = tables.open_set_runs(
        open_set.fillna({"options": "", "recipe": "", "keep": ""}).astype({"misnamed": bool})
    )
    for where, group in runs.groupby("benchmark", sort=False):
        group = group[group.fraction == group.fraction.max()]
        group = group[group.seen == group.seen.max()]
        scores = {
            part: some.pivot_table(index="split", columns="model", values="avg_map")
            for part, some in group.groupby("part")
        }
        if "unseen" not in scores or (where in BENCHMARKS and BENCHMARKS[where].supervised):
            continue
        compared = beside_the_best(scores["unseen"])
        level = compared[~(compared.p_adjusted < LEVEL)]
        others = compared.drop(level.index)
        wrong = scores["unseen, wrong names"][level.index].mean()
        few = "" if group.fraction.max() == 1 else f", {percent(group.fraction.max())} of the labels"
        scored = f"{value_range(level['mean'])} avg mAP on unseen classes"
        if len(level) > 1:
            scored = f"{len(level)} of {len(compared)} cannot be told apart ({scored})"
        then = ", ".join(f"{model} {mean:.1f}" for model, mean in others["mean"].head(2).items())
        rows.append(
            (
                f"zero-shot localization, classes known only by name ({where})",
                listed(level.index, "or"),
                f"{scored}, {tables.split_name(group.seen.iloc[0])} seen/unseen{few}, untuned. Under wrong "
                f"names {value_range(wrong)}." + f" Next: {then}." * bool(then),
                f"open_set_{where}",
            )
        )
    return rows
