"""Components of variance for readers: person, subset sample, training seed."""

import pandas as pd

from tal_lib.data.registry import group_name, group_names
from tal_lib.evaluation.components import PARTS, components, repeated
from tal_lib.reports import tables
from tal_lib.reports.equal.arms import VARIANCE, people_of, percent, place, runs_of
from tal_lib.reports.equal.sentences import value_range

NAMES = {
    "person": "person",
    "subset": "subset sample",
    "seed": "training seed",
    "subset_seed": "sample × seed",
    "rest": "interactions with the person, and residual",
    "fold": "fold",
}
REPEATS = {"seed": "another seed", "subset_seed": "another sample"}


def components_of_variance(data: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Standard deviations (points) of a person's score in the arm `variance`; and the incomplete designs.

    `benchmark, fraction, model`, the name of each part with `_sd`, `folds, people, subsets, seeds`, and of a
    fold's avg mAP the standard deviation with another seed alone and with another subset sample alone
    (`repeat_seed_sd, repeat_seed_low, repeat_seed_high`, `repeat_subset_seed_…`; see `components.repeated`).
    The second table: `benchmark, fraction, model, why`.
    """
    keys = ["benchmark", "fraction", "model"]
    rows, gaps = [], []
    for key, group in people_of(data, runs_of(data, VARIANCE)).groupby(keys, sort=False):
        try:
            parts = components(group, "value")
        except ValueError as error:
            gaps.append((*key, str(error)))
            continue
        sizes = [group[name].nunique() for name in ("fold", "subset_seed", "seed")]
        people = len(group.drop_duplicates(["fold", "person"]))
        again = [value for source in REPEATS for value in repeated(group, source)]
        rows.append((*key, *parts.values(), sizes[0], people, *sizes[1:], *again))
    columns = [*keys, *(f"{name}_sd" for name in PARTS), "folds", "people", "subsets", "seeds"]
    columns += [f"repeat_{source}_{what}" for source in REPEATS for what in ("sd", "low", "high")]
    table = pd.DataFrame(rows, columns=columns)
    by_place = lambda column: column.map(place) if column.name == "benchmark" else column
    table = table.sort_values(keys, key=by_place)
    return table.reset_index(drop=True), pd.DataFrame(gaps, columns=[*keys, "why"])


def sentence(table: pd.DataFrame) -> str:
    """What the components are, in words, over the models of each benchmark; empty without one."""
    parts = []
    for (benchmark, fraction), rows in table.groupby(["benchmark", "fraction"], sort=False):
        unit = group_name(benchmark)
        sizes = {name: value_range(rows[f"{name}_sd"]) for name in PARTS}
        parts += [
            f"On {benchmark} with {percent(fraction)} of the labels, the score of a {unit} varies by "
            f"{sizes['person']} points between {group_names(benchmark)} ({len(rows)} models).",
            f"Another subset sample changes the scores of all {group_names(benchmark)} alike by "
            f"{sizes['subset']} points, and another training seed by {sizes['seed']}. Effects on single "
            f"{group_names(benchmark)}, and noise, have {sizes['rest']} points.",
            f"A fold's avg mAP varies by {value_range(rows.repeat_seed_sd)} points with another seed, and by "
            f"{value_range(rows.repeat_subset_seed_sd)} with another sample. Their 95 % intervals "
            f"reach {rows.repeat_seed_high.max():.1f} and {rows.repeat_subset_seed_high.max():.1f}.",
        ]
    about = "These are standard deviations; estimates below zero are 0."
    return " ".join([*parts, about] if parts else [])


def _with_interval(table, source):
    names = {f"repeat_{source}_{old}": new for old, new in (("sd", "mean"), ("low", "low"), ("high", "high"))}
    return tables.with_interval(table[list(names)].rename(columns=names))


def write(table: pd.DataFrame, gaps: pd.DataFrame, out) -> None:
    """Write the components, as a tidy table and for readers."""
    if not len(table):
        return
    out.data(table, "components_of_variance")
    shown = pd.DataFrame(
        {
            "benchmark": table.benchmark,
            "label fraction": list(map(percent, table.fraction)),
            "model": table.model,
            **{shown: table[f"{name}_sd"].round(1) for name, shown in NAMES.items()},
            **{f"fold, {words}": _with_interval(table, source) for source, words in REPEATS.items()},
            "design": [f"{row.folds} folds, {row.subsets} × {row.seeds}" for row in table.itertuples()],
        }
    )
    caption = (
        f"Sources of variance of the score of a {group_name(*table.benchmark)}: standard deviation (points) "
        "from each source. Crossed design within folds (subset samples × training seeds), random effects, "
        "mean squares averaged over folds. Last: standard deviation of a fold's avg mAP, with 95 % interval."
    )
    if len(gaps):
        caption += f" Incomplete designs are left out: {', '.join(gaps.model.unique())}."
    out.table(shown, "components_of_variance", caption)
