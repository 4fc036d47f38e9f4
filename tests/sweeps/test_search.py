"""Random search as cells of a grid; the best trial as the settings of other cells."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tal_lib import TalError, sweeps
from tal_lib.sweeps import grid as grids
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
        "parameters": known | {"recipe": recipe, "options": {}} | parameters,
        "tables": {"data_efficiency": rows},
    }


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
    with pytest.raises(TalError, match="on synthetic, fold 2"):
        sweeps.plan(path)


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
