"""Cells on this machine, a few at a time. Each has its own process group and a warm kernel."""

import ast
import importlib.util
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import cache
from pathlib import Path
from queue import PriorityQueue
from typing import Any

from tal_lib import plugins
from tal_lib.errors import TalError
from tal_lib.files import work_folder
from tal_lib.process.environment import child_environment
from tal_lib.process.fork_server import Failed, ForkServer
from tal_lib.sweeps.areas import LIBRARY
from tal_lib.sweeps.folders import keep_failed, part_of
from tal_lib.sweeps.grid import Cell
from tal_lib.sweeps.identity import benchmarks_of, current_code, data_now, differences
from tal_lib.sweeps.notebook import code_cells

RUN_CELL = "tal_lib.sweeps.cell:run_cell"
RUN_PAGE = "tal_lib.sweeps.cell:run_page"
IMPORTS = ("tal_lib.sweeps.cell", "ipykernel.zmqshell")  # what every cell needs
# only the kernel imports these, because it chooses how figures are shown
DRAWING = ("matplotlib", "seaborn", "tal_lib.reports")
# their slow imports, which may come earlier: none of them chooses a backend
BEFORE_DRAWING = ("matplotlib.figure", "matplotlib.backends.backend_agg", "scipy.stats", "pandas")
TRAINING = ("tal_lib.study", "tal_lib.training", "tal_lib.models")
MODELS = tuple(f"tal_lib.models.{path.stem}" for path in sorted((LIBRARY / "models").glob("[!_]*.py")))


@cache
def imports_of(notebook: Path, changed: float) -> tuple[str, ...]:
    """Modules that a notebook imports and that the fork server may import before the kernel starts.

    changed: time of the file's last change.
    """
    names = []
    for source, _ in code_cells(notebook):
        try:
            tree = ast.parse(source)
        except SyntaxError:  # IPython syntax, or an error that the run will show
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    needed = [name for name in dict.fromkeys(names) if not name.startswith((*DRAWING, "IPython"))]
    imports = list(filter(_is_module, needed))
    if any(name.startswith(DRAWING) for name in names):
        imports += BEFORE_DRAWING
    if any(name.startswith(TRAINING) for name in names):
        imports += _before_training()
    return tuple(imports)


def _before_training():
    """What the first model and the first optimizer import, in two to three seconds.

    Where torch is built for GPUs, the import of `torch._dynamo` may ask the driver for them. Forks of a
    process that has done so cannot use them.
    """
    import torch

    gpus = torch.version.cuda or torch.version.hip or getattr(torch.version, "xpu", None)
    return MODELS if gpus else (*MODELS, "torch._dynamo")


def _is_module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # most names of a package are not modules
        return False


def kernel_environment(threads: int) -> dict[str, str]:
    """Environment of a fork server whose kernels have this many CPU threads."""
    return child_environment(threads) | {
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }


class ProcessLost(Exception):
    """A cell's process ended without an answer, so the outcome of the cell is unknown."""


class OutOfTime(Exception):
    """A cell did not begin, or did not end, before the sweep's time was up. It is still to do."""


class WarmProcesses:
    """Fork servers, as many as cells run at a time. Each runs one cell after another."""

    def __init__(self, threads: int, memory_limit: int | None, environment: dict[str, str]):
        self.threads, self.memory_limit, self._environment = threads, memory_limit, environment
        self._idle: list[ForkServer] = []
        self._busy: list[ForkServer] = []

    def run(self, cell: Cell, notebook: Path, generation: int, folder: Path) -> str | ProcessLost | None:
        """Run one cell into `<folder>/<id>`. Returns None, or the reason of the failure."""
        try:
            return self.execute(
                notebook,
                RUN_CELL,
                time_limit=cell.time_limit,
                id=cell.id,
                sweep=cell.sweep,
                name=cell.notebook.name,
                parameters=cell.parameters,
                data_hash=cell.data_hash,
                generation=generation,
                runs=str(folder),
                cwd=str(work_folder()),
                threads=self.threads,
                memory_limit=self.memory_limit,
                machine=cell.machine,
                code=cell.code,
            )
        except Failed as failed:
            if failed.timed_out:
                return keep_failed(
                    folder,
                    cell.id,
                    "stopped after its time limit of "  # without a limit it is not stopped
                    f"{cell.time_limit / 60:g} minutes",  # pyright: ignore[reportOptionalOperand]
                )
            shutil.rmtree(part_of(folder, cell.id), ignore_errors=True)
            return ProcessLost(str(failed))

    def execute(self, notebook: str | Path, function: str, time_limit: float | None = None, **job) -> Any:
        """Run `function(notebook=…, **job)` in a fork that has imported what the notebook imports.

        Raises:
            Failed: as `ForkServer.run`.
        """
        server = self._warm()
        self._busy.append(server)
        try:
            imports = imports_of(Path(notebook), os.stat(notebook).st_mtime)
            environment = self._environment | _settings()
            return server.run(function, time_limit, imports, environment, notebook=str(notebook), **job)
        finally:
            self._busy.remove(server)
            if server.alive:
                self._idle.append(server)

    def _warm(self):
        """A fork server with the current version of the library."""
        while True:
            try:
                server = self._idle.pop()
            except IndexError:  # not asked before: another thread may take the last one meanwhile
                return ForkServer(self._environment, IMPORTS)
            if not server.outdated:
                return server
            server.close()

    def stop(self):
        """Stop the running cells. Idle fork servers stay for the next sweep of this process."""
        for server in list(self._busy):
            server.close()


def _settings():
    """The settings of this library in the environment, as they are now."""
    return {name: value for name, value in os.environ.items() if name.startswith("TAL_")}


@cache
def _processes(threads, memory_limit, environment):
    return WarmProcesses(threads, memory_limit, dict(environment))


def warm_processes(
    threads: int, memory_limit: int | None = None, extra: dict[str, str] | None = None
) -> WarmProcesses:
    """The fork servers of this process for such cells, in the current environment. They end with this
    process. If only settings of this library change (`TAL_DATA`), they stay: each job is told the settings.

    extra: further environment variables, such as the GPU that they see.
    """
    environment = kernel_environment(threads) | (extra or {})
    for name in _settings().keys() - {plugins.VARIABLE}:
        environment.pop(name, None)
    return _processes(threads, memory_limit, tuple(sorted(environment.items())))


def refuse_other_code(cell: Cell) -> None:
    """Raise `TalError` if code that the cell's numbers depend on is no longer that of its plan."""
    if changes := differences(cell.code, current_code().of(cell.notebook, cell.parameters)):
        raise TalError(
            f"{', '.join(area for area, _, _ in changes)}: changed while its sweep ran",
            where=cell.notebook,
            remedy="Finished work is kept. Run the same command to continue with the current code.",
        )


def _refuse_other_data(cell):
    if cell.data_hash and data_now(cell.parameters, cell.data_hash) != cell.data_hash:
        raise TalError(
            f"the data of {' or '.join(benchmarks_of(cell.parameters))} changed while its sweep ran",
            where=cell.notebook,
            remedy="Finished work is kept. Run the same command to continue with the current data.",
        )


class Local:
    """Runs cells into a folder, `jobs` at a time, each with `threads` CPU threads.

    gpus: environment variables of the worker process for each GPU (`gpu_environments`). With them one cell
    runs on each GPU at a time; a cell that runs alone is on the first.

    seconds: from now on, until which no further cell begins and those that run are stopped.
    """

    def __init__(
        self,
        folder: Path,
        jobs: int,
        threads: int,
        memory_limit: int | None = None,
        gpus: Sequence[dict[str, str]] = (),
        seconds: float | None = None,
    ):
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.folder, self.jobs = folder, len(gpus) or jobs
        self._processes = [warm_processes(threads, memory_limit, gpu) for gpu in gpus] or [
            warm_processes(threads, memory_limit)
        ]
        self._free: PriorityQueue[int] = PriorityQueue()  # numbers of free processes, the first first
        for slot in range(self.jobs):
            self._free.put(slot)
        self._stopped, self._futures = False, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stopped = True
        # repeat: a cell may have begun after the last call of stop
        while not all(future.done() for future in self._futures):
            for processes in self._processes:
                processes.stop()
            time.sleep(0.01)

    def _run(self, cell, generation):
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return OutOfTime()
        refuse_other_code(cell)
        _refuse_other_data(cell)
        if self._stopped:
            return ProcessLost("the sweep has ended")
        slot = self._free.get()
        try:
            processes = self._processes[slot % len(self._processes)]
            if self.deadline is None:
                reason = processes.run(cell, cell.notebook, generation, self.folder)
            else:
                reason = self._run_in_time(processes, cell, generation, self.deadline)
        finally:
            self._free.put(slot)
        if reason is None and cell.alone:
            try:  # what is timed runs in processes of its own, some of which may have begun with newer code
                refuse_other_code(cell)
            except TalError:
                shutil.rmtree(self.folder / cell.id, ignore_errors=True)
                raise
        return reason

    def _run_in_time(self, processes, cell, generation, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            return OutOfTime()
        cut = cell.time_limit is None or left < cell.time_limit
        limited = replace(cell, time_limit=left) if cut else cell
        reason = processes.run(limited, cell.notebook, generation, self.folder)
        if cut and reason is not None and time.monotonic() >= deadline:
            shutil.rmtree(self.folder / f"{cell.id}.failed", ignore_errors=True)
            return OutOfTime()
        return reason

    def run(
        self, cells: list[Cell], generations: dict[str, int], jobs: int | None = None
    ) -> Iterator[tuple[Cell, str | ProcessLost | OutOfTime | None]]:
        """Yield each cell when it ends, with None or with the reason of its failure.

        The reason is a `ProcessLost` if the cell's process was lost, and `OutOfTime` if the time was up.
        """
        pool = ThreadPoolExecutor(jobs or self.jobs)
        self._futures = futures = {pool.submit(self._run, cell, generations[cell.id]): cell for cell in cells}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:  # also on Ctrl-C and a full disk: no further cell begins, running cells are stopped
            pool.shutdown(wait=False, cancel_futures=True)
