"""Run the cells of a grid that are not done yet, a few at a time."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm.auto import tqdm

from tal_lib.errors import TalError
from tal_lib.files import REPOSITORY
from tal_lib.processes import child_environment
from tal_lib.provenance import usable_cores
from tal_lib.sweeps.grid import Cell, plan
from tal_lib.sweeps.ledger import RESULT, finished_elsewhere, finished_runs, update_ledger


@dataclass(frozen=True)
class SweepResult:
    """What a sweep did."""

    cells: list[Cell]
    done_before: int
    done_now: int
    failed: dict[str, str] = field(default_factory=dict)  # cell id -> reason
    ledger: Path | None = None
    runs: Path | None = None

    @property
    def complete(self) -> bool:
        return not self.failed and self.done_before + self.done_now == len(self.cells)


def run(grid_yaml, *, jobs: int = 1, cluster: str | None = None, resume: bool = True, results="results", runs="runs",
        only: dict[str, str] | None = None, progress: bool = True) -> SweepResult:
    """Run a sweep: every cell of the grid that neither the ledger nor the run folders have.

    Args:
        jobs: cells at a time, each a process with its share of the cores.
        resume: False runs every cell again.
        results: folder of the ledger; runs: folder of the run folders.

    A failing cell does not stop the others; its reason is in `failed`, its notebook with the traceback in
    `<runs>/<sweep>/<id>.failed`.
    """
    if cluster:
        raise TalError(f"cluster {cluster!r}: sweeps run on this machine only so far", remedy="Use jobs=N.")
    if jobs < 1:
        raise TalError(f"jobs={jobs}", remedy="Give at least 1.")
    cells = plan(grid_yaml, only)
    if not cells:
        raise TalError("the grid has no such cell", where=grid_yaml, remedy="Check --only and the grid's lists.")
    sweep = cells[0].sweep
    folder, ledger = Path(runs).resolve() / sweep, Path(results).resolve() / "ledger" / f"{sweep}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        known = set(update_ledger(ledger, finished_runs(folder))) | finished_elsewhere(results) if resume else set()
        waiting = [cell for cell in cells if cell.id not in known]
        failed = _run_all(waiting, folder, ledger, jobs, progress)
    return SweepResult(cells, len(cells) - len(waiting), len(waiting) - len(failed), failed, ledger, folder)


@contextmanager
def _alone(folder):
    """Only one sweep at a time in a folder; the lock goes with the process, however it ends."""
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TalError("another sweep is running here", where=folder, remedy="Wait for it, or stop it.") from None
        yield


def _run_all(cells, folder, ledger, jobs, progress):
    failed: dict[str, str] = {}
    with tqdm(total=len(cells), disable=not progress or not cells, unit="cell", mininterval=1,
              desc=cells[0].sweep if cells else "") as bar:
        _run_some([cell for cell in cells if not cell.alone], folder, ledger, jobs, bar, failed)
        _run_some([cell for cell in cells if cell.alone], folder, ledger, 1, bar, failed)
    return failed


def _run_some(cells, folder, ledger, jobs, bar, failed):
    children: set[subprocess.Popen] = set()
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(_run_one, cell, folder, jobs, children): cell for cell in cells}
        try:
            for future in as_completed(futures):
                cell, reason = futures[future], future.result()
                if reason:
                    failed[cell.id] = reason
                    bar.write(f"failed {cell.id} ({cell.label()}): {reason}")
                else:
                    update_ledger(ledger, {cell.id: json.loads((folder / cell.id / RESULT).read_text())})
                bar.update()
        except BaseException:  # Ctrl-C: stop the children, keep what is done
            pool.shutdown(wait=False, cancel_futures=True)
            for child in list(children):
                _kill(child)
            raise


def _run_one(cell, folder, jobs, children):
    """Run a cell in a process of its own; the reason if it failed."""
    env = child_environment(max(1, usable_cores() // jobs)) | {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    job = {"id": cell.id, "sweep": cell.sweep, "notebook": str(cell.notebook), "parameters": cell.parameters,
           "data_hash": cell.data_hash, "runs": str(folder), "cwd": str(REPOSITORY), "driver": os.getpid()}
    child = subprocess.Popen([sys.executable, "-m", "tal_lib.sweeps.cell"], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                             stdout=subprocess.DEVNULL, env=env, cwd=REPOSITORY, start_new_session=True, text=True)
    children.add(child)
    try:
        _, errors = child.communicate(json.dumps(job))
    finally:
        children.discard(child)
        _kill(child)
    if child.returncode == 0:
        return None
    reason = folder / f"{cell.id}.failed" / "error.txt"
    if child.returncode == 1 and reason.is_file():
        return reason.read_text().strip().splitlines()[0]
    last = [line for line in errors.splitlines() if line.strip()][-1:] or ["no message"]
    return f"the cell's process ended with {child.returncode}: {last[0]}"


def _kill(child):
    """End a cell's process and whatever it has started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
