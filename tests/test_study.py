"""Build → train → detect → score: the same draws, weights and numbers as the calls one by one."""

import pandas as pd
import pytest
import torch

from tal_lib import evaluation, models
from tal_lib.data import limited_subset
from tal_lib.study import Scored, build_model, late_fusion, train_and_score
from tal_lib.training import (
    Distillation,
    Distilled,
    Recipe,
    detect_all,
    fit,
    load_model,
    propose_all,
    recipe_for,
    seed_everything,
)

SHORT = {"epochs": 1, "min_steps": 2}
NARROW = {"width": 32, "head_width": 32}


def same_weights(first, second):
    first, second = first.state_dict(), second.state_dict()
    assert list(first) == list(second)
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("stream", [None, "flow"])
def test_it_is_the_calls_one_by_one(small, tmp_path, stream):
    recordings = limited_subset(small, 0.5, 2)
    columns = small.feature_spec.columns(stream)
    seed_everything(3)
    model = models.build("window_cnn", input_dim=columns.stop - columns.start, num_classes=20, stride=1)
    result = fit(model, small, recordings, recipe_for("window_cnn", **SHORT), 3, stream=stream)
    tests, truth = small.recordings("test"), small.annotations("test")
    detections = detect_all(model, small, tests, stream=stream)

    run = train_and_score(
        small,
        "window_cnn",
        options={"stride": 1},
        recipe=SHORT,
        fraction=0.5,
        seed=3,
        subset_seed=2,
        stream=stream,
        out_dir=tmp_path,
    )
    assert run.recordings == recordings and same_weights(run.model, model)
    assert run.result.history.drop(columns="seconds").equals(result.history.drop(columns="seconds"))
    pd.testing.assert_frame_equal(run.detections, detections)
    pd.testing.assert_frame_equal(run.proposals, propose_all(model, small, tests, stream=stream))
    pd.testing.assert_series_equal(
        run.scores, evaluation.mean_average_precision(truth, detections, small.tious)
    )
    pd.testing.assert_frame_equal(run.by_class, evaluation.average_precision(truth, detections, small.tious))
    assert run.checkpoints == [tmp_path / "model.pt"] and run.detections is run.detections
    trained = load_model(tmp_path / "model.pt")
    scored = Scored(benchmark=small, model=trained.model, stream=trained.stream)
    pd.testing.assert_frame_equal(scored.detections, detections)


def test_the_subset_follows_the_seed_unless_told(small):
    given = {"recipe": Recipe(epochs=1, min_steps=1), "seed": 1}
    assert train_and_score(small, "window_cnn", fraction=0.3, **given).recordings == limited_subset(
        small, 0.3, 1
    )
    some = small.recordings("train")[:2]
    assert train_and_score(small, "window_cnn", recordings=some, fraction=0.3, **given).recordings == some


@pytest.mark.parametrize("saved", [False, True], ids=["a model", "a checkpoint"])
def test_a_student_draws_its_weights_before_its_teacher_is_read(small, tmp_path, saved):
    """Loading a checkpoint draws random numbers. The student must not depend on when that happens."""
    teacher = train_and_score(small, "temporalmaxer", options=NARROW, recipe=SHORT, out_dir=tmp_path)
    path = teacher.checkpoints[0]
    seed_everything(5)
    student = models.build(
        "temporalmaxer", input_dim=small.feature_spec.dim, num_classes=20, width=16, head_width=16
    )
    loaded = load_model(path).model if saved else teacher.model
    student = Distilled(student, loaded, Distillation(feature_weight=2.0))
    plan = recipe_for("temporalmaxer", **SHORT)
    expected = fit(student, small, small.recordings("train"), plan, 5).model
    run = train_and_score(
        small,
        "temporalmaxer",
        options={"width": 16, "head_width": 16},
        recipe=plan,
        recordings=small.recordings("train"),
        seed=5,
        teacher=path if saved else teacher.model,
        distillation=Distillation(feature_weight=2.0),
    )
    assert same_weights(run.model, expected) and run.recipe is plan
    assert run.parameters == sum(parameter.numel() for parameter in expected.parameters())


def test_late_fusion_is_one_run_of_several(small):
    runs = {
        stream: train_and_score(small, "window_cnn", recipe=SHORT, stream=stream)
        for stream in small.feature_spec.streams
    }
    alone = late_fusion(runs, {"rgb": 1.0, "flow": 0.0})
    key = ["recording", "start", "end", "label"]
    weighted = alone.detections.sort_values(key).reset_index(drop=True)
    rgb = runs["rgb"].detections.sort_values(key).reset_index(drop=True)
    pd.testing.assert_frame_equal(weighted, rgb, atol=1e-6)  # with no weight on the other stream
    assert [len(result.history) for result in alone.results] == [1, 1] and alone.stream is None
    assert not late_fusion(runs).detections.equals(alone.detections)


def test_all_recordings_or_one_split(small):
    model = build_model(small, "window_cnn", seed=1).eval()
    assert same_weights(model, build_model(small, "window_cnn", seed=1))
    assert not same_weights(model, build_model(small, "window_cnn", seed=2))
    model.name_classes(small.classes)
    assert len(Scored(benchmark=small, model=model, split=None).truth) == len(small.annotations())
    every = set(Scored(benchmark=small, model=model, split=None).proposals.recording)
    assert every - set(Scored(benchmark=small, model=model, split="train").proposals.recording) <= set(
        small.recordings("test")
    )
