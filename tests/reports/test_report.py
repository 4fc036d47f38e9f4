import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tal_lib import TalError, models
from tal_lib.reports import figures, tables, theme
from tal_lib.reports.report import report
from tal_lib.sweeps.ledger import update_ledger


def record(model, fraction, seed, scores, benchmark="b"):
    parameters = {
        "benchmark": benchmark,
        "model": model,
        "preset": "compact",
        "fraction": fraction,
        "seed": seed,
        "subset_seed": -1,
        "stream": "",
        "options": {},
        "recipe": {},
    }
    rows = [{"tiou": tiou, "map": value, "train_recordings": 3} for tiou, value in scores.items()]
    provenance = dict.fromkeys(
        (
            "git_commit",
            "tal_lib_version",
            "torch_version",
            "device_name",
            "threads",
            "config_hash",
            "data_hash",
            "utc",
        ),
        "p",
    )
    return {
        "id": f"{model}{fraction}{seed}",
        "sweep": "s",
        "notebook": "02_train_evaluate.ipynb",
        "parameters": parameters,
        "provenance": provenance,
        "tables": {"data_efficiency": rows},
    }


@pytest.fixture
def ledger(tmp_path):
    rng = np.random.default_rng(0)
    records = [
        record(model, fraction, seed, {0.3: base * fraction + 0.01 * rng.random(), 0.7: base * fraction / 2})
        for model, base in (("local_global", 0.9), ("bilstm", 0.7))
        for fraction in (0.1, 1.0)
        for seed in (0, 1)
    ]
    update_ledger(tmp_path / "results" / "ledger" / "s.jsonl", {one["id"]: one for one in records})
    return tmp_path, records


def test_tables_say_what_the_ledger_says(ledger):
    folder, records = ledger
    done = report(folder / "results", folder / "figures", folder / "runs", render=False)
    table = pd.read_csv(folder / "results" / "data_efficiency.csv")
    assert len(table) == 16 and {
        "benchmark",
        "model",
        "preset",
        "fraction",
        "seed",
        "train_recordings",
        "tiou",
        "map",
        "git_commit",
        "torch_version",
        "device_name",
        "config_hash",
        "data_hash",
        "utc",
    } <= set(table)
    one = records[5]
    mine = table[(table.cell == one["id"])].sort_values("tiou")["map"].tolist()
    assert mine == pytest.approx([row["map"] for row in one["tables"]["data_efficiency"]])
    summary = pd.read_csv(folder / "results" / "data_efficiency_summary.csv")
    best = summary[(summary.model == "local_global") & (summary.fraction == 1.0)].iloc[0]
    runs = table[(table.model == "local_global") & (table.fraction == 1.0)]
    assert best["mean"] == pytest.approx(100 * runs.groupby("seed")["map"].mean().mean()) and best.runs == 2
    assert best.low <= best["mean"] <= best.high
    for suffix in ("csv", "md", "tex"):
        assert (folder / "results" / f"data_efficiency_b.{suffix}").stat().st_size > 50
    assert "\\toprule" in (folder / "results" / "data_efficiency_b.tex").read_text()
    assert (folder / "results" / "data_efficiency_b.md").read_text().index(
        "local_global"
    ) < 300  # the best first
    assert {path.name for path in done.figures} == {
        "data_efficiency_b.png",
        "map_by_tiou_b.png",
        "probability_of_improvement_b.png",
    }
    assert all(path.with_suffix(".svg").is_file() for path in done.figures)


def test_proposals_have_their_table_and_figure(tmp_path):
    records = []
    for model, auc in (("bmn", 60.0), ("actionformer", 70.0)):
        for fraction in (0.1, 1.0):
            one = record(model, fraction, 0, {0.5: 0.5})
            one["tables"]["proposals"] = [
                {"an": an, "ar": fraction * auc / 100 * an / 100, "auc": fraction * auc}
                for an in (1, 10, 100)
            ]
            records.append(one)
    update_ledger(tmp_path / "results" / "ledger" / "s.jsonl", {one["id"]: one for one in records})
    report(tmp_path / "results", tmp_path / "figures", tmp_path / "runs", render=False)
    table = pd.read_csv(tmp_path / "results" / "proposals_b.csv")
    assert table.values.tolist() == [["actionformer", 0.7, 7, 70, 70], ["bmn + classifier", 0.6, 6, 60, 60]]
    assert table.columns.tolist() == ["model", "AR@1", "AR@10", "AR@100", "AUC"]
    assert (tmp_path / "figures" / "average_recall_b.png").is_file() and len(
        pd.read_csv(tmp_path / "results" / "proposals.csv")
    ) == 12


def test_a_second_report_writes_the_same_bytes(ledger):
    folder, _ = ledger
    state = []
    for _ in range(2):
        report(folder / "results", folder / "figures", folder / "runs", render=False)
        state.append({path: path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert state[0] == state[1]


def test_a_cost_measured_again_replaces_the_old_one():
    rows = pd.DataFrame(
        {"model": ["a", "b", "a"], "length_steps": [9, 9, 9], "utc": ["2", "1", "1"], "macs": [5, 6, 7]}
    )
    assert tables.newest(rows).values.tolist() == [["a", 9, "2", 5], ["b", 9, "1", 6]]


def test_machines_are_not_mixed(tmp_path):
    rows = [("a", "one", 0.001), ("b", "one", 0.002), ("a", "the other (R), 2 cores", 0.009)]
    records = []
    for number, (model, machine, latency) in enumerate(rows):
        one = record(model, 1.0, 0, {0.5: 0.5})
        cost = {
            "device": "cpu",
            "precision": "float32",
            "threads_used": 1,
            "length_steps": 720,
            "latency_s_median": latency,
            "macs": 1e9,
            "detect_s_median": latency,
            "peak_memory_bytes": 1e6,
        }
        about = {
            "notebook": "03_inference_cost.ipynb",
            "machine": machine,
            "provenance": one["provenance"] | {"device_name": machine},
        }
        records.append(one | about | {"id": str(number), "tables": {"inference_cost": [cost]}})
    update_ledger(tmp_path / "results" / "ledger" / "s.jsonl", {one["id"]: one for one in records})
    report(tmp_path / "results", tmp_path / "figures", tmp_path / "runs", render=False)
    first, second = (
        pd.read_csv(tmp_path / "results" / f"latency_b_cpu{name}.csv")
        for name in ("", "_the_other_r_2_cores")
    )
    assert first.values.tolist() == [["a", 1], ["b", 2]] and second.values.tolist() == [["a", 9]]
    caption = (tmp_path / "results" / "latency_b_cpu_the_other_r_2_cores.md").read_text()
    assert "the other (R), 2 cores, 1 thread" in caption


def test_nothing_to_report(tmp_path):
    with pytest.raises(TalError, match="tal sweep"):
        report(tmp_path, tmp_path, tmp_path)


def test_names_say_what_differs():
    assert tables.shown_name("a", "compact") == "a"
    assert tables.shown_name("a", "plain", "width=3", "acc") == "a (plain, width=3, acc)"


def test_a_model_has_one_colour():
    styles = [theme.style(name) for name in models.names()]
    assert len(set(styles)) == len(styles) and ("#777777", "o") not in styles


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_pareto_front_by_definition(points):
    cost, gain = map(np.array, zip(*points))
    front = figures.pareto_front(cost, gain)
    for i in range(len(points)):
        beaten = any(
            cost[j] <= cost[i] and gain[j] >= gain[i] and (cost[j] < cost[i] or gain[j] > gain[i])
            for j in range(len(points))
        )
        assert front[i] == (not beaten)


def test_figures_have_units_and_legends():
    summary = pd.DataFrame(
        {
            "model": ["bilstm", "bilstm", "tadtr", "tadtr"],
            "fraction": [0.1, 1.0] * 2,
            "mean": [1.0, 2, 3, 4],
            "low": [0.0, 1, 2, 3],
            "high": [2.0, 3, 4, 5],
        }
    )
    ax = figures.data_efficiency(summary)
    assert "%" in ax.get_ylabel() and [t.get_text() for t in ax.get_legend().get_texts()] == [
        "tadtr",
        "bilstm",
    ]
    cost = pd.DataFrame({"model": ["bilstm"] * 2, "length_steps": [10, 100], "v": [1.0, 10.0]})
    assert "steps" in figures.cost_against_length(cost, "v", "GMACs").get_xlabel()
    plt.close("all")


def test_long_tables_are_written_another_way_with_the_same_bytes(ledger, monkeypatch):
    """A cell's text once and in a process beside: what 100,000 cells need."""
    folder, records = ledger
    for number, one in enumerate(records):
        one["tables"]["class_ap"] = [
            {"label": label, "tiou": tiou, "ap": None if label == "y" else 1 / (3 + number)}
            for label in "xy"
            for tiou in (0.3, 0.7)
        ]
    update_ledger(folder / "results" / "ledger" / "s.jsonl", {one["id"]: one for one in records})
    state = []
    for long in (10**9, 1):
        monkeypatch.setattr(tables, "LONG", long)
        report(folder / "results", folder / "figures", folder / "runs", render=False)
        state.append({path.name: path.read_bytes() for path in (folder / "results").glob("*.csv")})
    assert state[0] == state[1] and len(state[0]["class_ap.csv"].splitlines()) == 33
