"""What it costs to look at fewer feature steps: each model with every step, and with one of so many."""

import pandas as pd

from tal_lib.data.registry import group_name
from tal_lib.evaluation.nested import nested_estimate
from tal_lib.reports import tables
from tal_lib.reports.efficiency.runs import with_settings_of
from tal_lib.reports.equal.arms import people_of
from tal_lib.reports.equal.pairs import interval

SWEEP = "frame_skip"
KEYS = ["benchmark", "fraction", "model"]
COLUMNS = [*KEYS, "skip", "avg_map", "difference", "low", "high", "folds", "people"]


def skipped_runs(data: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The runs with the settings of the sweep, a row per cell: `KEYS, fold, skip, avg_map` (%), `cell`.

    Runs that look at every step may come from another sweep; of two with the same settings the newest counts.
    """
    columns = [*KEYS, "fold", "skip", "avg_map", "cell"]
    table = data.get("data_efficiency", pd.DataFrame())
    if not len(table) or not {"skip", "fold", "sweep"} <= set(table):
        return pd.DataFrame(columns=columns)
    table = table.fillna({"recipe": "", "options": "", "stream": "", "skip": 1, "people": 1, "annotated": 1})
    alike = ["preset", "options", "stream", "recipe", "seed", "subset_seed", *KEYS]
    alike += [name for name in ("people", "annotated") if name in table]
    table = with_settings_of(table, SWEEP, alike)
    table = table[table.fold >= 0]
    means = 100 * table.groupby("cell")["map"].mean()
    runs = table.drop_duplicates("cell").sort_values("utc", kind="stable")
    runs = runs.drop_duplicates([*alike, "fold", "skip"], keep="last").sort_index().reset_index(drop=True)
    return tables.with_shown_names(runs.assign(avg_map=runs.cell.map(means)))[columns]


def effect(data: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """`COLUMNS`: avg mAP (%) by steps skipped, and its difference from every step, paired by test group.

    Only folds that a model has at every skip count. The interval is the 95 % nested one over people and
    folds; with one fold it is empty.
    """
    runs = skipped_runs(data)
    people = people_of(data, runs)
    rows = []
    for key, group in runs.groupby(KEYS, sort=False):
        folds = group.groupby("fold").skip.nunique()
        group = group[group.fold.isin(folds.index[folds == group.skip.nunique()])]
        if 1 not in set(group.skip):
            continue
        each = people[people.cell.isin(group.cell)].set_index(["fold", "person"])
        every = each[each.skip == 1].value
        for skip, values in group.groupby("skip").avg_map:
            difference = (each[each.skip == skip].value - every).reset_index()
            known = nested_estimate(difference) if skip > 1 and len(values) > 1 else None
            base = group[group.skip == 1].avg_map.mean()
            bounds = (
                (known.low, known.high, known.people) if known else (None, None, difference.value.count())
            )
            rows.append(
                [*key, skip, values.mean(), values.mean() - base, *bounds[:2], len(values), bounds[2]]
            )
    return pd.DataFrame(rows, columns=COLUMNS).astype({"low": float, "high": float})


def effect_table(table: pd.DataFrame) -> pd.DataFrame:
    """Table for readers: a row per benchmark and model; avg mAP with every step, then differences."""
    text = [
        f"{row.avg_map:.1f}" if row.skip == 1 else interval(row.difference, row.low, row.high)
        for row in table.itertuples()
    ]
    wide = table.assign(text=text).pivot(index=["benchmark", "model"], columns="skip", values="text")
    wide.columns = ["every step" if skip == 1 else f"1 of {skip:g}" for skip in wide.columns]
    return wide.fillna("").reset_index()


def write(data: dict[str, pd.DataFrame], out) -> None:
    """Write the tidy table and the one for readers, if there are such runs."""
    table = effect(data)
    if not len(table):
        return
    out.data(table, SWEEP)
    caption = (
        "Frame skip: avg mAP (%) with every feature step, and its change (points) if training and testing "
        f"use only 1 of N steps. All labels, plain recipe, {_folds(table)}; paired by "
        f"{group_name(*table.benchmark.unique())}, 95 % nested interval."
    )
    out.table(effect_table(table), SWEEP, caption)


def _folds(table: pd.DataFrame) -> str:
    """`5 folds`, or `1 to 5 folds`."""
    fewest, most = table.folds.min(), table.folds.max()
    return f"{most} folds" if fewest == most else f"{fewest} to {most} folds"
