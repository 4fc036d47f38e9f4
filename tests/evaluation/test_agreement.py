"""Kendall's τ between benchmarks: known orders, and coverage of its interval by simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tal_lib.evaluation.agreement import agreement

MODELS = [f"m{number}" for number in range(12)]
# spread and likeness of the true means, noise between folds and of people: close and alike is the hardest
HARD = [(1, 1.0, 2, 5), (1, 0.7, 0, 5), (3, 0.0, 2, 5), (3, 1.0, 2, 5), (10, 0.7, 0, 5), (10, 0.0, 2, 5)]


def scores(rng, means, between, within, people=6, folds=5):
    """Scores of people on one benchmark; folds and people move all models by the same, and each alone."""
    index = pd.MultiIndex.from_product([range(folds), range(people)], names=["fold", "person"])
    shared = rng.normal(0, 5, (folds, people, 1))
    fold = rng.normal(0, between, (folds, 1, len(means)))
    alone = rng.normal(0, within, (folds, people, len(means)))
    values = (means + shared + fold + alone).reshape(folds * people, -1)
    return pd.DataFrame(values, index, MODELS[: len(means)])


def test_clear_orders():
    rng = np.random.default_rng(0)
    means = 10.0 * np.arange(12)
    first, second = scores(rng, means, 1, 3), scores(rng, means, 1, 3, people=10)
    assert agreement(first, second) == pytest.approx((1, 1, 1))
    assert agreement(first, -second)[0] == pytest.approx(-1)
    value, low, high = agreement(first, scores(rng, rng.permutation(means), 1, 3))
    assert low <= value <= high and value < 0.8


def test_only_models_of_both_count_and_two_are_too_few():
    rng = np.random.default_rng(0)
    first, second = (scores(rng, np.arange(6.0), 1, 3) for _ in range(2))
    few = agreement(first, second[MODELS[1:5]])
    assert (
        few[0]
        == stats.kendalltau(
            *(t.groupby("fold").mean().mean()[MODELS[1:5]] for t in (first, second))
        ).statistic
    )
    assert np.isnan(agreement(first, second[MODELS[:2]])).all()


@pytest.mark.slow
@pytest.mark.parametrize(("spread", "likeness", "between", "within"), HARD)
def test_the_interval_covers_the_true_agreement(spread, likeness, between, within):
    """At least 93 % of 40 simulated studies; 1.7 standard errors of that share are allowed for."""
    rng = np.random.default_rng(1)
    size, covered = 40, 0
    for _ in range(size):
        first = rng.normal(0, spread, 12)
        second = likeness * first + (1 - likeness**2) ** 0.5 * rng.normal(0, spread, 12)
        _, low, high = agreement(
            scores(rng, first, between, within), scores(rng, second, between, within), draws=200
        )
        covered += low <= stats.kendalltau(first, second).statistic <= high
    assert covered / size > 0.93 - 1.7 * (0.93 * 0.07 / size) ** 0.5
