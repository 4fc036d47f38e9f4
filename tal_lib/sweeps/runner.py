"""Run the unfinished cells of a grid, on this machine or on a cluster."""

import fcntl
import json
import os
from collections.abc import Collection
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm.auto import tqdm

from tal_lib.disk import disk_errors, disk_is_full, full_disk, writable_folder
from tal_lib.errors import TalError
from tal_lib.sweeps.detections import WRITTEN, collect, file_of, kept_less
from tal_lib.sweeps.folders import check_runs
from tal_lib.sweeps.gpus import gpu_environments
from tal_lib.sweeps.grid import Cell, plan, plan_some
from tal_lib.sweeps.grid_file import read_grid
from tal_lib.sweeps.ledger import (
    RESULT,
    LedgerWriter,
    cell_key,
    current,
    finished_runs,
    ledgers,
    read_ledger,
    recency,
    same_cell,
    update_ledger,
)
from tal_lib.sweeps.local import Local, OutOfTime, ProcessLost
from tal_lib.sweeps.states import DONE, STALE, State, states_of

TIME_LIMIT = 12 * 3600.0  # seconds, for a cell whose block has no limit


@dataclass(frozen=True)
class SweepResult:
    """Summary of a sweep."""

    cells: list[Cell]
    done_before: int
    done_now: int
    failed: dict[str, str] = field(default_factory=dict)  # cell id -> reason
    ledger: Path | None = None
    runs: Path | None = None
    # cell id -> changes of code, for stale cells that were not run
    stale: dict[str, tuple[tuple[str, str, str], ...]] = field(default_factory=dict)
    detections: int = 0  # of each recording that the grid keeps
    less: dict[str, int] = field(default_factory=dict)  # finished cell -> detections, where it keeps fewer
    left: int = 0  # cells that the sweep had no time for

    @property
    def complete(self) -> bool:
        return not self.failed and self.done_before + self.done_now + len(self.stale) == len(self.cells)


def run(
    grid_yaml,
    *,
    jobs: int | None = None,
    threads: int = 1,
    gpus=None,
    cluster: str | None = None,
    resume: bool = True,
    again_stale: bool = False,
    results="results",
    runs="runs",
    only: dict[str, str] | None = None,
    time_limit: float | None = None,
    memory_limit: int | None = None,
    seconds: float | None = None,
    without: Collection[str] = (),
    progress: bool = True,
) -> SweepResult:
    """Run a sweep: every cell of the grid without a result in the ledgers and the run folders.

    Args:
        jobs: cells at a time on this machine (default: 1, or one per GPU).
        threads: CPU threads per cell. Results are bit-equal only for the same number of threads.
        gpus: GPUs of this machine to spread over, as text `0,1` or numbers: one cell on each at a time.
        cluster: run on a cluster instead: `tls://HOST:PORT` or `tcp://HOST:PORT` of a Dask scheduler,
            `local:N` workers here, `slurm:CONFIG.yaml`.
        resume: False runs every cell again.
        again_stale: also run cells whose results come from other code. Otherwise these results stay.
        results: folder of the ledger.
        runs: folder of the run folders.
        time_limit: seconds per cell; it takes precedence over the grid's limit.
        memory_limit: bytes per kernel.
        seconds: for the whole sweep, on this machine. Cells that do not end in this time stay to do.
        without: ids of cells that stay as they are.

    A failed cell does not stop the others. Its reason is in `failed`, and its notebook with the traceback is
    in `<runs>/<sweep>/<id>.failed`. A cell whose process was killed runs once more, with no other cell at the
    same time.

    Raises:
        TalError: a bad grid or argument, a folder that cannot be written, another sweep in the folder, a full
            disk, a lost scheduler.
    """
    if (jobs is not None and jobs < 1) or threads < 1:
        raise TalError(
            f"jobs={jobs}, threads={threads}: not at least 1", remedy="Give whole numbers from 1 on."
        )
    on_gpus = [] if gpus is None else gpu_environments(gpus, jobs=jobs, cluster=cluster)
    cells = plan_some(grid_yaml, only, here=cluster is None, results=results)
    cells = [replace(cell, time_limit=time_limit or cell.time_limit or TIME_LIMIT) for cell in cells]
    sweep = cells[0].sweep
    folder, ledger = Path(runs).resolve() / sweep, Path(results).resolve() / "ledger" / f"{sweep}.jsonl"
    for needed in (folder, ledger.parent):
        writable_folder(needed, "Name other folders with --results and --runs, or change the rights.")
    with _alone(folder):
        update_ledger(ledger, finished_runs(folder, ledger))
        records = ledgers(results)
        _copy_trials(grid_yaml, cells, records, ledger)
        states = states_of(cells, records) if resume else {cell.id: State() for cell in cells}
        left = (DONE,) if again_stale else (DONE, STALE)
        waiting = [cell for cell in cells if states[cell.id].name not in left and cell.id not in without]
        check_runs(folder, {cell.id for cell in waiting})
        stale = (
            {cell.id: states[cell.id].changes for cell in cells if states[cell.id].name == STALE}
            if not again_stale
            else {}
        )
        generations = _generations(waiting, records)
        failed: dict[str, str] = {}
        unfinished: list[Cell] = []
        if waiting:
            with (
                _executor(
                    cluster, waiting, folder, jobs or 1, threads, memory_limit, on_gpus, seconds
                ) as executor,
                disk_errors(folder),
            ):
                try:
                    writer = LedgerWriter(ledger)
                    _run_all(waiting, generations, executor, folder, writer, progress, failed, unfinished)
                finally:
                    _keep_detections(grid_yaml, cells, folder, ledger, results, here=cluster is None)
        else:
            _keep_detections(grid_yaml, cells, folder, ledger, results, here=cluster is None)
    best, less = detections_missing(grid_yaml, cells, results=results, runs=runs)
    return SweepResult(
        cells,
        sum(states[cell.id].name == DONE for cell in cells),
        len(waiting) - len(failed) - len(unfinished),
        failed,
        ledger,
        folder,
        stale,
        best,
        less,
        len(unfinished),
    )


def _copy_trials(grid_yaml, cells, records, ledger):
    """Copy a search's trials that another sweep has run: the best is chosen from the search's own ledger."""
    if any(block.search for block in read_grid(grid_yaml).blocks):
        wanted = {cell.id for cell in cells}
        update_ledger(ledger, {record["id"]: record for record in records if record["id"] in wanted})


def _keep_detections(grid_yaml, cells, folder, ledger, results, *, here):
    """Keep the detections of the finished cells, if the grid asks for it: those of the records that tables
    show, also if they are of older code."""
    if best := read_grid(grid_yaml).detections:
        known = read_ledger(ledger)
        try:
            planned = plan(grid_yaml, here=here, results=results)
            shown = {cell_key(record): record["id"] for record in current(ledgers(results))}
            key = lambda cell: same_cell(cell.notebook.name, cell.parameters, cell.machine)
            ids = {shown.get(key(cell), cell.id) for cell in planned}
        except TalError:  # a part of the grid that was not asked for waits for its tuning: nothing is dropped
            ids = {cell.id for cell in cells} | set(known)
        target = file_of(Path(results).resolve(), cells[0].sweep)
        collect(folder, target, ids, best, known)


def detections_missing(
    grid_yaml, cells: list[Cell], *, results="results", runs="runs"
) -> tuple[int, dict[str, int]]:
    """The grid's number of detections, and the finished cells that keep fewer: cell id → how many.

    This happens if the number was raised, or added, after they ran and their run folders are gone.
    """
    best = read_grid(grid_yaml).detections
    if not best or not cells:
        return best, {}
    writing = {
        notebook: WRITTEN in notebook.read_text(encoding="utf-8")
        for notebook in {cell.notebook for cell in cells}
    }
    sweep, done = cells[0].sweep, {record["id"] for record in ledgers(results)}
    finished = [cell.id for cell in cells if cell.id in done and writing[cell.notebook]]
    folder = Path(runs).resolve() / sweep
    return best, kept_less(folder, file_of(Path(results).resolve(), sweep), finished, best)


def _executor(cluster, cells, folder, jobs, threads, memory_limit, gpus, seconds):
    if not cluster:
        return Local(folder, jobs, threads, memory_limit, gpus, seconds)
    from tal_lib.sweeps.cluster import Cluster

    return Cluster(cluster, folder, threads, memory_limit, cells)


@contextmanager
def _alone(folder):
    """Hold the lock of a folder: only one sweep runs in it at a time. The lock ends with the process.

    If the sweep leaves nothing in the folder, the lock file is removed.
    """
    path = folder / ".lock"
    with _locked(path):
        try:
            yield
        finally:
            if os.listdir(folder) == [path.name]:
                path.unlink()


@contextmanager
def _locked(path):
    while True:
        with open(path, "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TalError(
                    "another sweep is running here", where=path.parent, remedy="Wait for it, or stop it."
                ) from None
            if _is_at(lock, path):  # it was not removed before it was locked
                yield
                return


def _is_at(file, path):
    """Whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _generations(cells, records):
    """Cell id → generation: how many results of the same cell exist already.

    It makes the new result the newest one, even if a clock is wrong.
    """
    before: dict[str, int] = {}
    for record in records:
        key = cell_key(record)
        before[key] = max(before.get(key, 0), recency(record)[0] + 1)
    return {
        cell.id: before.get(same_cell(cell.notebook.name, cell.parameters, cell.machine), 0) for cell in cells
    }


def _run_all(cells, generations, executor, folder, writer, progress, failed, unfinished):
    lost = []
    with tqdm(total=len(cells), disable=not progress, unit="cell", mininterval=1, desc=cells[0].sweep) as bar:

        def take(outcomes, last=False):
            with closing(outcomes):  # after any error, no further cell begins
                for cell, reason in outcomes:
                    if isinstance(reason, OutOfTime):
                        unfinished.append(cell)
                        continue
                    if isinstance(reason, ProcessLost) and not last:
                        lost.append(cell)
                        bar.write(f"lost {cell.id} ({cell.label()}): {reason}; once more at the end")
                        continue
                    if reason is None:
                        writer.add(json.loads((folder / cell.id / RESULT).read_text(encoding="utf-8")))
                    else:
                        failed[cell.id] = (
                            f"its process was lost twice: {reason}"
                            if isinstance(reason, ProcessLost)
                            else reason
                        )
                        bar.write(f"failed {cell.id} ({cell.label()}): {failed[cell.id]}")
                        # a worker's message may be about a disk of its own
                        if disk_is_full(folder, failed[cell.id] if isinstance(executor, Local) else ""):
                            raise full_disk(folder)
                    bar.update()

        try:
            take(executor.run([cell for cell in cells if not cell.alone], generations))
            take(executor.run([cell for cell in cells if cell.alone], generations, jobs=1))
            take(executor.run(list(lost), generations, jobs=1), last=True)
        finally:
            writer.flush()
