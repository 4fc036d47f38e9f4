"""Sweeps as they really run: processes, a killed driver, failing cells, resumed ledgers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import numpy as np
import pytest

from tal_lib import TalError, sweeps
from tal_lib.cli import main
from tal_lib.files import REPOSITORY
from tal_lib.sweeps import identity
from tal_lib.sweeps.ledger import finished_runs, read_ledger, update_ledger


def test_runs_each_cell_once_and_resumes(project, capsys):
    grid = project.make()
    arguments = [
        str(grid),
        "--jobs",
        "2",
        "--results",
        project.where["results"],
        "--runs",
        project.where["runs"],
    ]
    assert main(["sweep", *arguments]) == 0
    assert project.log() == [1, 2, 3, 4] and project.squares() == [(n, n * n) for n in (1, 2, 3, 4)]
    before = project.ledger.read_bytes()
    assert main(["sweep", *arguments]) == 0 and project.log() == [1, 2, 3, 4]
    shutil.rmtree(project.where["runs"])  # a fresh clone: the ledger alone is enough
    assert (
        main(["sweep", *arguments]) == 0
        and project.log() == [1, 2, 3, 4]
        and project.ledger.read_bytes() == before
    )
    project.make(numbers=(1, 2, 3, 4, 5))
    assert main(["sweep", *arguments]) == 0 and project.log() == [1, 2, 3, 4, 5]
    record = next(iter(read_ledger(project.ledger).values()))
    assert {"git_commit", "torch_version", "device_name", "config_hash", "utc"} <= set(record["provenance"])
    assert "5 cells: 4 were done, 1 done now, 0 failed" in capsys.readouterr().out


def test_an_older_run_folder_does_not_replace_a_newer_record(project):
    """The ledger came from elsewhere; then the folder of the older run was touched or copied."""
    grid = project.make(numbers=(1,))
    sweeps.run(grid, **project.where)
    ((name, record),) = read_ledger(project.ledger).items()
    newer = record | {
        "generation": record.get("generation", 0) + 1,
        "tables": {"squares": [{"number": 1, "square": 7}]},
    }
    update_ledger(project.ledger, {name: newer})
    later = time.time() + 60
    os.utime(project.runs / name / "cell.json", (later, later))
    os.utime(project.runs / name, (later, later))
    assert list(finished_runs(project.runs)) == [name] and not finished_runs(project.runs, project.ledger)
    sweeps.run(grid, **project.where)
    assert project.squares() == [(1, 7)]


def test_a_failing_cell_stops_nothing_and_is_tried_again(project, capsys):
    grid = project.make(numbers=(1, 2, 3), fail=(2,))
    arguments = ["sweep", str(grid), "--results", project.where["results"], "--runs", project.where["runs"]]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "1 failed" in out and "told to fail" in out and project.squares() == [(1, 1), (3, 9)]
    failed = next((project.ledger.parent.parent.parent / "runs" / "grid").glob("*.failed"))
    notebook = nbformat.read(failed / "notebook.ipynb", as_version=4)
    assert any("told to fail" in str(cell.get("outputs")) for cell in notebook.cells)
    assert main(arguments) == 1 and project.log() == [1, 2, 2, 3]  # only the failed one again


def test_again_replaces_what_is_there(project):
    grid = project.make(numbers=(1,))
    first = sweeps.run(grid, **project.where)
    before = next(iter(finished_runs(first.runs).values()))["provenance"]["utc"]
    second = sweeps.run(grid, resume=False, **project.where)
    assert not second.failed and project.log() == [1, 1]
    assert next(iter(finished_runs(second.runs).values()))["provenance"]["utc"] >= before
    assert [path.name for path in second.runs.iterdir() if path.name.startswith(".") and path.is_dir()] == []


def test_files_of_a_user_in_a_run_folder_stop_the_sweep(project):
    grid = project.make(numbers=(1,))
    first = sweeps.run(grid, **project.where)
    (folder,) = (path for path in first.runs.iterdir() if path.is_dir())
    (folder / ".ipynb_checkpoints").mkdir()  # of Jupyter, when somebody looked at the notebook
    (folder / ".ipynb_checkpoints" / "notebook.ipynb").write_text("a copy")
    notes = folder / "notes.csv"
    notes.write_text("1,2")
    with pytest.raises(TalError, match="notes.csv.*was not written by `tal sweep`"):
        sweeps.run(grid, resume=False, **project.where)
    assert notes.read_text() == "1,2" and project.log() == [1]
    (folder / "cell.json").write_text((folder / "cell.json").read_text() + "\n")  # by an editor
    with pytest.raises(TalError, match="notes.csv"):
        sweeps.run(grid, resume=False, **project.where)
    notes.unlink()
    assert sweeps.run(grid, resume=False, **project.where).complete and project.log() == [1, 1]


def test_a_failed_notebook_that_was_edited_is_not_removed(project):
    grid = project.make(numbers=(1,), fail=(2,))
    sweeps.run(grid, **project.where)
    (notebook,) = project.runs.glob("*.failed/notebook.ipynb")
    assert sweeps.run(grid, **project.where).failed and project.log() == [1, 2, 2]  # unchanged: tried again
    notebook.write_text(notebook.read_text() + "\n")
    with pytest.raises(TalError, match="was changed since. Move it elsewhere"):
        sweeps.run(grid, **project.where)
    assert notebook.is_file() and project.log() == [1, 2, 2]


def test_code_that_is_edited_while_it_is_timed_gives_no_result(project):
    """A measurement starts processes of its own: the last ones would have the new code."""
    grid = project.make(numbers=(1,), alone=True)
    notebook = project.folder / "notebooks" / "work.ipynb"
    project.set_fault(
        f"path = Path({str(notebook)!r})\npath.write_text(path.read_text().replace('** 2', '** 3'))"
    )
    with pytest.raises(TalError, match="changed while its sweep ran"):
        sweeps.run(grid, **project.where)
    project.set_fault()
    assert not project.finished() and not read_ledger(project.ledger)
    assert sweeps.run(grid, **project.where).complete and project.squares() == [(1, 1)]


def test_a_notebook_that_records_nothing_is_told(project):
    grid = project.make(numbers=(1,))
    project.set_fault("record = lambda *_, **__: None")
    (reason,) = sweeps.run(grid, **project.where).failed.values()
    assert reason == "work.ipynb recorded nothing: it must call tal_lib.sweeps.record"


def start(grid, where):
    code = f"from tal_lib import sweeps; sweeps.run({str(grid)!r}, jobs=2, **{where!r})"
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}
    )


def test_killed_midway_gives_the_same_tables(project):
    numbers = (1, 2, 3, 4, 5)
    grid = project.make(numbers, sleep=0.7)
    driver = start(grid, project.where)
    folder = project.ledger.parent.parent.parent / "runs" / "grid"
    deadline = time.time() + 120
    while not finished_runs(folder) and time.time() < deadline:
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(1.0)  # the orphans notice and leave
    done = len(finished_runs(folder))
    assert 1 <= done < 5
    time.sleep(1.5)
    assert len(finished_runs(folder)) == done
    result = sweeps.run(grid, jobs=2, **project.where)
    assert result.complete and project.squares() == [(n, n * n) for n in numbers]
    finished = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    assert len(finished) == 5 and not list(folder.glob("*.failed")) and not list(folder.glob(".*.part"))
    # what was whole before the kill was not run again
    assert result.done_before >= done and len(project.log()) <= 5 + 2  # two were under way


def test_two_sweeps_at_once_are_kept_apart(project):
    grid = project.make((1, 2), sleep=2.0)
    driver = start(grid, project.where)
    lock = project.ledger.parent.parent.parent / "runs" / "grid" / ".lock"
    deadline = time.time() + 60
    while not (lock.exists() and list(lock.parent.glob(".*.part"))) and time.time() < deadline:
        time.sleep(0.05)
    with pytest.raises(TalError, match="another sweep"):
        sweeps.run(grid, **project.where)
    assert driver.wait(timeout=120) == 0 and project.log() == [1, 2]


def test_a_changed_notebook_is_another_cell(project):
    first = {cell.id for cell in sweeps.plan(project.make((1, 2)))}

    assert not first & {cell.id for cell in sweeps.plan(project.make((1, 2), sleep=0.5))}


def test_what_is_only_shown_does_not_make_another_cell(project):
    before = sweeps.plan(project.make())
    assert sweeps.plan(project.make(shown="print('after the tables')")) == before
    assert not {cell.id for cell in sweeps.plan(project.make(sleep=0.001))} & {cell.id for cell in before}


def test_what_one_machine_measured_is_not_done_on_another(project, monkeypatch):
    grid = project.make((1, 2), alone=True)
    assert sweeps.run(grid, **project.where).complete
    here = sweeps.read_all(project.where["results"])
    assert (
        {record["machine"] for record in here}
        == {record["provenance"]["device_name"] for record in here}
        != {""}
    )
    assert sweeps.run(grid, **project.where).done_now == 0
    monkeypatch.setattr(sweeps.grid, "device_name", lambda device: "another")
    assert sweeps.run(grid, **project.where).done_now == 2  # beside what was there, not in its place
    both = sweeps.read_all(project.where["results"])
    assert sorted(record["machine"] for record in both) == sorted(["another"] * 2 + [here[0]["machine"]] * 2)
    assert {record["provenance"]["device_name"] for record in both} == {"another", here[0]["machine"]}
    assert not {cell.id for cell in sweeps.plan(grid, here=False)} & {
        record["id"] for record in both
    }  # a cluster's machines are not known
    project.make((1, 2))  # what measures no time is the same everywhere
    assert "machine" not in read_ledger(project.ledger) and len({cell.id for cell in sweeps.plan(grid)}) == 2
    assert {cell.id for cell in sweeps.plan(grid)} == {cell.id for cell in sweeps.plan(grid, here=False)}


def test_only_and_dry_run(project, capsys):
    grid = project.make()
    assert main(["sweep", str(grid), "--dry-run", "--only", "number=3"]) == 0
    assert "1 cells, 1 to do" in capsys.readouterr().out
    assert main(["sweep", str(grid), "--only", "colour=3"]) == 2
    assert main(["sweep", str(grid), "--only", "number=77"]) == 2
    assert project.log() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cells: [", "not valid YAML"),
        ("[]", "a grid holds"),
        ("cells: [{notebook: none.ipynb}]", "notebook 'none.ipynb' not found"),
        ("cells: [{notebook: work.ipynb, grid: {number: 3}}]", "not a list"),
        ("cells: [{grid: {}}]", "notebook is missing"),
        ("cells: [{notebook: work.ipynb, grid: {nummer: [3]}}]", "unknown parameter 'nummer'"),
        ("cells: [{notebook: work.ipynb, grid: {number: ['x']}}]", "not a whole number"),
        ("surprise: 1\ncells: []", "unknown entry 'surprise'"),
    ],
)
def test_bad_grids_are_named(project, text, message):
    grid = project.make()
    grid.write_text(text)
    with pytest.raises(TalError, match=message) as error:
        sweeps.plan(grid)
    assert ".yaml" in str(error.value) or ".ipynb" in str(error.value)


def test_a_broken_ledger_line_is_named_and_nothing_overwritten(tmp_path):
    path = tmp_path / "l.jsonl"
    path.write_text('{"id": "a"}\n{"id": "b"')
    with pytest.raises(TalError, match="l.jsonl, line 2"):
        update_ledger(path, {"c": {"id": "c"}})
    assert path.read_text() == '{"id": "a"}\n{"id": "b"'


def test_half_written_runs_are_not_read(tmp_path):
    for name, text in (
        ("good", '{"id": "good"}'),
        ("cut", '{"id": "cu'),
        ("other", '{"id": "moved"}'),
        (".x.part", '{"id": ".x.part"}'),
        ("y.failed", '{"id": "y.failed"}'),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cell.json").write_text(text)
    (tmp_path / "empty").mkdir()
    assert list(finished_runs(tmp_path)) == ["good"]


def test_of_an_older_notebook_only_the_newest_result_counts(tmp_path):
    def record_of(name, number, utc):
        return {
            "id": name,
            "sweep": "s",
            "notebook": "n.ipynb",
            "parameters": {"number": number},
            "provenance": {"utc": utc},
        }

    update_ledger(
        tmp_path / "ledger" / "s.jsonl",
        {
            row["id"]: row
            for row in (
                record_of("a", 1, "2026-01-01T00:00:00Z"),
                record_of("b", 1, "2026-01-02T00:00:00Z"),
                record_of("c", 2, "2026-01-01T00:00:00Z"),
            )
        },
    )
    assert [record["id"] for record in sweeps.read_all(tmp_path)] == ["b", "c"]


def test_a_new_record_replaces_the_old(tmp_path):
    path = tmp_path / "l.jsonl"
    update_ledger(path, {"a": {"id": "a", "value": 1}, "b": {"id": "b", "value": 1}})
    update_ledger(path, {"a": {"id": "a", "value": 2}})
    assert {name: record["value"] for name, record in read_ledger(path).items()} == {"a": 2, "b": 1}


def test_a_warm_process_is_told_the_settings_of_now(project, monkeypatch):
    """One process imports for all three cells; each sees the settings of the time when it began."""
    seen = project.folder / "seen"
    project.set_fault(f"""imported_by = Path('/proc', str(os.getppid()), 'stat').read_text().split()[3]
with open({str(seen)!r}, 'a') as file: file.write(f"{{imported_by}} {{os.environ.get('TAL_WORKERS')}}\\n")""")
    for number, value in ((1, "1"), (2, "2"), (3, None)):
        monkeypatch.setenv("TAL_WORKERS", value) if value else monkeypatch.delenv("TAL_WORKERS")
        assert sweeps.run(project.make((number,)), **project.where).complete
    processes, values = zip(*(line.split() for line in seen.read_text().splitlines()))
    assert len(set(processes)) == 1 and values == ("1", "2", "None")


def test_other_data_are_another_cell(project, tmp_path, monkeypatch):
    """Features made anew, of the same size, under the same names."""
    monkeypatch.setattr(identity, "RECHECK_SECONDS", -1)
    data, grid = tmp_path / "videos", project.make((1, 2))
    notebook = nbformat.read(grid.parent.parent / "work.ipynb", as_version=4)
    notebook.cells[0].source += "\nbenchmark: str = ''"
    nbformat.write(notebook, grid.parent.parent / "work.ipynb")
    block = {"notebook": "work.ipynb", "parameters": {"benchmark": str(data)}, "grid": {"number": [1, 2]}}
    grid.write_text(json.dumps({"cells": [block]}))
    (data / "features").mkdir(parents=True)
    (data / "features" / "spec.json").write_text('{"streams": {"one": 2}, "stride_s": 1.0}')
    entry = {"duration": 9.0, "annotations": [{"label": "x", "segment": [1, 2]}]}
    database = {"a": entry | {"subset": "training"}, "b": entry | {"subset": "testing"}}
    (data / "annotations.json").write_text(json.dumps({"database": database}))

    def ids(value):
        for name in "ab":
            np.save(data / "features" / f"{name}.npy", np.full((9, 2), value, np.float32))
        return {cell.id for cell in sweeps.plan(grid)}

    first = ids(1.0)
    assert len(first) == 2 and not first & ids(2.0) and first == ids(1.0)
    path = data / "features" / "a.npy"
    project.set_fault(f"import numpy as np\nnp.save({str(path)!r}, np.full((9, 2), 5, np.float32))")
    with pytest.raises(TalError, match="the data of .* changed while its sweep ran"):
        sweeps.run(grid, **project.where)
    assert project.log() == [1] and len(read_ledger(project.ledger)) == 1  # the second cell did not begin
