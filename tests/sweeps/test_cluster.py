"""Sweeps on real local Dask clusters: killed or joining workers, killed schedulers, different data, hosts."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tal_lib import TalError, sweeps
from tal_lib.cli import main
from tal_lib.files import REPOSITORY, digest
from tal_lib.provenance import code_state, cpu_name, device_name
from tal_lib.sweeps import certificates as certificates_module
from tal_lib.sweeps import cluster, identity
from tal_lib.sweeps import workers as workers_module
from tal_lib.sweeps.grid import Cell
from tal_lib.sweeps.ledger import read_ledger

Client = pytest.importorskip("distributed").Client
NUMBERS = (1, 2, 3)
WHOLE = [(n, n * n) for n in NUMBERS]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY), "DASK_DISTRIBUTED__WORKER__DAEMON": "False"}


class Processes:
    """Scheduler and workers as processes of their own, perhaps each in a network namespace.

    port: of a scheduler that runs already.
    """

    def __init__(self, port=None):
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = port or free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.all = []

    def start(self, *command, within=(), library=REPOSITORY):
        process = subprocess.Popen(
            [*within, sys.executable, "-m", "distributed.cli." + command[0], *command[1:]],
            env=ENVIRONMENT | {"PYTHONPATH": str(library)},
            cwd=library,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.all.append(process)
        return process

    def scheduler(self, host="127.0.0.1", within=()):
        return self.start(
            "dask_scheduler", "--host", host, "--port", str(self.port), "--no-dashboard", within=within
        )

    def worker(self, *options, within=(), library=REPOSITORY):
        return self.start(
            "dask_worker",
            self.address,
            "--nthreads",
            "1",
            "--no-dashboard",
            "--no-nanny",
            "--memory-limit",
            "0",
            "--death-timeout",
            "60",
            *options,
            within=within,
            library=library,
        )

    def kill(self, process):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.all:
            if process.poll() is None:
                self.kill(process)


@pytest.fixture
def processes():
    with Processes() as here:
        yield here


@pytest.fixture(scope="module")
def scheduler():
    """A scheduler that no test ends."""
    with Processes() as here:
        here.scheduler()
        wait_for(lambda: not socket.socket().connect_ex(("127.0.0.1", here.port)))
        yield here


@pytest.fixture
def workers(scheduler):
    """Starts workers of this scheduler, which end with the test."""
    with Processes(scheduler.port) as here:
        yield here


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.1)


class Sweep(threading.Thread):
    """A sweep in a thread; `outcome` is its result or its error."""

    def __init__(self, grid, project, address):
        super().__init__(daemon=True)
        self.arguments, self.outcome = (grid, {"cluster": address, **project.where}), None
        self.start()

    def run(self):
        try:
            self.outcome = sweeps.run(self.arguments[0], **self.arguments[1])
        except BaseException as error:
            self.outcome = error

    def result(self, seconds=120):
        self.join(seconds)
        assert not self.is_alive(), "the sweep does not end"
        return self.outcome


def test_workers_of_this_machine(project):
    """`local:2` gives the tables that a sweep gives, and a failing cell its traceback."""
    grid = project.make((1, 2, 3, 4), fail=(3,), alone=True)
    result = sweeps.run(grid, cluster="local:2", **project.where)
    assert {record["machine"] for record in read_ledger(project.ledger).values()} == {
        cpu_name()
    }  # as the worker calls it
    assert list(result.failed.values()) == ["RuntimeError: told to fail"] and not project.left_over()
    assert (result.runs / f"{next(iter(result.failed))}.failed" / "notebook.ipynb").stat().st_size > 1000
    assert project.squares() == [(1, 1), (2, 4), (4, 16)] and len(project.finished()) == 3
    again = sweeps.run(grid, cluster="local:2", **project.where)  # the ids name no machine, the records do
    assert again.done_before == 3 and len(again.failed) == 1


def test_a_worker_is_killed_and_another_joins(project, workers):
    """SIGKILL to the only worker amid a cell; the cell runs on the one that comes later."""
    grid = project.make(NUMBERS, sleep=0.5)
    first = workers.worker()
    sweep = Sweep(grid, project, workers.address)
    wait_for(lambda: len(project.log()) >= 2)
    workers.kill(first)
    done = project.finished()
    workers.worker()
    assert sweep.result().complete and project.squares() == WHOLE
    assert (
        set(done) <= set(project.finished()) and len(project.log()) <= len(NUMBERS) + 2
    )  # nothing that was done is done again


def test_the_scheduler_is_killed(project, processes):
    grid = project.make(NUMBERS, sleep=1.0)
    scheduler, worker = processes.scheduler(), processes.worker()
    sweep = Sweep(grid, project, processes.address)
    wait_for(lambda: project.finished())
    processes.kill(scheduler)
    error = sweep.result()
    assert isinstance(
        error, TalError
    ) and "the connection to the scheduler was lost. Start the scheduler again" in str(error)
    processes.kill(worker)
    done = project.finished()
    assert 1 <= len(done) < len(NUMBERS)
    processes.scheduler(), processes.worker()
    result = Sweep(grid, project, processes.address).result()
    assert (
        result.complete
        and result.done_before == len(done)
        and project.squares() == WHOLE
        and not project.left_over()
    )


def test_no_scheduler_there(project, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)  # which passes in full
    with pytest.raises(TalError, match="tcp://127.0.0.1:9: no scheduler answers"):
        sweeps.run(project.make(), cluster="tcp://127.0.0.1:9", **project.where)
    for address in ("nowhere", "local:none", "local:0", "slurm:none.yaml"):
        with pytest.raises(
            TalError, match=r"cluster nowhere|'nowhere'|Give the number of workers|cluster file not found"
        ):
            sweeps.run(project.make(), cluster=address, **project.where)


def test_gpu_cells_go_to_workers_that_have_one(project, workers):
    grid = project.make((1,), gpu=True)
    workers.worker()
    with Client(workers.address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=90)
        sweep = Sweep(grid, project, workers.address)
        wait_for(lambda: client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.unrunnable)))
    assert project.log() == []  # the cell waits, though a worker without a GPU is idle
    workers.worker("--resources", "GPU=1")
    assert sweep.result().complete


def test_cells_without_a_gpu_do_not_wait_for_those_with_one(project, workers, monkeypatch):
    """The cells with a GPU come first, and no worker has a GPU. A line says so, once."""
    told = []
    monkeypatch.setattr(cluster.tqdm, "write", told.append)
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 1)
    grid = project.make()
    blocks = [
        {"notebook": "work.ipynb", "gpu": gpu, "grid": {"number": numbers}}
        for gpu, numbers in ((True, [1, 2, 3]), (False, [4, 5]))
    ]
    grid.write_text(json.dumps({"cells": blocks}))
    workers.worker()
    sweep = Sweep(grid, project, workers.address)
    wait_for(lambda: project.log() == [4, 5] and any("no worker has a GPU" in line for line in told))
    workers.worker("--resources", "GPU=1")
    assert sweep.result().complete and project.squares() == [(n, n * n) for n in range(1, 6)]
    assert sum("no worker has a GPU" in line for line in told) == 1


def test_cells_with_a_gpu_are_refused_where_there_is_none(project, monkeypatch):
    monkeypatch.setattr(workers_module, "count_gpus", lambda: 0)
    cells = sweeps.plan(project.make((1, 2), gpu=True))
    message = "local:2: 2 cells of the grid need a GPU .the first is work 1 .*no CUDA GPU here. Name a"
    with pytest.raises(TalError, match=message), cluster.Cluster("local:2", project.runs, 1, cells=cells):
        pass
    assert not project.runs.exists()


def test_one_worker_of_this_machine_has_the_gpu(project, monkeypatch):
    """So one cell at a time is on it, although there are two workers."""
    monkeypatch.setattr(workers_module, "count_gpus", lambda: 1)
    cells = sweeps.plan(project.make((1, 2), gpu=True))
    with cluster.Cluster("local:2", project.runs, 1, cells=cells) as there:
        there._client.wait_for_workers(2, timeout=90)
        assert there._threads() == {False: 2, True: 1}
        outcomes = list(there.run(cells, {cell.id: 0 for cell in cells}))
    assert [reason for _, reason in outcomes] == [None, None] and len(project.finished()) == 2


def test_a_notebook_changed_meanwhile_is_not_sent(project, workers):
    """The first cell rewrites it. No cell runs the new text under the id of the old one."""
    grid = project.make((1, 2, 3, 4, 5))
    notebook = str(grid.parent.parent / "work.ipynb")
    project.set_fault(
        f"if number == 1: p = Path({notebook!r}); p.write_text(p.read_text().replace('** 2', '** 3'))"
    )
    workers.worker()
    error = Sweep(grid, project, workers.address).result()
    assert isinstance(error, TalError) and "changed while its sweep ran. Finished work is kept" in str(error)
    done = project.squares()
    assert 1 < len(done) < 5 and done[0] == (1, 1) and all(square == n * n for n, square in done)


def test_a_worker_with_other_data_or_another_library_is_refused(project, monkeypatch):
    cell = Cell("s", project.make().parent.parent / "work.ipynb", {"benchmark": "synthetic"}, "0" * 16, "x")
    job = {
        "cell": cell,
        "notebook": "",
        "generation": 0,
        "threads": 1,
        "memory_limit": None,
        "versions": cluster._versions(),
    }
    reason, archive, _ = cluster.run_packed(job)
    assert "has other data for synthetic" in reason and "TAL_DATA" in reason and archive is None
    monkeypatch.setattr(cluster, "git_commit", lambda: "0123456789")
    reason = cluster.run_packed(job)[0]
    assert "at commit 0123456789, the sweep" in reason and "restart a worker after an update" in reason


def test_a_worker_compares_the_data_of_every_tested_benchmark(project, monkeypatch):
    """Also of those on which a model is only tested; and again after the data was repaired."""
    hashes = {"hapt": "a", "hapt_recomposed_test": "b"}
    look = cache(lambda name: (hashes[name], "", 5))
    monkeypatch.setattr(identity, "about_data", look)
    parameters = {"benchmark": "hapt", "also": ["hapt_recomposed_test"]}
    cell = Cell("s", project.make().parent.parent / "work.ipynb", parameters, digest("a", "b"), "x")
    assert cluster._mismatch(cluster._versions(), cell) is None
    other = replace(cell, data_hash=digest("a", "c"))
    assert "has other data for hapt, hapt_recomposed_test" in cluster._mismatch(cluster._versions(), other)
    hashes["hapt_recomposed_test"] = "c"
    assert cluster._mismatch(cluster._versions(), other) is None


def test_data_rewritten_while_a_cell_runs_is_noticed(project, monkeypatch):
    hashes = {"hapt": "a"}
    look = cache(lambda name: (hashes[name], "", 5))
    monkeypatch.setattr(identity, "about_data", look)
    monkeypatch.setattr(identity, "RECHECK_SECONDS", -1)

    class Rewriting:
        def run(self, *_):
            hashes["hapt"] = "b"

    monkeypatch.setattr(cluster, "warm_processes", lambda *_: Rewriting())
    cell = Cell("s", project.make().parent.parent / "work.ipynb", {"benchmark": "hapt"}, "a", "x")
    job = {"cell": cell, "notebook": "{}", "generation": 0, "threads": 1, "memory_limit": None}
    reason, archive, _ = cluster.run_packed(job | {"versions": cluster._versions()})
    assert "has other data for hapt (hash b, the sweep has a)" in reason and archive is None


@pytest.mark.parametrize(
    ("copy", "problem"),
    [
        ("VALUE = 1", None),
        ("VALUE = 2", "has another copy of the plug-in counts.py. Copy"),
        (None, "lacks the plug-in counts.py. Copy"),
    ],
)
def test_a_worker_with_other_plugins_is_refused(project, tmp_path, monkeypatch, copy, problem):
    """The content of a plug-in's file counts, not its folder."""
    for place, text in (("driver", "VALUE = 1"), ("worker", copy)):
        (tmp_path / place).mkdir()
        if text is not None:
            (tmp_path / place / "counts.py").write_text(text)
    monkeypatch.setenv("TAL_PLUGINS", str(tmp_path / "driver" / "counts.py"))
    versions = cluster._versions()
    monkeypatch.setenv("TAL_PLUGINS", str(tmp_path / "worker" / "counts.py"))
    cell = Cell("s", project.make().parent.parent / "work.ipynb", {}, "", "x")
    refused = cluster._mismatch(versions, cell)
    assert refused is None if problem is None else refused.startswith(problem)


@pytest.mark.parametrize("belongs", [True, False])
def test_a_worker_names_its_machine_where_a_cell_belongs_to_one(project, monkeypatch, belongs):
    seen = []

    class Seeing:
        def run(self, cell, *_):
            seen.append(cell.machine)

    monkeypatch.setattr(cluster, "warm_processes", lambda *_: Seeing())
    cell = Cell("s", project.make().parent.parent / "work.ipynb", {}, "", "x", of_machine=belongs)
    job = {"cell": cell, "notebook": "{}", "generation": 0, "threads": 1, "memory_limit": None}
    cluster.run_packed(job | {"versions": cluster._versions()})
    assert seen == [device_name("cpu") if belongs else ""]


def test_changes_that_are_not_committed_count(project, monkeypatch):
    """The `+` of a commit and the code state must be equal. The code must not change while a cell runs."""
    cell = Cell("s", project.make().parent.parent / "work.ipynb", {}, "0" * 16, "x")
    job = {"cell": cell, "notebook": "{}", "generation": 0, "threads": 1, "memory_limit": None}
    monkeypatch.setattr(cluster, "git_commit", lambda: "0123456789+")
    for other in ({"commit": "0123456789"}, {"commit": ""}, {"tal_lib": "0.0.1"}):
        reason, archive, _ = cluster.run_packed(job | {"versions": cluster._versions() | other})
        assert "at commit 0123456789+, the sweep" in reason and archive is None
    reason, archive, _ = cluster.run_packed(job | {"versions": cluster._versions() | {"code": "another"}})
    assert "has other code of tal_lib" in reason and "both are at 0123456789+" in reason and archive is None

    class Changing:
        def run(self, *_):
            monkeypatch.setattr(cluster, "code_state", lambda: "changed")

    monkeypatch.setattr(cluster, "warm_processes", lambda *_: Changing())
    reason, archive, _ = cluster.run_packed(job | {"versions": cluster._versions()})
    assert "has other code of tal_lib (hash changed" in reason and archive is None


def copy_of_the_library(folder):
    """The library outside any repository, as an installation is."""
    shutil.copytree(REPOSITORY / "tal_lib", folder / "tal_lib")
    return folder


def state_of(folder):
    done = subprocess.run(
        [sys.executable, "-c", "from tal_lib.provenance import code_state; print(code_state())"],
        env=ENVIRONMENT | {"PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_state_of_the_code(tmp_path):
    """Equal for equal files in any folder; different after any change of a file or an added file."""
    folder = copy_of_the_library(tmp_path)
    assert state_of(folder) == code_state()
    module = folder / "tal_lib" / "models" / "parts" / "losses.py"
    text = module.read_text()
    module.write_text(text + "\n")
    assert (changed := state_of(folder)) != code_state()
    module.write_text(text)
    (folder / "tal_lib" / "more.py").touch()
    assert state_of(folder) not in (changed, code_state())


@pytest.mark.parametrize("changed", [False, True])
def test_a_worker_with_other_code_is_refused(project, workers, tmp_path, monkeypatch, changed):
    """A real worker from a copy without a repository works if the files are equal, else it is refused."""
    monkeypatch.setattr(cluster, "git_commit", lambda: "")
    folder = copy_of_the_library(tmp_path / "worker")
    if changed:
        with open(folder / "tal_lib" / "segments.py", "a") as module:
            module.write("\nNMS_SIGMA = 0.7\n")
    workers.worker(library=folder)
    result = Sweep(project.make((1, 2)), project, workers.address).result()
    if changed:
        assert all("has other code of tal_lib" in reason for reason in result.failed.values())
        assert len(result.failed) == 2 and project.log() == [] and read_ledger(project.ledger) == {}
    else:
        assert not isinstance(result, BaseException), result
        assert result.complete and project.squares() == [(1, 1), (2, 4)]


def recipe(first_word):
    """The line of docs/cluster.md that begins with a word (or runs it after another command)."""
    lines = (REPOSITORY / "docs" / "cluster.md").read_text().splitlines()
    return next(line for line in lines if re.search(rf"(^|&& |=\S* ){re.escape(first_word)} ", line))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """The recipe's own command, run once."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    folder = tmp_path_factory.mktemp("certificates")
    assert recipe("openssl").endswith(certificates_module.MAKE)
    subprocess.run(recipe("openssl"), shell=True, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def encrypted(certificates):
    """Scheduler and worker of the recipe, as it stands there. No test ends them."""
    with Processes() as processes:
        processes.address = f"tls://127.0.0.1:{processes.port}"
        for name, command in (("scheduler", recipe("dask scheduler")), ("worker", recipe("dask worker"))):
            words = command.partition(f"dask {name} ")[2].replace("HOST", "127.0.0.1")
            words = words.replace("8786", str(processes.port)).replace("tls/", f"{certificates}/tls/").split()
            processes.start(f"dask_{name}", *words, *(["--no-nanny"] if name == "worker" else []))
        wait_for(lambda: not socket.socket().connect_ex(("127.0.0.1", processes.port)))
        yield processes


def test_the_recipe_with_certificates(project, encrypted, certificates):
    """Every command of the recipe, the last one too."""
    words = recipe("tal sweep").replace("HOST:8786", f"127.0.0.1:{encrypted.port}").split()
    words = [str(project.make((1, 2), gpu=True)) if word.endswith(".yaml") else word for word in words]
    assert words[:3] == ["TAL_TLS=tls", "tal", "sweep"]
    where = ["--results", str(project.folder / "results"), "--runs", str(project.folder / "runs")]
    done = subprocess.run(
        [sys.executable, "-m", "tal_lib", *words[2:], *where],
        env=ENVIRONMENT | {"TAL_TLS": "tls"},
        cwd=certificates,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert project.squares() == [(1, 1), (2, 4)]


def test_without_the_right_certificates_there_is_one_line(
    project, encrypted, certificates, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)  # which passes in full
    grid, tcp = project.make(), encrypted.address.replace("tls", "tcp")
    (tmp_path / "tls").mkdir()
    subprocess.run(certificates_module.MAKE, shell=True, cwd=tmp_path, check=True, capture_output=True)
    capfd.readouterr()
    for address, folder, message in (
        (encrypted.address, None, "asks for certificates. Set TAL_TLS"),
        (tcp, None, "asks for certificates. Use tls://"),
        (tcp, certificates / "tls", "TAL_TLS is set, but tcp:// is not encrypted. Use tls://"),
        (encrypted.address, tmp_path / "tls", "has other certificates"),
    ):
        monkeypatch.setenv("TAL_TLS", str(folder)) if folder else monkeypatch.delenv("TAL_TLS", raising=False)
        where = ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]
        assert main(["sweep", str(grid), "--cluster", address, *where]) == 2
        out, error = capfd.readouterr()
        assert message in error and error.count("\n") == 1 and out == "", error
    assert project.log() == []


def test_a_scheduler_without_certificates_is_told_from_one_with(
    project, scheduler, certificates, monkeypatch
):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)  # which passes in full
    monkeypatch.setenv("TAL_TLS", str(certificates / "tls"))
    with pytest.raises(TalError, match="this scheduler has no certificates"):
        sweeps.run(project.make(), cluster=f"tls://127.0.0.1:{scheduler.port}", **project.where)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "key.pem: certificate file not found.*openssl"),
        ("readable", "other users may read this key. chmod 600"),
        ("damaged", "certificates cannot be used"),
        ("locked", "is protected by a password"),
    ],
)
def test_certificates_that_cannot_be_used(project, certificates, tmp_path, monkeypatch, fault, message):
    folder = tmp_path / "tls"
    shutil.copytree(certificates / "tls", folder)
    key = folder / "key.pem"
    if fault == "missing":
        key.unlink()
    elif fault == "readable":
        key.chmod(0o644)
    elif fault == "damaged":
        key.write_text("no key")
    else:
        key.write_text(key.read_text().replace("PRIVATE", "ENCRYPTED PRIVATE"))
    monkeypatch.setenv("TAL_TLS", str(folder))
    for address in ("tls://127.0.0.1:9", "local:1"):
        with pytest.raises(TalError, match=message):
            sweeps.run(project.make(), cluster=address, **project.where)


def test_workers_of_this_machine_with_certificates(project, certificates, monkeypatch):
    monkeypatch.setenv("TAL_TLS", str(certificates / "tls"))
    seen = []
    threads = cluster.Cluster._threads
    monkeypatch.setattr(
        cluster.Cluster,
        "_threads",
        lambda here: seen.append(here._client.scheduler.address) or threads(here),
    )
    assert sweeps.run(project.make((1,)), cluster="local:1", **project.where).complete
    assert seen and all(address.startswith("tls://") for address in seen)


SBATCH = """#!/bin/sh
# what Slurm's own command does, without the queue: run the job script in the background and say its number
for script; do :; done
cp "$script" {folder}/job.$$.sh  # as Slurm does: the caller deletes its own at once
setsid sh {folder}/job.$$.sh > {folder}/job.log 2>&1 &
echo "$!" >> {folder}/jobs
echo "Submitted batch job $!"
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Writes the description of a cluster whose `sbatch` and `scancel` are stand-ins; returns its address."""
    pytest.importorskip("dask_jobqueue")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (
        ("sbatch", SBATCH.format(folder=tmp_path)),
        ("scancel", "#!/bin/sh\nkill -9 -- -$1 2>/dev/null\ntrue\n"),
    ):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))

    def describe(**options):
        folder = str(tmp_path)
        always = {"memory": "2GB", "queue": "short", "walltime": "00:10:00", "interface": "lo"}
        always |= {"local_directory": folder, "log_directory": folder}
        (tmp_path / "slurm.yaml").write_text(json.dumps(always | options))
        return f"slurm:{tmp_path / 'slurm.yaml'}"

    return describe


@pytest.mark.parametrize("encryption", [False, True])
def test_slurm_by_a_stand_in_for_its_commands(
    project, slurm, tmp_path, monkeypatch, certificates, encryption
):
    """dask-jobqueue's scripts, really submitted, to an `sbatch` that runs them here."""
    if encryption:
        monkeypatch.setenv("TAL_TLS", str(certificates / "tls"))
    address = slurm(jobs=2, gpu=True, cores=1)
    result = sweeps.run(project.make((1, 2), gpu=True), cluster=address, **project.where)
    assert result.complete and project.squares() == [(1, 1), (2, 4)]
    assert len((tmp_path / "jobs").read_text().split()) == 2
    script = next(tmp_path.glob("job.*.sh")).read_text()
    assert ("tls://" in script and "--tls-key" in script) == encryption


def test_a_slurm_job_that_ends_is_submitted_again(project, slurm, tmp_path):
    """As at its walltime: the only job is killed amid the sweep."""
    dask = pytest.importorskip("dask")
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "100ms"}):
        sweep = Sweep(project.make(NUMBERS, sleep=1.0), project, slurm(jobs=1, cores=2))
        wait_for(project.log)
        os.killpg(int((tmp_path / "jobs").read_text()), signal.SIGKILL)
        result = sweep.result()
    assert not isinstance(result, BaseException), result
    assert result.complete and project.squares() == WHOLE
    assert len((tmp_path / "jobs").read_text().split()) == 2


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True)


def without_hosts(number):
    """Take the bridge and the two hosts of process `number` away."""
    for letter in "ab":
        ip("link", "del", f"tal{number}{letter}v")
        ip("netns", "del", f"tal{number}{letter}")
    ip("link", "del", f"tb{number}")


@pytest.fixture
def hosts():
    """(names, subnet) of two more hosts: network namespaces on one bridge.

    They have the addresses .1 and .2 of the subnet. This side of the bridge has .254.
    """
    here = os.getpid()
    subnet, bridge, names = f"10.77.{here % 256}", f"tb{here}", [f"tal{here}{letter}" for letter in "ab"]
    try:
        if ip("link", "add", bridge, "type", "bridge").returncode:
            pytest.skip("no network namespaces here")
    except FileNotFoundError:
        pytest.skip("no network namespaces here")
    for number in map(int, re.findall(r"^\d+: tb(\d+):", ip("-o", "link").stdout, re.MULTILINE)):
        if not Path(
            f"/proc/{number}"
        ).exists():  # a run that was killed left its own, perhaps with this subnet
            without_hosts(number)
    ip("addr", "add", f"{subnet}.254/24", "dev", bridge)
    ip("link", "set", bridge, "up")
    for number, name in enumerate(names, 1):
        ip("netns", "add", name)
        ip("link", "add", f"{name}v", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"{name}v", "master", bridge, "up")
        ip("-n", name, "addr", "add", f"{subnet}.{number}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            ip("-n", name, "link", "set", device, "up")
    yield names, subnet
    without_hosts(here)


def test_hosts_of_which_one_is_cut_off(project, processes, hosts):
    """A scheduler here, two workers on two other hosts; the cable of one of these is pulled amid a cell."""
    names, subnet = hosts
    processes.address = f"tcp://{subnet}.254:{processes.port}"
    quick = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "20s", "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s"}
    ENVIRONMENT.update(quick)
    try:
        processes.scheduler(f"{subnet}.254")
        for number, name in enumerate(names, 1):
            processes.worker("--host", f"{subnet}.{number}", within=("ip", "netns", "exec", name))
        sweep = Sweep(project.make(NUMBERS, sleep=1.0), project, processes.address)
        wait_for(lambda: len(project.log()) >= 2)
        ip("link", "set", f"{names[1]}v", "down")
        result = sweep.result(180)
    finally:
        for name in quick:
            ENVIRONMENT.pop(name)
    assert result.complete and project.squares() == WHOLE
