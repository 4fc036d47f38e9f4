"""Faults injected into sweeps: nothing is lost, no partial file is accepted, no cell is counted twice.

Every fault but a changed clock leaves, after the sweep has gone on, the tables of an undisturbed one.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pytest

from tal_lib import TalError, sweeps
from tal_lib.files import REPOSITORY
from tal_lib.process import fork_server
from tal_lib.sweeps import local
from tal_lib.sweeps.ledger import read_ledger, update_ledger

NUMBERS = (1, 2, 3)
WHOLE = [(n, n * n) for n in NUMBERS]
ONCE = "flag = Path({flag!r})\nif number == 2 and not flag.exists():\n    flag.touch()\n    {code}"


def once(project, code):
    """A fault that strikes the cell with number 2, the first time it runs."""
    project.set_fault(ONCE.format(flag=str(project.folder / "struck"), code=code))


def test_a_killed_cell_is_tried_once_more(project):
    """SIGKILL to the process that runs the cell, as the system does when memory runs out."""
    grid = project.make(NUMBERS)
    once(project, "os.kill(os.getppid(), 9); time.sleep(30)")
    result = sweeps.run(grid, **project.where)
    assert (
        result.complete
        and project.squares() == WHOLE
        and project.log() == [1, 2, 2, 3]
        and not project.left_over()
    )


def test_code_changed_meanwhile_is_taken_whole(project, monkeypatch, tmp_path):
    """A process that imported the library before a change runs no more cells: they would mix the code."""
    (tmp_path / "library").mkdir()
    module = tmp_path / "library" / "module.py"
    module.write_text("old")
    monkeypatch.setattr(fork_server, "LIBRARY", module.parent)
    warm = local.WarmProcesses(1, None, local.kernel_environment(1))
    monkeypatch.setattr(local, "warm_processes", lambda *_: warm)
    project.set_fault(f"""if number == 2: Path({str(module)!r}).write_text('new')
parent_of_parent = Path('/proc', str(os.getppid()), 'stat').read_text().split()[3]
with open({str(project.folder / "made_by")!r}, 'a') as by: by.write(parent_of_parent + ' ')""")
    assert sweeps.run(project.make(NUMBERS), **project.where).complete and project.squares() == WHOLE
    first, second, third = (project.folder / "made_by").read_text().split()
    assert first == second != third


def test_a_notebook_changed_meanwhile_stops_the_sweep(project):
    grid = project.make(NUMBERS)
    notebook = grid.parent.parent / "work.ipynb"
    once(
        project,
        f"p = Path({str(notebook)!r}); p.write_text(p.read_text().replace('number ** 2', 'number ** 3'))",
    )
    with pytest.raises(TalError, match="changed while its sweep ran"):
        sweeps.run(grid, **project.where)
    assert project.squares() == [(1, 1), (2, 4)]


def test_a_dead_kernel_is_named_and_its_cell_runs_again(project):
    grid = project.make(NUMBERS)
    once(project, "os.kill(os.getpid(), 9)")
    result = sweeps.run(grid, jobs=2, **project.where)
    (reason,) = result.failed.values()
    assert "the kernel died, killed by signal 9" in reason and project.squares() == [(1, 1), (3, 9)]
    assert (
        sweeps.run(grid, **project.where).complete
        and project.squares() == WHOLE
        and project.log() == [1, 2, 2, 3]
    )


def test_out_of_memory_is_told_and_harms_no_other_cell(project):
    grid = project.make(NUMBERS)
    once(project, "hoard = [bytearray(50_000_000) for _ in range(40)]")
    result = sweeps.run(grid, memory_limit=500_000_000, **project.where)
    (reason,) = result.failed.values()
    assert "MemoryError" in reason and project.squares() == [(1, 1), (3, 9)]
    assert sweeps.run(grid, memory_limit=500_000_000, **project.where).complete and project.squares() == WHOLE


def test_a_cell_that_hangs_is_stopped(project):
    grid = project.make(NUMBERS)
    once(project, "import subprocess; subprocess.Popen(['sleep', '977']); time.sleep(977)")
    result = sweeps.run(grid, time_limit=4.5, **project.where)
    (reason,) = result.failed.values()
    assert "stopped after its time limit of 0.075 minutes" in reason and project.squares() == [(1, 1), (3, 9)]
    running = [
        Path(f"/proc/{pid}/cmdline").read_bytes()
        for pid in os.listdir("/proc")
        if pid.isdigit() and Path(f"/proc/{pid}/cmdline").exists()
    ]
    assert b"sleep\x00977\x00" not in running  # what it had started is gone too
    assert (project.runs / f"{next(iter(result.failed))}.failed" / "error.txt").is_file()
    assert sweeps.run(grid, **project.where).complete and project.squares() == WHOLE


def test_no_temporary_file_of_a_cell_stays(project, tmp_path, monkeypatch):
    """Neither the notebook's folders nor the kernel's connection file, whether the cell is done or fails."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    grid = project.make((1, 2), fail=(2,))
    project.set_fault(
        "import tempfile; folder = tempfile.mkdtemp(prefix='tal-export-')\n"
        f"with open({str(tmp_path / 'made')!r}, 'a') as file: file.write(folder + '\\n')"
    )
    assert len(sweeps.run(grid, **project.where).failed) == 1
    made = (tmp_path / "made").read_text().split()
    assert len(made) == 2 and all(folder.startswith(str(tmp_path / "temporary")) for folder in made)
    assert not list((tmp_path / "temporary").iterdir())


def test_a_notebook_that_prints_100_megabytes_is_cut(project):
    grid = project.make((1,))
    project.set_fault("for _ in range(1000): print('x' * 100_000)")
    result = sweeps.run(grid, **project.where)
    assert result.complete
    notebook = result.runs / result.cells[0].id / "notebook.ipynb"
    assert notebook.stat().st_size < 1_500_000
    text = "".join(
        output.text
        for cell in nbformat.read(notebook, as_version=4).cells
        for output in cell.get("outputs", [])
    )
    assert text.endswith("this cell printed more than 1,000,000 characters\n")


def test_a_full_disk_stops_the_sweep_and_it_goes_on(project, small_disk):
    disk = small_disk("-o", "size=4m")
    where = project.where | {"runs": str(disk)}
    grid = project.make(NUMBERS)
    project.set_fault("if number == 2: open(os.path.join(out_dir, 'large'), 'wb').write(bytes(8_000_000))")
    with pytest.raises(TalError, match=r"the disk is full\. Free some space\. Finished work is kept"):
        sweeps.run(grid, **where)
    assert project.squares() == [(1, 1)] and project.log() == [1, 2]
    assert (
        len([path for path in (disk / "grid").iterdir() if path.is_dir()]) == 1
    )  # what was half-written has made room
    project.set_fault()
    assert sweeps.run(grid, **where).complete and project.squares() == WHOLE and project.log() == [1, 2, 2, 3]


def test_a_full_disk_under_the_ledger_leaves_it_whole(project, small_disk):
    disk = small_disk("-o", "size=64k")
    where = project.where | {"results": str(disk)}
    grid = project.make((1,))
    assert sweeps.run(grid, **where).complete
    ledger = disk / "ledger" / "grid.jsonl"
    before = ledger.read_bytes()
    (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
    grid = project.make(NUMBERS)
    with pytest.raises(TalError, match="the disk is full|cannot be written"):
        sweeps.run(grid, **where)
    assert ledger.read_bytes() == before and [
        path.name for path in ledger.parent.iterdir() if path.suffix == ".jsonl"
    ] == ["grid.jsonl"]
    (disk / "filler").unlink()
    result = sweeps.run(grid, **where)
    assert result.complete and [
        record["tables"]["squares"][0]["square"]
        for record in sorted(read_ledger(ledger).values(), key=lambda record: record["parameters"]["number"])
    ] == [1, 4, 9]
    assert project.log() == list(NUMBERS)  # the run folders had what the ledger could not take


def test_a_read_only_results_folder_is_told_before_anything_runs(project, small_disk):
    disk = small_disk("-o", "ro")
    with pytest.raises(
        TalError, match=r"disk.*cannot be written \(Read-only file system\)\. Name other folders"
    ):
        sweeps.run(project.make(), **project.where | {"results": str(disk)})
    assert project.log() == []


def test_two_sweeps_on_one_results_folder_lose_no_line(project):
    """Two drivers run the same grid with separate run folders: the shared ledger has every cell once."""
    grid = project.make(NUMBERS)
    code = (
        "import sys; from tal_lib import sweeps; "
        "sweeps.run({!r}, results={!r}, runs=sys.argv[1], progress=False, resume=False)"
    )
    drivers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                code.format(str(grid), project.where["results"]),
                str(project.folder / name),
            ],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )
        for name in ("one", "two")
    ]
    assert [driver.wait(timeout=120) for driver in drivers] == [0, 0]
    assert project.squares() == WHOLE and len(project.log()) == 2 * len(NUMBERS)


def test_ledgers_written_at_once_are_united(tmp_path):
    """Three processes that each add fifty records, one at a time."""
    code = (
        "import sys; from pathlib import Path; from tal_lib.sweeps.ledger import update_ledger\n"
        "names = [f'{sys.argv[2]}-{i}' for i in range(50)]\n"
        "for name in names: update_ledger(Path(sys.argv[1]), {name: {'id': name}})"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "l.jsonl"), str(number)],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )
        for number in range(3)
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 3
    assert len(read_ledger(tmp_path / "l.jsonl")) == 150


def test_a_clock_that_jumps_back_does_not_make_a_new_result_old(project):
    """The same cells again, a year "earlier": what was made last counts, and no duration is negative."""
    libfaketime = pytest.importorskip("libfaketime")
    library = next(Path(libfaketime.__file__).parent.rglob("libfaketime.so.1"), None)
    if library is None:
        pytest.skip("libfaketime was not compiled here")
    assert sweeps.run(project.make((1,)), **project.where).complete
    old = project.finished()
    grid = project.make((1,), sleep=0.1)  # the notebook has changed: another id, the same cell
    code = f"from tal_lib import sweeps; sweeps.run({str(grid)!r}, again_stale=True, **{project.where!r})"
    # the monotonic clock, by which sockets and processes wait, does not jump
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "LD_PRELOAD": str(library),
        "FAKETIME": "-365d",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    (current,) = sweeps.read_all(project.where["results"])
    first = read_ledger(project.ledger)[old[0]]
    assert (
        current["id"] != old[0]
        and current["provenance"]["utc"] < first["provenance"]["utc"]
        and 0 <= current["seconds"] < 60
    )


def test_a_run_cut_off_while_it_was_put_in_place_is_made_again(project):
    """As a power cut may leave it: the record empty, a table's file cut."""
    grid = project.make(NUMBERS)
    first = sweeps.run(grid, **project.where)
    whole = project.tables()
    cut = project.runs / project.finished()[0]
    (cut / "cell.json").write_text("")
    update_ledger(project.ledger, {})
    project.ledger.unlink()
    assert sweeps.run(grid, **project.where).complete and first.complete
    assert project.tables() == whole and len(project.log()) == 4


def test_a_real_training_resumed_is_bit_equal(tmp_path, few_recordings):
    """Two real trainings, one of them killed midway with its driver, give bit-equal numbers."""
    grid = tmp_path / "grid.yaml"
    notebook, recipe = REPOSITORY / "notebooks" / "02_train_evaluate.ipynb", {"epochs": 1, "min_steps": 6}
    given = {"benchmark": str(few_recordings), "fraction": 0.2, "model": "window_cnn", "recipe": recipe}
    block = {"notebook": str(notebook), "parameters": given, "grid": {"seed": [0, 1]}}
    grid.write_text(json.dumps({"cells": [block]}))

    def run(name, kill=False):
        where = {"results": str(tmp_path / name / "results"), "runs": str(tmp_path / name / "runs")}
        if kill:
            code = f"from tal_lib import sweeps; sweeps.run({str(grid)!r}, progress=False, **{where!r})"
            driver = subprocess.Popen(
                [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(REPOSITORY)}
            )
            deadline = time.monotonic() + 120
            finished = "grid/[!.]*/cell.json"  # a run's folder has a hidden name until it is complete
            while not list(Path(where["runs"]).glob(finished)) and time.monotonic() < deadline:
                time.sleep(0.05)
            driver.kill()
            driver.wait()
        result = sweeps.run(grid, progress=False, **where)
        assert result.complete and result.done_before == (1 if kill else 0)
        return {
            name: record["tables"]["data_efficiency"] for name, record in read_ledger(result.ledger).items()
        }

    assert run("resumed", kill=True) == run("undisturbed")
