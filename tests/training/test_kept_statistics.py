"""`model.pt` holds the statistics of its features: `tal detect` in raw files equals the evaluation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tal_lib import TalError
from tal_lib.cli import main
from tal_lib.data import Benchmark, FeatureSpec, partly_annotated
from tal_lib.data.standardise import standardise
from tal_lib.evaluation import read_detections
from tal_lib.study import labelled_part, train_and_score
from tal_lib.training import load_model, save_model
from tal_lib.training.checkpoints import STANDARDISE, Statistics
from tal_lib.video.detect import ready

NAMES = [f"r{number}" for number in range(6)]
SPREAD, OFFSET = np.float32([1, 2, 0.5, 1, 2]), np.float32([0.5, -1, 1, 0, 1])
RAW = {
    name: np.random.default_rng(number).normal(size=(40, 5)).astype(np.float32) * SPREAD + OFFSET
    for number, name in enumerate(NAMES)
}
KEYS = ["recording", "start", "end", "label", "score"]


def made(standardised=True, split_fixed=False):
    """Recordings of 40 s, four of them for training."""
    default = standardise(RAW, NAMES[2:])
    return Benchmark(
        name="made",
        classes=("x", "y"),
        tious=(0.5,),
        feature_spec=FeatureSpec(stride_s=1.0, window_s=1.0, streams={"one": 2, "two": 3}),
        recordings=pd.DataFrame(
            {"recording": NAMES, "split": ["test"] * 2 + ["train"] * 4, "duration": 40.0}
        ),
        annotations=pd.DataFrame({"recording": NAMES, "start": 3.0, "end": 9.0, "label": ["x", "y"] * 3}),
        load_features=default.load if standardised else RAW.__getitem__,
        source_hash="0",
        standardise=(lambda recordings: standardise(RAW, recordings)) if standardised else None,
        statistics_of_split=split_fixed,
    )


def trained(folder, data=None, **options):
    options = {"recipe": {"epochs": 1, "min_steps": 2}, "fraction": 0.5} | options
    return train_and_score(data or made(), "window_cnn", out_dir=folder, device="cpu", **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint with statistics."""
    return trained(tmp_path_factory.mktemp("whole")).result.checkpoint


@pytest.fixture
def files(tmp_path):
    """The raw test recordings, one file each."""
    (tmp_path / "raw").mkdir()
    for name in NAMES[:2]:
        np.save(tmp_path / "raw" / f"{name}.npy", RAW[name])
    return tmp_path


def detected(files, model):
    arguments = ["detect", str(files / "raw"), "--model", str(model), "--out", str(files / "out"), "--trust"]
    assert main([*arguments, "--overwrite"]) == 0
    return read_detections(files / "out" / "detections.json")


def ordered(table):
    return table[KEYS].sort_values(KEYS).reset_index(drop=True)


def without_statistics(whole, path):
    """The file as an earlier version wrote it."""
    content = torch.load(whole, weights_only=True)
    del content["standardise"]
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ({}, {}),
        ({"split_fixed": True}, {}),
        ({"standardised": False}, {}),
        ({}, {"stream": "two"}),
    ],
    ids=["of the cell's recordings", "of the official split", "none", "one stream"],
)
def test_raw_files_give_the_detections_of_the_evaluation(files, capsys, data, options):
    run = trained(files / "run", made(**data), **options)
    table = detected(files, files / "run" / "model.pt")
    assert len(table)
    pd.testing.assert_frame_equal(ordered(table), ordered(run.detections), check_dtype=False)
    assert "earlier version" not in capsys.readouterr().err


def test_an_export_gives_the_same(files, capsys):
    run = trained(files / "run")
    command = [
        "export",
        "window_cnn",
        "--checkpoint",
        str(files / "run" / "model.pt"),
        "--format",
        "torchscript",
    ]
    assert main([*command, "--out", str(files / "graph")]) == 0
    table = detected(files, files / "graph")
    assert len(table) == len(run.detections)
    assert np.allclose(np.sort(table.score), np.sort(run.detections.score), atol=1e-5)
    assert "earlier version" not in capsys.readouterr().err
    (files / "graph" / STANDARDISE).unlink()
    assert main(["detect", str(files / "raw"), "--model", str(files / "graph"), "--trust"]) == 2
    assert "standardise.json: file not found" in capsys.readouterr().err


def test_a_file_of_an_earlier_version_loads_with_one_warning(whole, files, capsys):
    path = without_statistics(whole, files / "earlier.pt")
    model = load_model(path)
    assert model.statistics is None and not model.statistics_stated
    detected(files, path)
    assert capsys.readouterr().err.count("whether the features were standardised") == 1
    command = ["export", "window_cnn", "--checkpoint", str(path), "--format", "torchscript", "--out"]
    assert main([*command, str(files / "graph")]) == 0
    assert capsys.readouterr().err.count("whether the features were standardised") == 1
    ready(files / "graph", trust=True)  # the graph does not know it either
    assert capsys.readouterr().err.count("whether the features were standardised") == 1
    assert not load_model(save_model(files / "again.pt", model)).statistics_stated


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [1.0] * 4}, "mean: 4 values for 5 feature columns"),
        ({"mean": [float("nan")] * 5}, "standardise.mean.1: nan"),
        ({"std": [0.0] * 5}, "standardise.std.1: 0.0 is not above 0"),
        ({"std": "wide"}, "standardise.std: 'wide' is not a list"),
        ({"dtype": "float8"}, "standardise.dtype: 'float8'"),
    ],
)
def test_damaged_statistics_are_named(whole, tmp_path, change, message):
    path, content = tmp_path / "m.pt", torch.load(whole, weights_only=True)
    torch.save(content | {"standardise": content["standardise"] | change}, path)
    with pytest.raises(TalError, match=message):
        load_model(path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_they_come_back_to_the_last_bit(whole, tmp_path, dtype):
    mean, std = np.random.default_rng(0).random((2, 5)).astype(dtype)
    model = replace(load_model(whole), statistics=Statistics(mean, std))
    again = load_model(save_model(tmp_path / "m.pt", model)).statistics
    for kept, value in ((again.mean, mean), (again.std, std)):
        assert kept.dtype == dtype and np.array_equal(kept, value)


def test_labelled_part_is_what_a_training_sees():
    data, recordings = labelled_part(made(), 0.5, 1, annotated=0.5)
    run = trained(None, seed=1, annotated=0.5)
    assert recordings == run.recordings
    assert np.array_equal(data.standardised.mean, run.benchmark.standardised.mean)
    by_hand = partly_annotated(made(), recordings, 0.5, 1).learning_from(recordings)
    assert np.array_equal(data.features("r0"), by_hand.features("r0"))
