"""Growth of a cost with the recording's length."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

FIRST = 1152  # steps; for shorter lengths, fixed costs of calls and padding hide the growth
FAR = 8  # extrapolate to at most this many times the longest measured recording


@dataclass(frozen=True)
class Growth:
    """cost ∝ lengthᵉ: the exponent e with its 95 % interval."""

    exponent: float
    low: float
    high: float
    points: int


def growth(lengths, costs, first: int = FIRST) -> Growth:
    """Exponent of a power law, fitted by least squares on the logarithms of cost and length.

    Only lengths of at least `first` steps count. The interval is Student's t.
    """
    lengths, costs = np.asarray(lengths, float), np.asarray(costs, float)
    kept = (lengths >= first) & np.isfinite(costs)
    lengths, costs = lengths[kept], costs[kept]
    if len(np.unique(lengths)) < 3 or (costs <= 0).any():
        return Growth(np.nan, np.nan, np.nan, int(kept.sum()))
    line = stats.linregress(np.log(lengths), np.log(costs))
    half = stats.t.ppf(0.975, len(lengths) - 2) * line.stderr
    return Growth(float(line.slope), float(line.slope - half), float(line.slope + half), len(lengths))


def growth_table(cost: pd.DataFrame, columns: dict[str, str], by: str = "model") -> pd.DataFrame:
    """One row per model and cost: `<by>, cost, exponent, low, high, points`.

    columns: column of `cost` → the name that it gets.
    """
    rows = [
        {by: name, "cost": label} | vars(growth(rows.length_steps, rows[column]))
        for name, rows in cost.groupby(by, sort=False)
        for column, label in columns.items()
    ]
    return pd.DataFrame(rows, columns=[by, "cost", *Growth.__dataclass_fields__])


def longest_within(lengths, costs, limit: float) -> tuple[float, bool]:
    """The length at which a cost reaches `limit`, and whether that length is beyond the measured ones.

    Peak memory is affine in the length. Between two measured lengths, the answer is therefore on the line
    through both (a cost of NaN means: did not fit). Beyond the longest, it is on the least-squares line
    a + b · length through the longest three lengths. It is 0 if the shortest length costs too much, and NaN
    if it is unknown: fewer than three lengths from `FIRST` on, or a line that does not rise.
    """
    table = pd.DataFrame({"length": np.asarray(lengths, float), "cost": np.asarray(costs, float)}).dropna()
    table = table.groupby("length").cost.median()
    if table.empty:
        return np.nan, True
    if table.iloc[0] > limit:
        return 0.0, False
    over = np.flatnonzero(table.to_numpy() > limit)
    if len(over):
        pair = table.iloc[over[0] - 1 : over[0] + 1]
        return float(np.interp(limit, pair.to_numpy(), pair.index.to_numpy())), False
    last = table[table.index >= FIRST].iloc[-3:]
    if len(last) < 3:
        return np.nan, True
    line = stats.linregress(last.index.to_numpy(float), last.to_numpy())
    if not line.slope > 0:
        return np.nan, True
    return float(max(table.index[-1], (limit - line.intercept) / line.slope)), True


def longest_text(steps: float, beyond: bool, longest: int) -> str:
    """The result of `longest_within` as text: three digits, or two beyond the measured lengths.

    longest: the longest measured length in steps.
    """
    if np.isnan(steps):
        return "not known"
    if beyond and steps > FAR * longest:
        return f"> {FAR * longest:,.0f}"
    return f"{'≈ ' if beyond else ''}{float(f'{steps:.{2 if beyond else 3}g}'):,.0f}"
