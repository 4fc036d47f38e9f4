"""The notebooks of `make gpu` with a pretended GPU (the fixture `cuda`), cell by cell in this process.

`torch.compile` returns its module there: what a compiler does with it is tested on the CPU.
"""

import sys

import pandas as pd
import pytest
import torch

from tal_lib.cost import profile
from tal_lib.cost import training as training_cost
from tal_lib.files import REPOSITORY

GPU = "Stand-in GPU"


@pytest.fixture
def on_gpu(cuda, in_this_process, run_cells, tmp_path):
    """Runs a notebook with `device="cuda"`; returns its tables as frames."""
    in_this_process(sys.modules[profile.__module__], training_cost)

    def run(name, **parameters):
        path = REPOSITORY / "notebooks" / f"{name}.ipynb"
        _, tables = run_cells(path, tmp_path / "run", device="cuda", **parameters)
        frames = {table: pd.DataFrame(rows) for table, rows in tables.items()}
        assert frames["machines"].device_name.tolist() == [GPU]
        return frames

    return run


def test_device_check(on_gpu):
    rows = on_gpu("11_device_check", model="window_cnn")["device_check"]
    assert rows.check.tolist() == ["forward", "detect", "backward", "bfloat16", "float16", "export"]
    assert rows.ok.all() and set(rows.device) == {"cuda"}, rows


def test_inference_cost(on_gpu, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module, **options: compiled.append(options) or module)
    precisions = ["float32", "tf32", "bfloat16", "compiled"]
    sizes = {"model_names": ["window_cnn"], "lengths": [64, 128], "passes": 1, "min_seconds": 0.01}
    rows = on_gpu("03_inference_cost", precisions=precisions, counted=False, **sizes)["inference_cost"]
    assert set(rows.precision) == set(precisions) and len(rows) == 8 and set(rows.device) == {"cuda"}
    assert rows.fits.all() and (rows.peak_reserved_bytes == 2048).all() and rows.macs.isna().all()
    assert len(compiled) == 2 and compiled[0]["dynamic"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_cost(on_gpu, monkeypatch, small, precision):
    for module in (training_cost, sys.modules["tal_lib.data"]):
        monkeypatch.setattr(module, "load_benchmark", lambda name, fold=None: small)
    recipe = {"precision": precision, "epochs": 1, "min_steps": 2}
    given = {"model": "window_cnn", "recipe": recipe, "max_steps": 32, "min_seconds": 0.01}
    tables = on_gpu("06_training_cost", **given)
    (step,) = tables["training_step"].to_dict("records")
    assert (step["precision"], step["device"], step["peak_memory_bytes"]) == (precision, "cuda", 500)
    assert tables["training_milestones"].steps[0] >= 2 and tables["training_curve"]["map"].notna().all()


def test_extraction(on_gpu):
    given = {"backbone": "efficientnet-lite0", "batch_size": 1, "min_seconds": 0.01}
    (row,) = on_gpu("11_extraction_on_device", **given)["extraction_cost"].to_dict("records")
    assert row["device"] == "cuda" and row["pictures_per_s"] > 0 and row["energy_j"] > 0
