"""A sweep over several GPUs: each worker process sees one, each GPU has one cell at a time."""

import json

import pytest

from tal_lib import sweeps
from tal_lib.cli import main
from tal_lib.sweeps import gpus
from tal_lib.sweeps.gpus import gpu_environments

# a stand-in for a cell that computes on a GPU: it writes what it sees, and when it began and ended
SEEN = """
import json, time, uuid
began = time.time()
time.sleep(0.6)
seen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")}
Path(r"%s", uuid.uuid4().hex).write_text(json.dumps([seen, began, time.time(), number]))
"""


@pytest.fixture
def machine(monkeypatch):
    """A machine that says it has four GPUs, all visible."""
    monkeypatch.setattr(gpus, "count_gpus", lambda: 4)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "TAL_DEVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def seen(project):
    """The grid's cells note what they see; returns the notes in the order of their beginning."""
    notes = project.folder / "seen"
    notes.mkdir()
    project.set_fault(SEEN % notes)
    return lambda: sorted((json.loads(path.read_text()) for path in notes.iterdir()), key=lambda row: row[1])


def test_each_gpu_has_one_cell_at_a_time(project, seen, machine):
    grid = project.make(numbers=(1, 2, 3, 4, 5, 6))
    where = ["--results", project.where["results"], "--runs", project.where["runs"]]
    assert main(["sweep", str(grid), "--gpus", "2,0", *where]) == 0
    rows = seen()
    assert len(rows) == 6 and {row[0]["CUDA_VISIBLE_DEVICES"] for row in rows} == {"0", "2"}
    assert {row[0]["CUDA_DEVICE_ORDER"] for row in rows} == {"PCI_BUS_ID"}
    for gpu in ("0", "2"):
        spans = [row[1:3] for row in rows if row[0]["CUDA_VISIBLE_DEVICES"] == gpu]
        assert len(spans) >= 2 and all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:]))
    assert any(
        first[1] < second[2] and second[1] < first[2]
        for first in rows
        for second in rows
        if first is not second
    )
    assert project.squares() == [(n, n * n) for n in range(1, 7)]


def test_cells_that_measure_run_on_the_first(project, seen, machine):
    grid = project.make(numbers=(1, 2), alone=True)
    assert not sweeps.run(grid, gpus=(2, 0), **project.where).failed
    assert [row[0]["CUDA_VISIBLE_DEVICES"] for row in seen()] == ["2", "2"]


def test_without_the_option_nothing_is_set(project, seen, machine):
    assert not sweeps.run(project.make(numbers=(1,)), **project.where).failed
    assert seen()[0][0] == {"CUDA_VISIBLE_DEVICES": None, "CUDA_DEVICE_ORDER": None}


def test_numbers_count_what_is_visible(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b,5,7")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert gpu_environments("1,2") == [
        {"CUDA_VISIBLE_DEVICES": name, "CUDA_DEVICE_ORDER": "FASTEST_FIRST"} for name in ("GPU-b", "5")
    ]


REFUSED = {
    "repeated": (["--gpus", "0,0"], "'0,0' is not a list of different GPU numbers"),
    "letter": (["--gpus", "a"], "'a' is not GPU numbers such as 0,1"),
    "negative": (["--gpus=-1"], "'-1' is not GPU numbers"),
    "hole": (["--gpus", "0,,1"], "'0,,1' is not GPU numbers"),
    "fraction": (["--gpus", "0.5"], "'0.5' is not GPU numbers"),
    "other digits": (["--gpus", "²"], "is not GPU numbers"),
    "huge": (["--gpus", "9" * 30], "GPU numbers below 1024"),
    "not here": (["--gpus", "0,4"], "--gpus 0,4: there are 4 GPUs here. Choose from 0 to 3."),
    "cluster": (["--gpus", "0,1", "--cluster", "local:2"], "--gpus 0,1 with --cluster local:2"),
    "jobs": (["--gpus", "0,1", "--jobs", "3"], "--jobs 3 with --gpus 0,1"),
}


def test_an_empty_value_is_refused_in_one_line(project, machine, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["sweep", str(project.make()), "--gpus", ""])
    line = capsys.readouterr().err
    assert "--gpus: the value is empty" in line and line.count("\n") == 1


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry"])
@pytest.mark.parametrize("case", REFUSED)
def test_bad_values_are_refused_in_one_line(project, machine, capsys, case, dry):
    options, message = REFUSED[case]
    where = ["--results", project.where["results"], "--runs", project.where["runs"]]
    assert main(["sweep", str(project.make()), *options, *where, *dry]) == 2
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1
    assert not project.log() and not (project.folder / "results").exists()


def test_a_machine_or_a_device_that_contradicts(machine, monkeypatch):
    monkeypatch.setenv("TAL_DEVICE", "cpu")
    with pytest.raises(gpus.TalError, match="TAL_DEVICE=cpu with --gpus 0"):
        gpu_environments("0")
    monkeypatch.setenv("TAL_DEVICE", "cuda:0")
    assert len(gpu_environments([1, 0], jobs=2)) == 2
    monkeypatch.setattr(gpus, "count_gpus", lambda: 0)
    with pytest.raises(gpus.TalError, match="--gpus 0: there is no CUDA GPU here"):
        gpu_environments("0")
