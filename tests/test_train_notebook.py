"""Notebook 02 cell by cell: further benchmarks, the annotation budget, and nothing changed without them."""

import pandas as pd
import pytest

from tal_lib import TalError, evaluation
from tal_lib.data import load_benchmark, synthetic
from tal_lib.data.registry import BENCHMARKS, Entry
from tal_lib.files import REPOSITORY
from tal_lib.reports.tables import average_map, tidy
from tal_lib.sweeps.notebook import read_notebook

PATH = REPOSITORY / "notebooks" / "02_train_evaluate.ipynb"
TABLES = ("data_efficiency", "class_ap", "proposals", "people")
SMALL = {"train_recordings": 8, "test_recordings": 4, "median_duration_s": 60.0}


def small(name="small", people=True, **changes):
    benchmark = synthetic.load(synthetic.SyntheticConfig(**SMALL | changes))
    benchmark.name = name
    if people:
        benchmark._people = {r: f"p{number}" for number, r in enumerate(benchmark.recordings())}
    return benchmark


@pytest.fixture
def run(tmp_path, monkeypatch, run_cells):
    """Runs the notebook's code in this process with some parameters; returns its folder's measured tables."""
    for name, changes in (("small", {}), ("other", {"seed": 7}), ("narrow", {"dim": 8})):
        make = lambda root, name=name, changes=changes: small(name, **changes)
        monkeypatch.setitem(BENCHMARKS, name, Entry(make, "", "", None))

    def execute(**parameters):
        given = {"benchmark": "small", "model": "timeline_prior"}  # it detects without much training
        out = tmp_path / "_".join(map(str, parameters)) / "run"
        return *run_cells(PATH, out, **given | parameters), out

    return execute


def test_further_benchmarks_get_rows_and_detections_of_their_own(run):
    _, alone, _ = run(fold=1)
    names, tables, out = run(fold=1, also=["other"])
    for name in TABLES:
        rows = pd.DataFrame(tables[name])
        assert set(rows.benchmark) == {"small", "other"} and "benchmark" not in pd.DataFrame(alone[name])
        of_its_own = rows[rows.benchmark == "small"].drop(columns="benchmark").reset_index(drop=True)
        pd.testing.assert_frame_equal(of_its_own, pd.DataFrame(alone[name]))
    assert len(tables["training_cost"]) == 1  # trained once
    other = load_benchmark("other", fold=1)
    detections = evaluation.read_detections(out / "detections_other.json")
    scores = evaluation.mean_average_precision(other.annotations("test"), detections, other.tious)
    rows = pd.DataFrame(tables["data_efficiency"])
    assert rows[rows.benchmark == "other"]["map"].to_numpy() == pytest.approx(scores.to_numpy())
    people = pd.DataFrame(tables["people"])
    assert set(people[people.benchmark == "other"].person) == {
        other.group(recording) for recording in other.recordings("test")
    }
    assert names["others"].keys() == {"other"}


def test_tidy_tables_tell_the_benchmarks_of_a_cell_apart(run):
    _, alone, _ = run(fold=0)
    _, both, _ = run(fold=0, also=["other"])
    defaults = read_notebook(PATH)[0]
    records = [
        {"id": id, "sweep": "s", "parameters": defaults | {"benchmark": "small", "fold": 0}, "tables": tables}
        | {"provenance": {"git_commit": ""}}
        for id, tables in (("a", alone), ("b", both))
    ]
    table = tidy(records, "data_efficiency")
    assert table.groupby("cell", sort=False).benchmark.unique().map(list).to_dict() == {
        "a": ["small"],
        "b": ["small"],
        "b:other": ["other"],
    }
    means = average_map(table).set_index("cell").avg_map
    assert means["a"] == pytest.approx(means["b"]) and len(means) == 3
    assert {"people", "annotated", "skip"} <= set(table) and set(table.people) == {1.0}


@pytest.mark.parametrize("name", ["narrow", "nonesuch", "small"])
def test_a_benchmark_that_does_not_fit_stops_the_run_before_the_training(run, monkeypatch, name):
    monkeypatch.setattr("tal_lib.study.train_and_score", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(TalError, match="other columns|no benchmark 'nonesuch'|tested already"):
        run(also=[name])


def test_the_annotation_budget_is_what_was_learned_from(run):
    names, tables, _ = run(people=0.5, annotated=0.5, subset_seed=3)
    row = tables["data_efficiency"][0]
    data, recordings = names["data"], names["recordings"]
    whole = load_benchmark("small").annotations_of(recordings)
    assert row["train_people"] == 4 and row["train_recordings"] == len(recordings) == 4
    assert row["train_segments"] == len(data.annotations_of(recordings)) < 0.7 * len(whole)
    assert row["train_hours"] == pytest.approx(sum(map(data.duration, recordings)) / 3600)
    assert names["run"].benchmark.annotations_of(recordings).equals(data.annotations_of(recordings))
    assert names["truth"].equals(load_benchmark("small").annotations("test"))
