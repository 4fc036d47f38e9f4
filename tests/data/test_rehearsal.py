"""The stand-in of THUMOS14: features with a known signal, the same however they are read; the rehearsal."""

import importlib.util
import json

import nbformat
import numpy as np
import pytest

from tal_lib.data import load_benchmark, rehearsal, synthetic
from tal_lib.data.rehearsal import RehearsalConfig
from tal_lib.evaluation import mean_average_precision
from tal_lib.files import REPOSITORY


@pytest.fixture
def root(tmp_path):
    """A data folder whose THUMOS14 has ten short videos of three classes."""
    rng, database = np.random.default_rng(0), {}
    for number in range(10):
        starts = np.cumsum(rng.uniform(6, 12, 5))
        database[f"video_{number:07d}"] = {
            "subset": "Validation" if number < 6 else "Test",
            "duration": 70.0 + number,
            "fps": 30.0,
            "annotations": [
                {"segment": [float(start), float(start + rng.uniform(2, 5))], "label": "abc"[k % 3]}
                for k, start in enumerate(starts)
            ],
        }
    (tmp_path / "data" / "thumos14").mkdir(parents=True)
    (tmp_path / "data" / "thumos14" / "thumos14.json").write_text(json.dumps({"database": database}))
    return tmp_path / "data"


def test_features_do_not_depend_on_how_they_are_read(root):
    data, again = (load_benchmark("thumos14_rehearsal", root) for _ in range(2))
    name = data.recordings()[0]
    whole = data.features(name)
    assert whole.shape == (data.steps(name), 2048) and whole.dtype == np.float32 and not data.in_memory
    for first, last in ((0, 1), (100, 200), (127, 129), (128, 256), (300, 10_000)):
        assert np.array_equal(again.part(name, first, last), whole[first:last])
        assert np.array_equal(again.part(name, first, last, "flow"), whole[first:last, 1024:])
    other = load_benchmark("thumos14_rehearsal", root).features(data.recordings()[1])
    assert abs(np.corrcoef(whole[:400].ravel(), other[:400].ravel())[0, 1]) < 0.02  # its own noise
    changed = rehearsal.load(root, RehearsalConfig(seed=1))
    assert not np.array_equal(changed.features(name), whole) and changed.data_hash != data.data_hash
    assert data.data_hash == again.data_hash


def test_the_signal_has_the_strength_that_is_stated(root):
    data, config = load_benchmark("thumos14_rehearsal", root), RehearsalConfig()
    known = rehearsal.patterns(config, 3, (1024, 1024))
    assert np.allclose(known @ known.T, np.eye(3), atol=1e-5)
    assert np.allclose((known[:, :1024] ** 2).sum(1), 0.5, atol=1e-5)  # half of the energy in each stream
    inside, outside = [], []
    for name in data.recordings():
        stride_s, window_s = data.time_axis(name)
        assert (stride_s, window_s) == (4 / 30, 16 / 30)
        centres = np.arange(data.steps(name)) * stride_s + window_s / 2
        assert centres[-1] + window_s / 2 <= data.duration(name) < centres[-1] + window_s / 2 + stride_s
        active = rehearsal.activity(data.annotations_of([name]), data.classes, centres, window_s)
        projected = data.features(name) @ known.T
        inside.append(projected[active == 1])
        outside.append(projected[active == 0])
    inside, outside = np.concatenate(inside), np.concatenate(outside)
    assert len(inside) > 300 and inside.mean() == pytest.approx(config.signal, abs=0.2)
    assert outside.mean() == pytest.approx(0, abs=0.05) and outside.std() == pytest.approx(1, abs=0.05)


def test_floor_and_ceiling_follow_the_signal(root):
    def average(detections, data):
        return mean_average_precision(data.annotations("test"), detections, data.tious).mean()

    data = load_benchmark("thumos14_rehearsal", root)
    assert average(rehearsal.matched_filter(data), data) > 0.95
    assert average(synthetic.chance(data), data) < 0.2
    config = RehearsalConfig(signal=0.0)  # a filter without signal finds noise
    nothing = rehearsal.load(root, config)
    assert average(rehearsal.matched_filter(nothing, config=config), nothing) < 0.2
    weak = RehearsalConfig(signal=1.0)
    assert average(rehearsal.matched_filter(rehearsal.load(root, weak), config=weak), data) < 0.8


def script():
    """experiments/rehearsal.py as a module."""
    spec = importlib.util.spec_from_file_location("rehearse", REPOSITORY / "experiments" / "rehearsal.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_hours_are_those_of_the_grid(root):
    """By hand: 30 cells, training samples of 10 to 100 % of 6 videos, two passes over the test videos."""
    data = load_benchmark("thumos14_rehearsal", root)
    row = {"model": "actionformer", "preset": "paper", "step_s": 2.0, "detect_s_per_hour": 360.0}
    module = script()
    plan, grid = module.recipe_for("actionformer", "paper"), module.training_block()["grid"]
    assert len(grid["fraction"]) == 6 and len(grid["seed"]) == 5 and plan.min_steps == 0
    per_epoch = [-(-len(module.limited_subset(data, f, 0)) // plan.batch_size) for f in grid["fraction"]]
    passes = 2 * 0.1 * sum(map(data.duration, data.recordings("test")))  # 360 s an hour is 0.1
    expected = 5 * sum(2.0 * plan.epochs * steps + passes for steps in per_epoch) / 3600
    assert module.predicted_hours(row, data) == pytest.approx(expected)


def test_on_a_gpu_the_cells_are_those_of_the_study():
    module = script()
    block, taken = module.training_block(), module.rehearsal_grid(["tridet"], {"epochs": 2}, True)["cells"][0]
    assert taken["parameters"] == block["parameters"] | {"benchmark": "thumos14_rehearsal"}
    assert taken["parameters"]["preset"] == "paper" and taken["grid"]["fraction"] == [0.1, 1.0]
    small = module.rehearsal_grid(["tridet"], {"epochs": 2}, False)["cells"][0]["parameters"]
    assert small["preset"] == "compact" and small["recipe"] == {"epochs": 2}


@pytest.mark.slow
def test_a_small_rehearsal_writes_its_page_and_nothing_else(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TAL_DATA", str(root))
    monkeypatch.setenv("TAL_DEVICE", "cpu")
    out, page = tmp_path / "out", tmp_path / "page.ipynb"
    short = ["--epochs", "1", "--min-steps", "2", "--max-steps", "64", "--steps", "1", "--jobs", "1"]
    where = ["--out", str(out), "--page", str(page)]
    before = {path: path.stat().st_mtime_ns for path in (REPOSITORY / "results").rglob("*")}
    assert script().main(["--models", "window_cnn", "--preset", "compact", *short, *where]) == 0
    assert {path: path.stat().st_mtime_ns for path in (REPOSITORY / "results").rglob("*")} == before
    content = json.loads((out / "rehearsal.json").read_text())
    assert content["recordings"] == {"train": 6, "test": 4} and content["floor"] < 0.2 < content["ceiling"]
    assert [(row["fraction"], row["preset"]) for row in content["cells"]] == [
        (0.1, "compact"),
        (1.0, "compact"),
    ]
    (row,) = content["measured"]
    assert row["steps"] == 1 and row["step_s"] > 0 and row["study_hours"] > 0
    assert 0 < row["training_gb"] < row["process_gb"] < 8
    assert (out / "results" / "ledger" / "rehearsal.jsonl").is_file()
    shown = nbformat.read(page, as_version=4)
    text = page.read_text()
    assert shown.cells[0].source.startswith("# 10 · Rehearsal of the THUMOS14 study: no result")
    assert "cells lie between floor and ceiling" in text and "Traceback" not in text
    assert str(tmp_path) not in text
