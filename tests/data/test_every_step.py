"""Frame skip on a sequence: every n-th step, in the right place in time, also within folds and subsets."""

import numpy as np
import pytest

from tal_lib import TalError
from tal_lib.cli import main
from tal_lib.data import limited_subset, load_benchmark
from tal_lib.data.benchmark import LEAST_STEPS
from tal_lib.sweeps.identity import check_skip_of


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


@pytest.mark.parametrize("skip", [100000, 2**40])
def test_too_few_steps_are_refused_before_any_work(skip, tmp_path, capsys):
    data = load_benchmark("synthetic")
    with pytest.raises(
        TalError, match=rf"synthetic: skip: {skip} leaves .* of a typical recording. Choose at most"
    ):
        data.every(skip)
    with pytest.raises(TalError, match="block 1, benchmark synthetic: skip"):
        check_skip_of("synthetic", skip, "block 1")
    assert main(["train", "bilstm", "--skip", str(skip), "--out", str(tmp_path / "out")]) == 2
    assert "skip" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_largest_skip_is_the_one_that_the_error_names():
    data = load_benchmark("synthetic")
    with pytest.raises(TalError) as error:
        data.every(100000)
    most = int(error.value.remedy.split()[-1].rstrip("."))
    steps = sorted(data.every(most).steps(name) for name in data.recordings())
    assert most > 10 and LEAST_STEPS - 1 <= steps[len(steps) // 2] <= LEAST_STEPS + 1
    with pytest.raises(TalError, match="skip"):
        data.every(most + 1)
