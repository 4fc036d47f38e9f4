"""Costs by precision, and costs that only some machines can measure."""

import pandas as pd
import pytest

from tal_lib.provenance import COLUMNS
from tal_lib.reports import tables
from tal_lib.reports.costs import checks, inference, precision, training
from tal_lib.reports.report import tidy_tables


class Written:
    """Stands in for `Output`: what a section writes."""

    def __init__(self):
        self.tables, self.captions, self.tidy = {}, {}, {}

    def table(self, table, name, caption, best=None):
        self.tables[name], self.captions[name] = table, caption

    def data(self, table, name):
        self.tidy[name] = table

    def figure(self, axes, name, caption, dark=False):
        pass

    def about(self, topic):
        return self


def run(model, kind, fold, score, seconds, device="a processor"):
    """The record of one training; `kind` is the precision that its recipe names, if any."""
    recipe = {"epochs": 1, "min_steps": 400} | ({"precision": kind} if kind else {})
    parameters = {"benchmark": "hapt", "model": model, "preset": "compact", "fold": fold, "fraction": 1.0}
    parameters |= {"seed": 0, "subset_seed": -1, "stream": "", "options": {}, "recipe": recipe}
    return {
        "id": f"{model}{kind}{fold}{device}",
        "sweep": "mixed_precision",
        "notebook": "02_train_evaluate.ipynb",
        "parameters": parameters,
        "provenance": dict.fromkeys(COLUMNS, "p") | {"device_name": device, "threads": 1},
        "tables": {
            "data_efficiency": [{"tiou": 0.3, "map": score + 0.1}, {"tiou": 0.7, "map": score - 0.1}],
            "training_cost": [{"steps": 400, "train_seconds": seconds, "params": 5}],
        },
    }


RUNS = [
    run("bilstm", None, 0, 0.9, 1.0),  # a run of another sweep: its recipe names no precision
    run("bilstm", "float32", 0, 0.70, 10.0),
    run("bilstm", "float32", 1, 0.80, 20.0),
    run("bilstm", "float32", 2, 0.10, 999.0),  # without a partner: left out of the others' pairs
    run("bilstm", "bfloat16", 0, 0.69, 30.0),
    run("bilstm", "bfloat16", 1, 0.82, 30.0),
    run("window_cnn", "float32", 0, 0.5, 4.0),  # alone
    run("bilstm", "bfloat16", 0, 0.3, 2.0, device="another"),  # no float32 on that machine
]


def test_precisions_are_compared_on_the_same_folds():
    table = precision.by_precision(tidy_tables(RUNS)).set_index("precision")
    assert list(table.index) == ["float32", "bfloat16"] and set(table.model) == {"bilstm"}
    low = table.loc["bfloat16"]
    assert (low.avg_map, low.difference, low.pairs) == (pytest.approx(75.5), pytest.approx(0.5), 2)
    assert low.times_as_fast == pytest.approx(15 / 30) and low.train_seconds == 30 and low.steps == 400
    assert table.loc["float32"].times_as_fast == 1 and table.loc["float32"].difference == 0


def test_the_table_for_readers():
    out = Written()
    precision.write(tidy_tables(RUNS), out)
    (shown,) = out.tables.values()
    assert list(out.tables) == ["mixed_precision_hapt"] and list(shown.precision) == ["float32", "bfloat16"]
    assert list(shown.difference) == ["", "+0.5"] and list(shown["speed-up"]) == [1.0, 0.5]
    assert "400 steps, a processor" in out.captions["mixed_precision_hapt"]
    nothing = Written()
    precision.write(tidy_tables(RUNS[:1]), nothing)
    assert not nothing.tables and not nothing.tidy


def cost(length, **more):
    about = {"benchmark": "b", "preset": "compact", "device_name": "g", "device": "cuda", "model": "m"}
    about |= {"precision": "float32", "threads_used": 1, "length_steps": length, "length_s": 30.0 * length}
    return (
        about
        | {"macs": 1e9, "latency_s_median": 0.1, "detect_s_median": 0.2, "peak_memory_bytes": 1e6}
        | more
    )


@pytest.mark.parametrize("measured", [True, False])
def test_energy_is_per_minute_and_only_where_it_was_measured(measured, monkeypatch):
    more = {"energy_j": 6.0, "gpu_utilisation": 0.5} if measured else {"energy_j": None}
    rows = pd.DataFrame([cost(length, **more) for length in (2, 4)])
    monkeypatch.setattr(inference.figures, "cost_against_length", lambda *_: None)
    out = Written()
    inference._write_against_length(rows, "b_cuda", "words", "a CPU", rows, out)
    assert ("energy_b_cuda" in out.tables) == ("utilisation_b_cuda" in out.tables) == measured
    if measured:  # 6 J for one and for two minutes
        assert out.tables["energy_b_cuda"].iloc[0].tolist() == ["m", "6.00", "3.00"]


def test_columns_that_no_machine_measured_are_left_out():
    table = pd.DataFrame({"a": [1, 2], "energy_j": [None, None], "gpu_utilisation": [None, 0.5]})
    assert list(tables.measured_columns(table)) == ["a", "gpu_utilisation"]


def test_training_costs_of_each_precision_have_a_table(monkeypatch):
    monkeypatch.setattr(training.figures, "accuracy_over_time", lambda *_: None)
    step, reached = [], []
    for kind, options, seconds in (("float32", "", 0.2), ("float32", "width=256", 9.0), ("float16", "", 0.1)):
        cell = f"{kind}{options}"
        about = {"benchmark": "b", "preset": "compact", "device_name": "g", "device": "cuda", "model": "m"}
        about |= {"options": options, "precision": kind, "cell": cell, "threads_used": 1, "batch_size": 2}
        about |= {"crop_steps": 9, "params": 1e6, "steps_per_s": 1 / seconds, "peak_memory_bytes": 1e6}
        step.append(about | {"step_s_median": seconds, "state_bytes": 1e6, "energy_j": 3.0})
        times = {"total_s": 1.0, "near_final_s": 1.0, "best_s": 1.0, "final_map": 0.5, "best_map": 0.5}
        reached.append({"benchmark": "b", "model": "m", "device_name": "g", "cell": cell} | times)
    curve = pd.DataFrame([{"cell": "float32", "map": 0.5}])
    out = Written()
    training.write(
        {
            "training_step": pd.DataFrame(step),
            "training_milestones": pd.DataFrame(reached),
            "training_curve": curve,
        },
        out,
    )
    assert set(out.tables) == {"training_b", "training_b_float16"}
    assert out.tables["training_b"]["ms per step"].tolist() == ["200"]  # not the mean with another size
    assert out.tables["training_b_float16"]["J per step"].tolist() == ["3.00"]
    assert (
        "g. Memory" in out.captions["training_b"]
        and "g, float16. Memory" in out.captions["training_b_float16"]
    )


def test_the_checks_of_a_device_for_readers():
    about = {"model": "m", "preset": "compact", "device_name": "H", "utc": "2026"}
    rows = [
        about | {"check": "forward", "ok": True, "largest_difference": 2e-6, "problem": ""},
        about | {"check": "export", "ok": True, "largest_difference": None, "problem": "not exportable: why"},
        about | {"check": "float16", "ok": False, "largest_difference": None, "problem": "RuntimeError: x"},
    ]
    out = Written()
    checks.write({"device_check": pd.DataFrame(rows)}, out)
    (shown,) = out.tables.values()
    assert shown.iloc[0].tolist() == ["m", "2e-06", "not exportable: why", "failed: RuntimeError: x"]
    assert list(out.tables) == ["device_check_h"] and "2 of 3 checks" in out.captions["device_check_h"]
