"""Tables of runs on validation parts, and of skipped feature steps."""

import pandas as pd
import pytest

from tal_lib.reports import folds, frame_skip, validation_runs

PLAIN = "epochs=1, max_steps=576, min_steps=400"


def rows(*cells):
    """Dictionaries of what differs → rows of `data_efficiency`, two tIoUs each."""
    alike = {
        "benchmark": "hapt_validation",
        "fold": 0,
        "model": "bilstm",
        "preset": "compact",
        "fraction": 1.0,
        "seed": 0,
        "subset_seed": -1,
        "stream": "",
        "options": "",
        "recipe": PLAIN,
        "skip": 1,
        "people": 1.0,
        "annotated": 1.0,
        "sweep": "steps",
    }
    return pd.DataFrame(
        [
            alike
            | cell
            | {"cell": str(number), "utc": f"{number:04}", "tiou": tiou, "map": cell["map"] + change}
            for number, cell in enumerate(cells)
            for tiou, change in ((0.3, 0.1), (0.5, -0.1))
        ]
    )


def test_steps_and_variants_are_read_from_validation_parts_whichever_sweep_ran_them():
    shorter = PLAIN.replace("400", "100")
    table = rows(
        {"map": 0.5},
        {"map": 0.3, "recipe": shorter},
        {"map": 0.9, "benchmark": "hapt"},  # a test part
        {"map": 0.8, "model": "local_global", "sweep": "own_design", "seed": 1},
    )
    data = {"data_efficiency": table}
    steps = validation_runs.steps_table(validation_runs.runs_like(data, "steps"))
    assert steps.set_index("model").loc["bilstm"].to_dict() == {
        "benchmark": "hapt",
        "label fraction": "100 %",
        "100 steps": "30.0",
        "400 steps": "50.0",
    }
    variants = rows(
        {"map": 0.8, "model": "local_global"},
        {"map": 0.7, "model": "local_global", "sweep": "own_design", "options": "norm=layer"},
        {"map": 0.6, "model": "local_global", "sweep": "own_design"},
        {"map": 0.9, "model": "local_global", "sweep": "own_design", "benchmark": "urfall_validation"},
    )
    design = validation_runs.design_table(
        validation_runs.runs_like({"data_efficiency": variants}, "own_design")
    )
    assert design["hapt, 100 %"].to_list() == ["70.0", "70.0"]  # as it is: 80 and 60, from two sweeps
    assert design["mean"].to_list() == ["80.0", ""]
    assert design.variant.to_list() == ["local_global", "local_global: norm layer"]
    assert not len(folds.fold_means(folds.on_folds(table[table.benchmark != "hapt"])))


def test_the_effect_of_skipping_is_paired_by_person():
    cells = [
        {"map": value, "benchmark": "hapt", "fold": fold, "skip": skip, "sweep": sweep}
        for fold, skip, value, sweep in (
            (0, 1, 0.2, "worlds"),  # the next one has its settings, and is newer
            (0, 1, 0.6, "plain"),
            (0, 2, 0.5, "frame_skip"),
            (1, 1, 0.8, "plain"),
            (1, 2, 0.7, "frame_skip"),
            (2, 1, 0.1, "plain"),  # without a partner
        )
    ]
    table = rows(*cells)
    people = pd.DataFrame(
        [
            {"cell": str(number), "person": person, "segments": 3, "score": cell["map"] + 0.2 * other}
            for number, cell in enumerate(cells)
            for person, other in (("a", 1), ("b", -1))
        ]
    )
    effect = frame_skip.effect({"data_efficiency": table, "people": people}).set_index("skip")
    assert effect.avg_map.to_dict() == pytest.approx({1: 70.0, 2: 60.0})
    assert effect.loc[2, ["difference", "low", "high"]].to_list() == pytest.approx([-10.0] * 3)
    assert effect.folds.to_list() == [2, 2] and effect.people.to_list() == [4, 4]
    text = frame_skip.effect_table(effect.reset_index())
    assert text["every step"].to_list() == ["70.0"] and text["1 of 2"].to_list() == ["-10.0 [-10.0, -10.0]"]
