import io
import json
import re
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tal_lib import TalError, models, sweeps
from tal_lib.provenance import COLUMNS
from tal_lib.reports import figures, provenance, tables, theme
from tal_lib.reports.figures.cost import pareto_front
from tal_lib.reports.layout import Layout, file_stem
from tal_lib.reports.pictures import small_png
from tal_lib.reports.report import report
from tal_lib.sweeps.ledger import RESULT, read_ledger, update_ledger
from tal_lib.writing import overwriting


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
    provenance = dict.fromkeys(COLUMNS, "p")
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
    update_ledger(tmp_path / "results" / "ledger" / "s.jsonl", {entry["id"]: entry for entry in records})
    return tmp_path, records


def test_tables_say_what_the_ledger_says(ledger):
    folder, records = ledger
    done = report(folder / "results", folder / "figures", folder / "runs", render=False)
    table = pd.read_csv(folder / "results" / "tables" / "data_efficiency.csv")
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
    entry = records[5]
    maps = table[(table.cell == entry["id"])].sort_values("tiou")["map"].tolist()
    assert maps == pytest.approx([row["map"] for row in entry["tables"]["data_efficiency"]])
    summary = pd.read_csv(folder / "results" / "tables" / "data_efficiency_summary.csv")
    best = summary[(summary.model == "local_global") & (summary.fraction == 1.0)].iloc[0]
    runs = table[(table.model == "local_global") & (table.fraction == 1.0)]
    assert best["mean"] == pytest.approx(100 * runs.groupby("seed")["map"].mean().mean()) and best.runs == 2
    assert best.low <= best["mean"] <= best.high
    readers = folder / "results" / "readers" / "accuracy"
    for suffix in ("csv", "md", "tex"):
        assert (readers / f"data_efficiency_b.{suffix}").stat().st_size > 50
    assert "\\toprule" in (readers / "data_efficiency_b.tex").read_text()
    assert (readers / "data_efficiency_b.md").read_text().index("local_global") < 300  # the best first
    assert {path.name for path in done.figures} == {
        "data_efficiency_b.png",
        "map_by_tiou_b.png",
        "probability_of_improvement_b.png",
    }
    assert not list(folder.rglob("*.svg")) and all(path.parent.name == "accuracy" for path in done.figures)


def test_proposals_have_their_table_and_figure(tmp_path, monkeypatch):
    """One training of bmn collapsed, which the note says in the name of the figure."""
    records, drawn, notes = [], figures.average_recall, []
    monkeypatch.setattr(
        figures, "average_recall", lambda runs, first: notes.append(first) or drawn(runs, first)
    )
    for model, auc in (("bmn", 60.0), ("actionformer", 70.0)):
        for fraction, seed in product((0.1, 1.0), range(3)):
            failed = model == "bmn" and fraction == 1 and seed == 2
            entry = record(model, fraction, seed, {0.5: 0.1 if failed else 0.5})
            entry["tables"]["proposals"] = [
                {"an": an, "ar": fraction * auc / 100 * an / 100, "auc": fraction * auc}
                for an in (1, 10, 100)
            ]
            records.append(entry)
    update_ledger(tmp_path / "results" / "ledger" / "s.jsonl", {entry["id"]: entry for entry in records})
    report(tmp_path / "results", tmp_path / "figures", tmp_path / "runs", render=False)
    table = pd.read_csv(tmp_path / "results" / "readers" / "accuracy" / "proposals_b.csv")
    assert table.values.tolist() == [["actionformer", 0.7, 7, 70, 70], ["bmn", 0.6, 6, 60, 60]]
    assert table.columns.tolist() == ["model", "AR@1", "AR@10", "AR@100", "AUC"]
    assert (tmp_path / "figures" / "accuracy" / "average_recall_b.png").is_file() and len(
        pd.read_csv(tmp_path / "results" / "tables" / "proposals.csv")
    ) == 36
    (note,) = notes
    assert note.endswith("more than 20 points of avg mAP below the median of their model: 1 of bmn. ")


def test_a_second_report_touches_nothing(ledger):
    """The same bytes, and not even written again: `git status` and file times stay as they are."""
    folder, records = ledger
    for number, record in enumerate(records):
        record["tables"]["class_ap"] = [{"label": "x", "tiou": 0.3, "ap": 1 / (3 + number)}]
    update_ledger(folder / "results" / "ledger" / "s.jsonl", {record["id"]: record for record in records})
    state = []
    for _ in range(2):
        report(folder / "results", folder / "figures", folder / "runs", render=False)
        files = [path for path in folder.rglob("*") if path.is_file()]
        state.append(
            {path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in files}
        )
    assert state[0] == state[1] and len(state[0]) > 15


def test_only_what_changed_is_written(ledger):
    folder, records = ledger
    where = folder / "results", folder / "figures", folder / "runs"
    report(*where, render=False)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("[!.]*.*") if path.is_file()}
    records[0]["tables"]["training_cost"] = [{"steps": 1, "train_seconds": 2.5}]
    update_ledger(folder / "results" / "ledger" / "s.jsonl", {record["id"]: record for record in records})
    report(*where, render=False)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("[!.]*.*") if path.is_file()}
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed == {"s.jsonl", "training_cost.csv"} | {name for name in changed if name.endswith(".lock")}


def test_a_picture_without_date_and_version(ledger):
    folder, _ = ledger
    report(folder / "results", folder / "figures", folder / "runs", render=False)
    for path in folder.rglob("*.png"):
        with Image.open(path) as picture:
            assert set(picture.info) <= {"dpi", "transparency", "Description"} and picture.mode == "P", path


def test_names_of_users_go_through_every_table_and_figure(tmp_path, hostile_names):
    """Benchmarks, classes and recordings by any name: tables keep their shape, and nothing leads out of its
    folder."""
    records = []
    for number, name in enumerate(hostile_names):
        for model in ("bilstm", "tadtr"):
            for fraction in (0.1, 1.0):
                entry = record(model, fraction, 0, {0.5: 0.5}, benchmark=f"{name}/../{number}")
                entry["id"] = f"{number}{model}{fraction}"
                entry["tables"]["class_ap"] = [
                    {"label": label, "tiou": 0.5, "ap": 0.5 + 0.01 * place}
                    for place, label in enumerate(hostile_names)
                ]
                entry["tables"]["subset_recordings"] = [
                    {"fraction": fraction, "recording": recording} for recording in hostile_names
                ]
                records.append(entry)
    update_ledger(tmp_path / "results" / "ledger" / "s.jsonl", {entry["id"]: entry for entry in records[:8]})
    done = report(tmp_path / "results", tmp_path / "figures", tmp_path / "runs", render=False)
    for path in (*done.tables, *done.figures):
        assert path.resolve().is_relative_to(tmp_path / ("figures" if path.suffix == ".png" else "results"))
    classes = [path for path in done.tables if path.name.startswith("classes_")]
    assert len(classes) == 4
    for path in classes:
        lines = path.read_text().splitlines()
        assert len(lines) == 4 + len(hostile_names)
        rows = [re.findall(r"(?<!\\)\|", line) for line in lines[2:]]
        assert {len(row) for row in rows} == {4}
        _, table = tables.read_table(path)
        assert set(table["class"]) == set(hostile_names)
        raw = path.with_suffix(".csv").read_text()
        assert "'=cmd()" in raw and "'@SUM" in raw
    stored = tables.read_parquet(tmp_path / "results" / "tables" / "class_ap.parquet")
    assert set(stored.label) == set(hostile_names)


def test_a_label_with_dollars_is_not_mathematics():
    axes = figures.ap_by_class(pd.DataFrame({"label": ["$x^2$", "$\\frac{$"], "tiou": 0.5, "ap": [0.1, 0.2]}))
    axes.figure.canvas.draw()
    assert {label.get_text() for label in axes.get_yticklabels()} == {"$x^2$", "$\\frac{$"}
    assert not any(label.get_parse_math() for label in axes.get_yticklabels())
    plt.close(axes.figure)


def test_rows_of_uncommitted_code_are_counted(ledger, monkeypatch):
    folder, records = ledger
    for entry in records[:3]:
        entry["provenance"] = entry["provenance"] | {"git_commit": "abc+"}
    update_ledger(folder / "results" / "ledger" / "s.jsonl", {entry["id"]: entry for entry in records})
    stale = pd.DataFrame([["s", "c", "n", "a", "1", "2"]], columns=provenance.STALE)
    monkeypatch.setattr(sweeps, "stale_records", lambda results: stale, raising=False)
    done = report(folder / "results", folder / "figures", folder / "runs", render=False)
    assert done.origin == provenance.Origin(cells=8, uncommitted=3, stale=1)
    assert provenance.read(Layout(folder / "results")) == done.origin
    text = done.origin.sentence()
    assert "3 of 8 runs (cells)" in text and "1 were computed by older code or from older data" in text
    assert pd.read_csv(folder / "results" / "tables" / "stale.csv").cell.tolist() == ["c"]
    rows = pd.DataFrame({"cell": ["a", "a:hapt_recomposed_test", "b"], "git_commit": ["x+", "x+", "y"]})
    assert provenance.origin([rows, rows[:1]], 0) == provenance.Origin(cells=2, uncommitted=1, stale=0)
    assert provenance.origin([], 0) == provenance.Origin(cells=0, uncommitted=0, stale=0)


def test_a_cost_measured_again_replaces_the_old_one():
    rows = pd.DataFrame(
        {"model": ["a", "b", "a"], "length_steps": [9, 9, 9], "utc": ["2", "1", "1"], "macs": [5, 6, 7]}
    )
    assert tables.newest(rows).values.tolist() == [["a", 9, "2", 5], ["b", 9, "1", 6]]


def test_costs_of_a_network_that_has_changed_are_left_out_at_every_length():
    def rows(model, cell, utc, **macs):
        about = {"benchmark": "b", "model": model, "preset": "paper", "options": "", "cell": cell, "utc": utc}
        return [about | {"length_steps": int(steps[1:]), "macs": value} for steps, value in macs.items()]

    table = pd.DataFrame(
        rows("bmn", "old", "2026-01-01", n400=40.0, n800=80.0)
        + rows("bmn", "new", "2026-02-01", n100=12.0, n200=24.0)
        + rows("bsn", "old", "2026-01-01", n400=20.0, n800=40.0)
        + rows("bsn", "new", "2026-02-01", n100=5.1, n200=10.1)
    )
    kept = tables.of_the_present_network(table)
    assert kept[kept.model == "bmn"].macs.tolist() == [12.0, 24.0]
    assert len(kept[kept.model == "bsn"]) == 4
    assert tables.of_the_present_network(table.iloc[:0]).empty


def test_macs_that_a_gpu_did_not_count_are_those_of_the_same_network():
    about = {"benchmark": "b", "model": "bmn", "preset": "paper", "options": "", "length_steps": 100}
    table = pd.DataFrame(
        [
            about | {"params": 7, "macs": 11.0, "uncounted_ops": "", "utc": "1"},
            about | {"params": 7, "macs": 12.0, "uncounted_ops": "sort", "utc": "2"},  # the newest counts
            about | {"params": 7, "macs": None, "uncounted_ops": None, "utc": "3"},
            about | {"params": 8, "macs": None, "uncounted_ops": None, "utc": "3"},  # another network
            about | {"params": 7, "macs": None, "uncounted_ops": None, "utc": "3", "length_steps": 200},
        ]
    )
    filled = tables.with_counted_macs(table)
    assert filled.macs.tolist()[:3] == [11.0, 12.0, 12.0] and filled.macs[3:].isna().all()
    assert filled.uncounted_ops[2] == "sort" and filled.index.equals(table.index)
    assert tables.with_counted_macs(table.iloc[:2]) is not None
    assert tables.with_counted_macs(table[["model"]]).equals(table[["model"]])


def test_machines_are_not_mixed(tmp_path):
    rows = [("a", "one", 0.001), ("b", "one", 0.002), ("a", "the other (R), 2 cores", 0.009)]
    records = []
    for number, (model, machine, latency) in enumerate(rows):
        entry = record(model, 1.0, 0, {0.5: 0.5})
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
            "provenance": entry["provenance"] | {"device_name": machine},
        }
        records.append(entry | about | {"id": str(number), "tables": {"inference_cost": [cost]}})
    update_ledger(tmp_path / "results" / "ledger" / "s.jsonl", {entry["id"]: entry for entry in records})
    report(tmp_path / "results", tmp_path / "figures", tmp_path / "runs", render=False)
    first, second = (
        pd.read_csv(tmp_path / "results" / "readers" / "cost" / f"latency_b_cpu{name}.csv")
        for name in ("", "_the_other_r_2_cores")
    )
    assert first.values.tolist() == [["a", 1], ["b", 2]] and second.values.tolist() == [["a", 9]]
    caption = (tmp_path / "results" / "readers" / "cost" / "latency_b_cpu_the_other_r_2_cores.md").read_text()
    assert "the other (R), 2 cores, 1 thread" in caption


def test_a_record_that_another_ledger_has_is_not_added_again(ledger):
    folder, records = ledger
    results, runs = folder / "results", folder / "runs"
    newer = records[1] | {"provenance": records[1]["provenance"] | {"utc": "q"}}
    for entry in (records[0], newer):
        cell = runs / "t" / entry["id"]
        cell.mkdir(parents=True)
        (cell / RESULT).write_text(json.dumps(entry))
    report(results, folder / "figures", runs, render=False)
    assert list(read_ledger(results / "ledger" / "t.jsonl")) == [newer["id"]]


def test_nothing_to_report(tmp_path):
    with pytest.raises(TalError, match=f"tal sweep .* --results {tmp_path}"):
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
    front = pareto_front(cost, gain)
    for i in range(len(points)):
        beaten = any(
            cost[j] <= cost[i] and gain[j] >= gain[i] and (cost[j] < cost[i] or gain[j] > gain[i])
            for j in range(len(points))
        )
        assert front[i] == (not beaten)


def test_figures_have_units_and_names_at_the_ends():
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
    assert "%" in ax.get_ylabel() and not ax.get_legend()
    assert [text.get_text() for text in ax.texts] == ["bilstm", "tadtr"]  # at the lines' ends, from below
    cost = pd.DataFrame({"model": ["bilstm"] * 2, "length_steps": [10, 100], "v": [1.0, 10.0]})
    assert "steps" in figures.cost_against_length(cost, "v", "GMACs").get_xlabel()
    plt.close("all")


def test_the_large_table_is_parquet_and_comes_back(tmp_path):
    table = pd.DataFrame({"label": ["x", None, "=y"], "ap": [0.1, None, 1 / 3], "seed": [1, 2, 3]})
    path = tables.write_parquet(table, tmp_path / "t.parquet")
    before = path.stat().st_mtime_ns
    assert tables.read_parquet(path).ap.tolist()[2] == 1 / 3
    tables.write_parquet(table, path)
    assert path.stat().st_mtime_ns == before
    path.write_bytes(path.read_bytes()[:50])  # damaged
    with pytest.raises(TalError, match="was changed since it was written"):
        tables.write_parquet(table, path)
    with overwriting():
        tables.write_parquet(table, path)
    assert len(tables.read_parquet(path)) == 3
    tables.write_parquet(table.assign(ap=0.0), path)
    assert tables.read_parquet(path).ap.tolist() == [0.0, 0.0, 0.0]


@given(st.text(max_size=40))
def test_a_name_stays_in_its_folder(name):
    stem = file_stem(name)
    assert Path(stem).name == stem and stem not in (".", "..") and len(stem) <= 150


def test_small_pictures_are_the_same_pictures():
    rng = np.random.default_rng(0)
    for colours in (4, 200):
        pixels = rng.integers(0, 255, (colours, 4)).astype("uint8")[rng.integers(0, colours, (40, 50))]
        pixels[..., 3] = 255
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG", pnginfo=None, dpi=(110, 110))
        small = small_png(content.getvalue())
        with Image.open(io.BytesIO(small)) as picture:
            assert np.abs(np.asarray(picture.convert("RGB"), int) - pixels[..., :3]).max() <= 24
            assert picture.mode == "P" and round(picture.info["dpi"][0]) == 110
        assert small_png(small) == small and len(small) < len(content.getvalue())
    noise = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (64, 64, 3)).astype("uint8")).save(noise, "PNG")
    with Image.open(io.BytesIO(small_png(noise.getvalue()))) as picture:
        assert picture.mode == "RGB"  # no palette holds it


def test_many_models_have_a_panel_per_family_and_every_name_is_apart():
    names = ["local_global", "actionformer", "tridet", "bmn", "bsn", "bilstm", "tadtr", "not_registered"]
    rows = [
        {"model": name, "length_steps": steps, "v": steps * (1 + 0.01 * place)}
        for place, name in enumerate(names)
        for steps in (288, 576)
    ]
    first = figures.cost_against_length(pd.DataFrame(rows), "v", "GMACs")
    panels = first.figure.axes
    titles = [ax.get_title(loc="left") for ax in panels]
    assert titles == ["one stage", "proposals", "other families"]
    assert [[text.get_text() for text in ax.texts] for ax in panels] == [names[:3], names[3:5], names[5:]]
    assert [ax.get_xlabel() for ax in panels] == ["", "", "recording length (steps, log scale)"]
    assert all(len(ax.lines) == len(names) for ax in panels)  # the others are there in grey
    for ax in panels:
        heights = [text.get_position()[1] for text in ax.texts]
        assert min(np.diff(heights)) >= 0.06
    few = figures.cost_against_length(pd.DataFrame(rows[:12]), "v", "GMACs")
    assert (
        len(few.figure.axes) == 1 and few.get_ylabel() == first.figure.get_supylabel() == "GMACs, log scale"
    )
