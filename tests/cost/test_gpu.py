"""What a GPU runs, with a pretended one (the fixture `cuda`): a typing error does not wait for a GPU."""

import sys
import types
from dataclasses import asdict

import pandas as pd
import pytest
import torch

from tal_lib.cost import describe_machine, device_check, machine, profile, profile_training
from tal_lib.cost import training as training_cost
from tal_lib.cost.device_check import check_model
from tal_lib.study import build_model
from tal_lib.training import fit, recipe_for
from tal_lib.video.extraction_cost import profile_extraction


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_inference_cost(cuda, in_this_process, precision):
    in_this_process(sys.modules[profile.__module__])
    row = profile(
        "window_cnn", 8, 64, "cuda", num_classes=3, min_seconds=0.05, threads=1, precision=precision
    )
    assert (row.device, row.device_name, row.precision) == ("cuda", "Stand-in GPU", precision)
    assert (row.peak_memory_bytes, row.peak_reserved_bytes) == (500, 2048)
    assert row.gpu_utilisation == 0.5 and 0 < row.energy_j < 0.25 / 3 + 1e-9 and row.reference_s is None
    assert 0 < row.latency_s_median < 1 and row.macs > 0
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    assert tf32 == (precision == "tf32",) * 2
    assert set(cuda.uuids) == {"GPU-ab-12"}  # not by number: CUDA_VISIBLE_DEVICES may hide GPUs


def test_a_numbered_gpu_is_measured_and_not_the_first(cuda, in_this_process, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    in_this_process(sys.modules[profile.__module__])
    profile("window_cnn", 8, 64, "cuda:2", num_classes=3, min_seconds=0.0, threads=1, counted=False)
    assert cuda.chosen == [2]


def test_training_cost(cuda, in_this_process, monkeypatch, small):
    in_this_process(training_cost)
    monkeypatch.setattr(training_cost, "load_benchmark", lambda name, fold: small)
    row = profile_training(
        "window_cnn", "small", device="cuda", threads=1, min_seconds=0.0, max_steps=32, precision="float16"
    )
    assert (row.device_name, row.precision, row.peak_memory_bytes) == ("Stand-in GPU", "float16", 500)
    assert row.energy_j == pytest.approx(0.25 / row.step_samples)


def test_a_whole_training_in_float16(cuda, small):
    recipe = recipe_for("window_cnn", precision="float16", epochs=1, min_steps=2, max_steps=32)
    result = fit(
        build_model(small, "window_cnn"), small, small.recordings("train")[:4], recipe, 0, device="cuda"
    )
    assert result.steps == 2 and result.history.total.notna().all()


def test_the_smoke_test_of_a_model(cuda):
    rows = check_model("window_cnn", "cuda", only=("forward", "detect", "backward", "bfloat16", "float16"))
    assert [row["check"] for row in rows] == ["forward", "detect", "backward", "bfloat16", "float16"]
    assert all(row["ok"] and row["largest_difference"] <= 0.1 and row["problem"] == "" for row in rows), rows


def test_a_model_that_computes_something_else_fails_the_test(monkeypatch):
    plain = device_check.Deployed.forward
    calls = iter(range(100))

    def wrong(self, features, mask):  # of the four calls the second pair is on the device
        return tuple(output + 0.5 * (next(calls) % 2) for output in plain(self, features, mask))

    monkeypatch.setattr(device_check.Deployed, "forward", wrong)
    monkeypatch.setattr(device_check, "rounding", lambda *_: 1e-6)
    monkeypatch.setattr(device_check, "training_step", lambda *_: 1 / 0)
    rows = {
        row["check"]: row for row in check_model("window_cnn", "cpu", only=("forward", "detect", "float16"))
    }
    assert not rows["forward"]["ok"] and "differs from the CPU by" in rows["forward"]["problem"]
    assert rows["detect"]["ok"] and rows["detect"]["largest_difference"] == 0
    assert rows["float16"]["problem"] == "ZeroDivisionError: division by zero"


def test_a_traced_graph_is_compared():
    (row,) = check_model("window_cnn", "cpu", only=("export",))
    assert row["ok"] and row["largest_difference"] < 1e-4
    (row,) = check_model("timeline_prior", "cpu", only=("export",))
    assert row["ok"] and row["largest_difference"] is None and "not exportable" in row["problem"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_extraction(cuda, precision):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1))
    network = types.SimpleNamespace(module=module, call=lambda pictures: module(pictures), pixels=12)
    backbone = types.SimpleNamespace(name="tiny", network=network)
    row = profile_extraction(backbone, "cuda", precision=precision, batch_size=5, min_seconds=0.03)
    assert (row.backbone, row.device_name, row.params, row.pixels) == ("tiny", "Stand-in GPU", 112, 12)
    assert row.pictures_per_s == pytest.approx(5 / row.batch_s_median) and row.energy_j > 0
    assert not pd.DataFrame([asdict(row)]).isna().any().any()


def test_the_machine_names_its_gpu_and_its_counter(cuda, monkeypatch):
    monkeypatch.setattr(machine, "_ceiling", lambda *_: 1.0)
    about = describe_machine("cuda")
    assert about["device_name"] == "Stand-in GPU" and about["energy_counter"] == "NVML"
    assert about["gpu_driver"] == "600.1" and about["gpu_memory_gb"] == 8.0
