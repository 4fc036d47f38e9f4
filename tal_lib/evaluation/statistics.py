"""Statistics over runs: intervals of means, probability of improvement, ranks, components of variance.

Runs of different models are paired where they share their training recordings (`seed`). The runs of a group
are taken as independent. Intervals over people and folds are in `evaluation.nested`.

Source of the interquartile mean, its stratified bootstrap and the probability of improvement: Agarwal et al.,
Deep Reinforcement Learning at the Edge of the Statistical Precipice (NeurIPS 2021).
"""

import numpy as np
import pandas as pd
from scipy import optimize, stats

RESAMPLES = 2000
UNKNOWN = float("nan")


def mean_interval(values, confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of values (N,) and Student's interval of it, in the unit of the values (Biometrika 1908).

    NaN bounds if fewer than two values differ: equal values do not tell how far others would lie. NaN values
    are left out. Simulated coverage is at least 93 % for three and five values (tests).
    """
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return UNKNOWN, UNKNOWN, UNKNOWN
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return mean, UNKNOWN, UNKNOWN
    spread = (
        float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1))
        * float(values.std(ddof=1))
        / len(values) ** 0.5
    )
    return mean, mean - spread, mean + spread


def summarise(table: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    """One row per group: the keys, `mean, low, high` (95 % interval, Student's) and `runs`."""
    rows = [
        (*(key if isinstance(key, tuple) else (key,)), *mean_interval(group[value]), len(group))
        for key, group in table.groupby(by, sort=False)
    ]
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "runs"])


def interquartile_mean(values) -> float:
    """Mean of the middle half of all values."""
    return float(stats.trim_mean(np.ravel(values), 0.25))


def interquartile_interval(strata: list[np.ndarray], seed: int = 0) -> tuple[float, float, float]:
    """Interquartile mean over all strata, and its 95 % interval; runs are resampled within each stratum.

    A stratum is a label fraction here. The interval is too narrow with few runs: in simulations of six strata
    it covers 88 % with five runs of each, and 84 % with three.
    """
    rng = np.random.default_rng(seed)
    strata = [np.asarray(values, dtype=float) for values in strata]
    resampled = np.concatenate(
        [values[rng.integers(len(values), size=(RESAMPLES, len(values)))] for values in strata], 1
    )
    low, high = np.quantile(stats.trim_mean(resampled, 0.25, axis=1), [0.025, 0.975])
    return interquartile_mean(np.concatenate(strata)), float(low), float(high)


def probability_of_improvement(
    ours: list[np.ndarray], theirs: list[np.ndarray]
) -> tuple[float, float, float]:
    """Probability that a run of ours beats a run of theirs, mean over strata, with its 95 % interval.

    Equal values count half. The interval is Newcombe's score interval (Statistics in Medicine 2006, part 2,
    method 5), with the variance of all strata at their mean probability and Student's quantile. So it is no
    point where every run of ours is better. NaN bounds if no stratum has more than one run of a side.

    Args:
        ours, theirs: the values of the runs, one array per stratum (here: a label fraction), in the same
            order.
    """
    pairs = [
        (np.asarray(x, dtype=float), np.asarray(y, dtype=float)) for x, y in zip(ours, theirs, strict=True)
    ]
    share = float(np.mean([_wins(x, y) for x, y in pairs]))
    sizes = np.array([(len(x), len(y)) for x, y in pairs]).T
    if sizes.sum() == 2 * len(pairs):
        return share, UNKNOWN, UNKNOWN
    return share, _lower_bound(share, *sizes), 1 - _lower_bound(1 - share, *sizes)


def _wins(x, y):
    """How often a value of x (N,) is above one of y (M,): Mann and Whitney's statistic over N · M."""
    difference = x[:, None] - y
    return ((difference > 0) + 0.5 * (difference == 0)).mean()


def _lower_bound(share, n, m):
    """The least probability that a share of wins allows, for n and m runs of each stratum (K,)."""
    if share == 0:
        return 0.0
    quantile, more = stats.t.ppf(0.975, (n + m - 2).sum()), (n + m) / 2 - 1

    def excess(p):
        variance = p * (1 - p) / (n * m) * (1 + more * ((1 - p) / (2 - p) + p / (1 + p)))
        return (share - p) ** 2 - quantile**2 * variance.sum() / len(n) ** 2

    return float(optimize.brentq(excess, 0, min(share, 1 - 1e-9)))  # pyright: ignore[reportArgumentType]


def paired_difference(
    runs: pd.DataFrame, ours: str, theirs: str, value: str = "avg_map", pairs=("fraction", "seed")
) -> tuple[float, float, float, int]:
    """Mean of ours minus theirs over the runs that both have, its 95 % interval, and the number of pairs.

    A pair shares its training recordings.

    Args:
        runs: one row per run: `model`, the columns of `pairs`, and the value.
    """
    table = runs.pivot_table(index=list(pairs), columns="model", values=value)
    difference = (table[ours] - table[theirs]).dropna()
    return *mean_interval(difference), len(difference)


def mean_ranks(runs: pd.DataFrame, value: str = "avg_map", pairs=("fraction", "seed")) -> pd.Series:
    """Mean rank of each model, 1 the best, over the pairs for which every model has a run."""
    table = runs.pivot_table(index=list(pairs), columns="model", values=value).dropna()
    return table.rank(axis=1, ascending=False).mean().rename("rank")


def variance_components(
    table: pd.DataFrame, rows: str = "subset_seed", columns: str = "seed", value: str = "avg_map"
) -> dict[str, float]:
    """Standard deviations due to the subset sample and to the training seed, of a crossed design.

    One run per cell: two-way random effects without replication, estimated by mean squares. A negative
    variance is given as zero.

    Returns:
        `subset`, `seed`, `interaction` (with the residual), in the unit of the value.
    """
    y = table.pivot(index=rows, columns=columns, values=value).to_numpy(dtype=float)
    n, m = y.shape
    if min(n, m) < 2 or np.isnan(y).any():
        raise ValueError(
            f"no components of variance: a crossed design of {n} × {m} runs, {int(np.isnan(y).sum())} missing"
        )
    grand, of_row, of_column = y.mean(), y.mean(1), y.mean(0)
    rest = y - of_row[:, None] - of_column[None] + grand
    within = (rest**2).sum() / ((n - 1) * (m - 1))
    between_rows, between_columns = m * of_row.var(ddof=1), n * of_column.var(ddof=1)
    return {
        "subset": float(max(0, (between_rows - within) / m) ** 0.5),
        "seed": float(max(0, (between_columns - within) / n) ** 0.5),
        "interaction": float(within**0.5),
    }
