"""Sweeps in slices: time that is up stops nothing for good, and the order of value is kept."""

from types import SimpleNamespace

import pytest

from tal_lib import TalError, sweeps
from tal_lib.sweeps import local, slices
from tal_lib.sweeps.local import Local, OutOfTime
from tal_lib.sweeps.runner import SweepResult
from tal_lib.sweeps.slices import run_slices


class Clock:
    """Stands in for the module `time`."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (local, slices):
        monkeypatch.setattr(module, "time", clock)
    return clock


def test_without_time_no_cell_begins(project):
    grid = project.make(numbers=(1, 2, 3))
    result = sweeps.run(grid, seconds=0.0, **project.where)
    assert (result.done_now, result.left, result.failed, result.complete) == (0, 3, {}, False)
    assert project.log() == [] and project.finished() == []


def test_cells_left_out_stay_as_they_are(project):
    grid = project.make(numbers=(1, 2))
    first, second = sweeps.plan(grid)
    result = sweeps.run(grid, without={first.id, second.id}, **project.where)
    assert (result.done_before, result.done_now, result.left, result.complete) == (0, 0, 0, False)


@pytest.mark.parametrize(
    ("limit", "takes", "reason", "answer"),
    [
        (500.0, 20.0, None, None),  # done in time
        (500.0, 20.0, "KeyError: 1", "KeyError: 1"),  # it failed in time
        (500.0, 100.0, "stopped after its time limit", OutOfTime),  # the slice ended: it is still to do
        (40.0, 40.0, "stopped after its time limit", "stopped after its time limit"),  # its own limit
        (None, 100.0, "stopped after its time limit", OutOfTime),
    ],
)
def test_a_cell_at_the_end_of_the_time(clock, tmp_path, limit, takes, reason, answer):
    given = []

    def run(cell, notebook, generation, folder):
        given.append(cell.time_limit)
        clock.now += takes
        if reason:
            (folder / f"{cell.id}.failed").mkdir()
        return reason

    sweep = Local(tmp_path, 1, 1, seconds=100.0)
    cell = sweeps.grid.Cell("s", tmp_path / "n.ipynb", {}, "", "x", time_limit=limit)
    result = sweep._run_in_time(SimpleNamespace(run=run), cell, 0, sweep.deadline)
    assert type(result) is answer if answer is OutOfTime else result == answer
    assert given == [min(limit or 100.0, 100.0)]
    assert (tmp_path / "x.failed").exists() == (isinstance(answer, str))
    clock.now += 100
    assert type(sweep._run_in_time(SimpleNamespace(run=run), cell, 0, sweep.deadline)) is OutOfTime
    assert len(given) == 1


@pytest.fixture
def pretend(monkeypatch, clock):
    """Pretends sweeps: name → minutes of each cell, negative for one that fails. Returns what was run."""
    log = []

    def make(cells_of):
        done = set()

        def run(grid, *, seconds, without, **_):
            if grid not in cells_of:
                raise TalError("hapt is not at hand", where=grid)
            cells = [(f"{grid}{number}", each) for number, each in enumerate(cells_of[grid])]
            todo = [cell for cell in cells if cell[0] not in done and cell[0] not in without]
            end, failed, now = clock.now + seconds, {}, 0
            for place, (cell, minutes) in enumerate(todo):
                if clock.now + 60 * abs(minutes) > end:
                    clock.now = end
                    return SweepResult([], 0, now, failed, left=len(todo) - place)
                clock.now += 60 * abs(minutes)
                log.append(cell)
                if minutes < 0:
                    failed[cell] = "KeyError"
                else:
                    done.add(cell)
                    now += 1
            return SweepResult([], 0, now, failed)

        monkeypatch.setattr(slices, "run", run)
        return log

    return make


def test_slices_follow_the_order_of_value_and_end_in_time(pretend, clock):
    log, lines = pretend({"a": [3, 3, 3], "b": [6, 6]}), []
    began = clock.now
    assert not run_slices(["a", "b"], slices=1, say=lines.append)
    assert log == ["a0", "a1", "a2"] and clock.now - began <= 600
    assert lines == [
        "slice 1: 3 cells done in 9.7 minutes; cells are left",
        "Run the same command to continue.",
    ]
    assert run_slices(["a", "b"], say=lines.append)
    assert log == ["a0", "a1", "a2", "b0", "b1"] and lines[-1].endswith("no cell is left")


def test_a_cell_that_fails_holds_nothing_up(pretend):
    log, lines = pretend({"a": [-9, 9], "c": [-9, 1]}), []
    assert not run_slices(["a", "b", "c"], say=lines.append)
    assert log == ["a0", "a1", "c0", "c1"]  # each once
    assert sum("hapt is not at hand" in line for line in lines) == 1
    assert sum("failed: KeyError" in line for line in lines) == 2


def test_slices_that_are_too_short_for_a_cell_end(pretend):
    log, lines = pretend({"a": [3, 12]}), []
    assert not run_slices(["a"], say=lines.append)
    assert log == ["a0"]
    assert lines[-1] == "No cell of a ended within 10 minutes. Give longer slices."
    assert not run_slices(["a"], slices=1, say=lines.append)  # again, a slice at a time
    assert lines[-1] == "No cell of a ended within 10 minutes. Give longer slices."


def test_a_cell_that_is_too_long_does_not_hold_the_next_sweeps_up(pretend):
    log, lines = pretend({"a": [12, 3], "b": [3, 12], "d": [6, 6]}), []
    assert not run_slices(["a", "b", "d"], say=lines.append)
    assert log == ["b0", "d0", "d1"] and lines[-1].startswith("No cell of a, b ended")


@pytest.mark.parametrize("wrong", [{"minutes": 0}, {"minutes": "long"}, {"slices": 0}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(TalError, match="minutes|slices"):
        run_slices(["a"], **wrong)


def test_without_a_gpu_one_line_says_so(capsys):
    assert slices.main([]) == 2
    assert capsys.readouterr().err == "tal: device cuda: there is no CUDA GPU here. Choose cpu.\n"
