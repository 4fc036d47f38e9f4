"""Folders as benchmarks: their names, sweeps over them, and a stranger's first hour."""

import json
import os
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tal_lib import TalError, sweeps
from tal_lib.cli import main
from tal_lib.data import load_benchmark, portable_name
from tal_lib.data.registry import BENCHMARKS, FOLDERS
from tal_lib.data.videos import folder_name
from tal_lib.files import REPOSITORY
from tal_lib.reports.report import report
from tal_lib.sweeps.ledger import read_ledger


@pytest.mark.parametrize(
    ("below", "given"),
    [("", "."), ("", "./"), ("features", ".."), ("features", "../"), ("..", "clips"), ("..", "clips/")],
)
def test_a_folder_has_its_own_name_however_it_is_given(clips, monkeypatch, below, given):
    folder = clips()
    monkeypatch.chdir(folder / below)
    for path in (given, Path(given), str(folder), f"{folder}/", os.path.relpath(folder)):
        assert load_benchmark(path).name == "clips"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("my clips (2024)", "my_clips_2024_"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("a|b&c", "a_b_c"),
        ("a\nb", "a_b"),
        ("ünïcode", "ünïcode"),
        ("...", "folder"),
        ("x" * 200, "x" * 100),
        ("hapt", "hapt_folder"),
        ("synthetic", "synthetic_folder"),
    ],
)
def test_names_that_a_file_may_have(tmp_path, name, expected):
    assert folder_name(tmp_path / name, BENCHMARKS) == expected


def test_the_root_of_the_disk_has_a_name_too():
    assert folder_name("/") == "folder"


def test_a_link_is_what_it_leads_to(clips, tmp_path):
    (tmp_path / "link").symlink_to(clips())
    assert load_benchmark(str(tmp_path / "link")).name == "clips"


def test_below_the_data_folder_a_name_is_enough(clips, tmp_path, monkeypatch):
    clips(name="mine")
    assert load_benchmark("mine", tmp_path).name == "mine"
    monkeypatch.setenv("TAL_DATA", str(tmp_path))
    monkeypatch.chdir("/")
    assert load_benchmark("mine").name == "mine"
    for name in ("other", "x" * 5000, "nul\x00"):
        with pytest.raises(TalError, match="no benchmark .*annotations.json"):
            load_benchmark(name)
    for path in ("../mine", "a/b"):
        with pytest.raises(TalError, match=f"{path}: no such folder.*annotations.json"):
            load_benchmark(path)
    with pytest.raises(TalError, match="Did you mean synthetic"):
        load_benchmark("sythetic")


def test_two_folders_of_one_name_are_told_apart(clips, tmp_path):
    first = clips()
    shutil.copytree(first, tmp_path / "other" / "clips")
    assert portable_name(str(first)) == portable_name(f"{first}/") == "clips"
    with pytest.raises(TalError, match="two folders would be called clips: .* Rename one"):
        portable_name(str(tmp_path / "other" / "clips"))
    assert portable_name("hapt") == "hapt" and portable_name("unknown") == "unknown"


def test_a_damaged_list_of_folders_is_none(clips, monkeypatch):
    monkeypatch.setenv(FOLDERS, "{not json")
    assert portable_name(str(clips())) == "clips" and load_benchmark("clips").name == "clips"


PARAMETERS = "benchmark: str = 'synthetic'\nmodel: str = 'window_cnn'\nout_dir: str = ''"
WORK = """import pandas as pd
from tal_lib.data import load_benchmark
from tal_lib.sweeps import record
data = load_benchmark(benchmark)
rows = [{"name": data.name, "sum": float(sum(data.features(r).sum() for r in data.recordings()))}]
record(out_dir, {"sums": pd.DataFrame(rows)}, config=[])"""


@pytest.fixture
def study(tmp_path):
    """Writes a grid over benchmarks with a notebook that adds up their features; runs it."""
    (tmp_path / "notebooks" / "sweeps").mkdir(parents=True)
    cells = [
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}, id="a"),
        new_code_cell(WORK, id="b"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "notebooks" / "work.ipynb")
    where = {"results": str(tmp_path / "results"), "runs": str(tmp_path / "runs"), "progress": False}

    def grid(*benchmarks):
        path = tmp_path / "notebooks" / "sweeps" / "own.yaml"
        path.write_text(
            json.dumps(
                {"cells": [{"notebook": "work.ipynb", "grid": {"benchmark": list(map(str, benchmarks))}}]}
            )
        )
        return path

    return grid, where


def test_a_sweep_over_a_folder_knows_it_by_name(clips, study, monkeypatch, tmp_path):
    """Given as a relative path, run from a kernel in another folder; the ledger means the same on any
    machine."""
    grid, where = study
    folder = clips()
    monkeypatch.chdir(tmp_path)
    path = grid("clips")
    result = sweeps.run(path, **where)
    assert result.complete and not result.failed
    (record,) = read_ledger(result.ledger).values()
    assert record["parameters"]["benchmark"] == "clips" == record["tables"]["sums"][0]["name"]
    assert str(tmp_path) not in json.dumps(record)
    assert [cell.id for cell in sweeps.plan(grid(folder))] == [
        record["id"]
    ]  # the absolute path: the same cell
    monkeypatch.delenv(FOLDERS)  # another machine, where the folder lies below the data folder
    monkeypatch.setenv("TAL_DATA", str(tmp_path))
    monkeypatch.chdir("/")
    assert [cell.id for cell in sweeps.plan(grid("clips"))] == [record["id"]]


def test_features_made_anew_are_planned_anew(clips, study):
    import numpy as np

    grid, where = study
    folder = clips()
    path = grid(folder)
    assert sweeps.run(path, **where).done_now == 1 and sweeps.run(path, **where).done_now == 0
    file = folder / "features" / "clip0000003.npy"
    np.save(file, np.load(file) + 1)
    result = sweeps.run(path, **where)
    assert result.done_now == 1
    assert len({record["tables"]["sums"][0]["sum"] for record in read_ledger(result.ledger).values()}) == 2


@pytest.mark.slow
def test_a_report_of_a_folder(clips, tmp_path, monkeypatch):
    """The study's own notebook, with a recording left out: tables and figures by the folder's name."""
    folder = clips()
    (folder / "features" / "clip0000002.npy").unlink()
    (tmp_path / "notebooks" / "sweeps").mkdir(parents=True)
    shutil.copy(REPOSITORY / "notebooks" / "02_train_evaluate.ipynb", tmp_path / "notebooks")
    parameters = {
        "benchmark": str(folder),
        "missing": "skip",
        "model": "window_cnn",
        "recipe": {"epochs": 1, "min_steps": 1},
    }
    grid = tmp_path / "notebooks" / "sweeps" / "own.yaml"
    grid.write_text(
        json.dumps({"cells": [{"notebook": "02_train_evaluate.ipynb", "parameters": parameters}]})
    )
    result = sweeps.run(grid, results=tmp_path / "results", runs=tmp_path / "runs", progress=False)
    assert not result.failed, result.failed
    (record,) = read_ledger(result.ledger).values()
    row = record["tables"]["data_efficiency"][0]
    assert (row["missing_train"], row["missing_test"], row["train_recordings"]) == (1, 0, 5)
    listed = json.loads((result.runs / record["id"] / "missing_features.json").read_text())
    assert listed == {"train": ["clip0000002"], "test": []}
    done = report(tmp_path / "results", tmp_path / "figures", tmp_path / "runs", render=False)
    assert done.tables and all(
        "clips" in file.name for file in (tmp_path / "results").rglob("data_efficiency_c*")
    )
    assert list((tmp_path / "results").rglob("data_efficiency_clips*"))


def test_a_strangers_first_hour(clips, change, tmp_path, capsys, monkeypatch):
    """A folder of .npy called `v_<id>`, ActivityNet's JSON with `testing` and a segment of NaN: check,
    train, eval."""
    folder = clips(8, 4, file="v_{}.npy", spec=None)
    change(
        folder,
        lambda database: database["clip0000003"]["annotations"].append(
            {"segment": [float("nan"), float("nan")], "label": "jump"}
        ),
    )
    monkeypatch.chdir(tmp_path)
    spec = {"streams": {"features": 8}, "stride_s": 0.5, "window_s": 1.0}
    (folder / "features" / "spec.json").write_text(json.dumps(spec))
    assert main(["data", "check", "clips"]) == 0
    told = capsys.readouterr().out
    assert "clips': 8 train, 4 test recordings, 2 classes" in told and "1 repaired" in told
    short = ["--set", "epochs=1", "--set", "min_steps=40"]
    assert main(["train", "window_cnn", "--benchmark", "clips", *short, "--out", "model"]) == 0
    trained = capsys.readouterr().out
    assert main(["eval", "model/detections.json", "clips/annotations.json"]) == 0
    scored = capsys.readouterr().out
    assert "12 segments of 4 recordings (test)" in scored
    assert trained.startswith("clips, the official split: trained on 8 recordings, tested on 4\n")
    assert trained.splitlines()[1:4] == scored.splitlines()[1:4]
    assert float(scored.split("avg mAP ")[1].split()[0]) > 10  # it has learned something
