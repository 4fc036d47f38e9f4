"""Every notebook runs, in a sweep as users run it, and its report is drawn."""

from dataclasses import replace
from functools import cache

import nbformat
import pandas as pd
import pytest
import yaml

from tal_lib import sweeps
from tal_lib.cost import VARIANTS
from tal_lib.data.registry import BENCHMARKS
from tal_lib.files import REPOSITORY
from tal_lib.reports.report import report
from tal_lib.sweeps.identity import about_data

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def study(tmp_path_factory, few_recordings):
    """The quick study's notebooks with the least work: most on few and short recordings."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "sweeps").mkdir()
    for notebook in NOTEBOOKS:
        (folder / notebook.name).symlink_to(notebook)
    small = {"benchmark": str(few_recordings)}
    grid = {
        "cells": [
            {
                "notebook": "02_train_evaluate.ipynb",
                "parameters": {"recipe": {"epochs": 1, "min_steps": 4}},
                "grid": {"model": ["local_global", "window_cnn"], "fraction": [0.1, 0.2]},
            },
            {"notebook": "01_data.ipynb"},
            {
                "notebook": "04_open_set.ipynb",
                "parameters": small | {"recipe": {"epochs": 1, "min_steps": 4}},
                "grid": {"split": [0, 1], "misnamed": [False]},
            },
            {
                "notebook": "04_open_set.ipynb",
                "parameters": small | {"recipe": {"epochs": 1, "min_steps": 4}},
                "grid": {"split": [0], "misnamed": [True]},
            },
            *(
                {
                    "notebook": "05_streams_and_distillation.ipynb",
                    "parameters": small
                    | {"recipe": {"epochs": 1, "min_steps": 1}, "fraction": 0.1}
                    | parameters,
                }
                for parameters in (
                    {"study": "streams", "model": "window_cnn"},
                    {"study": "distillation", "model": "temporalmaxer"},
                    {"study": "ablation", "model": "gaf", "options": {"width": 32, "head_width": 32}},
                )
            ),
            {
                "notebook": "03_inference_cost.ipynb",
                "alone": True,
                "parameters": {
                    "model_names": ["local_global", "window_cnn"],
                    "lengths": [64, 128],
                    "passes": 1,
                    "min_seconds": 0.05,
                },
            },
            {
                "notebook": "03_inference_length.ipynb",
                "alone": True,
                "parameters": small
                | {
                    "model": "window_cnn",
                    "recipe": {"epochs": 1, "min_steps": 4},
                    "windows": [64],
                    "rounds": 1,
                },
            },
            {
                "notebook": "06_training_cost.ipynb",
                "alone": True,
                "parameters": small
                | {
                    "recipe": {"epochs": 2, "min_steps": 4},
                    "model": "window_cnn",
                    "min_seconds": 0.05,
                },
            },
            {
                "notebook": "07_quantization.ipynb",
                "alone": True,
                "parameters": small
                | {
                    "recipe": {"epochs": 1, "min_steps": 4},
                    "model": "window_cnn",
                    "lengths": [64],
                    "threads": [1],
                    "calibration": 2,
                    "min_seconds": 0.02,
                },
            },
            {
                "notebook": "08_export.ipynb",
                "parameters": small
                | {
                    "recipe": {"epochs": 1, "min_steps": 4},
                    "model": "window_cnn",
                    "formats": ["pt2", "torchscript"],
                    "sizes": [[1, 65], [2, 90]],
                },
            },
            {
                "notebook": "09_diagnosis.ipynb",
                "parameters": small
                | {
                    "model": "window_cnn",
                    "fraction": 0.1,
                    "seeds": [0],
                    "recipe": {"epochs": 1, "min_steps": 4},
                },
            },
        ]
    }
    (folder / "sweeps" / "smoke.yaml").write_text(yaml.safe_dump(grid))
    where = {"results": folder / "results", "runs": folder / "runs"}
    result = sweeps.run(folder / "sweeps" / "smoke.yaml", jobs=2, progress=False, **where)
    assert not result.failed
    return folder, report(folder / "results", folder / "figures", folder / "runs")


def test_the_study_leaves_tables_figures_and_pages(study, few_recordings):
    folder, done = study
    assert len(pd.read_csv(folder / "results" / "tables" / "data_efficiency.csv")) == 4 * 5
    cost = pd.read_csv(folder / "results" / "tables" / "inference_cost.csv", keep_default_na=False)
    assert len(cost) == 4 and set(cost.uncounted_ops) == {""} and "latency_s_raw" not in cost
    open_set = pd.read_csv(folder / "results" / "readers" / "open_set" / "open_set_few.csv")
    assert set(open_set.model) == {"stale (text=words)"} and set(open_set.splits) == {2}
    assert set(open_set.columns) >= {
        "unseen",
        "unseen, wrong names",
        "unseen, trained with wrong names",
        "seen, all names",
    }
    streams = pd.read_csv(folder / "results" / "readers" / "streams" / "streams_few_10.csv")
    assert list(streams.columns) == ["model", "rgb", "flow", "early", "late", "runs"] and len(streams) == 1
    assert set(pd.read_csv(folder / "results" / "tables" / "ablation.csv").variant) >= {
        "whole",
        "without intra",
        "without generative",
    }
    numbers = pd.read_csv(folder / "results" / "tables" / "quantization.csv").set_index("variant")
    assert (
        set(numbers.index) == set(VARIANTS)
        and numbers.converted["int8"] == numbers.layers["int8"] > numbers.converted["int8 linear"]
    )
    assert pd.read_csv(folder / "results" / "readers" / "training" / "training_few.csv").model.tolist() == [
        "window_cnn"
    ]
    assert pd.read_csv(folder / "results" / "tables" / "inference_length.csv").window.tolist() == [0, 64, 64]
    assert set(pd.read_csv(folder / "results" / "tables" / "export.csv").format) == {"pt2", "torchscript"}
    diagnosis = pd.read_csv(folder / "results" / "tables" / "diagnosis.csv")
    assert set(diagnosis.analysis) == {"profile", "impact", "map_n", "missed"}
    assert len(pd.read_csv(folder / "results" / "tables" / "machines.csv")) == 1
    names = {path.stem for path in done.figures}
    assert {
        "data_efficiency_synthetic",
        "latency_against_length_synthetic_cpu",
        "accuracy_macs_synthetic",
        "open_set_few",
        "streams_few_10",
        "distillation_few_10",
        "ablation_few_10",
    } <= names
    assert {path.stem for path in done.notebooks} == {
        "01_data_synthetic",
        "02_train_evaluate_synthetic",
        "03_inference_cost_synthetic",
        "03_inference_length_few",
        "04_open_set_few",
        "06_training_cost_few",
        "07_quantization_few",
        "08_export_few",
        *(f"05_streams_and_distillation_{study}_few" for study in ("streams", "distillation", "ablation")),
        "00_findings",
        "09_diagnosis_few",
    }
    for page in done.notebooks:
        text = page.read_text()
        assert (
            ('"image/png"' in text or "08_export" in page.stem)
            and "Traceback" not in text
            and str(folder) not in text
            and str(few_recordings) not in text
        )
        assert len(text) < 1_000_000
        noted = "One run does not show which model or variant is better." in text
        assert noted == (page.stem[:2] in ("02", "04")), page.stem
        assert "An earlier form of this notebook" not in text
    (page,) = (page for page in done.notebooks if page.stem == "04_open_set_few")
    assert "[open_set_few](" in page.read_text()
    executed = [path.read_text() for path in (folder / "runs").rglob("notebook.ipynb")]
    bars = ("s/epoch", "epoch/s", "application/vnd.jupyter.widget-view+json")
    assert executed and not any(bar in text for text in executed for bar in bars)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_sources_are_clean(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in notebook.cells)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    for line in tagged[0].source.splitlines():  # typed and commented: that is the help text
        assert ": " in line.split("=")[0]
        assert "  # " in line, line


def test_every_committed_grid_plans(monkeypatch):
    # data are read once for all grids, their validation parts and skipped steps too
    monkeypatch.setattr(about_data, "cache_clear", lambda: None)
    for name in ("hapt", "hapt_recomposed", "sfinge3d", "rendered", "urfall", "50salads"):
        entry = BENCHMARKS[name]
        monkeypatch.setitem(BENCHMARKS, name, replace(entry, load=cache(entry.load)))
    for grid in (REPOSITORY / "notebooks" / "sweeps").glob("*.yaml"):
        try:
            assert sweeps.plan(grid)
        except sweeps.grid.TalError as error:
            # a benchmark, a GPU or the search of its settings that is not at hand
            missing = ("not found", "there is no CUDA GPU", "not been generated yet", "Run the grid tuning")
            assert any(reason in str(error) for reason in missing), error
