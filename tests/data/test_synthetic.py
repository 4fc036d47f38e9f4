import numpy as np
import pytest

from tal_lib.data import load_benchmark, synthetic
from tal_lib.evaluation import mean_average_precision


@pytest.fixture(scope="module")
def data():
    return load_benchmark("synthetic")


def test_same_seed_same_recordings(data):
    again = load_benchmark("synthetic")
    recording = data.recordings("test")[3]
    assert data.data_hash == again.data_hash and np.array_equal(
        data.features(recording), again.features(recording)
    )
    other = synthetic.load(synthetic.SyntheticConfig(seed=1))
    assert (
        other.data_hash != data.data_hash
        and other.features(recording).shape != data.features(recording).shape
    )


def test_durations_and_gaps_are_like_thumos14(data):
    """THUMOS14: median segment 3.0 s, half between 1.6 and 5.9 s; median gap 3.2 s."""
    lengths = data.annotations().eval("end - start")
    assert 2.4 < lengths.median() < 3.8 and 1.3 < lengths.quantile(0.25) and lengths.quantile(0.75) < 7
    assert all(" " in name for name in data.classes) and len(data.classes) == 20


def test_chance_is_near_nothing_and_the_oracle_near_all(data):
    truth = data.annotations("test")
    assert mean_average_precision(truth, synthetic.chance(data), data.tious).mean() < 0.02
    assert mean_average_precision(truth, synthetic.oracle(data), data.tious).mean() > 0.95


def test_both_streams_are_needed(data):
    """An object or a movement alone is not annotated: each stream leaves several classes open."""
    verbs, objects = synthetic.patterns(synthetic.SyntheticConfig())
    assert verbs.shape == (5, 4, 48) and objects.shape == (4, 48)
    recording = data.recordings("train")[0]
    assert data.features(recording, "rgb").shape[1] == data.features(recording, "flow").shape[1] == 48
