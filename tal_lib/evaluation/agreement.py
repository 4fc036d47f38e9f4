"""How far the ranking of models on one benchmark agrees with that on another: Kendall's τ of their means.

The interval is over people and folds: how far may the true means agree? Noise makes close models change
places, so the estimated τ is too near zero. A plain bootstrap covers the true τ in 13 % of simulated studies
whose models are close. The interval here is where two others overlap:

- A pair of models counts as known if its order is known on both benchmarks (paired by person, Holm over all
  pairs, 0.05). All other pairs may agree or not.
- Bootstrap of means with the covariance of models that share people; its ends are moved away from zero by the
  factor by which noise moves τ towards zero.

Simulated coverage (tests) is at least 93 %, mostly more. Benchmarks are treated as independent, also if they
share people.
"""

import itertools

import numpy as np
import pandas as pd
from scipy import stats

from tal_lib.evaluation.nested import estimate, holm

DRAWS = 2000


def agreement(
    first: pd.DataFrame, second: pd.DataFrame, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float, float]:
    """Kendall's τ of the models' means over folds, with a 95 % interval over people and folds.

    Args:
        first, second: scores on two benchmarks: a row per person, index `fold, person`; a column per model.
            Models that only one of them has are left out.

    Returns:
        τ, low, high; NaN for fewer than three models in both.
    """
    models = [name for name in first.columns if name in second.columns]
    if len(models) < 3:
        return float("nan"), float("nan"), float("nan")
    tables = first[models], second[models]
    means = [
        table.groupby(level="fold").mean().to_numpy().mean(axis=0)  # pyright: ignore[reportAttributeAccessIssue]
        for table in tables
    ]
    value = float(stats.kendalltau(*means).statistic)  # pyright: ignore[reportAttributeAccessIssue]
    low, high = _by_known_pairs(tables)
    drawn_low, drawn_high = _bootstrap(tables, value, draws, np.random.default_rng(seed))
    return value, max(low, min(drawn_low, value)), min(high, max(drawn_high, value))


def _by_known_pairs(tables):
    """Bounds of τ if every pair whose order is not known on both benchmarks may agree or disagree."""
    folds = [[rows.to_numpy() for _, rows in table.groupby(level="fold")] for table in tables]
    p_values, agree = [], []
    for pair in itertools.combinations(range(tables[0].shape[1]), 2):
        both = [estimate(_differences(each, *pair)) for each in folds]
        p_values.append(max(each.p for each in both))
        agree.append(both[0].mean * both[1].mean > 0)
    known, agree = holm(p_values) < 0.05, np.array(agree)
    pairs = len(agree)
    return 2 * int((known & agree).sum()) / pairs - 1, 1 - 2 * int((known & ~agree).sum()) / pairs


def _differences(folds, first, second):
    """Scores of one column minus those of another, by fold, of the people that have both."""
    rows = (values[:, first] - values[:, second] for values in folds)
    return [known for known in (each[~np.isnan(each)] for each in rows) if len(known)]


def _bootstrap(tables, value, draws, rng):
    """95 % interval of τ by drawn means: as drawn and mirrored at the estimate, whichever reaches further.

    An end is moved away from zero by the factor by which noise moves τ towards it: τ of means that are as
    far apart as the true ones are, and the same means with noise.
    """
    orders, likeness = [], 1.0
    for table in tables:
        mean, spread = _mean_and_spread(table)
        scale = np.sqrt(spread.freedom / rng.chisquare(spread.freedom, draws))  # as of Student's t
        noise = rng.standard_normal((draws, len(spread.rows))) @ spread.rows
        orders.append(_order(mean + noise * scale[:, None]))
        true = mean * _share_of_signal(mean, spread.rows) ** 0.5
        likeness *= float((_order(true + noise) * _order(true[None])).mean())
    low, high = np.quantile((orders[0] * orders[1]).mean(1), [0.025, 0.975])
    low, high = min(low, 2 * value - high), max(high, 2 * value - low)
    likeness = max(likeness, 1e-9)
    return float(min(low, low / likeness)), float(max(high, high / likeness))


def _share_of_signal(mean, rows):
    """Share of the variance of means (M,) that is not noise."""
    noise = np.square(rows - rows.mean(1, keepdims=True)).sum()
    return max(0.0, 1 - float(noise / max(np.square(mean - mean.mean()).sum(), 1e-300)))


class _Spread:
    """Rows (R, M) whose outer product is the covariance of M means, and its degrees of freedom."""

    def __init__(self, rows, freedom):
        self.rows, self.freedom = rows, freedom


def _mean_and_spread(table):
    """Means (M,) over folds, and their spread: by folds or by people, whichever is larger.

    It is the rule of `nested.estimate`, for all models at once.
    """
    folds = [rows.to_numpy(dtype=float) for _, rows in table.groupby(level="fold")]
    count = len(folds)
    of_fold = np.stack([values.mean(0) for values in folds])
    mean = of_fold.mean(0)
    by_fold = _Spread((of_fold - mean) / (count * (count - 1)) ** 0.5, count - 1)
    several = [values for values in folds if len(values) > 1]
    if not several:
        return mean, by_fold
    people = np.concatenate(
        [(values - values.mean(0)) / (len(values) * (len(values) - 1)) ** 0.5 / count for values in several]
    )
    by_person = _Spread(people, sum(len(values) - 1 for values in several))
    return mean, max(by_fold, by_person, key=lambda spread: np.square(spread.rows).sum())


def _order(means):
    """Signs (N, pairs) of the differences of all pairs of models, from means (N, M)."""
    first, second = np.triu_indices(means.shape[1], 1)
    return np.sign(means[:, first] - means[:, second])
