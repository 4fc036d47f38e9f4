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


def test_interval_covers_the_mean_of_normal_samples():
    rng = np.random.default_rng(0)
    covered = [low <= 5 <= high for _, low, high in (mean_interval(rng.normal(5, 1, 30)) for _ in range(60))]
    assert 0.8 < np.mean(covered) <= 1


def test_few_values():
    assert mean_interval([3.0])[0] == 3.0 and np.isnan(mean_interval([3.0])[1:]).all()
    assert mean_interval([2.0, 2.0]) == (2.0, 2.0, 2.0)
    assert np.isnan(mean_interval([])).all()
    mean, low, high = mean_interval([1.0, 2.0, 6.0])
    assert mean == 3.0 and low == 1.0 and high == 6.0
    assert mean_interval([1.0, 2.0, 6.0]) == mean_interval([1.0, 2.0, 6.0])  # seeded


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
    assert np.isclose(value, expected) and low <= value <= high
    assert probability_of_improvement([x, x], [y, x])[0] == (value + 0.5) / 2
    assert probability_of_improvement([[2.0, 3.0]], [[0.0, 1.0]]) == (1, 1, 1)


RUNS = pd.DataFrame(
    [(model, f, s, 10 * f + s + more) for model, more in (("a", 1), ("b", 0)) for f in (1, 2) for s in (0, 1)]
    + [("c", 1, 0, 50.0)],
    columns=["model", "fraction", "seed", "avg_map"],
)


def test_paired_differences_leave_out_what_all_pairs_share():
    assert paired_difference(RUNS, "a", "b") == (1, 1, 1, 4)
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
    ours = probability_of_improvement(strata("ours"), strata("theirs"))
    assert 0.5 < ours[0] < 0.9 and low_high[1] - low_high[0] > 0.1  # far from where intervals are cut
    assert_same_interval(ours, float(np.ravel(points["pair"])[0]), low_high)


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
