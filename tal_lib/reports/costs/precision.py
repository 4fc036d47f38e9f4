"""Training in mixed precision: mAP and training time of the same cells in each precision."""

import pandas as pd

from tal_lib.reports import tables
from tal_lib.reports.costs.shapes import short, threads_in_words

PRECISION = r"(?:^|, )precision=(\w+)"  # in the text of a recipe
BASE = "float32"
CONDITION = ["benchmark", "fraction", "device_name", "threads", "model", "preset", "options", "others"]
# runs of a condition that differ in these are compared in pairs
PAIR = ["fold", "seed", "subset_seed", "people", "annotated", "skip"]


def by_precision(data: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Each precision beside float32: the runs whose recipe names a precision, paired by fold and seeds.

    Columns: the condition (`others`: the rest of the recipe), `precision`, `steps`, means over the pairs of
    `avg_map` (%), `train_seconds` and `difference` (points of avg mAP from float32), `times_as_fast`
    (training time of float32 / that of the precision), `pairs`. Empty without such runs.

    Args:
        data: the tidy tables `data_efficiency` and `training_cost`.
    """
    columns = [*CONDITION, "precision", "steps", "avg_map", "train_seconds", "difference", "times_as_fast"]
    scores, times = (data.get(name, pd.DataFrame()) for name in ("data_efficiency", "training_cost"))
    if not len(scores) or not len(times) or "recipe" not in scores:
        return pd.DataFrame(columns=[*columns, "pairs"])
    runs = scores.drop_duplicates("cell").assign(fold=scores.fold if "fold" in scores else -1)
    runs = runs.assign(
        precision=runs.recipe.fillna("").str.extract(PRECISION, expand=False),
        others=runs.recipe.fillna("").str.replace(PRECISION, "", regex=True),
        avg_map=runs.cell.map(100 * scores.groupby("cell")["map"].mean()),
        options=runs.options.fillna(""),
    ).dropna(subset=["precision"])
    runs = runs.merge(times[["cell", "steps", "train_seconds"]], on="cell").fillna({"fold": -1, "threads": 0})
    keys = [*CONDITION, *(name for name in PAIR if name in runs)]
    kinds = lambda names: runs.groupby(names).precision.transform("nunique")
    runs = runs[(kinds(CONDITION) > 1) & (kinds(keys) == kinds(CONDITION))]  # in every precision of theirs
    if not len(runs):
        return pd.DataFrame(columns=[*columns, "pairs"])
    base = runs[runs.precision == BASE].set_index(keys)[["avg_map", "train_seconds"]]
    pairs = runs.join(base, on=keys, how="inner", rsuffix="_base")
    pairs = pairs.assign(difference=pairs.avg_map - pairs.avg_map_base)
    numbers = ["steps", "avg_map", "train_seconds", "train_seconds_base", "difference"]
    groups = pairs.groupby([*CONDITION, "precision"], sort=False)
    table = groups[numbers].mean().assign(pairs=groups.size()).reset_index()
    table = table.assign(times_as_fast=table.train_seconds_base / table.train_seconds)
    table = table.sort_values([*CONDITION, "precision"], key=_float32_first)
    return table[[*columns, "pairs"]].reset_index(drop=True)


def _threads(rows):
    """The number of CPU threads in words, where it is known and the same."""
    known = set(rows.threads)
    if len(known) > 1 or not max(known):
        return ""
    return f", {threads_in_words(max(known))}"


def _float32_first(column):
    return column.where(column != BASE, "") if column.name == "precision" else column


def write(data: dict[str, pd.DataFrame], out) -> None:
    """Write the comparison as a tidy table, and a table per benchmark, label fraction and machine."""
    table = by_precision(data)
    if not len(table):
        return
    out.data(table, "mixed_precision")
    table = tables.with_shown_names(table)
    main = tables.main_machine(table)
    for (benchmark, fraction, machine), rows in table.groupby(
        ["benchmark", "fraction", "device_name"], sort=False
    ):
        shown = pd.DataFrame(
            {
                "model": rows.model,
                "precision": rows.precision,
                "avg mAP": rows.avg_map.round(1),
                "difference": [
                    "" if row.precision == BASE else f"{row.difference:+.1f}" for row in rows.itertuples()
                ],
                "training (s)": rows.train_seconds.map(short),
                "speed-up": rows.times_as_fast.round(2),
                "runs": rows.pairs,
            }
        )
        caption = (
            f"mAP and training time by precision: {benchmark}, {100 * fraction:g} % of the labels, "
            f"{rows.steps.max():g} steps, {machine}{_threads(rows)}. Mixed precision is torch.autocast; "
            "float16 also scales the loss. Difference and speed-up are relative to float32: points of avg "
            "mAP on the same folds and seeds, and training time. Time is of training alone."
        )
        stem = f"mixed_precision_{benchmark}" + ("" if fraction == 1 else f"_{100 * fraction:g}")
        best = tables.Best(high=("avg mAP", "speed-up"), low=("training (s)",), within=("model",))
        out.table(shown, stem + tables.machine_suffix(machine, main), caption, best)
