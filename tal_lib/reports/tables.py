"""Ledger → tidy tables → CSV, Markdown and LaTeX."""

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype

from tal_lib.evaluation.statistics import summarise
from tal_lib.files import atomic_path, write_text
from tal_lib.models.parts.registry import has_separate_classifier
from tal_lib.provenance import COLUMNS as PROVENANCE

LONG = 100_000  # rows
NUMBER = re.compile(r"[<>≤≈ ]*[-+−]?[\d.,]+( ?%)?$|–?$")  # as readers see it; – is a missing one
CLASSIFIED = " + classifier"
KEYS = [
    "benchmark",
    "model",
    "preset",
    "repeat",
    "batch_size",
    "seen",
    "keep",
    "misnamed",
    "split",
    "fraction",
    "seed",
    "subset_seed",
    "stream",
    "student",
    "student_options",
    "options",
    "recipe",
]


def tidy(records: list[dict], table: str) -> pd.DataFrame:
    """All rows that the cells recorded for a table: the cell's parameters, the measures, the provenance.

    Args:
        records: of `tal_lib.sweeps.read_all`.
    """
    records = [record for record in records if record["tables"].get(table)]
    rows = [row for record in records for row in record["tables"][table]]
    if not rows:
        return pd.DataFrame()
    owner = np.repeat(np.arange(len(records)), [len(record["tables"][table]) for record in records])
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in PROVENANCE]
    measures = {name: [row.get(name) for row in rows] for name in names}
    measures = pd.DataFrame(
        {
            name: values
            for name, values in measures.items()
            if not any(isinstance(value, list) for value in values)
        }
    )
    keys = pd.DataFrame(
        [
            {name: _plain(value) for name, value in record["parameters"].items() if name in KEYS}
            for record in records
        ]
    )
    own = [
        name for name in KEYS if name in keys and name not in measures
    ]  # what a row says itself goes before what its cell says
    rank = np.zeros(len(keys), int)
    if own:  # cells alike in all keys have the same rank
        sorted_cells = keys.sort_values(own, kind="stable").index
        rank[sorted_cells] = pd.factorize(keys.groupby(own, sort=False, dropna=False).ngroup()[sorted_cells])[
            0
        ]
    order = [name for name in KEYS if name in measures] + [
        name for name in ("length_steps", "tiou", "label") if name in measures
    ]
    index = measures[order].assign(rank=rank[owner]).sort_values(["rank", *order], kind="stable").index
    owner, measures = owner[index], measures.loc[index].reset_index(drop=True)
    about = pd.DataFrame(
        [
            {"sweep": record["sweep"], "cell": record["id"]}
            | {name: record["provenance"].get(name) for name in PROVENANCE}
            for record in records
        ]
    )
    parts = [measures[[name]] if name in measures else keys[[name]].take(owner) for name in keys]
    parts += [measures[[name for name in measures if name not in keys]], about.take(owner)]
    table = pd.concat([part.reset_index(drop=True) for part in parts], axis=1)
    table.attrs["of_cells"] = [*own, *about]  # the same in all rows of a cell
    return table


def _plain(value):
    """Empty options are empty text; others are written out."""
    if isinstance(value, dict | list):
        return (
            ", ".join(f"{key}={value[key]}" for key in value)
            if isinstance(value, dict)
            else ", ".join(map(str, value))
        )
    return value


MEASURED = (
    "benchmark",
    "model",
    "preset",
    "device_name",
    "precision",
    "threads_used",
    "length_steps",
    "repeat",
)


def newest(table: pd.DataFrame, keys: tuple[str, ...] = MEASURED) -> pd.DataFrame:
    """Of rows with the same keys, as a longer list of models or lengths gives, the newest only."""
    keys = [name for name in keys if name in table]
    return (
        table.sort_values("utc", kind="stable")
        .drop_duplicates(keys, keep="last")
        .sort_index()
        .reset_index(drop=True)
    )


def main_machine(table: pd.DataFrame) -> str:
    """The machine that most rows were measured on."""
    return table.device_name.value_counts().sort_index().idxmax()


def on_main_machine(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of one machine, the one with the most: times of several are not compared."""
    if table.empty or "device_name" not in table:
        return table
    return table[table.device_name == main_machine(table)]


def machine_suffix(device_name: str, main: str) -> str:
    """What tables and figures of another machine than the main one are called by, behind their name; empty for the main one."""
    return "" if device_name == main else "_" + re.sub(r"[^a-z0-9]+", "_", device_name.lower()).strip("_")


def average_map(data_efficiency: pd.DataFrame) -> pd.DataFrame:
    """One row a run: its avg mAP in %, and the name under which its model is shown."""
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
        "cell",
    ]
    runs = data_efficiency.drop_duplicates("cell")[
        [key for key in keys if key in data_efficiency]
    ]  # the same in all rows of a cell
    means = data_efficiency.groupby("cell", sort=False)["map"].mean().mul(100)
    return with_shown_names(runs.assign(avg_map=runs.cell.map(means)).reset_index(drop=True))


def shown_name(model: str, preset: str, options: str = "", stream: str = "") -> str:
    """A model's name, with what differs from its compact preset; proposals that the study's own stage classifies say so."""
    extra = [part for part in ("" if preset == "compact" else preset, options, stream) if part]
    name = f"{model}{CLASSIFIED}" if has_separate_classifier(model) else model
    return f"{name} ({', '.join(extra)})" if extra else name


def with_shown_names(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its models called as they are shown."""
    columns = [name for name in ("model", "preset", "options", "stream") if name in table]
    rows = list(table[columns].itertuples(index=False, name=None))
    names = {row: shown_name(*row) for row in set(rows)}
    return table.assign(model=[names[row] for row in rows])


def efficiency_summary(data_efficiency: pd.DataFrame) -> pd.DataFrame:
    """`benchmark, model, fraction, mean, low, high, runs`: avg mAP (%) with 95 % intervals over seeds."""
    return summarise(average_map(data_efficiency), ["benchmark", "model", "fraction"], "avg_map")


def efficiency_table(summary: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """For readers: a row a model, a column a fraction, `mean [low, high]`; best first at the largest fraction."""
    rows = summary[summary.benchmark == benchmark]
    text = rows.assign(text=with_interval(rows))
    table = text.pivot(index="model", columns="fraction", values="text")
    means = rows.pivot(index="model", columns="fraction", values="mean")
    table = table.loc[means.sort_values(means.columns[-1], ascending=False).index]
    table.columns = [f"{100 * fraction:g} %" for fraction in table.columns]
    return table.fillna("").reset_index()


def with_interval(rows: pd.DataFrame) -> list[str]:
    """`mean [low, high]` of each row with these three columns; the mean alone where there is no interval."""
    return [
        f"{row.mean:.1f}" + (f" [{row.low:.1f}, {row.high:.1f}]" if row.low == row.low else "")
        for row in rows[["mean", "low", "high"]].itertuples(index=False)
    ]


OPEN_SET_PARTS = (
    "unseen",
    "unseen, wrong names",
    "unseen, trained with wrong names",
    "unseen, all names",
    "seen, all names",
)


def open_set_summary(open_set: pd.DataFrame) -> pd.DataFrame:
    """`benchmark, keep, seen, model, fraction, part, mean, low, high, runs`: avg mAP (%) with 95 % intervals over splits of the classes."""
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
        "cell",
    ]
    runs = (
        open_set.groupby(keys, sort=False, dropna=False)["map"]
        .mean()
        .mul(100)
        .rename("avg_map")
        .reset_index()
    )
    runs = with_shown_names(runs[~runs.misnamed | (runs.part == "unseen")])
    runs.loc[runs.misnamed, "part"] = "unseen, trained with wrong names"
    return summarise(runs, ["benchmark", "keep", "seen", "model", "fraction", "part"], "avg_map")


def split_name(seen: float) -> str:
    """0.75 → 75/25."""
    return f"{100 * seen:g}/{100 - 100 * seen:g}"


def open_set_table(summary: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """For readers: a row a split ratio, fraction and model, a column a part, `mean [low, high]`."""
    rows = summary[summary.benchmark == benchmark]
    rows = rows.assign(
        text=with_interval(rows),
        classes=rows.seen.map(split_name),
        data=[f"{100 * one:g} %" for one in rows.fraction],
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
    """`benchmark, fraction, model, variant, mean, low, high, runs, params, macs`: avg mAP (%) with 95 % intervals over seeds."""
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
    return summarise(runs, by, "avg_map").merge(
        runs.groupby(by, sort=False)[["params", "macs"]].first().reset_index(), on=by
    )


def streams_table(summary: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """For readers: a row a model, a column a way of using the streams, `mean [low, high]`; best late fusion first."""
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
    """For readers: a row a model and variant with avg mAP, parameters and MACs, in the order of the runs."""
    rows = summary[summary.benchmark == benchmark]
    return pd.DataFrame(
        {
            "model": rows.model,
            "variant": rows.variant,
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
    """For readers: a row a model with AR at several AN and the AUC, at the largest fraction; the largest AUC first."""
    rows = summary[(summary.benchmark == benchmark)]
    rows = rows[rows.fraction == rows.fraction.max()]
    table = rows.pivot(index="model", columns="an", values="ar")
    table.columns = [f"AR@{an}" for an in table.columns]
    table["AUC"] = rows.groupby("model").auc.first()
    return table.sort_values("AUC", ascending=False).round(1).reset_index()


def read_table(path: str | Path) -> tuple[str, pd.DataFrame]:
    """(caption, table) of what `write_table` wrote, by its Markdown file."""
    path = Path(path)
    return path.read_text(encoding="utf-8").split("\n", 1)[0], pd.read_csv(
        path.with_suffix(".csv"), keep_default_na=False
    )


def write_csv(table: pd.DataFrame, folder: str | Path, name: str) -> Path:
    """Write a tidy table for machines."""
    if len(table) < LONG or (lines := _lines(table)) is None:
        return write_text(Path(folder) / f"{name}.csv", _csv(table))
    with (
        atomic_path(Path(folder) / f"{name}.csv") as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        file.write(_csv(table.iloc[:0]))
        file.writelines(lines)
    return Path(folder) / f"{name}.csv"


def _csv(table, header=True):
    return table.to_csv(index=False, header=header, float_format="%.10g")


def _lines(table):
    """The lines that `_csv` would give; what all rows of a cell share is written out once a cell, which takes a sixth of the time. None if
    the table is not like that."""
    columns, shared = list(table), set(table.attrs.get("of_cells", ()))
    left = list(itertools.takewhile(shared.__contains__, columns))
    right = list(itertools.takewhile(shared.__contains__, reversed(columns)))[::-1]
    middle = columns[len(left) : len(columns) - len(right)]
    if not left or not right or "cell" not in right or not middle:
        return None
    cells, first = table.cell.factorize()[0], ~table.cell.duplicated()
    own = table[middle]
    own = own.assign(
        **{
            name: ["" if value != value else f"{value:.10g}" for value in own[name]]
            for name in own.select_dtypes("float")
        }
    )
    parts = [
        _csv(part, header=False).splitlines()
        for part in (table.loc[first, left], table.loc[first, right], own)
    ]
    if [len(part) for part in parts] != [
        first.sum(),
        first.sum(),
        len(table),
    ]:  # a text with a line break in it
        return None
    before, after, own = parts
    return (f"{before[cell]},{line},{after[cell]}\n" for cell, line in zip(cells, own))


def write_table(table: pd.DataFrame, folder: str | Path, name: str, caption: str) -> Path:
    """Write a table for readers: CSV, Markdown and LaTeX (booktabs); the Markdown's path."""
    write_csv(table, folder, name)
    table = table.apply(_as_read)
    right = [column.map(lambda value: bool(NUMBER.match(str(value)))).all() for _, column in table.items()]
    latex = table.to_latex(
        index=False,
        escape=True,
        caption=caption,
        label=f"tab:{name.replace('_', '-')}",
        position="tb",
        column_format="".join("r" if number else "l" for number in right),
    )
    write_text(
        Path(folder) / f"{name}.tex", latex.replace("\\begin{tabular}", "\\centering\n\\begin{tabular}")
    )
    markdown = table.to_markdown(
        index=False, disable_numparse=True, colalign=["right" if number else "left" for number in right]
    )
    return write_text(Path(folder) / f"{name}.md", f"{caption}\n\n{markdown}\n")


def _as_read(column):
    """Numbers of a column with as many decimals as the one that has most, at most three; – where there is none."""
    if not is_float_dtype(column):
        return column.fillna("–")
    decimals = max((len(f"{value:.3f}".rstrip("0").split(".")[1]) for value in column.dropna()), default=0)
    return column.map(lambda value: "–" if pd.isna(value) else f"{value:,.{decimals}f}")
