"""Statistics over runs: means with bootstrap intervals."""

import numpy as np
import pandas as pd
from scipy import stats


def mean_interval(values, confidence: float = 0.95, seed: int = 0) -> tuple[float, float, float]:
    """Mean of values (N,) and its percentile-bootstrap interval; NaN bounds for fewer than two values."""
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return float("nan"), float("nan"), float("nan")
    mean = float(values.mean())
    if len(values) == 1:
        return mean, float("nan"), float("nan")
    if np.ptp(values) == 0:
        return mean, mean, mean
    found = stats.bootstrap((values,), np.mean, confidence_level=confidence, n_resamples=9999, method="percentile",
                            rng=np.random.default_rng(seed))
    return mean, float(found.confidence_interval.low), float(found.confidence_interval.high)


def summarise(table: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    """One row a group: the keys, `mean, low, high` (95 % bootstrap interval) and `runs`."""
    rows = [(*(key if isinstance(key, tuple) else (key,)), *mean_interval(group[value]), len(group))
            for key, group in table.groupby(by, sort=False)]
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "runs"])
