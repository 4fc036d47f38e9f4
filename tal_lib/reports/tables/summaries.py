"""Summaries of runs, and the tables for readers made from them."""

import pandas as pd

from tal_lib.evaluation.statistics import summarise
from tal_lib.models.parts.language import LanguageConfig
from tal_lib.reports.tables.names import with_shown_names

SHOWN_VARIANT = {  # variant in the runs → its name for readers
    "student taught": "distilled student",
    "without intra": "without attention to steps",
    "without inter": "without attention between levels",
    "without generative": "without the generative model",
}


def average_map(data_efficiency: pd.DataFrame) -> pd.DataFrame:
    """One row per run: its avg mAP in %, and the shown name of its model."""
    keys = [
        "benchmark",
        "model",
        "preset",
        "options",
        "recipe",
        "stream",
        "fraction",
        "seed",
        "subset_seed",
        "train_recordings",
        "train_segments",
        "tal_lib_version",
        "cell",
    ]
    runs = data_efficiency.drop_duplicates("cell")[
        [key for key in keys if key in data_efficiency]
    ]  # equal in all rows of a cell
    means = data_efficiency.groupby("cell", sort=False)["map"].mean().mul(100)
    return with_shown_names(runs.assign(avg_map=runs.cell.map(means)).reset_index(drop=True))


def efficiency_summary(data_efficiency: pd.DataFrame) -> pd.DataFrame:
    """`benchmark, model, fraction, mean, low, high, runs`: avg mAP (%) with 95 % intervals over seeds."""
    return summarise(average_map(data_efficiency), ["benchmark", "model", "fraction"], "avg_map")


def efficiency_table(summary: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """Table for readers: one row per model, one column per fraction, `mean [low, high]`.

    The best model at the largest fraction is first.
    """
    rows = summary[summary.benchmark == benchmark]
    text = rows.assign(text=with_interval(rows))
    table = text.pivot(index="model", columns="fraction", values="text")
    means = rows.pivot(index="model", columns="fraction", values="mean")
    table = table.loc[means.sort_values(means.columns[-1], ascending=False).index]
    table.columns = [f"{100 * fraction:g} %" for fraction in table.columns]
    return table.fillna("").reset_index()


def with_interval(rows: pd.DataFrame) -> list[str]:
    """`mean [low, high]` of each row; only the mean if there is no interval. Zero has no sign."""
    return [
        f"{row.mean:z.1f}" + (f" [{row.low:z.1f}, {row.high:z.1f}]" if row.low == row.low else "")
        for row in rows[["mean", "low", "high"]].itertuples(index=False)
    ]


NAMED = 3  # models (or recipes) with fewer runs than the others that a caption names


def number_of_runs(table: pd.DataFrame, unit: str, by: str = "model") -> str:
    """How many runs are behind the means of a table, for a caption: `5 seeds`, `5 seeds (tadtr: 3)`.

    Where more than `NAMED` models have fewer, or one has different numbers, it is a range: `1 to 5 seeds`.

    table: `runs` and, if known, the column `by`: model or recipe; unit: what the runs differ in, plural.
    """
    least, most = table.runs.min(), table.runs.max()
    if not least < most:
        return f"{most:g} {unit.removesuffix('s') if most == 1 else unit}"
    if by in table:
        counts = table.groupby(by, sort=False).runs.agg(["min", "max"])
        fewer = counts[counts["min"] < most]
        if 0 < len(fewer) <= NAMED and (fewer["min"] == fewer["max"]).all():
            mark = "“{}”" if by == "recipe" else "{}"
            named = ", ".join(f"{mark.format(name)}: {count:g}" for name, count in fewer["min"].items())
            return f"{most:g} {unit} ({named})"
    return f"{least:g} to {most:g} {unit}"


FEWEST = 5  # splits for an interval: they share classes, so that few of them say little
MISNAMED = "unseen, trained with wrong names"  # an arm of its own, with fewer splits
OPEN_SET_PARTS = (
    "unseen",
    "unseen, wrong names",
    MISNAMED,
    "unseen, all names",
    "seen, all names",
)


def open_set_runs(open_set: pd.DataFrame) -> pd.DataFrame:
    """One row per run and part: the settings, the shown name of its model, and `avg_map` (%).

    The text encoder is always named. Of cells with the same settings the latest counts. Models that were
    trained with wrong names have the part `MISNAMED` alone.
    """
    keys = [
        "benchmark",
        "model",
        "preset",
        "options",
        "recipe",
        "keep",
        "seen",
        "misnamed",
        "split",
        "fraction",
        "seed",
        "part",
    ]
    runs = (
        open_set.assign(options=[_with_text(options) for options in open_set.options])
        .groupby([*keys, "utc", "cell"], sort=False, dropna=False)["map"]
        .mean()
        .mul(100)
        .rename("avg_map")
        .reset_index()
        .sort_values("utc", kind="stable")
        .drop_duplicates(keys, keep="last")
        .sort_index()
    )
    runs = with_shown_names(runs[~runs.misnamed | (runs.part == "unseen")])
    runs.loc[runs.misnamed, "part"] = MISNAMED
    return runs


def open_set_summary(open_set: pd.DataFrame) -> pd.DataFrame:
    """`benchmark, keep, seen, model, fraction, part, mean, low, high, runs`: avg mAP (%) with 95 % intervals
    over splits of the classes. With fewer than `FEWEST` splits there is no interval."""
    keys = ["benchmark", "keep", "seen", "model", "fraction"]
    runs = _named_by_settings(open_set_runs(open_set), keys, ["recipe"])
    summary = summarise(runs, [*keys, "part"], "avg_map")
    summary.loc[summary.runs < FEWEST, ["low", "high"]] = float("nan")
    return summary


def _named_by_settings(runs, keys, columns):
    """The runs, with their settings (`columns`) in the model's name where runs of the same `keys` differ in
    them: these are no repeats, and are not averaged."""
    for column in (name for name in columns if name in runs):
        text = runs[column].fillna("").astype(str)
        differs = text.groupby([runs[key] for key in keys], sort=False).transform("nunique") > 1
        named = runs.model + " (" + text.where(text != "", f"default {column}") + ")"
        runs = runs.assign(model=runs.model.where(~differs, named))
    return runs


def _with_text(options: str) -> str:
    """Options of a model that reads names, with the default encoder where none is named."""
    if "text=" in options:
        return options
    return ", ".join(filter(None, (options, f"text={LanguageConfig.text}")))


def split_name(seen: float) -> str:
    """0.75 → 75/25."""
    return f"{100 * seen:g}/{100 - 100 * seen:g}"


def open_set_table(summary: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """Table for readers: one row per split ratio, fraction and model, one column per part, `mean [low,
    high]`."""
    rows = summary[summary.benchmark == benchmark]
    rows = rows.assign(
        text=with_interval(rows),
        classes=rows.seen.map(split_name),
        data=[f"{100 * fraction:g} %" for fraction in rows.fraction],
        first=-rows.seen,
        second=-rows.fraction,
    )
    table = rows.pivot(index=["first", "second", "classes", "data", "model"], columns="part", values="text")
    splits = (
        rows[rows.part == "unseen"]
        .set_index(["first", "second", "classes", "data", "model"])
        .runs.rename("splits")
    )
    table = table[[part for part in OPEN_SET_PARTS if part in table]].fillna("").join(splits)
    return table.reset_index().drop(columns=["first", "second"])


def variant_summary(table: pd.DataFrame) -> pd.DataFrame:
    """`benchmark, fraction, model, variant, mean, low, high, runs, params, macs`: avg mAP (%) with 95 %
    intervals over seeds."""
    keys = [
        "benchmark",
        "fraction",
        "model",
        "preset",
        "options",
        "recipe",
        "student",
        "student_options",
        "seed",
        "variant",
        "cell",
    ]
    runs = (
        table.groupby([key for key in keys if key in table], sort=False, dropna=False)
        .agg(avg_map=("map", "mean"), params=("params", "first"), macs=("macs", "first"))
        .reset_index()
    )
    runs = with_shown_names(runs.assign(avg_map=100 * runs.avg_map))
    by = ["benchmark", "fraction", "model", "variant"]
    runs = _named_by_settings(runs, by[:3], ["recipe", "student", "student_options"])
    return summarise(runs, by, "avg_map").merge(
        runs.groupby(by, sort=False)[["params", "macs"]].first().reset_index(), on=by
    )


def streams_table(summary: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """Table for readers: one row per model, one column per use of the streams, `mean [low, high]`.

    The best late fusion is first.
    """
    rows = summary[summary.benchmark == benchmark]
    table = rows.assign(text=with_interval(rows)).pivot(index="model", columns="variant", values="text")
    order = rows[rows.variant == "late"].sort_values("mean", ascending=False)
    columns = [
        *(name for name in dict.fromkeys(rows.variant) if name not in ("early", "late")),
        "early",
        "late",
    ]
    return table.loc[order.model, columns].join(order.set_index("model").runs).reset_index()


def variants_table(summary: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """Table for readers: one row per model and variant with avg mAP, parameters and MACs, in the order of the
    runs."""
    rows = summary[summary.benchmark == benchmark]
    return pd.DataFrame(
        {
            "model": rows.model,
            "variant": rows.variant.replace(SHOWN_VARIANT),
            "avg mAP": with_interval(rows),
            "runs": rows.runs,
            "params (M)": (rows.params / 1e6).round(3),
            "GMACs": (rows.macs / 1e9).round(3),
        }
    )


def proposal_summary(proposals: pd.DataFrame) -> pd.DataFrame:
    """`benchmark, model, fraction, an, ar, auc, runs`: AR@AN and AUC (%), mean over seeds."""
    rows = with_shown_names(proposals.assign(ar=100 * proposals.ar))
    keys = ["benchmark", "model", "fraction", "an"]
    return (
        rows.groupby(keys, sort=False)
        .agg(ar=("ar", "mean"), auc=("auc", "mean"), runs=("ar", "size"))
        .reset_index()
    )


def proposal_table(summary: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """Table for readers at the largest fraction: one row per model with AR at several AN and the AUC.

    The largest AUC is first.
    """
    rows = summary[(summary.benchmark == benchmark)]
    rows = rows[rows.fraction == rows.fraction.max()]
    table = rows.pivot(index="model", columns="an", values="ar")
    table.columns = [f"AR@{an}" for an in table.columns]
    table["AUC"] = rows.groupby("model").auc.first()
    return table.sort_values("AUC", ascending=False).round(1).reset_index()
