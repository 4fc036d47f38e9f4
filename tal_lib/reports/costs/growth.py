"""How costs grow with the length of a recording, and the longest recording that fits into a given memory."""

import math

import numpy as np
import pandas as pd

from tal_lib.cost.growth import FAR, growth_table, longest_text, longest_within

GROWTHS = {"latency_s_median": "time", "macs": "MACs", "peak_memory_bytes": "memory"}
LIMITS_GB = (0.5, 2, 8)
OPEN = 0.75, 1.25  # an interval that holds both tells neither slower nor faster growth than linear
GROWTH_CAPTION = (  # of page 03; docs/costs.md explains the signs of the tables
    "Growth of cost with the recording length: exponents e of cost ∝ lengthᵉ from 1,152 steps on, with 95 % "
    "intervals. “steps in N GB”: longest recording whose forward pass fits into this memory, without the "
    "weights, rounded down. Peak memory is interpolated linearly between two measured lengths. ≈: "
    "extrapolated from the longest three. >: longer, but the measurements do not show by how much. <: this "
    "length needs more, or its decoding and NMS did not fit into the memory limit (8 GB on CPUs). –: not "
    "counted, or the interval of the exponent holds both 0.75 and 1.25."
)


def exponents_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Exponents of one condition's rows: see `tal_lib.cost.growth_table`. Unknown exponents are left out."""
    return growth_table(rows, GROWTHS).dropna(subset=["exponent"])


def longest_recordings(rows: pd.DataFrame, cost: pd.DataFrame) -> pd.DataFrame:
    """One row per model and memory limit: the longest recording whose pass fits.

    Args:
        rows: measured rows of one condition.
        cost: all rows, also those of what did not fit.
    """
    failed = _failed_from(cost, rows)
    table = []
    for model, measured in rows.groupby("model"):
        for limit in LIMITS_GB:
            steps, beyond = longest_within(measured.length_steps, measured.peak_memory_bytes, limit * 1e9)
            table.append(
                {
                    "model": model,
                    "limit_gb": limit,
                    "steps": steps,
                    "extrapolated": beyond,
                    "longest_steps": measured.length_steps.max(),
                    # a length that decoding and NMS did not allow; else the shortest measured length, if that
                    # needs more than the limit already
                    "did_not_fit_at": failed.get(model, np.nan) if steps else measured.length_steps.min(),
                }
            )
    return pd.DataFrame(table)


def _failed_from(cost, rows):
    """The shortest length at which decoding and NMS did not fit, by model, under the conditions of `rows`."""
    return did_not_fit(cost, rows).groupby("model").length_steps.min()


def did_not_fit(cost: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `cost` without a latency, under the conditions of the measured `rows`."""
    keys = [name for name in ("benchmark", "preset", "precision", "device_name") if name in cost]
    return cost[(cost[keys] == rows.iloc[0][keys]).all(axis=1) & cost.latency_s_median.isna()]


def growth_for_readers(exponents: pd.DataFrame, limits: pd.DataFrame) -> pd.DataFrame:
    """One row per model, from the results of `exponents_of` and `longest_recordings`."""
    fits = limits.assign(text=[_steps(row) for row in limits.itertuples()])
    fits = fits.pivot(index="model", columns="limit_gb", values="text")
    fits = fits.rename(columns=lambda limit: f"steps in {limit:g} GB")
    exponents = exponents[(exponents.low > OPEN[0]) | (exponents.high < OPEN[1])]
    text = [f"{row.exponent:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in exponents.itertuples()]
    powers = exponents.assign(text=text).pivot(index="model", columns="cost", values="text")
    powers = powers.reindex(columns=list(GROWTHS.values()))
    return powers.join(fits, how="outer").fillna("–").rename_axis("model").reset_index()


def _steps(row):
    known = row.steps > 0 and not row.steps > row.did_not_fit_at  # a length, and no failure below it
    if row.did_not_fit_at > 0 and not known:
        return f"< {row.did_not_fit_at:,.0f}"
    if np.isnan(row.steps):  # the longest measured length fits, and no line is known
        return f"> {row.longest_steps:,.0f}"
    steps = row.steps
    if steps <= FAR * row.longest_steps:  # of a longer one, only the bound is known
        steps = rounded_down(steps, row.extrapolated)
    return longest_text(steps, row.extrapolated, row.longest_steps)


def rounded_down(steps: float, extrapolated: bool) -> float:
    """A length of three digits, two if extrapolated, that is not above `steps`: what fits must still fit."""
    digits = 2 if extrapolated else 3
    unit = 10 ** max(0, math.floor(math.log10(max(steps, 1))) + 1 - digits)
    return math.floor(steps / unit + 1e-9) * unit  # 13,199.999… of a line is 13,200
