"""Grids: what they say, where they and their notebooks are found; nothing runs before all is checked."""

import json
import os
import re

import pytest

from tal_lib import TalError, models, sweeps
from tal_lib.cli import main
from tal_lib.files import REPOSITORY
from tal_lib.sweeps import grid as grids
from tal_lib.sweeps import identity
from tal_lib.sweeps.grid_file import expand_models, find_grid, read_grid

STUDY = REPOSITORY / "notebooks" / "sweeps"


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Plans a grid given as text of its only block; the data is not looked at."""
    monkeypatch.setattr(grids, "data_hash", lambda benchmark: "0")

    def make(block, **options):
        path = tmp_path / "grid.yaml"
        path.write_text(f"cells:\n  - {block}\n")
        return sweeps.plan(path, **options)

    return make


TRAIN = "notebook: 02_train_evaluate.ipynb"
COST = "notebook: 03_inference_cost.ipynb"


@pytest.mark.parametrize(
    ("block", "name", "value"),
    [
        (f"{{{TRAIN}, parameters: {{recipe: {{learning_rate: 1e-3}}}}}}", "recipe", {"learning_rate": 0.001}),
        (f"{{{TRAIN}, parameters: {{recipe: {{rotate: 30}}}}}}", "recipe", {"rotate": 30}),
        (f"{{{TRAIN}, grid: {{fraction: [1]}}}}", "fraction", 1.0),
        (f"{{{TRAIN}, grid: {{fraction: ['5e-1']}}}}", "fraction", 0.5),
        (f"{{{TRAIN}, grid: {{seed: ['7']}}}}", "seed", 7),
        (f"{{{TRAIN}, parameters: {{subset_seed: -1}}}}", "subset_seed", -1),
        (f"{{{COST}, parameters: {{lengths: ['288', 576]}}}}", "lengths", [288, 576]),
        ("{notebook: 01_data.ipynb, parameters: {fractions: [1, '5e-1']}}", "fractions", [1, 0.5]),
        (f"{{{COST}, parameters: {{model_names: language}}}}", "model_names", ["stale", "text_pyramid"]),
    ],
)
def test_values_are_taken_as_meant(plan, block, name, value):
    (cell,) = plan(block)
    assert json.dumps(cell.parameters[name]) == json.dumps(value)  # 1 and 1.0 are two values of an id


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (f"{{{TRAIN}, parameters: {{recipe: {{learning_rate: four}}}}}}", "recipe: learning_rate: 'four'"),
        (f"{{{TRAIN}, parameters: {{recipe: {{lerning_rate: 1}}}}}}", "unknown option 'lerning_rate'"),
        (
            f"{{{TRAIN}, parameters: {{recipe: {{min_segment_steps: 1}}}}}}",
            "unknown option 'min_segment_steps'",
        ),
        (f"{{{TRAIN}, parameters: {{recipe: {{1: 2}}}}}}", "recipe: 1 is not a name"),
        (f"{{{TRAIN}, parameters: {{recipe: 3}}}}", "recipe: 3 is not a mapping"),
        (f"{{{TRAIN}, parameters: {{options: {{width: 0}}}}}}", "options: local_global: width: 0"),
        (
            f"{{{TRAIN}, grid: {{options: [{{}}, {{norm: batch}}]}}}}",
            "norm: 'batch' is not one of layer, instance or half",
        ),
        (f"{{{TRAIN}, grid: {{model: [bilstn]}}}}", "unknown model or family 'bilstn'.*Did you mean bilstm?"),
        (
            f"{{{TRAIN}, grid: {{model: all - [bilstn]}}}}".replace("all - [bilstn]", "'all - [bilstn]'"),
            "bilstn",
        ),
        (f"{{{TRAIN}, parameters: {{model: 5}}}}", "parameter model: 5 is not text"),
        (f"{{{TRAIN}, parameters: {{preset: papr}}}}", "unknown preset 'papr'"),
        (f"{{{TRAIN}, grid: {{model: [bilstm], preset: [paper_activitynet]}}}}", "bilstm: unknown preset"),
        (f"{{{TRAIN}, grid: {{fraction: [0]}}}}", "fraction: 0 is not above 0"),
        (f"{{{TRAIN}, grid: {{fraction: [.nan]}}}}", "fraction: nan is not"),
        (f"{{{TRAIN}, grid: {{fraction: [true]}}}}", "fraction: True is not a number"),
        (f"{{{TRAIN}, grid: {{seed: [-1]}}}}", "seed: -1 is not at least 0"),
        (f"{{{TRAIN}, grid: {{seed: [0.5]}}}}", "seed: 0.5 is not a whole number"),
        (f"{{{TRAIN}, grid: {{fold: [0, 9]}}}}", "fold, benchmark synthetic: fold 9 does not exist"),
        (f"{{{TRAIN}, grid: {{fold: [-2]}}}}", "fold: -2 is not at least -1"),
        (f"{{{TRAIN}, parameters: {{fold: first}}}}", "fold: 'first' is not a whole number"),
        (f"{{{TRAIN}, grid: {{seed: [{'9' * 200}]}}}}", "seed: a huge integer"),
        (f"{{{TRAIN}, grid: {{seed: [{'9' * 5000}]}}}}", "an integer of 5,000 digits"),
        (f"{{{TRAIN}, grid: {{seed: 3}}}}", "grid entry seed: 3 is not a list"),
        (f"{{{TRAIN}, grid: {{seed: []}}}}", "grid entry seed: \\[\\] is not a list"),
        (f"{{{TRAIN}, grid: {{sead: [3]}}}}", "unknown parameter 'sead'.*Did you mean seed?"),
        (f"{{{TRAIN}, parameters: {{seed: }}}}", "seed: None is not a whole number"),
        (f"{{{TRAIN}, time_limit: 0}}", "time_limit: 0 is not above 0"),
        (f"{{{TRAIN}, time_limit: true}}", "time_limit: True is not a number"),
        (f"{{{TRAIN}, alone: 3}}", "alone: 3 is not true or false"),
        (f"{{{TRAIN}, parallel: 3}}", "unknown option 'parallel'"),
        ("{notebook: 99_none.ipynb}", "notebook '99_none.ipynb' not found"),
        ("{notebook: 5}", "notebook: 5 is not text"),
        ("[]", "not a mapping"),
        (f"{{{COST}, parameters: {{model_names: [bilstm, nonesuch]}}}}", "nonesuch"),
        (f"{{{COST}, parameters: {{model_names: [[bilstm]]}}}}", "unknown model"),
        (f"{{{COST}, parameters: {{lengths: [288, 0]}}}}", "lengths.2: 0 is not at least 1"),
        (f"{{{COST}, parameters: {{precisions: [float16]}}}}", "precisions.1: 'float16' is not one of"),
        (f"{{{COST}, parameters: {{device: gpu}}}}", "parameter device: unknown device 'gpu'"),
        (
            f"{{{COST}, parameters: {{device: cuda}}}}",
            "parameter device: device cuda: there is no CUDA GPU here",
        ),
        (
            f"{{{COST}, parameters: {{shape_of: thumos}}}}",
            "shape_of: benchmark 'thumos'.*Did you mean thumos14",
        ),
        (f"{{{COST}, parameters: {{threads: -1}}}}", "threads: -1 is not at least 0"),
        (
            "{notebook: 04_open_set.ipynb, parameters: {keep: all}}",
            "keep: 'all' is not one of recordings or stretches",
        ),
    ],
)
def test_nonsense_is_refused_with_file_block_and_value(plan, block, message, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(TalError, match=message) as error:
        plan(block)
    text = str(error.value)
    assert "grid.yaml" in text and len(text.splitlines()) == 1 and len(text) < 1500
    assert "block 1" in text or "digits" in text or "not found" in text


def test_a_cluster_has_its_own_devices(plan, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert plan(f"{{{COST}, parameters: {{device: cuda}}}}", here=False)
    with pytest.raises(TalError, match="unknown device"):
        plan(f"{{{COST}, parameters: {{device: gpu}}}}", here=False)


def test_a_worker_names_the_machine_of_cells_that_belong_to_one(plan):
    """Timed cells, and those with `on_each_machine`; the driver of a cluster does not know the machine."""
    for option, belongs in (("", False), (", alone: true", True), (", on_each_machine: true", True)):
        (cell,) = plan(f"{{{TRAIN}{option}}}", here=False)
        assert (cell.of_machine, cell.machine) == (belongs, "")
        (cell,) = plan(f"{{{TRAIN}{option}}}")
        assert bool(cell.machine) == belongs


def test_an_unknown_benchmark_is_named(tmp_path):
    (tmp_path / "g.yaml").write_text(f"cells:\n  - {{{TRAIN}, parameters: {{benchmark: nonesuch}}}}")
    with pytest.raises(TalError, match="g.yaml, block 1: parameter benchmark: no benchmark 'nonesuch'"):
        sweeps.plan(tmp_path / "g.yaml")


@pytest.mark.parametrize("name", ["../../x", "a/b", "''", "x" * 300, ".hidden", "[a]", '"a\\0b"', "con", "~"])
def test_a_sweep_is_called_like_a_file(tmp_path, name):
    path = tmp_path / "g.yaml"
    path.write_text(f"name: {name}\ncells: []")
    with pytest.raises(TalError, match="g.yaml: name .* cannot be part of a file's name"):
        read_grid(path)


def test_nothing_is_written_for_a_grid_that_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.yaml").write_text(f"cells:\n  - {{{TRAIN}, parameters: {{recipe: {{epochs: 2.5}}}}}}")
    for more in ([], ["--dry-run"]):
        assert main(["sweep", "g.yaml", *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "g.yaml, block 1: parameter recipe: epochs: 2.5 is not a whole number" in line
    assert [path.name for path in tmp_path.iterdir()] == ["g.yaml"]


@pytest.mark.parametrize(
    ("given", "folder"),
    [("quick.yaml", STUDY), ("sweeps/quick.yaml", STUDY.parent), ("quick", None), ("quick", STUDY)],
)
def test_a_grid_is_found_from_anywhere(given, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder or tmp_path)
    assert find_grid(given) == STUDY / "quick.yaml"
    cells = sweeps.plan(given, {"seed": "0"})
    assert {cell.notebook.parent for cell in cells} == {STUDY.parent}


def test_a_file_here_comes_before_a_sweep_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick").write_text("cells: []")
    assert find_grid("quick") == tmp_path / "quick"
    with pytest.raises(TalError, match="grid file not found.*hapt_first"):
        find_grid("nonesuch")
    for odd in ("x" * 5000, "a\0b"):
        with pytest.raises(TalError, match="grid file not found"):
            find_grid(odd)


def test_a_grid_beside_its_notebook(project):
    grid = project.make((1, 2))
    neighbour = grid.parent.parent / "g.yaml"
    os.replace(grid, neighbour)
    assert len(sweeps.plan(neighbour)) == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("all", models.names()),
        ("language", ["stale", "text_pyramid"]),
        ("all - [stale, ssn]", [name for name in models.names() if name not in ("stale", "ssn")]),
        ("all - [one_stage, language, proposals]", ["bilstm", "tadtr", "window_cnn"]),
        ("proposals-[ssn]", ["bmn", "bsn", "prn", "tcanet"]),
        ("bilstm", ["bilstm"]),
        (["dense", "tadtr"], ["bilstm", "window_cnn", "tadtr"]),
        ([["bilstm"]], [["bilstm"]]),
    ],
)
def test_models_by_family(given, expected):
    assert expand_models(given) == expected


def test_every_model_of_the_library_has_a_family():
    groups = models.families()
    assert sorted(groups) == ["dense", "language", "one_stage", "proposals", "set_prediction"]
    assert sorted(name for names in groups.values() for name in names) == models.names()


@pytest.mark.parametrize("path", sorted(STUDY.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_grids_of_the_study_hold(path, monkeypatch):
    monkeypatch.setattr(grids, "data_hash", lambda benchmark: "0")
    monkeypatch.setattr(grids, "check_fold_of", lambda *_: None)  # it needs the data
    monkeypatch.setattr(identity, "_loaders", lambda parameters: ("",))
    try:
        cells = sweeps.plan(path, here=False)
    except TalError as error:  # until the search of its settings has run
        assert path.stem == "equal" and re.search("tuned|tal sweep tuning", str(error))
        return
    assert cells and all(cell.sweep == path.stem for cell in cells)
    if path.stem == "hapt":
        assert len(cells) == 5 + 6 * 5 * len(models.names())
