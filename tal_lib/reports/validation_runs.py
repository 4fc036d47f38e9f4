"""Runs on validation parts: how many optimizer steps are enough, and the variants of `local_global`.

They decide on the design of the study (docs/protocol.md). No test part takes part.
"""

import pandas as pd

from tal_lib import models
from tal_lib.data.registry import VALIDATION
from tal_lib.reports import tables
from tal_lib.reports.efficiency.runs import OUR_MODEL, with_all_data, with_settings_of
from tal_lib.reports.equal.arms import percent, place

STEPS, DESIGN = "steps", "own_design"
KEYS = ["benchmark", "fraction", "model", "options", "recipe"]


def runs_like(data: dict[str, pd.DataFrame], sweep: str) -> pd.DataFrame:
    """The runs on validation parts with the settings of a sweep, whichever sweep ran them.

    `KEYS`, `avg_map` (%). The name of the benchmark has no suffix.
    """
    table = data.get("data_efficiency", pd.DataFrame())
    if not len(table) or not {"fold", "sweep"} <= set(table):
        return pd.DataFrame(columns=[*KEYS, "avg_map"])
    table = table.fillna({"recipe": "", "options": "", "stream": ""})
    alike = ["model", "options", "recipe", "fold", "preset", "stream", "seed", "subset_seed"]
    rows = table[table.sweep == sweep]
    table = with_all_data(with_settings_of(table, sweep, alike))
    table = table[
        table.benchmark.isin(set(rows.benchmark[rows.benchmark.str.endswith(VALIDATION)]))
        & table.fraction.isin(set(rows.fraction))
    ]
    runs = table.groupby(KEYS, as_index=False, sort=False)["map"].mean().rename(columns={"map": "avg_map"})
    return runs.assign(avg_map=100 * runs.avg_map, benchmark=runs.benchmark.str.removesuffix(VALIDATION))


def steps_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Table for readers: a row per benchmark, label fraction and model; a column per number of steps."""
    steps = runs.recipe.str.extract(r"min_steps=(\d+)")[0].astype(int)
    wide = runs.assign(steps=steps).pivot(index=KEYS[:3], columns="steps", values="avg_map").reset_index()
    wide = _sorted(wide)
    wide.columns = [f"{name} steps" if isinstance(name, int) else str(name) for name in wide.columns]
    return _as_text(wide)


def design_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Table for readers: a row per variant; a column per benchmark and label fraction, and the mean of those.

    The mean is empty where a variant lacks one. The best mean is first.
    """
    runs = runs.assign(
        variant=[_variant(*row) for row in runs[["model", "options"]].itertuples(index=False)],
        column=[f"{row.benchmark}, {percent(row.fraction)}" for row in runs.itertuples()],
    )
    columns = list(dict.fromkeys(_sorted(runs).column))
    wide = runs.pivot(index="variant", columns="column", values="avg_map")[columns]
    wide["mean"] = wide.mean(axis=1, skipna=False)
    return _as_text(wide.sort_values("mean", ascending=False, kind="stable").reset_index())


def _variant(model, options):
    """The model, and the options that differ from its defaults."""
    given = dict(part.split("=", 1) for part in options.split(", ")) if options else {}
    default = models.config(model)
    changed = {name: value for name, value in given.items() if str(getattr(default, name)) != value}
    text = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in changed.items())
    return f"{model}: {text}" if changed else model


def _sorted(table):
    order = table.assign(place=table.benchmark.map(place)).sort_values(
        ["place", "benchmark", "fraction"], kind="stable"
    )
    return order.drop(columns="place")


def _as_text(table):
    numbers = table.select_dtypes("float").columns.difference(["fraction"])
    text = table.assign(**{name: table[name].map(lambda v: "" if v != v else f"{v:.1f}") for name in numbers})
    if "fraction" in text:
        text["fraction"] = text.fraction.map(percent)
    return text.rename(columns={"fraction": "label fraction"})


def write(data: dict[str, pd.DataFrame], out) -> None:
    """Write both tables, if there are such runs."""
    part = "avg mAP (%) on the validation part of fold 0, one run each"
    runs = runs_like(data, STEPS)
    if len(runs := runs[runs.options == ""]):
        out.table(steps_table(runs), STEPS, f"Number of optimizer steps: {part}, plain recipe.")
    if len(runs := runs_like(data, DESIGN)):
        about = f"Variants of {OUR_MODEL}: options that differ from the chosen design, and a reference model"
        caption = f"{about}; {part}, plain recipe."
        out.table(design_table(runs), DESIGN, caption, tables.HIGHEST)
