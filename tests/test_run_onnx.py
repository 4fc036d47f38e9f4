"""examples/run_onnx.py: what it prints, and that it says what is wrong in one line."""

import csv
import json
import runpy
import subprocess
import sys
import warnings

import numpy as np
import pytest

from tal_lib import models
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.export import export
from tal_lib.files import REPOSITORY
from tal_lib.training import Trained

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
helper, TensorProto = onnx.helper, onnx.TensorProto
SPEC = FeatureSpec(stride_s=0.5, window_s=1.0, streams={"rgb": 3, "flow": 2})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An artefact whose graph takes columns 0 and 1 as logits of classes, and 3 and 4 as start and end."""
    folder = tmp_path_factory.mktemp("onnx")
    small = {"width": 16, "head_width": 16, "ranges": ((0, 4), (4, 10_000))}
    model = models.build("temporalmaxer", input_dim=5, num_classes=2, **small).eval()
    export(Trained(model, ("x", "y"), SPEC, None), folder, "torchscript")
    about = json.loads((folder / "model.json").read_text())
    about |= {"format": "onnx", "file": "model.onnx", "files": ["model.onnx"]}
    (folder / "model.json").write_text(json.dumps(about))
    onnx.save(graph(), folder / "model.onnx")
    return folder


def graph():
    sizes = {
        "features": ["B", 5, "T"],
        "mask": ["B", "T"],
        "segments": ["B", "T", 1, 2],
        "scores": ["B", "T", 2],
    }
    value = {
        name: helper.make_tensor_value_info(
            name, TensorProto.BOOL if name == "mask" else TensorProto.FLOAT, size
        )
        for name, size in sizes.items()
    }
    numbers = {"zero": [0], "two": [2], "three": [3], "five": [5], "last": [2]}
    nodes = [
        helper.make_node("Transpose", ["features"], ["steps"], perm=[0, 2, 1]),
        helper.make_node("Slice", ["steps", "zero", "two", "last"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Slice", ["steps", "three", "five", "last"], ["ends"]),
        helper.make_node("Unsqueeze", ["ends", "last"], ["segments"]),
    ]
    whole = helper.make_graph(
        nodes,
        "g",
        [value["features"], value["mask"]],
        [value["segments"], value["scores"]],
        [helper.make_tensor(name, TensorProto.INT64, [1], number) for name, number in numbers.items()],
    )
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


SCRIPT = REPOSITORY / "examples" / "run_onnx.py"


@pytest.fixture
def run(capfd, monkeypatch):
    """Runs the script in this process, which has imported ONNX Runtime already, as a process of its own."""

    def script(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        capfd.readouterr()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)  # a process would print it as a further line
                runpy.run_path(str(SCRIPT), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code
        return subprocess.CompletedProcess(sys.argv, code, *capfd.readouterr())

    return script


def saved(path, features):
    np.save(path, features)
    return path


GOOD = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)


def test_a_detection_by_hand(folder, tmp_path, run):
    features = np.full((40, 5), -20, np.float64)
    features[4] = [-20, 2, 0, 3, 9]  # class y with sigmoid(2) = 0.881, steps 3 to 9 of 0.5 s, each seeing 1 s
    features[5] = [
        -20,
        1,
        0,
        3,
        9,
    ]  # the same with 0.731, which soft-NMS multiplies by exp(-2) = 0.135 to below 0.1
    command = [sys.executable, SCRIPT, folder, saved(tmp_path / "f.npy", features)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "start_s,end_s,label,score\n2.00,5.00,y,0.881\n"
    assert run(*command[2:]).stdout == done.stdout  # the other tests run it in this process


def changed(folder, path, **changes):
    """A copy of an artefact with other entries in `model.json`, those of `post` one by one."""
    about = json.loads((folder / "model.json").read_text())
    about |= changes | {"post": about["post"] | changes.get("post", {})}
    (path / "model.json").write_text(json.dumps(about))
    (path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    return path


NEAR = np.full((40, 5), -20, np.float64)
NEAR[4], NEAR[5] = [-20, 2, 0, 2, 8], [-20, 1, 0, 2, 9]  # scores 0.881 and 0.731, tIoU 6/7


@pytest.mark.parametrize(
    ("post", "rows"),
    [
        ({}, ["1.50,4.73,y,0.881", "1.50,4.73,y,0.168"]),  # both end at their mean, 8.45, by score
        ({"voting_tiou": 0.0}, ["1.50,4.50,y,0.881", "1.50,5.00,y,0.168"]),
        ({"voting_tiou": 0.9}, ["1.50,4.50,y,0.881", "1.50,5.00,y,0.168"]),
        ({"voting_weight": "score_tiou"}, ["1.50,4.71,y,0.881", "1.50,4.75,y,0.168"]),
        ({"max_detections": 1}, ["1.50,4.73,y,0.881"]),
        ({"max_candidates": 1}, ["1.50,4.50,y,0.881"]),
        ({"min_segment_steps": 6.5}, ["1.50,5.00,y,0.731"]),
        ({"min_score": 0.8}, ["1.50,4.50,y,0.881"]),
        ({"nms_sigma": 5}, ["1.50,4.73,y,0.881", "1.50,4.73,y,0.631"]),
    ],
)
def test_each_option_of_the_post_processing_by_hand(folder, tmp_path, run, post, rows):
    done = run(changed(folder, tmp_path, post=post), saved(tmp_path / "f.npy", NEAR))
    assert done.stdout.splitlines() == ["start_s,end_s,label,score", *rows] and not done.stderr


@pytest.mark.parametrize(("multiclass", "rows"), [(True, 2), (False, 1)])
def test_the_classes_of_a_pool_suppress_each_other(folder, tmp_path, run, multiclass, rows):
    features = NEAR.copy()
    features[5] = [1, -20, 0, 2, 8]  # the same place, of class x: 0.731, or 0.731 exp(-2) = 0.099
    place = changed(folder, tmp_path, post={"multiclass": multiclass})
    assert len(run(place, saved(tmp_path / "f.npy", features)).stdout.splitlines()) == 1 + rows


@pytest.mark.parametrize("post", [{"nms": "hard"}, {"nms": "none"}, {"nms_power": 2.5}, {"nms_high": 0.9}])
def test_what_the_script_does_not_do_is_one_line(folder, tmp_path, run, post):
    done = run(changed(folder, tmp_path, post=post), saved(tmp_path / "f.npy", NEAR))
    ((name, value),) = post.items()
    assert done.returncode == 2 and not done.stdout and len(done.stderr.splitlines()) == 1
    assert f"model.json: {name} = {value} is not done here; use `tal detect`" in done.stderr


def test_a_class_may_have_a_comma(folder, tmp_path, run):
    place = changed(folder, tmp_path, classes=["x", "y, 2"])
    done = run(place, saved(tmp_path / "f.npy", NEAR))
    assert [row[2] for row in csv.reader(done.stdout.splitlines())] == ["label", "y, 2", "y, 2"]


def test_whole_numbers_are_features(folder, tmp_path, run):
    whole = np.random.default_rng(0).integers(-3, 9, (40, 5))
    texts = {run(folder, saved(tmp_path / "i.npy", whole.astype(kind))).stdout for kind in ("i2", "f4", "f8")}
    assert len(texts) == 1 and len(texts.pop().splitlines()) > 3


def with_value(value):
    features = GOOD.copy()
    features[7, 2] = value
    return features


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (GOOD[:, :4], "features of shape (40, 4), the model takes (T, 5)"),
        (GOOD.T, "features of shape (5, 40), the model takes (T, 5). It looks transposed: save features.T."),
        (GOOD[None], "features of shape (1, 40, 5)"),
        (GOOD[:0], "features of shape (0, 5)"),
        (GOOD[0], "features of shape (5,)"),
        (with_value(np.nan), "NaN or infinite, first at step 7"),
        (with_value(np.inf), "NaN or infinite, first at step 7"),
        (with_value(0).astype(np.float64) + 1e300, "NaN or infinite, first at step 0"),
        (GOOD.astype(complex), "holds complex128, not one array of numbers"),
        (GOOD.astype(str), "not one array of numbers"),
        (GOOD > 0, "holds bool, not one array of numbers"),
    ],
)
def test_wrong_features_are_one_line(folder, tmp_path, run, features, message):
    done = run(folder, path := saved(tmp_path / "f.npy", features))
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(f"run_onnx: {path}: ") and message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "model.json: file not found"),
        ({"classes": ["x"]}, "model.onnx: gives segments"),
        ({"feature_spec": {"stride_s": "wide"}}, "model.json: not the description of an exported model"),
        (
            {"feature_spec": {"stride_s": 0.5, "window_s": 1.0, "streams": {"rgb": -1}}},
            "model.json: a feature_spec",
        ),
        ({"decoded": False}, "use `tal detect"),
        ({"file": "model.ts", "files": ["model.ts"]}, "Export the model with --format onnx"),
        ({"stream": "depth"}, "model.json: a feature_spec, stream or post"),
    ],
)
def test_wrong_artefacts_are_one_line(folder, tmp_path, run, change, message):
    features = saved(tmp_path / "f.npy", GOOD)
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    if change is not None:
        about = json.loads((folder / "model.json").read_text()) | change
        (tmp_path / "model.json").write_text(json.dumps(about))
    done = run(tmp_path, features)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_other_mistakes_are_one_line(folder, tmp_path, run):
    (tmp_path / "f.npy").write_text("no array")
    (tmp_path / "model.json").write_bytes((folder / "model.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    good = saved(tmp_path / "good.npy", GOOD)
    for arguments, message in (
        ((), "give the folder"),
        ((folder, tmp_path / "none.npy"), "none.npy: not a readable .npy file"),
        ((folder, tmp_path / "f.npy"), "f.npy: not a readable .npy file"),
        ((tmp_path, good), "model.onnx: cannot be run"),
    ):
        done = run(*arguments)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
