"""A sweep's detections in one file: what is kept, and that it gives the runs' own scores."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest

from tal_lib import TalError, evaluation, sweeps
from tal_lib.cli import main
from tal_lib.sweeps import detections as kept

LABELS = ("x", "y")


def random_detections(seed, count=40):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 50, count)
    return pd.DataFrame(
        {
            "recording": rng.choice(["a", "b"], count),
            "start": start,
            "end": start + rng.uniform(0.5, 5, count),
            "label": rng.choice(LABELS, count),
            "score": rng.random(count),
        }
    )


@pytest.fixture
def runs(tmp_path):
    """Two finished runs and one that failed."""
    for name, seed in (("cell0", 0), ("cell1", 1), ("half", 2)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        evaluation.write_detections(folder / kept.WRITTEN, random_detections(seed))
        parameters = {"benchmark": "hapt", "model": "tridet", "fraction": 0.1, "fold": 0, "seed": seed}
        record = {"id": name, "notebook": "02_train_evaluate.ipynb", "parameters": parameters}
        if name != "half":
            (folder / "cell.json").write_text(json.dumps(record))
    return tmp_path


def test_the_best_of_each_recording_are_kept(runs):
    target = kept.file_of(runs / "results", "main", "hapt")
    assert kept.collect(runs / "runs", target.parent, {"cell0", "cell1", "half"}, best=5) == 2
    table = pd.read_parquet(target)
    assert list(table.columns) == list(kept.COLUMNS)
    assert (table.groupby(["cell", "recording"], observed=True).size() == 5).all()
    truth = random_detections(0)
    for recording, rows in table[table.cell == "cell0"].groupby("recording", observed=True):
        best = truth[truth.recording == recording].nlargest(5, "score")
        assert rows.score.to_numpy() == pytest.approx(best.score.to_numpy())
        assert rows.start_cs.to_numpy() / 100 == pytest.approx(best.start.to_numpy(), abs=0.00501)


def test_it_grows_and_forgets_cells_of_other_code(runs):
    target = kept.file_of(runs / "results", "main", "hapt")
    assert kept.collect(runs / "runs", target.parent, {"cell0"}, best=5) == 1
    before = target.stat().st_mtime_ns
    assert kept.collect(runs / "runs", target.parent, {"cell0"}, best=5) == 1
    assert target.stat().st_mtime_ns == before
    assert kept.collect(runs / "runs", target.parent, {"cell0", "cell1"}, best=5) == 2
    (runs / "runs" / "cell0" / kept.WRITTEN).unlink()  # the file keeps what the run folder lost
    assert kept.collect(runs / "runs", target.parent, {"cell0", "cell1"}, best=5) == 2
    assert kept.collect(runs / "runs", target.parent, {"cell1"}, best=5) == 1


def test_a_run_that_is_older_than_its_record_gives_no_detections(runs):
    """The ledger and the file came newer from elsewhere; the run folder here is of an earlier generation."""
    target = kept.file_of(runs / "results", "main", "hapt")
    kept.collect(runs / "runs", target.parent, {"cell0"}, best=5)
    before = target.read_bytes()
    path = runs / "runs" / "cell0" / "cell.json"
    record = json.loads(path.read_text()) | {"generation": 0, "provenance": {"utc": "2026-01-01"}}
    path.write_text(json.dumps(record))
    again = evaluation.write_detections(runs / "runs" / "cell0" / kept.WRITTEN, random_detections(7))
    later = target.stat().st_mtime_ns + 10**9
    os.utime(again, ns=(later, later))
    known = {"cell0": record | {"generation": 1}}
    assert kept.collect(runs / "runs", target.parent, {"cell0"}, best=5, known=known) == 1
    assert target.read_bytes() == before
    kept.collect(runs / "runs", target.parent, {"cell0"}, best=5, known={"cell0": record})
    assert target.read_bytes() != before


def test_a_run_that_was_made_again_replaces_its_detections(runs):
    target = kept.file_of(runs / "results", "main", "hapt")
    kept.collect(runs / "runs", target.parent, {"cell0", "cell1"}, best=5)
    other = pd.read_parquet(target).query("cell == 'cell1'").score.tolist()
    again = evaluation.write_detections(runs / "runs" / "cell0" / kept.WRITTEN, random_detections(7))
    later = target.stat().st_mtime_ns + 10**9
    os.utime(again, ns=(later, later))
    assert kept.collect(runs / "runs", target.parent, {"cell0", "cell1"}, best=5) == 2
    table = pd.read_parquet(target)
    assert (table.groupby(["cell", "recording"], observed=True).size() == 5).all()
    assert table[table.cell == "cell0"].score.max() == pytest.approx(random_detections(7).score.max())
    assert table[table.cell == "cell1"].score.tolist() == other


def test_a_cell_that_another_sweep_has_run_is_in_both_files(runs):
    """The runs of `main` are cells of `plain` too; one detected nothing."""
    silent = runs / "runs" / "cell1" / kept.WRITTEN
    evaluation.write_detections(silent, random_detections(1).iloc[:0])
    main_file, plain_file = (kept.file_of(runs / "results", name, "hapt") for name in ("main", "plain"))
    kept.collect(runs / "runs", main_file.parent, {"cell0", "cell1"}, best=5)
    assert kept.collect(runs / "none", plain_file.parent, {"of plain alone"}, best=5) == 0
    assert not plain_file.exists()
    assert kept.collect(runs / "none", plain_file.parent, {"cell0", "cell1"}, best=6) == 0  # too few
    assert kept.collect(runs / "none", plain_file.parent, {"cell0", "cell1", "of plain alone"}, best=4) == 2
    whole, copied = pd.read_parquet(main_file), pd.read_parquet(plain_file)
    best = whole.groupby(["cell", "recording"], observed=True).head(4).reset_index(drop=True)
    pd.testing.assert_frame_equal(copied, best, check_categorical=False)
    assert [row["cell"] for row in kept.without_any(copied)] == ["cell1"]
    assert kept.kept_less(runs / "none", plain_file.parent, {"cell0", "cell1"}, 4) == {}
    written = plain_file.stat().st_mtime_ns
    assert kept.collect(runs / "none", plain_file.parent, {"cell0", "cell1", "of plain alone"}, best=4) == 2
    assert plain_file.stat().st_mtime_ns == written


def test_where_no_run_of_today_is_finished_nothing_is_kept(runs):
    target = kept.file_of(runs / "results", "main", "hapt")
    kept.collect(runs / "runs", target.parent, {"cell0"}, best=5)
    assert kept.collect(runs / "runs", target.parent, {"of other code"}, best=5) == 0
    assert list(pd.read_parquet(target).columns) == list(kept.COLUMNS)
    assert kept.collect(runs / "runs", target.parent, {"cell1"}, best=5) == 1


def annotation_file(truth, path):
    """Write annotations of recordings `a` and `b` in ActivityNet's form."""
    database = {
        name: {
            "subset": "testing",
            "duration": 60.0,
            "annotations": [
                {"label": row.label, "segment": [row.start, row.end]}
                for row in truth[truth.recording == name].itertuples()
            ],
        }
        for name in ("a", "b")
    }
    path.write_text(json.dumps({"database": database}))
    return path


def test_tal_eval_scores_one_run_of_the_file(runs, capsys):
    target = kept.file_of(runs / "results", "main", "hapt")
    kept.collect(runs / "runs", target.parent, {"cell0", "cell1"}, best=100)
    truth = random_detections(5, 12).drop(columns="score")
    annotations = annotation_file(truth, runs / "truth.json")
    assert main(["eval", str(target), str(annotations)]) == 2
    assert "holds 2 runs, which differ in seed" in capsys.readouterr().err
    assert main(["eval", str(target), str(annotations), "--only", "seed=1"]) == 0
    exact = evaluation.mean_average_precision(truth, random_detections(1), [0.3, 0.4, 0.5, 0.6, 0.7]).mean()
    assert f"avg mAP {100 * exact:.2f} %" in capsys.readouterr().out
    assert main(["eval", str(target), str(annotations), "--only", "seed=7"]) == 2
    assert main(["eval", str(target), str(annotations), "--only", "sed=1"]) == 2
    assert main(["eval", str(runs / "runs/cell0/detections.json"), str(annotations), "--only", "seed=1"]) == 2
    with pytest.raises(TalError, match="7"):
        evaluation.read_detections(target, {"seed": "7"})


@pytest.fixture
def also(runs):
    """`cell0` was tested on two further benchmarks, of which it wrote one."""
    folder = runs / "runs" / "cell0"
    record = json.loads((folder / "cell.json").read_text())
    record["parameters"]["also"] = ["shuffled", "lost"]
    (folder / "cell.json").write_text(json.dumps(record))
    evaluation.write_detections(folder / kept.WRITTEN_TOO.format("shuffled"), random_detections(3))
    return runs


def test_each_benchmark_has_a_file(also):
    folder = kept.file_of(also / "results", "main")
    collect = lambda cells: kept.collect(also / "runs", folder, cells, best=5)
    assert collect({"cell0", "cell1"}) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["hapt.parquet", "shuffled.parquet"]
    hapt, shuffled = (
        pd.read_parquet(kept.file_of(also / "results", "main", n)) for n in ("hapt", "shuffled")
    )
    assert set(hapt.cell) == {"cell0", "cell1"} and set(hapt.benchmark) == {"hapt"}
    assert set(shuffled.cell) == {"cell0"} and set(shuffled.benchmark) == {"shuffled"}
    best = random_detections(3).groupby("recording").score.nlargest(5).sort_values()
    assert np.sort(shuffled.score) == pytest.approx(best.to_numpy())
    combined = pd.read_parquet(folder)  # the folder is one table
    assert len(combined) == len(hapt) + len(shuffled) and set(combined.columns) == set(kept.COLUMNS)
    assert collect({"cell1"}) == 1  # the other's file forgets the cell too
    assert not len(pd.read_parquet(kept.file_of(also / "results", "main", "shuffled")))


def test_tal_eval_reads_the_file_of_a_further_benchmark(also, tmp_path, capsys):
    kept.collect(also / "runs", kept.file_of(also / "results", "main"), {"cell0", "cell1"}, best=100)
    truth = random_detections(5, 12)
    annotations = annotation_file(truth, tmp_path / "truth.json")
    file = kept.file_of(also / "results", "main", "shuffled")
    assert main(["eval", str(file), str(annotations)]) == 0
    exact = evaluation.mean_average_precision(truth, random_detections(3), [0.3, 0.4, 0.5, 0.6, 0.7]).mean()
    assert f"avg mAP {100 * exact:.2f} %" in capsys.readouterr().out


def test_a_raised_number_is_read_again_where_the_run_still_is(also):
    folder, cells = kept.file_of(also / "results", "main"), {"cell0", "cell1"}
    kept.collect(also / "runs", folder, cells, best=3)
    (also / "runs" / "cell1" / kept.WRITTEN).unlink()
    assert kept.collect(also / "runs", folder, cells, best=5) == 2
    counts = pd.read_parquet(folder).groupby(["benchmark", "cell", "recording"], observed=True).size()
    assert set(counts.xs("cell0", level="cell")) == {5} and set(counts.xs("cell1", level="cell")) == {3}
    assert kept.kept_less(also / "runs", folder, [*cells, "gone"], 5) == {"cell1": 3, "gone": 0}
    assert len(kept.kept_lines([3, 3, 0], 5)) == 2


def test_a_run_without_detections_is_written_once_and_named(runs):
    folder = kept.file_of(runs / "results", "main")
    evaluation.write_detections(runs / "runs" / "cell0" / kept.WRITTEN, random_detections(0).iloc[:0])
    kept.collect(runs / "runs", folder, {"cell0", "cell1"}, best=5)
    before = kept.file_of(runs / "results", "main", "hapt").stat().st_mtime_ns
    assert kept.collect(runs / "runs", folder, {"cell0", "cell1"}, best=5) == 2
    assert kept.file_of(runs / "results", "main", "hapt").stat().st_mtime_ns == before
    empty = lambda: kept.without_any(pd.read_parquet(kept.file_of(runs / "results", "main", "hapt")))
    assert [(row["cell"], row["model"], row["fold"]) for row in empty()] == [("cell0", "tridet", 0)]
    evaluation.write_detections(runs / "runs" / "cell0" / kept.WRITTEN, random_detections(0))
    kept.collect(runs / "runs", folder, {"cell0", "cell1"}, best=5)
    assert empty() == []


def test_a_file_that_does_not_record_its_number(runs):
    folder, target = (kept.file_of(runs / "results", "main", *name) for name in ((), ("hapt",)))
    kept.collect(runs / "runs", folder, {"cell0", "cell1"}, best=5)
    table = pd.read_parquet(target)
    table.attrs.clear()
    table.to_parquet(target, index=False)
    (runs / "runs" / "cell0" / kept.WRITTEN).unlink()
    assert kept.kept_less(runs / "runs", folder, ["cell0", "cell1"], 6) == {"cell0": 5}


WRITES = """import json
rows = [{"segment": [0, n + 1], "label": "x", "score": n / 10} for n in range(9)]
(Path(out_dir) / "detections.json").write_text(json.dumps({"results": {"r": rows}}))"""


def test_finished_cells_that_keep_the_old_number_are_told(project, capsys):
    """A dry run and a run say it; `--again` mends it."""

    def sweep(number, *options):
        grid = project.make((1, 2), shown=WRITES)
        grid.write_text(json.dumps(json.loads(grid.read_text()) | {"detections": number}))
        where = ["--results", project.where["results"], "--runs", project.where["runs"]]
        assert main(["sweep", str(grid), *where, *options]) == 0
        return capsys.readouterr().out

    def size():
        return len(pd.read_parquet(kept.file_of(project.where["results"], "grid")))

    assert (
        "detections of each" not in sweep(0) + sweep(5) and size() == 10
    )  # added to a finished grid: from its run folders
    assert "detections of each" not in sweep(7, "--dry-run") + sweep(7) and size() == 14
    shutil.rmtree(project.runs)
    told = (
        "2 finished cells keep the best 7 detections of each recording, the grid asks for 9; `--again` runs"
    )
    assert told in sweep(9, "--dry-run") and told in sweep(9) and size() == 14
    assert "detections of each" not in sweep(9, "--again") and size() == 18
    shutil.rmtree(kept.file_of(project.where["results"], "grid"))
    shutil.rmtree(project.runs)
    assert "2 finished cells keep no detections of each recording" in sweep(9)


def test_detections_of_older_code_stay_until_the_cell_runs_again(project):
    """Tables show the record of older code too. A sweep that runs nothing must not drop what it detected."""
    detected = (
        "from tal_lib.evaluation import write_detections\n"
        "columns = 'recording start end label score'.split()\n"
        "table = pd.DataFrame([('r', 1.0, 2.0, 'x', 0.5)], columns=columns)\n"
        "write_detections(out_dir + '/detections.json', table)"
    )

    def make(**more):
        grid = project.make((1,), shown=detected, **more)
        grid.write_text(json.dumps(json.loads(grid.read_text()) | {"detections": 5}))
        return grid

    sweeps.run(make(), **project.where)
    target = kept.file_of(project.where["results"], "grid", "all")
    before = pd.read_parquet(target).cell.tolist()
    shutil.rmtree(project.runs)
    grid = make(sleep=0.001)
    assert len(sweeps.run(grid, **project.where).stale) == 1
    assert pd.read_parquet(target).cell.tolist() == before
    assert sweeps.run(grid, again_stale=True, **project.where).done_now == 1
    after = pd.read_parquet(target).cell.tolist()
    assert len(after) == 1 and after != before
