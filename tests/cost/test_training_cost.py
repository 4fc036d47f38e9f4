"""What a training step costs, and when training was good enough."""

import pandas as pd
import pytest

from tal_lib import TalError
from tal_lib.cost import milestones, profile_training, training


def test_milestones_by_hand():
    curve = pd.DataFrame(
        {"epoch": [2, 4, 6, 8], "seconds": [10.0, 20.0, 30.0, 40.0], "map": [0.5, 0.7, 0.9, 0.8]}
    )
    result = milestones(curve)
    assert (result.best_epoch, result.best_s, result.best_map, result.final_map, result.total_s) == (
        6,
        30.0,
        0.9,
        0.8,
        40.0,
    )
    assert result.near_final_s == pytest.approx(
        20 + 10 * (0.76 - 0.7) / 0.2
    )  # 95 % of 0.8 between the second and the third


def test_milestones_of_one_evaluation_start_from_nothing():
    result = milestones(pd.DataFrame({"epoch": [1], "seconds": [4.0], "map": [0.6]}))
    assert result.near_final_s == pytest.approx(3.8) and result.best_epoch == 1
    assert (
        milestones(pd.DataFrame({"epoch": [1, 2], "seconds": [1.0, 2.0], "map": [0.0, 0.0]})).near_final_s
        == 1.0
    )


def test_a_step_is_measured_on_the_fold(monkeypatch):
    """Its batches are those of the fold's training recordings."""
    loaded = []
    real = training.load_benchmark
    monkeypatch.setattr(
        training, "load_benchmark", lambda name, fold: loaded.append((name, fold)) or real(name, fold=fold)
    )
    monkeypatch.setattr(
        training, "isolated", lambda function, subject, threads, **job: function(**job, threads=1)
    )
    monkeypatch.setattr(training, "keep_freed", lambda peak: None)
    profile_training("temporalmaxer", "synthetic", threads=1, min_seconds=0.0, max_steps=96, fold=2)
    assert loaded == [("synthetic", 2)] * 2
    with pytest.raises(TalError, match="fold"):
        profile_training("temporalmaxer", "synthetic", fold=99)


def test_a_step_is_measured_in_a_process_of_its_own():
    row = profile_training(
        "temporalmaxer",
        "synthetic",
        threads=1,
        min_seconds=0.1,
        max_steps=96,
        batch_size=3,
        options={"width": 16, "head_width": 16},
    )
    assert (
        row.batch_size == 3
        and row.crop_steps <= 96
        and row.state_bytes == 16 * row.params
        and row.energy_j is None
    )
    assert 0 < row.step_s_p10 <= row.step_s_median <= row.step_s_p90 and row.steps_per_s == pytest.approx(
        1 / row.step_s_median
    )
    larger = profile_training(
        "temporalmaxer",
        "synthetic",
        threads=1,
        min_seconds=0.1,
        max_steps=384,
        batch_size=3,
        options={"width": 64, "head_width": 64},
    )
    assert larger.peak_memory_bytes > max(
        3 * 300 * 64 * 4 * 5, row.peak_memory_bytes
    )  # five activations of the finest level at least


def test_nonsense_is_refused_before_a_process_is_started():
    for call in (
        lambda: profile_training("nonesuch", "synthetic", max_steps=0),
        lambda: profile_training("bilstm", "nowhere"),
        lambda: profile_training("bilstm", "synthetic", precision="int3"),
    ):
        with pytest.raises(TalError):
            call()
