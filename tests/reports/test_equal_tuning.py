"""The tuning of the equal arm: all trials, the chosen one, and the expected best."""

import itertools
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from tal_lib.reports.equal import tuning
from tal_lib.reports.layout import Layout
from tal_lib.reports.output import Output
from tal_lib.reports.tables.names import about_settings

LEARNING_RATES = (None, 3e-4, 2e-3)
SCORES = {"tridet": (70.0, 75.0, 60.0), "bilstm": (50.0, 40.0, 45.0)}


@pytest.fixture
def results(tmp_path, cell):
    """A ledger with three trials of two models at two label fractions; the base recipe is in all of them."""
    lines = []
    for model, scores in SCORES.items():
        for fraction in (0.2, 1.0):
            for rate, score in zip(LEARNING_RATES, scores):
                recipe = {"min_steps": 400} | ({"learning_rate": rate} if rate else {})
                options = {"drop_path": 0.1} if rate and model == "tridet" else {}
                change = {"recipe": recipe, "options": options}
                where = "tuning", "hapt_validation", fraction, model, 0
                lines.append(json.dumps(cell(*where, np.full(6, score), bias=0, **change)))
    ledger = tmp_path / "ledger" / "tuning.jsonl"
    ledger.parent.mkdir()
    ledger.write_text("\n".join(lines) + "\n")
    return tmp_path


def test_every_trial_is_there_and_the_best_is_chosen(results):
    table = tuning.trials(results / "ledger" / "tuning.jsonl")
    assert len(table) == 12 and set(table.benchmark) == {"hapt"}
    best = table[table.chosen].set_index(["model", "fraction"])
    assert best.settings.to_dict() == {
        ("bilstm", 0.2): "",
        ("bilstm", 1.0): "",
        ("tridet", 0.2): "learning_rate=0.0003, drop_path=0.1",
        ("tridet", 1.0): "learning_rate=0.0003, drop_path=0.1",
    }
    assert best.avg_map.to_dict()["tridet", 0.2] == pytest.approx(75)
    assert table.recipe.str.contains("min_steps=400").all() and not table.settings.str.contains("min").any()
    chosen = tuning.chosen_table(table).set_index(["label fraction", "model"])
    assert chosen.loc[("20 %", "tridet")].tolist() == [3, 70, 75, "learning_rate=0.0003, drop_path=0.1"]
    assert chosen.loc[("100 %", "bilstm"), "settings"] == "plain recipe"


def test_expected_best_is_the_mean_over_all_choices_of_trials(results):
    table = tuning.expected(tuning.trials(results / "ledger" / "tuning.jsonl"))
    rows = table[(table.model == "tridet") & (table.fraction == 0.2)]
    for row in rows.itertuples():
        choices = itertools.combinations(SCORES["tridet"], row.trials)
        assert row.expected == pytest.approx(np.mean([max(choice) for choice in choices]))
    shown = tuning.expected_table(table)
    assert shown.columns.tolist() == ["label fraction", "model", "1 trial", "2 trials", "3 trials"]


def test_it_writes_tables_and_the_figure(results):
    plt.close("all")  # what other tests left open
    out = Output(Layout(results, results / "figures"), "equal")
    tuning.write(out)
    assert {path.name for path in out.tables} == {
        "tuning_trials.csv",
        "tuning_expected.csv",
        "tuning_hapt.md",
        "tuning_trials_hapt.md",
        "expected_best_hapt.md",
    }
    assert [path.name for path in out.figures] == ["expected_best_hapt.png"] and not plt.get_fignums()
    nothing = Output(Layout(results / "empty", results / "figures"), "equal")
    tuning.write(nothing)
    assert not nothing.tables


def test_unequal_numbers_of_trials_are_told():
    rows = pd.DataFrame({"fraction": 1.0, "model": ["a", "a", "b", "b"]})
    assert tuning._numbers(rows) == "Every model has the same number of trials."
    assert tuning._numbers(rows[:3]) == "The numbers of trials are unequal: 1 to 2."


def test_captions_explain_augmentations_where_a_setting_has_them():
    assert about_settings(["", "dropout=0.1"]) == ""
    assert about_settings(["exchange=0.3, dropout=0.1"]) == " exchange: instance mixing (probability)."
    both = about_settings(["rotate=30", "exchange=0.3"])
    assert both == " exchange: instance mixing (probability); rotate: random rotation (degrees)."
