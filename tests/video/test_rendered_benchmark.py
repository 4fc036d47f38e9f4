"""The benchmark `rendered`: timelines, pictures, and the way from a seed to features."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tal_lib.cli import main
from tal_lib.data import list_benchmarks, rendered, videos
from tal_lib.errors import TalError
from tal_lib.files import write_json
from tal_lib.provenance import usable_cores
from tal_lib.video import crowded, rendered_benchmark


def timelines(count=20):
    return [crowded.play(np.random.default_rng([0, 0, number])) for number in range(count)]


def test_an_actor_does_one_action_at_a_time_and_several_actors_act_at_once():
    at_once = 0
    for timeline in timelines():
        assert 120 <= timeline.seconds <= 180 and 2 <= len(timeline.actors) <= 3
        for acts in timeline.actors:
            assert all(1.9 < act.end - act.start < 12.1 and act.end < timeline.seconds for act in acts)
            assert all(before.end < after.start for before, after in zip(acts, acts[1:]))
        spans = sorted((start, end) for start, end, _ in timeline.scene.actions)
        at_once += sum(after[0] < before[1] for before, after in zip(spans, spans[1:]))
    assert at_once > 100
    assert {act for timeline in timelines() for *_, act in timeline.scene.actions} == set(crowded.ACTIONS)


def test_pictures_follow_from_the_seed():
    timeline = timelines(1)[0]
    first, again, other = (
        np.stack(
            [picture for picture, _ in zip(crowded.draw(timeline, np.random.default_rng(seed)), range(30))]
        )
        for seed in (1, 1, 2)
    )
    assert first.shape == (30, 144, 192, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("label, sign", [("slide right", 1), ("slide left", -1)])
def test_a_slide_moves_the_actor_that_way(label, sign):
    actor = crowded.Actor(np.random.default_rng(0), (crowded.Act(0, 1, label, 1.0),))
    before = actor.place.copy()
    for index in range(5):
        actor.draw(np.zeros((160, 208, 3), np.float32), index / crowded.FPS)
    assert actor.place - before == pytest.approx([sign * 15, 0])


def test_a_pulse_enlarges_the_actor_and_a_blink_hides_it():
    def painted(label, time):
        actor = crowded.Actor(np.random.default_rng(0), (crowded.Act(0, 2, label, 1.0),))
        actor.place = np.array(crowded.STAGE) / 2
        picture = np.zeros((crowded.STAGE[1], crowded.STAGE[0], 3), np.float32)
        actor.draw(picture, time)
        return int((picture.sum(2) > 0).sum())

    assert painted("pulse", 0.5 / 0.7) > 2.5 * painted("pulse", 0.0)
    assert painted("blink", 0.1) == painted("pulse", 0.0) and painted("blink", 0.3) == 0


def test_a_seed_becomes_a_benchmark(tmp_path, monkeypatch):
    monkeypatch.setenv("TAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(crowded, "DURATION_S", (12.0, 14.0))
    monkeypatch.setattr(crowded, "PAUSE_S", (1.0, 2.0))
    monkeypatch.setattr(crowded, "ACTION_S", (1.5, 3.0))
    with pytest.raises(TalError, match="not been generated yet.*tal data fetch rendered"):
        rendered.load(tmp_path)
    place = rendered_benchmark.make(rendered.folder(), train=2, test=1, workers=1, progress=False)[0]
    data = rendered.load(tmp_path)
    assert (
        data.name == "rendered" and len(data.recordings("train")) == 2 and len(data.recordings("test")) == 1
    )
    assert dict(data.feature_spec.streams) == {"hog": 432, "hof": 117}
    for recording in data.recordings():
        assert len(data.features(recording)) == pytest.approx(data.duration(recording) / 0.5 - 1, abs=1)
    known = (place / "features.sha256").read_text().strip()
    names = list(json.loads((place / "annotations.json").read_text())["database"])
    assert known == rendered_benchmark.features_hash(place / "features", names)
    written = {path: path.stat().st_mtime_ns for path in place.parent.rglob("*.mp4")}
    rendered_benchmark.make(rendered.folder(), train=2, test=1, workers=1, progress=False)
    assert written == {path: path.stat().st_mtime_ns for path in place.parent.rglob("*.mp4")}
    assert videos.load_folder(place).data_hash == data.data_hash
    failed = pd.DataFrame({"video": ["train_001"], "problem": ["train_001.mp4: cannot be read"]})
    monkeypatch.setattr(rendered_benchmark, "extract", lambda *_, **__: failed)
    with pytest.raises(TalError, match="train_001.mp4: cannot be read. Delete a damaged video"):
        rendered_benchmark.make(rendered.folder(), train=2, test=1, workers=1, progress=False)


def test_the_last_digit_of_a_machine_does_not_change_the_identity_of_the_data(tmp_path, monkeypatch):
    """The identity is the version if each recording's statistics agree, else the contents of the files."""
    monkeypatch.setenv("TAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rendered, "STATISTICS", tmp_path / "statistics.json")
    place, names = rendered.features_of("rendered").parent, ["test_000", "train_000", "train_001"]
    segment = [{"segment": [1, 3], "label": "pulse"}]
    database = {
        name: {"subset": name.split("_")[0] + "ing", "duration": 20.5, "annotations": segment}
        for name in names
    }
    write_json(place / "annotations.json", {"database": database})
    spec = {"streams": {"hog": 3, "hof": 2}, "stride_s": 0.5, "window_s": 1.0}
    write_json(place / "features" / "spec.json", spec)
    (place / "features.sha256").write_text("of the files\n")
    rng = np.random.default_rng(0)
    first = {name: rng.random((40, 5)).astype(np.float32) for name in names}

    def identity(features):
        for name, array in features.items():
            np.save(place / "features" / f"{name}.npy", array)
        rendered._known.cache_clear()
        return rendered.load(tmp_path).data_hash

    known = {name: rendered.statistics(array, spec["streams"]) for name, array in first.items()}
    hog, hof = first["test_000"][:, :3], first["test_000"][:, 3:]
    assert known["test_000"] == pytest.approx([hog.mean(), hog.std(), hof.mean(), hof.std()], abs=1e-6)
    write_json(rendered.STATISTICS, {"hog-hof": known})
    same = identity(first)
    for shift in (1e-6, 2.5e-4):  # of another processor, and of another encoding of the same pictures
        assert identity({name: array + np.float32(shift) for name, array in first.items()}) == same
    other = identity(first | {"train_001": first["train_001"] + np.float32(1e-3)})
    assert other != same and identity(first) == same
    (place / "features" / "train_001.npy").unlink()
    assert identity({"test_000": first["test_000"]}) not in (same, other)
    assert identity(first) == same
    write_json(rendered.STATISTICS, {"hog-hof": known | {"train_002": known["train_001"]}})
    assert identity(first) not in (same, other)  # other recordings: identified by contents
    rendered._known.cache_clear()


def test_the_committed_statistics_are_of_every_recording():
    known = rendered._known()["hog-hof"]
    counts = [sum(name.startswith(split) for name in known) for split in ("train_", "test_")]
    assert counts == [rendered.TRAIN, rendered.TEST] and {len(row) for row in known.values()} == {4}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or usable_cores() < 2, reason="needs two cores")
def test_a_video_does_not_depend_on_the_number_of_cores(tmp_path):
    code = (
        "import os, sys, numpy as np;"
        "os.sched_setaffinity(0, set(list(os.sched_getaffinity(0))[:int(sys.argv[2])]));"
        "from tal_lib.video import crowded, write_video; rng = np.random.default_rng(0);"
        "pictures = zip(range(60), crowded.draw(crowded.play(rng), rng));"
        "write_video(sys.argv[1], (picture for _, picture in pictures), crowded.FPS)"
    )
    paths = [tmp_path / f"{count}.mp4" for count in (1, 2)]
    for count, path in enumerate(paths, 1):
        subprocess.run([sys.executable, "-c", code, path, str(count)], check=True)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_tal_data_fetch_makes_it(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        rendered_benchmark, "make", lambda folder, **options: asked.append(options) or [folder]
    )
    monkeypatch.setenv("TAL_CACHE", str(tmp_path))
    assert main(["data", "fetch", "rendered_cnn"]) == 0
    assert asked[0]["backbones"] == ("efficientnet-lite0",)
    assert capsys.readouterr().out.strip() == str(rendered.folder())
    here = list_benchmarks().set_index("benchmark").here
    assert here["rendered"] == here["rendered_cnn"] == "no"
