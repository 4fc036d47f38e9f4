"""timeline_prior: what it remembers, how it scores, and that it sees nothing."""

import numpy as np
import pandas as pd
import pytest
import torch

from tal_lib import TalError, models
from tal_lib.data import Benchmark, FeatureSpec, load_benchmark
from tal_lib.models.timeline_prior import NOISE, agreement, number_of
from tal_lib.segments import tiou
from tal_lib.study import Scored, floor, train_and_score
from tal_lib.sweeps.grid_file import expand_models
from tal_lib.training import fit, load_model, recipe_for


def made(timelines, durations, split, seed=0, dim=3):
    """Recordings named a, b, …, with these segments (start, end, label); features are noise."""
    names = [chr(ord("a") + number) for number in range(len(durations))]
    rows = [(name, *segment) for name, timeline in zip(names, timelines) for segment in timeline]
    rng = np.random.default_rng(seed)
    noise = {
        name: rng.standard_normal((int(duration), dim)).astype(np.float32)
        for name, duration in zip(names, durations)
    }
    return Benchmark(
        name="made",
        classes=("x", "y"),
        tious=(0.5, 0.9),
        feature_spec=FeatureSpec(stride_s=1.0, window_s=2.0, streams={"one": dim}),
        recordings=pd.DataFrame({"recording": names, "split": split, "duration": durations}),
        annotations=pd.DataFrame(rows, columns=["recording", "start", "end", "label"]),
        load_features=noise.get,
        source_hash=str(seed),
    )


SCRIPT = [(10.0, 20.0, "x"), (50.0, 80.0, "y")]


def scripted(seed=0, length=200.0):
    """Two training recordings of 100 s with the same script, and a test recording with it stretched."""
    stretched = [(start * length / 100, end * length / 100, label) for start, end, label in SCRIPT]
    return made([SCRIPT, SCRIPT, stretched], [100.0, 100.0, length], ["train", "train", "test"], seed)


@pytest.mark.parametrize("length", [200.0, 37.0])
def test_a_script_is_found_at_any_length(length):
    run = train_and_score(scripted(length=length), "timeline_prior")
    assert run.scores.to_list() == [1.0, 1.0]
    detections = run.detections.head(2).sort_values("start")
    expected = np.array([[10, 20], [50, 80]]) * length / 100
    np.testing.assert_allclose(detections[["start", "end"]], expected, rtol=1e-4)
    assert detections.label.to_list() == ["x", "y"] and (detections.score > 1 - NOISE).all()


def test_names_of_recordings_do_not_decide_which_come_first():
    """A hundred test recordings, of which every second one follows the script: AP does not depend on whether
    these are first or last in the order of the names."""
    scripts = [SCRIPT if number % 2 else [] for number in range(100)]
    values = []
    for order in (sorted(scripts, key=len), sorted(scripts, key=len, reverse=True)):
        benchmark = made([SCRIPT, SCRIPT, *order], 102 * [100.0], ["train", "train", *100 * ["test"]])
        values.append(train_and_score(benchmark, "timeline_prior").scores.mean())
    assert values == pytest.approx([0.5, 0.5], abs=0.1)


def test_it_sees_nothing():
    runs = [train_and_score(scripted(seed), "timeline_prior") for seed in (0, 1)]
    assert runs[0].detections.equals(runs[1].detections)
    assert runs[0].proposals.equals(runs[1].proposals)


def test_it_remembers_whole_recordings_once():
    for recipe, steps in (({}, 2), ({"epochs": 5}, 10), ({"crops": 3, "batch_size": 2}, 3)):
        run = train_and_score(scripted(), "timeline_prior", seed=5, recipe=recipe)
        rows = run.model.timelines[run.model.timelines[:, 3] > 0]
        expected = [[0.1, 0.2, 0], [0.5, 0.8, 1]]
        np.testing.assert_allclose(rows[:, :3], np.array(expected * 2), atol=1e-5)
        numbers = rows[:, 3].tolist()
        assert numbers[0] == numbers[1] and numbers[2] == numbers[3] and run.result.steps == steps
        assert {number_of("a"), number_of("b")} == set(numbers)


def brute_agreement(segments, labels, recordings):
    scores = []
    for segment, label in zip(segments, labels):
        best = [
            max(
                [float(tiou(segment, other)) for other, name, owner in zip(segments, labels, recordings)
                 if owner == recording and name == label],
                default=0.0,
            )
            for recording in range(1, max(recordings) + 1)
        ]  # fmt: skip
        scores.append(np.mean(best))
    return scores


@pytest.mark.parametrize("seed", range(5))
def test_agreement_is_the_mean_of_the_best_overlaps(seed):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 0.8, 40)
    segments = np.stack([start, start + rng.uniform(0.01, 0.3, 40)], 1)
    labels, recordings = rng.integers(0, 3, 40), np.sort(rng.integers(1, 6, 40))
    got = agreement(torch.tensor(segments), torch.tensor(labels), torch.tensor(recordings))
    np.testing.assert_allclose(got, brute_agreement(segments, labels, recordings), atol=1e-6)


def test_a_saved_one_detects_the_same(tmp_path):
    data = scripted()
    run = train_and_score(data, "timeline_prior", out_dir=tmp_path)
    model = load_model(tmp_path / "model.pt").model
    again = Scored(benchmark=data, model=model)
    assert again.detections.equals(run.detections)


@pytest.mark.parametrize("capacity", [1, 3])
def test_recordings_that_do_not_fit_are_refused(capacity, tmp_path):
    with pytest.raises(TalError, match=f"capacity: {capacity} is too small.*recording [ab] has 2 more. Set"):
        train_and_score(scripted(), "timeline_prior", options={"capacity": capacity}, out_dir=tmp_path)
    assert not (tmp_path / "model.pt").exists()
    assert train_and_score(scripted(), "timeline_prior", options={"capacity": 4}).scores.mean() == 1


def test_the_floor_takes_the_capacity_that_it_needs(monkeypatch):
    """The default may be too small for a large data set."""
    given = []

    def recorded(*arguments, options, **others):
        given.append(options)
        return train_and_score(*arguments, options=options, **others)

    monkeypatch.setattr("tal_lib.study.train_and_score", recorded)
    assert floor(scripted()) == 1 and given == [{"capacity": 4}]


def test_the_floor_shows_no_bar_of_a_training(monkeypatch, capsys):
    """It is one pass over the annotations. A bar with the loss of nothing would surprise in a notebook."""
    monkeypatch.setattr("tal_lib.process.progress._in_kernel", lambda: True)
    monkeypatch.delenv("TAL_PROGRESS", raising=False)
    floor(scripted())
    assert "epoch" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", [{"max_steps": 50}, {"shrink": [0.9, 1.0]}, {"ema": 0.9}, {"drop_last": True}]
)
def test_a_recipe_that_would_cut_timelines_is_refused(option):
    with pytest.raises(
        TalError, match=f"{next(iter(option))}: timeline_prior stores whole training recordings"
    ):
        train_and_score(scripted(), "timeline_prior", recipe=option)


def crowded(order):
    """Many equal and overlapping segments: ties everywhere. `order` permutes the rows of the annotations."""
    rng = np.random.default_rng(3)
    starts = rng.integers(0, 8, (4, 12)) * 10.0
    timelines = [[(s, s + 10.0 * (1 + i % 2), "xy"[i % 3 % 2]) for i, s in enumerate(row)] for row in starts]
    data = made(timelines, [100.0] * 4, ["train"] * 3 + ["test"])
    data._annotations = data._annotations.iloc[order(len(data._annotations))].reset_index(drop=True)
    return data


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_annotations_and_recordings_does_not_count(seed):
    first, other = crowded(np.arange), crowded(np.random.default_rng(seed).permutation)
    post = {"max_candidates": 20}
    runs = [train_and_score(first, "timeline_prior", seed=0, options=post),
            train_and_score(other, "timeline_prior", seed=seed + 1, options=post)]  # fmt: skip
    assert runs[0].detections.equals(runs[1].detections) and runs[0].proposals.equals(runs[1].proposals)


def test_a_resumed_training_remembers_nothing_twice():
    run = train_and_score(scripted(), "timeline_prior")
    again = models.build("timeline_prior", input_dim=3, num_classes=2)
    again.load_state_dict(run.model.state_dict())
    data = scripted()
    fit(again, data, data.recordings("train"), recipe_for("timeline_prior"), 0)
    assert int((again.timelines[:, 3] > 0).sum()) == 4


def test_it_is_no_part_of_all_but_can_be_named():
    assert "timeline_prior" not in models.names() and "timeline_prior" in models.every_name()
    assert "timeline_prior" not in expand_models("all")
    assert expand_models(["bilstm", "timeline_prior"]) == ["bilstm", "timeline_prior"]
    with pytest.raises(TalError, match="unknown model.*Did you mean timeline_prior"):
        models.build("timeline_pror", input_dim=3, num_classes=2)


def test_it_cannot_be_exported(tmp_path):
    from tal_lib.export import export

    train_and_score(scripted(), "timeline_prior", out_dir=tmp_path)
    with pytest.raises(TalError, match="it has no network"):
        export(load_model(tmp_path / "model.pt"), tmp_path / "onnx", "onnx")


def test_the_floor_needs_no_published_lists():
    data, name = scripted(), scripted()
    name.name = "scripted_prior"
    assert floor(name.fold(1)) == floor(data.fold(1)) and floor(name) == floor(data)


def test_the_floor_of_hapt(real_data):
    """With all training recordings about 35 avg mAP, from the script alone; almost nothing without it."""
    real_data("hapt/hapt.zip")
    floors = [100 * train_and_score(load_benchmark(name), "timeline_prior").scores.mean()
              for name in ("hapt", "hapt_recomposed")]  # fmt: skip
    assert 33.5 < floors[0] < 36 and floors[1] < 5
