"""Random search as cells of a grid; the best trial as the settings of other cells."""

import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tal_lib import TalError, sweeps
from tal_lib.files import REPOSITORY
from tal_lib.reports.equal.arms import MAIN, TUNING
from tal_lib.sweeps import grid as grids
from tal_lib.sweeps import identity
from tal_lib.sweeps.search import Search, expected_best, trials_of, tuned

SPACE = Search(
    trials=6,
    recipe={"learning_rate": {"log": [3e-4, 3e-3]}, "exchange": {"uniform": [0, 0.5]}, "rotate": [0, 30]},
    options={"drop_path": [0.1, 0.2]},
    own={"local_global": {"norm": ["instance", "layer"]}},
)


def test_models_share_draws_and_the_first_trial_has_the_defaults():
    ours, theirs, plain = (
        SPACE.drawn(model, "compact") for model in ("local_global", "actionformer", "bilstm")
    )
    assert len(ours) == len(theirs) == len(plain) == 6 and ours[0] == theirs[0] == ({}, {})
    assert [recipe for recipe, _ in ours] == [recipe for recipe, _ in theirs]
    assert all("norm" in options for _, options in ours[1:]) and not any("norm" in each[1] for each in theirs)
    assert all("drop_path" in options for _, options in theirs[1:]) and all(not each[1] for each in plain)
    for recipe, _ in ours[1:]:
        assert 3e-4 <= recipe["learning_rate"] <= 3e-3 and 0 <= recipe["exchange"] <= 0.5
    assert len({json.dumps(recipe) for recipe, _ in ours}) == 6
    assert Search(trials=8, recipe=SPACE.recipe).drawn("bilstm", "compact")[:6] == [
        (recipe, {}) for recipe, _ in ours
    ]


@pytest.mark.parametrize(
    "space",
    [
        {"log": [1, float("inf")]},
        {"log": [0, 1]},
        {"log": [1]},
        {"uniform": [1, 0]},
        {"normal": [0, 1]},
        [],
        3,
    ],
)
def test_a_space_that_cannot_be_drawn_from_is_refused(space):
    with pytest.raises(TalError, match="search space of learning_rate"):
        Search(trials=2, recipe={"learning_rate": space})


def test_a_search_over_nothing_is_refused():
    with pytest.raises(TalError, match="search: own: unknown model 'local_globl'"):
        Search(trials=2, own={"local_globl": {"norm": ["layer"]}})
    with pytest.raises(TalError, match="search: options: unknown option 'drop_pth'"):
        Search(trials=2, options={"drop_pth": [0.1]})


def write(tmp_path, monkeypatch, block):
    monkeypatch.setattr(grids, "data_hash", lambda benchmark: "0")
    monkeypatch.setattr(identity, "_loaders", lambda parameters: ("",))
    monkeypatch.setattr(grids, "work_folder", lambda: tmp_path)
    path = tmp_path / "grid.yaml"
    path.write_text(f"cells:\n  - {json.dumps({'notebook': '02_train_evaluate.ipynb'} | block)}\n")
    return path


def test_a_search_is_cells_of_their_own(tmp_path, monkeypatch):
    search = {"trials": 3, "recipe": {"learning_rate": {"log": [1e-4, 1e-2]}, "epochs": [5]}}
    grid = {"model": ["actionformer", "bilstm"]}
    path = write(
        tmp_path, monkeypatch, {"grid": grid, "search": search, "parameters": {"recipe": {"epochs": 7}}}
    )
    cells = sweeps.plan(path)
    assert len(cells) == 6 and all(cell.parameters["recipe"]["epochs"] == 7 for cell in cells)
    assert len({cell.parameters["recipe"].get("learning_rate") for cell in cells}) == 3
    search["recipe"]["learning_rat"] = [1.0]
    with pytest.raises(TalError, match="learning_rat"):
        sweeps.plan(write(tmp_path, monkeypatch, {"search": search}))
    with pytest.raises(TalError, match="no parameter"):
        sweeps.plan(write(tmp_path, monkeypatch, {"notebook": "01_data.ipynb", "search": search}))


def record(number, score, fraction, recipe, **parameters):
    known = {"benchmark": "hapt_validation", "model": "bilstm", "preset": "compact", "fraction": fraction}
    rows = [{"tiou": 0.3, "map": score + 0.1}, {"tiou": 0.5, "map": score - 0.1}]
    return {
        "id": str(number),
        "notebook": "x.ipynb",
        "provenance": {"utc": f"2026-01-01T00:00:{number:02d}"},
        "parameters": known | {"recipe": recipe, "options": {}} | parameters,
        "tables": {"data_efficiency": rows},
    }


def test_further_benchmarks_of_a_trial_choose_nothing(tmp_path):
    """Their recordings are test recordings."""
    trial = record(0, 0.5, 1.0, {}, also=["other"])
    rows = [row | {"benchmark": "hapt_validation"} for row in trial["tables"]["data_efficiency"]]
    further = [{"tiou": 0.3, "map": 0.9, "benchmark": "other"}]
    trial["tables"]["data_efficiency"] = rows + further
    ledger = tmp_path / "tuning.jsonl"
    ledger.write_text(json.dumps(trial) + "\n")
    assert [known.score for known in trials_of(ledger)] == pytest.approx([0.5])


def test_a_trial_that_another_sweep_ran_is_a_trial(tmp_path, monkeypatch):
    search = {"trials": 2, "recipe": {"learning_rate": [0.001]}}
    path = write(tmp_path, monkeypatch, {"parameters": {"model": "bilstm"}, "search": search})
    first, _ = sweeps.plan(path)
    ran = record(0, 0.5, 1.0, {}) | {"id": first.id, "notebook": first.notebook.name}
    ran = ran | {"parameters": first.parameters, "machine": "", "sweep": "plain"}
    ran["provenance"]["data_hash"] = first.data_hash
    ledger = tmp_path / "results" / "ledger" / "plain.jsonl"
    ledger.parent.mkdir(parents=True)
    ledger.write_text(json.dumps(ran) + "\n")
    where = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    result = sweeps.run(path, seconds=0.0, progress=False, **where)
    assert (result.done_before, result.done_now, result.left) == (1, 0, 1)
    assert [trial.score for trial in trials_of(ledger.with_name("grid.jsonl"))] == [0.5]


def test_the_best_trial_sets_other_cells(tmp_path, monkeypatch):
    ledger = tmp_path / "results" / "ledger" / "tuning.jsonl"
    ledger.parent.mkdir(parents=True)
    fast, slow = {"learning_rate": 0.003}, {"learning_rate": 0.001}
    records = [
        record(0, 0.5, 0.2, {}),
        record(1, 0.9, 0.2, fast, seed=0),
        record(2, 0.3, 0.2, fast, seed=1),  # its mean is 0.6
        record(3, 0.55, 0.2, slow),
        record(4, 0.8, 1.0, {}),
        record(5, 0.8, 1.0, slow),
        record(6, 0.99, 1.0, fast, model="window_cnn"),
    ]
    ledger.write_text("".join(json.dumps(each) + "\n" for each in records))
    assert len(trials_of(ledger)) == 6
    assert tuned(ledger, "hapt", "bilstm", "compact", 0.1).recipe == fast
    assert tuned(ledger, "hapt", "bilstm", "compact", 0.4).recipe == fast
    assert tuned(ledger, "hapt", "bilstm", "compact", 0.8).recipe == {}
    path = write(
        tmp_path,
        monkeypatch,
        {
            "parameters": {"benchmark": "hapt", "model": "bilstm"},
            "grid": {"fraction": [0.1, 1.0]},
            "tuned": "tuning",
        },
    )
    assert [cell.parameters["recipe"] for cell in sweeps.plan(path)] == [fast, {}]
    path = write(
        tmp_path, monkeypatch, {"parameters": {"benchmark": "hapt", "model": "tridet"}, "tuned": "tuning"}
    )
    with pytest.raises(TalError, match="no trial of tridet.*tal sweep tuning"):
        sweeps.plan(path)
    both = {"parameters": {"benchmark": "hapt"}, "grid": {"model": ["bilstm", "tridet"]}, "tuned": "tuning"}
    path = write(tmp_path, monkeypatch, both)
    with pytest.raises(TalError, match="no trial of tridet"):
        sweeps.plan(path)
    (cell,) = sweeps.plan(path, {"model": "bilstm"})  # the other model is not asked for
    assert cell.parameters["model"] == "bilstm"
    apart = {
        "parameters": {"model": "bilstm"},
        "grid": {"benchmark": ["hapt", "synthetic"]},
        "tuned": "tuning",
    }
    path = write(tmp_path, monkeypatch, apart)
    with pytest.raises(TalError, match="no trial of bilstm"):
        sweeps.plan(path)
    (cell,) = sweeps.plan(path, {"benchmark": "hapt"})  # nor is the other benchmark
    assert cell.parameters["benchmark"] == "hapt"
    others = tmp_path / "own" / "ledger" / "tuning.jsonl"  # trials of the folder that --results names
    others.parent.mkdir(parents=True)
    both = [record(0, 0.5, 1.0, {}), record(1, 0.6, 1.0, slow)]
    others.write_text("".join(json.dumps(each) + "\n" for each in both))
    recipes = [
        sweeps.plan(path, {"benchmark": "hapt"}, results=folder)[0].parameters["recipe"]
        for folder in (None, tmp_path / "own", tmp_path / "without")
    ]
    assert recipes == [{}, slow, {}]
    with pytest.raises(TalError, match="no trial of bilstm.* and no .*without.*same --results first"):
        sweeps.plan(path, {"benchmark": "synthetic"}, results=tmp_path / "without")
    unknown = {"parameters": {"model": "bilstm", "benchmark": "nonesuch"}, "tuned": "tuning"}
    with pytest.raises(TalError, match="no benchmark 'nonesuch'"):
        sweeps.plan(write(tmp_path, monkeypatch, unknown))


def test_the_grids_of_the_documentation_tune_and_compare(tmp_path, monkeypatch):
    """docs/adding-a-dataset.md: 48 trials of three models, then 40 trainings with the best of them."""
    text = (REPOSITORY / "docs" / "adding-a-dataset.md").read_text(encoding="utf-8")
    grids_ = re.findall(r"```yaml\n(.*?)```", text.partition("## The equal comparison")[2], re.DOTALL)
    tuning, equal = (tmp_path / name for name in ("my_tuning.yaml", "my_equal.yaml"))
    write(tmp_path, monkeypatch, {})
    for path, grid in zip((tuning, equal), grids_[:2], strict=True):
        path.write_text(grid.replace("mydata", "synthetic"))
    trials = sweeps.plan(tuning)
    assert len(trials) == 48 and {(cell.sweep, cell.parameters["fold"]) for cell in trials} == {(TUNING, 0)}
    ledger = tmp_path / "own" / "ledger" / f"{trials[0].sweep}.jsonl"
    ledger.parent.mkdir(parents=True)
    rows = [
        record(n, 0.1 + n / 100, 0.0, {}) | {"parameters": cell.parameters} for n, cell in enumerate(trials)
    ]
    ledger.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cells = sweeps.plan(equal, results=tmp_path / "own")
    assert len(cells) == 40 and {cell.sweep for cell in cells} == {MAIN}
    trained = [cell for cell in cells if cell.parameters["model"] != "timeline_prior"]
    assert all("learning_rate" in cell.parameters["recipe"] for cell in trained)  # the last trial is the best


def test_a_cell_of_a_fold_takes_trials_of_that_fold(tmp_path, monkeypatch):
    ledger = tmp_path / "results" / "ledger" / "tuning.jsonl"
    ledger.parent.mkdir(parents=True)
    fast, slow = {"learning_rate": 0.003}, {"learning_rate": 0.001}
    about = {"benchmark": "synthetic_validation"}
    records = [
        record(0, 0.9, 1.0, fast, fold=0, **about),
        record(1, 0.4, 1.0, slow, fold=0, **about),
        record(2, 0.1, 1.0, fast, fold=1, **about),
        record(3, 0.3, 1.0, slow, fold=1, **about),
        record(4, 0.9, 1.0, fast, **about),
    ]
    ledger.write_text("".join(json.dumps(each) + "\n" for each in records))
    block = {"parameters": {"benchmark": "synthetic", "model": "bilstm"}, "tuned": "tuning"}
    path = write(tmp_path, monkeypatch, block | {"grid": {"fold": [0, 1, -1]}})
    assert [cell.parameters["recipe"] for cell in sweeps.plan(path)] == [fast, slow, fast]
    path = write(tmp_path, monkeypatch, block | {"grid": {"fold": [2]}})
    with pytest.raises(TalError, match="on synthetic_validation, fold 2. Its trials are of fold -1, 0, 1"):
        sweeps.plan(path)


@pytest.fixture
def tuning(tmp_path, monkeypatch):
    """`tuning(records, block)` writes a search's ledger and plans a grid; gives the cells' parameters."""

    def make(records, block):
        ledger = tmp_path / "results" / "ledger" / "tuning.jsonl"
        ledger.parent.mkdir(parents=True, exist_ok=True)
        ledger.write_text("".join(json.dumps(each) + "\n" for each in records))
        return [cell.parameters for cell in sweeps.plan(write(tmp_path, monkeypatch, block))]

    return make


FAST, SLOW = {"learning_rate": 0.003}, {"learning_rate": 0.001}
OF_FOLD_0 = [
    record(0, 0.4, 1.0, FAST, fold=0, benchmark="hapt_validation", options={"width": 32}),
    record(1, 0.3, 1.0, SLOW, fold=0, benchmark="hapt_validation"),
    record(2, 0.9, 1.0, SLOW, fold=1, benchmark="hapt_validation"),
    record(3, 0.99, 1.0, SLOW, fold=0, benchmark="hapt"),  # scored on test recordings
    record(4, 0.99, 1.0, SLOW, fold=0, benchmark="hapt_recomposed"),
]


def test_one_fold_is_searched_for_all_folds(tuning):
    block = {"parameters": {"benchmark": "synthetic", "model": "bilstm"}, "grid": {"fold": [0, 1, 4, -1]}}
    records = [each | {"parameters": each["parameters"]} for each in OF_FOLD_0]
    for each in records:
        name = each["parameters"]["benchmark"].replace("hapt", "synthetic")
        each["parameters"] = each["parameters"] | {"benchmark": name}
    cells = tuning(records, block | {"tuned": {"sweep": "tuning", "fold": 0}})
    assert [cell["recipe"] for cell in cells] == [FAST] * 4
    assert [cell["options"] for cell in cells] == [{"width": 32}] * 4
    assert [cell["fold"] for cell in cells] == [0, 1, 4, -1]


def test_another_benchmark_takes_the_settings_of_hapt(tuning):
    block = {"parameters": {"benchmark": "synthetic", "model": "bilstm"}}
    for name in ("hapt", "hapt_validation"):
        source = {"sweep": "tuning", "fold": 0, "benchmark": name}
        assert tuning(OF_FOLD_0, block | {"tuned": source})[0]["recipe"] == FAST


def test_what_the_grid_says_comes_before_tuned_settings(tuning):
    about = {"benchmark": "synthetic", "model": "bilstm", "recipe": {"learning_rate": 0.01, "epochs": 3}}
    block = {"parameters": about | {"options": {"width": 16}}}
    (cell,) = tuning(OF_FOLD_0, block | {"tuned": {"sweep": "tuning", "fold": 0, "benchmark": "hapt"}})
    assert cell["recipe"] == {"learning_rate": 0.01, "epochs": 3} and cell["options"] == {"width": 16}


@pytest.mark.parametrize(
    ("kept", "source", "message"),
    [
        (OF_FOLD_0[3:], {"sweep": "tuning", "fold": 0, "benchmark": "hapt"}, "scored on test recordings"),
        (OF_FOLD_0[3:4], "tuning", "bilstm .compact. on synthetic_validation. Run the grid tuning"),
        (OF_FOLD_0, {"sweep": "tuning", "benchmark": "hapt"}, "of fold 0, 1. To use them.*fold: 0}"),
        (OF_FOLD_0, {"sweep": "tuning", "fold": 0}, "or use its trials on hapt: .*benchmark: hapt}"),
        (OF_FOLD_0, {"sweep": "tuning", "fold": -2}, "tuned: fold: -2 is not at least -1"),
        (OF_FOLD_0, {"sweep": "../x"}, "tuned: sweep '../x' cannot be part of a file's name"),
        (OF_FOLD_0, {"fold": 0}, "tuned: sweep is missing"),
        (OF_FOLD_0, {"sweep": "tuning", "folds": 0}, "folds"),
        (OF_FOLD_0, 5, "tuned: 5 is not a mapping"),
    ],
)  # fmt: skip
def test_trials_that_may_not_be_used(tuning, kept, source, message):
    with pytest.raises(TalError, match=message):
        tuning(kept, {"parameters": {"benchmark": "synthetic", "model": "bilstm"}, "tuned": source})


def test_of_a_trial_that_was_made_again_the_newest_counts(tmp_path):
    ledger = tmp_path / "tuning.jsonl"
    records = [record(0, 0.9, 1.0, FAST), record(1, 0.2, 1.0, FAST), record(2, 0.5, 1.0, SLOW)]
    records.append(record(3, 0.8, 1.0, FAST, stream="acc"))  # another cell: not averaged with the others
    ledger.write_text("".join(json.dumps(each) + "\n" for each in records))
    assert sorted(trial.score for trial in trials_of(ledger)) == pytest.approx([0.2, 0.5, 0.8])
    ledger.write_text(json.dumps(records[0]) + "\n")  # read again: the file has changed
    assert [trial.score for trial in trials_of(ledger)] == pytest.approx([0.9])
    ledger.unlink()
    assert trials_of(ledger) == []


def test_the_validation_part_of_a_fold_can_be_searched_on(tmp_path, monkeypatch):
    about = {"benchmark": "synthetic_validation", "model": "bilstm"}
    cells = sweeps.plan(write(tmp_path, monkeypatch, {"parameters": about, "grid": {"fold": [0, 4]}}))
    assert [cell.parameters["fold"] for cell in cells] == [0, 4]
    with pytest.raises(TalError, match="fold 5 does not exist. Choose 0 to 4"):
        sweeps.plan(write(tmp_path, monkeypatch, {"parameters": about, "grid": {"fold": [5]}}))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_expected_best_is_the_mean_over_all_draws(scores):
    expected = expected_best(scores)
    for budget in range(1, len(scores) + 1):
        best = [max(draw) for draw in itertools.combinations(scores, budget)]
        assert expected[budget - 1] == pytest.approx(np.mean(best))
