import numpy as np
import pandas as pd

from tal_lib.evaluation.statistics import mean_interval, summarise


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
    assert summarise(table, ["model"], "v")[["model", "mean", "runs"]].to_numpy().tolist() == [["a", 2.0, 2], ["b", 5.0, 1]]
