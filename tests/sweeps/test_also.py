"""Cells that are tested on further benchmarks, or on a part of the annotation: their ids and grids."""

import json

import pytest

from tal_lib import TalError, sweeps
from tal_lib.files import REPOSITORY, digest
from tal_lib.sweeps import grid as grids
from tal_lib.sweeps import identity
from tal_lib.sweeps.identity import current_code, data_of
from tal_lib.sweeps.notebook import read_notebook

NOTEBOOKS = REPOSITORY / "notebooks"
TRAIN, COST = "02_train_evaluate.ipynb", "03_inference_cost.ipynb"


@pytest.mark.parametrize(
    ("notebook", "name", "other"),
    [
        (TRAIN, "people", 0.5),
        (TRAIN, "annotated", 0.5),
        (TRAIN, "also", ["synthetic"]),
        (COST, "options", {"width": 64}),
    ],
)
def test_older_cells_keep_their_ids(notebook, name, other):
    """A parameter's default is no part of the id, as in the records before the notebook had it."""
    code, defaults = current_code(), read_notebook(NOTEBOOKS / notebook)[0]
    before = {key: value for key, value in defaults.items() if key != name}
    id = lambda parameters: code.id(notebook, parameters, "data", "", {})
    assert id(defaults) == id(before) != id(defaults | {name: other})


@pytest.fixture
def known(monkeypatch):
    """What benchmarks are: hash of the data, module, number of folds."""
    about = {"first": ("a", "tal_lib.data.synthetic", 5), "second": ("b", "tal_lib.data.hapt", 3)}

    def look(name):
        if name not in about:
            raise TalError(f"no benchmark {name!r}")
        return about[name]

    look.cache_clear = lambda: None
    monkeypatch.setattr(identity, "about_data", look)
    monkeypatch.setattr(grids, "about_data", look)
    return about


def test_data_and_loaders_of_all_tested_benchmarks_count(known):
    assert data_of({}) == "" and data_of({"benchmark": "first", "also": []}) == "a"
    both = {"benchmark": "first", "also": ["second"]}
    assert data_of(both) == digest("a", "b")
    known["second"] = ("c", *known["second"][1:])
    assert data_of(both) == digest("a", "c")
    cell = {"model": "bilstm", "preset": "compact"}
    needs = [current_code().needs(NOTEBOOKS / TRAIN, cell | p) for p in ({"benchmark": "first"}, both)]
    assert "data/hapt" in needs[1] and "data/hapt" not in needs[0] and set(needs[0]) < set(needs[1])


@pytest.fixture
def plan(tmp_path):
    def make(**parameters):
        block = {"notebook": TRAIN, "parameters": {"benchmark": "first", "model": "bilstm"} | parameters}
        (tmp_path / "grid.yaml").write_text(json.dumps({"cells": [block]}))
        (cell,) = sweeps.plan(tmp_path / "grid.yaml")
        return cell

    return make


def test_a_grid_asks_for_further_benchmarks(plan, known):
    alone, both = plan(), plan(also=["second"], fold=2)
    assert alone.data_hash == "a" and both.data_hash == digest("a", "b") and alone.id != both.id
    assert both.parameters["also"] == ["second"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"also": ["third"]}, "block 1: parameter also: no benchmark 'third'"),
        ({"also": "second"}, "parameter also: 'second' is not a list"),
        ({"also": [5]}, "parameter also.1: 5 is not text"),
        (
            {"also": ["second"], "fold": 4},
            "parameter fold, benchmark second: fold 4 does not exist. Choose 0 to 2",
        ),
        ({"people": 0}, "parameter people: 0 is not above 0"),
        ({"people": 1.5}, "parameter people: 1.5 is not at most 1"),
        ({"annotated": "half"}, "parameter annotated: 'half' is not a number"),
        ({"annotated": float("nan")}, "parameter annotated: 'NaN' is not a finite"),
    ],
)
def test_bad_values_are_refused_before_any_cell_runs(plan, known, parameters, message):
    with pytest.raises(TalError, match=message) as error:
        plan(**parameters)
    assert "grid.yaml" in str(error.value) and len(str(error.value).splitlines()) == 1
