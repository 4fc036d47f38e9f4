import importlib.util
import sys
import types

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tal_lib.evaluation.statistics import (
    interquartile_interval,
    interquartile_mean,
    mean_interval,
    mean_ranks,
    paired_difference,
    probability_of_improvement,
    summarise,
    variance_components,
)

SKEWED = 8.0  # shape of a gamma distribution: its skewness is 0.7


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_the_interval_covers_the_mean_of_few_values(kind, size):
    """At least 93 % of 3,000 samples; a percentile bootstrap covers 75 % (three values) and 84 % (five)."""
    rng = np.random.default_rng(0)
    shape = (3000, size)
    samples = rng.standard_normal(shape) if kind == "normal" else rng.gamma(SKEWED, 1, shape) - SKEWED
    covered = np.mean([low <= 0 <= high for _, low, high in map(mean_interval, samples)])
    assert 0.93 <= covered <= 0.96


def test_few_values():
    assert mean_interval([3.0])[0] == 3.0 and np.isnan(mean_interval([3.0])[1:]).all()
    assert mean_interval([2.0, 2.0])[0] == 2.0 and np.isnan(mean_interval([2.0, 2.0])[1:]).all()
    assert np.isnan(mean_interval([])).all()
    expected = stats.ttest_1samp([1.0, 2.0, 6.0], 0).confidence_interval(0.9)
    assert mean_interval([1.0, np.nan, 2.0, 6.0], 0.9) == pytest.approx((3.0, expected.low, expected.high))


def test_summarise_groups():
    table = pd.DataFrame({"model": ["a", "a", "b"], "v": [1.0, 3.0, 5.0]})
    assert summarise(table, ["model"], "v")[["model", "mean", "runs"]].to_numpy().tolist() == [
        ["a", 2.0, 2],
        ["b", 5.0, 1],
    ]


def test_the_interquartile_mean_leaves_out_both_quarters():
    assert interquartile_mean([0, 1, 2, 3, 4, 5, 6, 1000]) == 3.5
    value, low, high = interquartile_interval([np.arange(8.0), np.arange(8.0)])
    assert value == 3.5 and low < 3.5 < high


def test_probability_of_improvement_is_that_of_mann_and_whitney():
    rng = np.random.default_rng(1)
    x, y = rng.normal(1, 1, 7), rng.normal(0, 1, 5)
    expected = stats.mannwhitneyu(x, y).statistic / 35
    value, low, high = probability_of_improvement([x], [y])
    assert np.isclose(value, expected) and low < value < high
    assert probability_of_improvement([x, x], [y, x])[0] == (value + 0.5) / 2
    back = probability_of_improvement([y], [x])
    assert back == pytest.approx((1 - value, 1 - high, 1 - low))


def test_a_run_that_is_always_better_is_no_certainty():
    """Without any loss the lower bound solves (1 − p)² = t² · variance(p), Newcombe's for five and five."""
    better, worse = np.arange(5.0) + 9, np.arange(5.0)
    value, low, high = probability_of_improvement([better], [worse])
    variance = low * (1 - low) / 25 * (1 + 4 * (1 - low) / (2 - low) + 4 * low / (1 + low))
    assert value == high == 1 and (1 - low) ** 2 == pytest.approx(stats.t.ppf(0.975, 8) ** 2 * variance)
    assert 0.5 < low < 0.7 < probability_of_improvement([better] * 6, [worse] * 6)[1] < 0.95
    assert probability_of_improvement([worse], [better]) == pytest.approx((0, 0, 1 - low))
    single = probability_of_improvement([[2.0]], [[1.0]])
    assert single[0] == 1 and np.isnan(single[1:]).all()


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("runs", [3, 5])
@pytest.mark.parametrize("chance", [0.5, 0.9, 0.97])
def test_the_interval_of_the_probability_of_improvement_covers_it(chance, runs, count):
    """At least 93 % of 300 simulated comparisons; 1.7 standard errors of that share are allowed for."""
    rng, size = np.random.default_rng(2), 300
    theirs = rng.standard_normal((size, count, runs))
    ours = rng.standard_normal((size, count, runs)) + stats.norm.ppf(chance) * 2**0.5
    intervals = [probability_of_improvement(list(x), list(y)) for x, y in zip(ours, theirs)]
    covered = np.mean([low <= chance <= high for _, low, high in intervals])
    assert covered > 0.93 - 1.7 * (0.93 * 0.07 / size) ** 0.5


RUNS = pd.DataFrame(
    [(model, f, s, 10 * f + s + more) for model, more in (("a", 1), ("b", 0)) for f in (1, 2) for s in (0, 1)]
    + [("c", 1, 0, 50.0)],
    columns=["model", "fraction", "seed", "avg_map"],
)


def test_paired_differences_leave_out_what_all_pairs_share():
    mean, low, high, pairs = paired_difference(RUNS, "a", "b")
    assert (mean, pairs) == (1, 4) and np.isnan(low) and np.isnan(high)  # equal differences
    assert paired_difference(RUNS, "a", "c")[3] == 1


def test_ranks_are_over_runs_that_all_models_have():
    assert mean_ranks(RUNS).to_dict() == {"a": 2, "b": 3, "c": 1}
    assert mean_ranks(RUNS[RUNS.model != "c"]).to_dict() == {"a": 1, "b": 2}


def test_components_of_variance_of_a_made_design():
    rng = np.random.default_rng(0)
    n, m = 400, 300
    values = rng.normal(0, 3, (n, 1)) + rng.normal(0, 2, (1, m)) + rng.normal(0, 1, (n, m))
    table = (
        pd.DataFrame(values)
        .rename_axis("subset_seed")
        .melt(var_name="seed", value_name="avg_map", ignore_index=False)
        .reset_index()
    )
    components = variance_components(table)
    assert (
        abs(components["subset"] - 3) < 0.4
        and abs(components["seed"] - 2) < 0.3
        and abs(components["interaction"] - 1) < 0.02
    )
    with pytest.raises(ValueError, match="crossed design"):
        variance_components(table[table.seed == 0])


# runs (rows) of models on tasks (columns) that differ far more than runs do: what the interval is of shows
SCORES = {
    name: np.random.default_rng(seed).normal([10.0, 40.0, 55.0, 90.0], [1.0, 3.0, 2.0, 1.0], (8, 4)) + shift
    for seed, (name, shift) in enumerate((("ours", 0.7), ("theirs", 0.0)))
}


def strata(name):
    return list(SCORES[name].T)


def assert_same_interval(interval, point, low_high):
    """The point exactly; the ends but for the noise of resampling, well below the step from 95 to 90 %."""
    value, low, high = interval
    assert value == pytest.approx(point, abs=1e-12)
    width = low_high[1] - low_high[0]
    assert np.allclose([low, high], low_high, atol=0.06 * width)


@pytest.fixture
def rliable(monkeypatch):
    """`rliable.library`, seeded: it draws from NumPy's own generator.

    It needs `arch.bootstrap` alone. The rest of arch 7 does not import beside pandas 3, so it is left out.
    """
    arch = importlib.util.find_spec("arch")
    if arch is None or importlib.util.find_spec("rliable") is None:
        pytest.skip("rliable is not installed (pip install -e '.[dev]')")
    package = types.ModuleType("arch")
    package.__path__ = list(arch.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "arch", package)
    from rliable import library

    np.random.seed(0)
    return library


def test_the_interquartile_interval_is_that_of_rliable(rliable):
    from rliable import metrics

    points, intervals = rliable.get_interval_estimates(
        {"ours": SCORES["ours"]}, lambda scores: np.array([metrics.aggregate_iqm(scores)]), reps=4000
    )
    assert_same_interval(interquartile_interval(strata("ours")), points["ours"][0], intervals["ours"][:, 0])


def test_the_probability_of_improvement_is_that_of_rliable(rliable):
    from rliable import metrics

    pair = {"pair": (SCORES["ours"], SCORES["theirs"])}
    points, intervals = rliable.get_interval_estimates(pair, metrics.probability_of_improvement, reps=600)
    low_high = np.ravel(intervals["pair"])
    value, low, high = probability_of_improvement(strata("ours"), strata("theirs"))
    assert value == pytest.approx(float(np.ravel(points["pair"])[0]), abs=1e-12) and 0.5 < value < 0.9
    # with eight runs of four strata, far from 0 and 1, the score interval and the bootstrap nearly agree
    assert np.allclose([low, high], low_high, atol=0.1 * (low_high[1] - low_high[0]))


def test_components_of_variance_of_a_table_worked_out_by_hand():
    """Rows 1, 2 and 3, 6: mean squares 9 (rows), 4 (columns), 1 (rest); (9 − 1) / 2 and (4 − 1) / 2."""
    table = pd.DataFrame({"subset_seed": [0, 0, 1, 1], "seed": [0, 1, 0, 1], "avg_map": [1.0, 2.0, 3.0, 6.0]})
    components = variance_components(table)
    assert components == pytest.approx({"subset": 2.0, "seed": 1.5**0.5, "interaction": 1.0})


def test_components_of_variance_of_more_columns_than_rows():
    """Three columns: the rest has (2 − 1) · (3 − 1) degrees of freedom."""
    values = np.array([[1.0, 2.0, 6.0], [4.0, 3.0, 2.0]])
    table = pd.DataFrame(
        [(row, column, values[row, column]) for row in range(2) for column in range(3)],
        columns=["subset_seed", "seed", "avg_map"],
    )
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    assert variance_components(table)["interaction"] == pytest.approx(((rest**2).sum() / 2) ** 0.5)
