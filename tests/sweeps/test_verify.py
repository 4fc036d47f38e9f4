"""`tal verify`: numbers that hold, that were tampered with, and that nobody can check."""

import json
import shutil

import nbformat
import numpy as np
import pytest

from tal_lib import TalError, sweeps
from tal_lib.cli import main
from tal_lib.sweeps.ledger import read_ledger
from tal_lib.sweeps.verify import candidates, largest_difference, seconds_of_all, weights_changed


def test_numbers_that_hold_and_numbers_that_do_not(project, capsys):
    sweeps.run(project.make((3, 4)), **project.where)
    notebooks = project.folder / "notebooks"
    results = project.where["results"]
    assert [check.verdict for check in sweeps.verify(results, sample=5, notebooks=notebooks)] == [
        "equal",
        "equal",
    ]
    records = read_ledger(project.ledger)
    for record in records.values():
        if record["parameters"]["number"] == 3:
            record["tables"]["squares"][0]["square"] = 10
    project.ledger.write_text("".join(json.dumps(record) + "\n" for record in records.values()))
    checks = {
        check.parameters["number"]: check for check in sweeps.verify(results, sample=5, notebooks=notebooks)
    }
    assert (checks[3].verdict, checks[4].verdict) == ("differs", "equal") and checks[
        3
    ].difference == pytest.approx(0.1)
    again = (
        sweeps.verify(results, sample=1, seed=7, notebooks=notebooks),
        sweeps.verify(results, sample=1, seed=7, notebooks=notebooks),
    )
    assert next(again[0]).cell == next(again[1]).cell
    project.make((3, 4), sleep=0.01)  # another notebook under the same name
    assert "other code: notebooks/work" in next(sweeps.verify(results, sample=1, notebooks=notebooks)).remark
    assert main(["verify", results]) == 1  # the study's own notebooks have none called so
    assert "not run" in capsys.readouterr().out


def test_a_cell_that_fails_now_is_not_run(project):
    sweeps.run(project.make((3,)), **project.where)
    project.set_fault("raise RuntimeError('gone wrong')")
    (check,) = sweeps.verify(project.where["results"], notebooks=project.folder / "notebooks")
    assert check.verdict == "not run" and "gone wrong" in check.remark and np.isnan(check.difference)


def test_nothing_to_verify(tmp_path):
    with pytest.raises(TalError, match="no ledger has a cell with these values"):
        next(sweeps.verify(tmp_path))


def test_differences_by_hand():
    rows = [{"label": "a", "ap": 0.5, "steps_s": 1.0}, {"label": "b", "ap": 0.7, "steps_s": 2.0}]
    changed = [{"label": "a", "ap": 0.6, "steps_s": 9.0}, {"label": "b", "ap": 0.6, "steps_s": 9.0}]
    worst, of_means = largest_difference({"t": rows}, {"t": changed})
    assert worst == pytest.approx(0.1) and of_means == pytest.approx(0.0)
    assert largest_difference({"t": rows}, {"t": rows}) == (0.0, 0.0)
    large = {"t": [{"macs": 1000.0}]}, {"t": [{"macs": 1010.0}]}
    assert largest_difference(*large)[0] == pytest.approx(10 / 1010)
    for other in (
        {"t": rows[:1]},
        {"u": rows},
        {"t": [rows[0] | {"label": "c"}, rows[1]]},
        {"t": [rows[0] | {"ap": None}, rows[1]]},
        {"t": [{"label": "a"}, {"label": "b"}]},
    ):
        assert largest_difference({"t": rows}, other) == (np.inf, np.inf)
    more = {"t": [row | {"since": 3.0} for row in rows], "u": rows}  # recorded only since: nothing to compare
    assert largest_difference({"t": rows}, more) == (0.0, 0.0)
    assert largest_difference(more, {"t": rows}) == (np.inf, np.inf)


def test_other_weights_are_a_remark_and_no_difference():
    rows = [{"label": "a", "ap": 0.5, "weights_from": "0123456789abcdef"}]
    trained_here = [rows[0] | {"weights_from": "trained here"}]
    assert largest_difference({"t": rows}, {"t": trained_here}) == (0.0, 0.0)
    assert weights_changed({"t": rows}, {"t": trained_here}) == [
        "weights_from: 0123456789abcdef, now trained here"
    ]
    assert weights_changed({"t": rows}, {"t": rows}) == []
    other = [trained_here[0] | {"ap": 0.6}]
    assert largest_difference({"t": rows}, {"t": other})[0] == pytest.approx(0.1)
    assert largest_difference({"t": rows}, {"t": [trained_here[0] | {"label": "b"}]}) == (np.inf, np.inf)


def record(id, seconds, weights=(), **more):
    rows = [{"ap": 0.5} | ({"weights_from": name}) for name in weights] or [{"ap": 0.5}]
    provenance = {"utc": id, "data_hash": "", "git_commit": ""}
    return {
        "id": id,
        "sweep": "s",
        "notebook": "n.ipynb",
        "parameters": {"n": id},
        "seconds": seconds,
        "tables": {"t": rows},
        "provenance": provenance,
        "code": {},
    } | more


def test_the_time_of_borrowed_weights_counts(tmp_path):
    """A cell of 5 s that used weights which took 400 s is no cell of 5 s where these weights are not."""
    records = [
        record("a", 400.0),
        record("b", 100.0, formerly="old"),
        record("borrows a", 5.0, ["a"]),
        record("borrows both", 5.0, ["a", "old", "a"]),
        record("trained", 50.0, ["trained here"]),
        record("unknown", 5.0, ["nowhere"]),
    ]
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    chosen, unknown = candidates(tmp_path, longest=405.0)
    assert [line["id"] for line in chosen] == ["a", "b", "borrows a", "trained"] and unknown == 1
    assert seconds_of_all(tmp_path)["borrows both"] == 505.0
    with pytest.raises(TalError, match="The training time of the weights of 1 cells is unknown"):
        next(sweeps.verify(tmp_path, longest=1.0))


BORROWS = """from pathlib import Path
import pandas as pd
from tal_lib.sweeps import checkpoint_of, record
from tal_lib.training import load_model
recipe = {{"epochs": 1, "min_steps": 0}}
about = ("synthetic", "bilstm", "compact", 0, recipe, out_dir, r"{runs}")
path, weights_from = checkpoint_of(*about, fraction=0.1)
weights = load_model(path).model.parameters()
size = sum(float(weight.double().abs().sum()) for weight in weights)
record(out_dir, {{"t": pd.DataFrame([{{"size": size, "weights_from": weights_from}}])}})"""


def test_a_cell_that_used_stored_weights_holds_on_a_clone(project):
    """Where the run folders are not, the cell trains its weights itself: the same numbers, and a remark."""
    runs, about = (
        project.folder / "stored",
        {"benchmark": "synthetic", "model": "bilstm", "preset": "compact"},
    )
    about |= {"fraction": 0.1, "seed": 0, "recipe": {"epochs": 1, "min_steps": 0}}
    stored = runs / "s" / "stored"
    path, weights_from = sweeps.checkpoint_of(**about, folder=stored, runs=runs)
    assert weights_from == "trained here" and path == stored / "model.pt"
    rest = {
        "stream": "",
        "options": {},
        "subset_seed": -1,
        "fold": -1,
        "skip": 1,
        "people": 1.0,
        "annotated": 1.0,
    }
    result = record("stored", 9.0, parameters=about | rest)
    result["provenance"]["data_hash"] = sweeps.grid.data_hash("synthetic")
    (stored / "cell.json").write_text(json.dumps(result))
    grid = project.make((1,))
    notebook = nbformat.read(grid.parent.parent / "work.ipynb", as_version=4)
    notebook.cells[1].source = BORROWS.format(runs=runs)
    nbformat.write(notebook, grid.parent.parent / "work.ipynb")
    assert sweeps.run(grid, **project.where).complete
    (made,) = read_ledger(project.ledger).values()
    assert made["tables"]["t"][0]["weights_from"] == "stored"
    (project.ledger.parent / "s.jsonl").write_text(json.dumps(result | {"tables": {"none": [{"text": ""}]}}))
    shutil.rmtree(runs)
    (verdict,) = sweeps.verify(project.where["results"], notebooks=grid.parent.parent)
    assert (verdict.verdict, verdict.difference) == ("equal", 0.0), verdict
    assert "weights_from: stored, now trained here" in verdict.remark
