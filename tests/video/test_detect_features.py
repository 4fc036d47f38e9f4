"""`tal detect` in feature files: the same detections as by hand, and every unusable file by name."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from tal_lib import models
from tal_lib.cli import main
from tal_lib.data import collate, load_benchmark, make_item
from tal_lib.data.batches import unannotated
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.evaluation import read_detections
from tal_lib.export import export
from tal_lib.training import Trained, save_model

SPEC = FeatureSpec(stride_s=0.5, window_s=1.0, streams={"rgb": 3, "flow": 2})
COLUMNS = ["recording", "start", "end", "label", "score"]


def trained(stream=None):
    torch.manual_seed(0)
    columns = SPEC.columns(stream)
    small = {"width": 16, "head_width": 16, "ranges": ((0, 4), (4, 10_000))}
    model = models.build("temporalmaxer", input_dim=columns.stop - columns.start, num_classes=2, **small)
    torch.nn.init.constant_(model.class_out.bias, 0.0)
    return Trained(model.eval(), ("x", "y"), SPEC, stream)


@pytest.fixture
def files(tmp_path):
    """Models for all streams and for flow alone, and a folder of two recordings."""
    for name, stream in (("model.pt", None), ("flow.pt", "flow")):
        save_model(tmp_path / name, trained(stream))
    (tmp_path / "features").mkdir()
    rng = np.random.default_rng(0)
    for name, steps in (("v_a", 30), ("b", 17)):
        np.save(tmp_path / "features" / f"{name}.npy", rng.normal(size=(steps, 5)).astype(np.float32))
    return tmp_path


def by_hand(files, name, stream=None):
    features = np.load(files / "features" / f"{name}.npy")[:, SPEC.columns(stream)]
    seconds = (len(features) - 1) * 0.5 + 1.0
    item = unannotated(name, torch.from_numpy(features.T.copy()), seconds, 0.5, 1.0, ("x", "y"))
    return trained(stream).model.detect(collate([item]))[0]


def detect(files, source, *more, model="model.pt"):
    arguments = ["detect", str(files / source), "--model", str(files / model), "--out", str(files / "out")]
    return main([*arguments, *map(str, more)])


def same(table, expected):
    pd.testing.assert_frame_equal(
        table.sort_values(COLUMNS).reset_index(drop=True),
        expected.sort_values(COLUMNS).reset_index(drop=True),
        check_dtype=False,
    )


def test_a_folder_gives_what_its_recordings_give_alone(files, capsys):
    assert detect(files, "features") == 0
    out = capsys.readouterr().out
    assert "v_a" in out and str(files / "out" / "detections.json") in out
    expected = pd.concat([by_hand(files, "b"), by_hand(files, "v_a")])
    same(read_detections(files / "out" / "detections.json"), expected)


def test_in_windows_on_request(files, capsys):
    """A model whose windows give the answer of the whole recording answers the same; a graph is refused."""
    assert detect(files, "features", "--windowed") == 0
    same(
        read_detections(files / "out" / "detections.json"),
        pd.concat([by_hand(files, "b"), by_hand(files, "v_a")]),
    )
    export(trained(), files / "graph", "torchscript")
    assert detect(files, "features", "--windowed", "--trust", "--out", files / "other", model="graph") == 2
    assert "an exported model needs the whole recording" in capsys.readouterr().err
    assert not (files / "other").exists() or not list((files / "other").glob("*.json"))


@pytest.mark.parametrize("width", ["all streams", "flow alone", "flow in a subfolder"])
def test_a_model_of_one_stream_takes_its_columns(files, width):
    source = files / "features" / "v_a.npy"
    expected = by_hand(files, "v_a", "flow")
    if width != "all streams":
        np.save(source, np.load(source)[:, 3:])
    if width == "flow in a subfolder":
        (files / "more" / "flow").mkdir(parents=True)
        source.rename(files / "more" / "flow" / "v_a.npy")
        source = files / "more"
    assert detect(files, source, model="flow.pt") == 0
    same(read_detections(files / "out" / "detections.json"), expected)


def test_as_many_steps_as_columns_of_all_streams_are_steps(files):
    source = files / "features" / "v_a.npy"
    np.save(source, np.load(source)[:5])
    expected = by_hand(files, "v_a", "flow")
    np.save(source, np.load(source)[:, 3:])  # (5, 2): not two steps of all five columns
    assert detect(files, source, model="flow.pt") == 0
    same(read_detections(files / "out" / "detections.json"), expected)


def test_a_subfolder_for_each_stream(files):
    for name in ("v_a", "b"):
        features = np.load(files / "features" / f"{name}.npy")
        for stream in SPEC.streams:
            (files / "apart" / stream).mkdir(parents=True, exist_ok=True)
            np.save(files / "apart" / stream / f"{name}.npy", features[:, SPEC.columns(stream)])
    assert detect(files, "apart") == 0
    same(
        read_detections(files / "out" / "detections.json"),
        pd.concat([by_hand(files, n) for n in ("b", "v_a")]),
    )


def test_an_exported_folder_is_a_model(files):
    export(trained(), files / "exported", "torchscript")
    assert detect(files, "features/b.npy", model="exported") == 0
    table, expected = read_detections(files / "out" / "detections.json"), by_hand(files, "b")
    assert len(table) == len(expected)
    assert np.allclose(np.sort(table.score), np.sort(expected.score), atol=1e-4)


def test_its_detections_can_be_scored(files, capsys):
    assert detect(files, "features") == 0
    best = by_hand(files, "v_a").iloc[0]
    segment = {"segment": [best.start, best.end], "label": best.label}
    entry = {"subset": "test", "duration": 15.5, "annotations": [segment]}
    database = {"v_a": entry, "b": entry | {"duration": 9.0, "annotations": []}}
    (files / "t.json").write_text(json.dumps({"database": database}))
    assert main(["eval", str(files / "out" / "detections.json"), str(files / "t.json")]) == 0
    assert "avg mAP 100.00 %" in capsys.readouterr().out


BROKEN = {
    "width": (np.ones((9, 4), np.float32), "features of shape (9, 4), expected (T, 5)"),
    "nan": (np.full((9, 5), np.nan), "features are NaN or infinite, first at step 0"),
    "cube": (np.ones((2, 9, 5)), "features of shape (2, 9, 5), expected (T, 5)"),
    "empty": (np.ones((0, 5)), "features have no steps"),
    "text": (np.full((9, 5), "x"), "not numbers"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_unusable_file_is_named(files, capsys, name):
    features, message = BROKEN[name]
    np.save(files / "features" / "broken.npy", features)
    assert detect(files, "features/broken.npy") == 2
    error = capsys.readouterr().err
    assert "broken.npy" in error and message in error and len(error.splitlines()) == 1
    assert not (files / "out").exists()
    assert detect(files, "features") == 1  # the rest is done
    out = capsys.readouterr().out
    assert "broken.npy" in out and message in out and "2 recordings done, 1 failed" in out
    assert set(read_detections(files / "out" / "detections.json").recording) == {"v_a", "b"}


def test_a_folder_without_a_usable_file_leaves_nothing(files, capsys):
    for path in (files / "features").iterdir():
        path.write_bytes(b"no array")
    assert detect(files, "features") == 1 and "0 recordings done, 2 failed" in capsys.readouterr().out
    assert not (files / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["features", "--draw"], "--draw is for videos"),
        (["features", "--backbone", "hog-hof"], "--backbone is for videos"),
        (["none.npy"], "none.npy: feature file not found"),
        (["nothing"], "nothing: no feature files in it"),
    ],
)
def test_what_cannot_be_asked_is_one_line(files, capsys, arguments, message):
    (files / "nothing").mkdir()
    assert detect(files, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_a_video_is_refused_by_a_model_of_other_features(files, capsys):
    (files / "v.mp4").write_bytes(b"not read")
    assert detect(files, "v.mp4") == 2
    error = capsys.readouterr().err
    assert "model.pt: no backbone has the streams {'rgb': 3, 'flow': 2}" in error
    assert "--backbone" in error and "a feature file or a folder" in error and len(error.splitlines()) == 1


RIGHT = {"streams": dict(SPEC.streams), "stride_s": 0.5, "window_s": 1.0}
ASSUMED = "stride of 0.5 s and window of 1 s are assumed"


def state(folder, **spec):
    (folder / "spec.json").write_text(json.dumps(spec))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"stride_s": 0.5, "window_s": 1.0}, None),
        ({"stride_s": 0.25, "window_s": 1.0, "every": 2}, None),
        ({"stride_frames": 8, "window_frames": 16, "fps": 16}, None),
        ({"stride_s": 0.25, "window_s": 1.0}, None),  # of a training with --skip 2
        ({"stride_s": 0.3, "window_s": 1.0}, "a stride of 0.3 s, the model was trained with 0.5 s"),
        ({"stride_s": 0.25, "window_s": 0.5}, "a window of 0.5 s, the model was trained with 1 s"),
        ({"stride_s": 0.5, "window_s": 1.0, "every": 2}, "a stride of 1 s"),
        ({"stride_frames": 8, "window_frames": 16, "fps": 25}, "a stride of 0.32 s"),
        ({"stride_s": 0.5, "window_s": 2.0}, "a window of 2 s"),
        ({"stride_s": 0.5}, "a window (the stride, as no other is given) of 0.5 s"),
        ({"resize": 100}, "features resized to 100 steps"),
        ({"stride_s": -1}, "stride_s"),
        ({"streams": {"features": 5}}, None),
        (
            {"streams": {"flow": 2, "rgb": 3}},
            "streams flow (2), rgb (3), the model was trained on rgb (3)",
        ),
        ({"streams": {"clip-vit-b32": 5}}, "streams clip-vit-b32 (5), the model was trained on rgb (3)"),
        ({"streams": {"features": 4}}, "streams features (4), the model"),
        ({"streams": {"rgb": 3}}, "streams rgb (3), the model"),
    ],
)
def test_what_contradicts_the_model_is_refused(files, capsys, spec, message):
    timing = {} if spec.keys() - {"streams"} else {"stride_s": 0.5, "window_s": 1.0}
    state(files / "features", **{"streams": dict(SPEC.streams)} | timing | spec)
    for source in ("features", "features/b.npy"):
        assert detect(files, source) == (2 if message else 0)
        error = capsys.readouterr().err
        assert ASSUMED not in error
        assert message is None or (message in error and "spec.json" in error)


@pytest.mark.parametrize("streams", [{"flow": 2}, dict(SPEC.streams), {"features": 2}])
def test_a_model_of_one_stream_knows_its_columns(files, capsys, streams):
    state(files / "features", **RIGHT | {"streams": streams})
    if len(streams) == 1:
        for path in (files / "features").glob("*.npy"):
            np.save(path, np.load(path)[:, 3:])
    assert detect(files, "features", model="flow.pt") == 0
    assert "tal:" not in capsys.readouterr().err
    state(files / "features", **RIGHT | {"streams": {"sound": 2}})
    assert detect(files, "features", model="flow.pt") == 2
    assert "streams sound (2), the model was trained on flow (2)" in capsys.readouterr().err


@pytest.mark.parametrize("spec", [None, {"stride_frames": 8, "window_frames": 16}])
def test_an_unknown_stride_is_assumed_with_one_warning(files, capsys, spec):
    if spec:
        state(files / "features", streams=dict(SPEC.streams), **spec)
    for source in ("features", "features/b.npy"):
        assert detect(files, source) == 0
        (warning,) = [line for line in capsys.readouterr().err.splitlines() if "tal:" in line]
        assert ASSUMED in warning and "features" in warning
        assert ("spec.json: stride_frames without fps" in warning) == bool(spec)
        example = json.loads(warning.partition("such as ")[2].removesuffix("."))
    same(read_detections(files / "out" / "detections.json"), by_hand(files, "b"))
    state(files / "features", **example)  # which ends the warning
    assert detect(files, "features") == 0 and "tal:" not in capsys.readouterr().err


def test_a_spec_above_or_beside_each_stream_is_known(files, capsys):
    for name in ("v_a", "b"):
        features = np.load(files / "features" / f"{name}.npy")
        for stream in SPEC.streams:
            (files / "apart" / stream).mkdir(parents=True, exist_ok=True)
            np.save(files / "apart" / stream / f"{name}.npy", features[:, SPEC.columns(stream)])
    more = RIGHT | {"streams": dict(SPEC.streams) | {"sound": 9}}  # a stream that the model does not take
    for model, source in (
        ("model.pt", "apart"),
        ("flow.pt", "apart"),
        ("flow.pt", "apart/flow"),
        ("flow.pt", "apart/flow/b.npy"),
    ):
        (files / "apart" / "spec.json").unlink(missing_ok=True)
        assert detect(files, source, model=model) == 0 and ASSUMED in capsys.readouterr().err
        state(files / "apart", **more)
        assert detect(files, source, model=model) == 0 and "tal:" not in capsys.readouterr().err
    (files / "apart" / "spec.json").unlink()
    for stream, width in SPEC.streams.items():
        state(files / "apart" / stream, **RIGHT | {"streams": {stream: width}})
    assert detect(files, "apart") == 0 and "tal:" not in capsys.readouterr().err
    state(files / "apart" / "flow", **RIGHT | {"streams": {"flow": 2}, "stride_s": 0.25})
    assert detect(files, "apart") == 2 and "flow/spec.json: a stride of 0.25 s" in capsys.readouterr().err


def test_another_spec_above_does_not_matter(files, capsys):
    (files / "spec.json").write_text('{"openapi": "3.1.0"}')
    assert detect(files, "features") == 0 and ASSUMED in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", [{"stride_s": 0.25, "every": 2}, {"stride_s": 0.25}, {"stride_s": 0.125, "every": 2}]
)
def test_steps_that_the_training_skipped_are_skipped(files, more):
    """By `every` of spec.json, by `tal train --skip`, and by both."""
    state(files / "features", **RIGHT | more)
    path = files / "features" / "b.npy"
    features = np.load(path)
    np.save(path, np.repeat(features, round(0.5 / more["stride_s"]), 0))
    assert detect(files, path) == 0
    np.save(path, features)
    same(read_detections(files / "out" / "detections.json"), by_hand(files, "b"))


def test_other_columns_name_those_of_the_model(files, capsys):
    np.save(files / "features" / "b.npy", np.ones((9, 4), np.float32))
    assert detect(files, "features/b.npy") == 2
    assert "The model was trained on rgb (3), flow (2)." in capsys.readouterr().err
    assert detect(files, "features/b.npy", model="flow.pt") == 2
    assert "The model was trained on flow (2)." in capsys.readouterr().err


def test_the_steps_are_those_of_a_training_with_skip(files):
    segment = {"segment": [1.0, 2.0], "label": "x"}
    entries = {  # the seconds that the steps of the training cover
        name: {"subset": "test", "duration": seconds, "annotations": [segment, segment | {"label": "y"}]}
        for name, seconds in (("v_a", 14.5), ("b", 8.5))
    }
    (files / "annotations.json").write_text(json.dumps({"database": entries}))
    state(files / "features", **RIGHT)
    data = load_benchmark(str(files)).every(3)
    model = trained().model
    save_model(files / "skip.pt", Trained(model, ("x", "y"), data.feature_spec, None))
    assert detect(files, "features", model="skip.pt") == 0
    expected = [model.detect(collate([make_item(data, name)]))[0] for name in ("v_a", "b")]
    same(read_detections(files / "out" / "detections.json"), pd.concat(expected))


def elsewhere(files, by_stream):
    """The features in folders that only a `spec.json` names, with more than the id in the files' names."""
    folders = {stream: files / "raw" / (f"{stream}_i3d" if by_stream else "all") for stream in SPEC.streams}
    for stream, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("v_a", "b"):
            features = np.load(files / "features" / f"{name}.npy")
            columns = SPEC.columns(stream if by_stream else None)
            np.save(folder / f"i3d-{name}_25.npy", features[:, columns])
    return folders


@pytest.mark.parametrize("by_stream", [True, False])
def test_the_folders_of_a_spec_hold_the_features(files, capsys, by_stream):
    folders = elsewhere(files, by_stream)
    place = files / "mydata" / "features"
    place.mkdir(parents=True)
    relative = f"../../raw/{folders['flow'].name}"
    named = {"rgb": str(folders["rgb"] if by_stream else relative), "flow": relative}
    state(place, **RIGHT, folders=named, prefix="i3d-", suffix="_25")
    for model, stream in (("model.pt", None), ("flow.pt", "flow")):
        assert detect(files, "mydata/features", model=model) == 0
        assert "tal:" not in capsys.readouterr().err
        expected = pd.concat([by_hand(files, name, stream) for name in ("v_a", "b")])
        same(read_detections(files / "out" / "detections.json"), expected)
    state(place, **RIGHT | {"stride_s": 0.3}, folders=named)
    assert detect(files, "mydata/features") == 2 and "spec.json: a stride of 0.3 s" in capsys.readouterr().err


def test_the_folder_of_a_spec_may_have_a_stream_of_any_name(files, capsys):
    place = files / "mydata" / "features"
    place.mkdir(parents=True)
    named = {"streams": {"features": 5}, "folders": {"features": str(files / "features")}}
    state(place, **RIGHT | named)
    assert detect(files, "mydata/features") == 0 and "tal:" not in capsys.readouterr().err
    expected = pd.concat([by_hand(files, name) for name in ("v_a", "b")])
    same(read_detections(files / "out" / "detections.json"), expected)
    for path in (files / "features").iterdir():
        path.unlink()
    assert detect(files, "mydata/features") == 2
    assert f"{files / 'features'}: no feature files in it" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["features", "features/b-i3d.npy"])
def test_prefix_and_suffix_are_no_part_of_a_recording(files, source):
    expected = by_hand(files, "b")
    state(files / "features", **RIGHT, suffix="-i3d")
    (files / "features" / "b.npy").rename(files / "features" / "b-i3d.npy")
    np.save(files / "features" / "b.npy", np.zeros((9, 5), np.float32))  # the training takes the other one
    assert detect(files, source) == 0
    table = read_detections(files / "out" / "detections.json")
    assert set(table.recording) == ({"b", "v_a"} if source == "features" else {"b"})
    same(table[table.recording == "b"], expected)
