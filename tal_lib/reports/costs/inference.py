"""Inference cost against length, its growth, and the longest recording that fits in memory."""

import numpy as np
import pandas as pd

from tal_lib.cost.growth import growth_table, longest_text, longest_within
from tal_lib.reports import figures, tables
from tal_lib.reports.costs.prior import write_prior
from tal_lib.reports.costs.repeatability import write_repeatability
from tal_lib.reports.costs.shapes import (
    COSTS,
    OPTIONAL_COSTS,
    conditions,
    short,
    with_energy_per_minute,
)

GROWTHS = {"latency_s_median": "time", "macs": "MACs", "peak_memory_bytes": "memory"}
LIMITS_GB = (0.5, 2, 8)


def write(data: dict[str, pd.DataFrame], out) -> None:
    """Write costs against length, their growth and the longest recordings.

    It also writes the repeatability of latencies and the comparison with the prior study.
    """
    cost, grown, longest = data["inference_cost"], [], []
    for stem, words, rows in conditions(cost):
        _write_against_length(rows, stem, words, out)
        grown.append(growth_table(rows, GROWTHS).assign(condition=stem))
        longest += _longest(rows, _failed_from(cost, rows), stem)
    if grown:
        _write_growth(pd.concat(grown).dropna(subset=["exponent"]), pd.DataFrame(longest), out)
    write_repeatability(cost, out)
    write_prior(cost, out.about("prior"))


def _write_against_length(rows, stem, words, out):
    """Write each cost by model and length.

    Only lengths that most models have are shown: the prior study's lengths have only its models.
    """
    share = rows.groupby("length_steps").model.nunique() / rows.model.nunique()
    common = with_energy_per_minute(rows[rows.length_steps.map(share) >= 0.5])
    optional = {
        column: about
        for column, about in OPTIONAL_COSTS.items()
        if column in common and common[column].notna().any()
    }
    for column, (name, label, unit) in (COSTS | optional).items():
        values = common.assign(value=common[column] / unit)
        table = values.pivot_table(index="model", columns="length_steps", values="value", aggfunc="median")
        table = table.sort_values(table.columns[-1]).map(short)
        table.columns = [f"{steps:,}" for steps in table.columns]
        caption = f"{label[0].upper()}{label[1:]} by recording length in steps: {words}."
        out.table(table.fillna("–").reset_index(), f"{name}_{stem}", caption, tables.LOWEST)
        if common.length_steps.nunique() > 1:
            axes = figures.cost_against_length(
                common.assign(**{column: common[column] / unit}), column, label
            )
            out.figure(axes, f"{name}_against_length_{stem}")


def _failed_from(cost, rows):
    """The shortest length at which decoding and NMS did not fit, by model, under the conditions of `rows`."""
    first = rows.iloc[0]
    alike = (cost[["benchmark", "preset", "precision"]] == first[["benchmark", "preset", "precision"]]).all(
        axis=1
    )
    alike &= cost.device_name == first.device_name
    return cost[alike & cost.latency_s_median.isna()].groupby("model").length_steps.min()


def _longest(rows, failed, stem):
    """One row per model and memory limit: the longest recording whose pass fits."""
    table = []
    for model, measured in rows.groupby("model"):
        for limit in LIMITS_GB:
            steps, beyond = longest_within(measured.length_steps, measured.peak_memory_bytes, limit * 1e9)
            table.append(
                {
                    "condition": stem,
                    "model": model,
                    "limit_gb": limit,
                    "steps": steps,
                    "extrapolated": beyond,
                    "longest_steps": measured.length_steps.max(),
                    "did_not_fit_at": failed.get(model, np.nan),
                }
            )
    return table


def _write_growth(grown, longest, out):
    if len(grown):
        out.data(grown, "growth")
    out.data(longest, "longest_recording")
    for stem, rows in grown.groupby("condition"):
        text = [f"{row.exponent:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in rows.itertuples()]
        table = rows.assign(text=text).pivot(index="model", columns="cost", values="text")[
            list(GROWTHS.values())
        ]
        fits = longest[longest.condition == stem]
        fits = fits.assign(text=[_steps(row) for row in fits.itertuples()])
        fits = fits.pivot(index="model", columns="limit_gb", values="text")
        fits = fits.rename(columns=lambda limit: f"steps in {limit:g} GB")
        caption = (
            "How cost grows: exponents e of cost ∝ lengthᵉ from 1,152 steps on with 95 % intervals, and the "
            "longest recording whose pass fits into a given memory, weights excluded (≈: beyond what was "
            "measured, on the line through the longest three lengths; >: far beyond; <: decoding did not fit "
            f"there); {stem.replace('_', ' ')}."
        )
        best = tables.Best(low=tuple(GROWTHS.values()))
        out.table(table.join(fits).reset_index(), f"growth_{stem}", caption, best)


def _steps(row):
    if row.steps > row.did_not_fit_at:
        return f"< {row.did_not_fit_at:,.0f}"
    return longest_text(row.steps, row.extrapolated, row.longest_steps)
