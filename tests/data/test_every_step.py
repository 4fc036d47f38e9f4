"""Frame skip on a sequence: every n-th step, in the right place in time, also within folds and subsets."""

import numpy as np
import pytest

from tal_lib.data import limited_subset, load_benchmark


@pytest.mark.parametrize("skip", [2, 6])
def test_every_nth_step_keeps_its_place_in_time(skip):
    data = load_benchmark("synthetic")
    thinned = data.every(skip)
    recording = data.recordings("test")[0]
    whole, fewer = data.features(recording), thinned.features(recording)
    assert np.array_equal(fewer, whole[::skip]) and thinned.steps(recording) == len(fewer)
    assert np.array_equal(thinned.part(recording, 1, 3), fewer[1:3])
    assert thinned.feature_spec.stride_s == pytest.approx(skip * data.feature_spec.stride_s)
    assert thinned.feature_spec.window_s == data.feature_spec.window_s
    assert thinned.data_hash != data.data_hash and data.every(1) is data
    assert thinned.annotations().equals(data.annotations())


def test_it_goes_with_folds_and_with_standardisation():
    fold = load_benchmark("synthetic", fold=1)
    thinned = fold.every(3)
    assert (
        thinned.recordings("test") == fold.recordings("test") and thinned.partition == "fold 1, every 3 steps"
    )
    learned = thinned.learning_from(limited_subset(thinned, 0.5, 0))
    recording = fold.recordings("train")[0]
    assert np.array_equal(learned.features(recording), fold.features(recording)[::3])
