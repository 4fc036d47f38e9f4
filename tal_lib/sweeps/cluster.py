"""Cells on the workers of a Dask cluster.

The driver sends a cell as its notebook, its parameters, and the name and hash of its data. The worker has the
library and the data. It returns the run folder as one archive with a hash. The driver unpacks the archive
under a temporary name and renames it, so that a run folder is always complete. No shared file system is
needed. Workers may join and leave: another worker runs the cell of a lost worker again.
"""

import hashlib
import io
import math
import shutil
import socket
import tarfile
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from tal_lib import __version__, plugins
from tal_lib.errors import TalError
from tal_lib.provenance import code_state, git_commit
from tal_lib.sweeps.certificates import SEE as SEE_CERTIFICATES
from tal_lib.sweeps.certificates import check_address, security, why_refused
from tal_lib.sweeps.folders import keep_failed, part_of, put_in_place
from tal_lib.sweeps.grid import Cell, measured_on
from tal_lib.sweeps.identity import benchmarks_of, data_now
from tal_lib.sweeps.local import ProcessLost, refuse_other_code, warm_processes
from tal_lib.sweeps.workers import SEE, slurm_jobs, workers_here

FORMS = "Use tls://HOST:PORT, tcp://HOST:PORT, local:N or slurm:CONFIG.yaml."
# cells at the scheduler per worker thread: a worker that has finished need not wait for the driver
AHEAD = 2
CONNECT_SECONDS = 20
PATIENCE_SECONDS = 60  # that cells wait without a worker that suits them, until this is told


class Cluster:
    """Runs cells on a cluster and writes the returned run folders into a folder.

    Args:
        address: `tls://HOST:PORT` or `tcp://HOST:PORT` (a running scheduler), `local:N` (N workers on this
            machine) or `slurm:CONFIG.yaml`.
        folder: folder of the run folders.
        threads: CPU threads per cell.
        memory_limit: bytes per kernel.
        cells: the cells that will run, so that `local:N` knows whether they need a GPU.
    """

    def __init__(
        self,
        address: str,
        folder: Path,
        threads: int,
        memory_limit: int | None = None,
        cells: Sequence[Cell] = (),
    ):
        self.address, self.folder, self.threads, self.memory_limit = address, folder, threads, memory_limit
        self._need_gpu = [cell for cell in cells if cell.gpu]
        self._started: Any = None  # a cluster of this process
        # when a worker last suited the cells without and with `gpu`; infinite: it was told that none does
        self._suited = dict.fromkeys((False, True), time.monotonic())

    def __enter__(self):
        try:
            import dask
            from distributed import Client
        except ImportError:
            raise TalError(
                "sweeps on a cluster need Dask", remedy="In the clone: pip install -e '.[cluster]'"
            ) from None
        dask.config.set(  # pyright: ignore[reportPrivateImportUsage]
            {
                "distributed.scheduler.work-stealing": False,
                "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s",
                "distributed.admin.large-graph-warning-threshold": "1GB",
            }
        )
        self._versions = _versions()  # read once: later changes of the files do not belong to this sweep
        certificates = security()
        kind, _, rest = self.address.partition(":")
        started_here = kind in ("local", "slurm")
        if not started_here and "://" not in self.address:
            raise TalError(f"cluster {self.address!r}", remedy=FORMS)
        if not started_here:
            check_address(self.address, certificates)
        elif kind == "local":
            self._started = workers_here(rest, certificates, self._need_gpu)
        else:
            self._started = slurm_jobs(rest, certificates)
        try:
            self._client = Client(
                self._started or self.address,
                timeout=CONNECT_SECONDS,
                set_as_default=False,
                security=certificates,
            )
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            if self._started is not None:
                self._started.close(timeout=10)
            problem = None if started_here else why_refused(self.address)
            raise TalError(
                problem or f"no scheduler answers ({type(error).__name__})",
                where=self.address,
                remedy=f"Use tls:// and the certificates that it was started with. {SEE_CERTIFICATES}"
                if problem
                else "Start it with `dask scheduler`, or check host and port.",
            ) from None
        return self

    def __exit__(self, *_):
        self._client.close(timeout=5)
        if self._started is not None:
            self._started.close(timeout=10)

    def run(
        self, cells: list[Cell], generations: dict[str, int], jobs: int | None = None
    ) -> Iterator[tuple[Cell, str | ProcessLost | None]]:
        """Yield each cell when it ends, with None or with the reason of its failure.

        The reason is a `ProcessLost` if the cell's worker died several times. `jobs=1` runs one cell at a
        time, for any number of workers. Cells that wait for a GPU do not keep the others waiting.
        """
        waiting = {gpu: deque(cell for cell in cells if cell.gpu == gpu) for gpu in (False, True)}
        running, refused = {}, None
        while running or any(waiting.values()):
            threads = self._threads()
            for gpu, queue in waiting.items():
                room = AHEAD * max(1, threads[gpu]) - sum(cell.gpu == gpu for cell in running.values())
                if jobs is not None:
                    room = min(room, jobs - len(running))
                try:
                    for _ in range(min(room, len(queue))):
                        cell = queue.popleft()
                        running[self._submit(cell, generations[cell.id])] = cell
                except TalError as error:  # no further cell is sent; those that run are awaited
                    refused = error
            if refused:
                waiting = {}
            self._tell_who_waits(threads, {cell.gpu for cell in running.values()})
            if len(running) + sum(map(len, waiting.values())) > threads[False]:
                self._replace_ended_jobs()
            for future in self._ended(running):
                cell = running.pop(future)
                yield cell, self._receive(cell, future)
                future.release()
        if refused:
            raise refused

    def _threads(self):
        """Number of cells without and with `gpu` that the present workers can run at a time."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        gpus = (min(worker["nthreads"], int(worker["resources"].get("GPU", 0))) for worker in workers)
        return {False: sum(worker["nthreads"] for worker in workers), True: sum(gpus)}

    def _tell_who_waits(self, threads, kinds):
        """Print a line, once, if submitted cells have waited for a while and no worker suits them."""
        now = time.monotonic()
        for gpu in (False, True):
            if threads[gpu] or gpu not in kinds:
                self._suited[gpu] = now
            elif now - self._suited[gpu] > PATIENCE_SECONDS:
                self._suited[gpu] = math.inf
                lack = "no worker has a GPU (--resources GPU=1)" if gpu else "there is no worker"
                tqdm.write(f"cells wait, but {lack}. {SEE}")

    def _replace_ended_jobs(self):
        """Submit the Slurm jobs again that have ended, for example at their walltime."""
        if self.address.startswith("slurm:"):
            self._started.scale(jobs=len(self._started.worker_spec))  # those that wait or run are kept

    def _submit(self, cell, generation):
        notebook = cell.notebook.read_text(encoding="utf-8")
        # after it was read: the text that is sent is the one of the plan
        refuse_other_code(cell)
        job = {
            "cell": replace(cell, notebook=Path(cell.notebook.name)),
            "notebook": notebook,
            "generation": generation,
            "threads": self.threads,
            "memory_limit": self.memory_limit,
            "versions": self._versions,
        }
        return self._client.submit(
            run_packed,
            job,
            key=f"{cell.id}-{uuid.uuid4().hex}",
            pure=False,
            resources={"GPU": 1} if cell.gpu else None,
        )

    def _ended(self, running):
        """Futures that have ended within a second. Raises an error if the scheduler is lost."""
        from distributed import wait

        try:
            with self._client.as_current():
                ended = wait(
                    list(running),  # this client is not asynchronous
                    timeout=1,
                    return_when="FIRST_COMPLETED",
                ).done  # pyright: ignore[reportAttributeAccessIssue]
            if all(future.status in ("finished", "error") for future in ended):
                return ended
        except TimeoutError:
            if self._client.status in ("running", "connecting"):
                return set()
        except CancelledError:
            pass
        raise TalError(
            "the connection to the scheduler was lost",
            where=self.address,
            remedy="Start the scheduler again. Finished work is kept. Run the same command to continue.",
        )

    def _receive(self, cell, future):
        if future.status == "error":
            error = future.exception()
            if type(error).__name__ == "KilledWorker":
                return ProcessLost("it took its worker with it several times: was it out of memory?")
            return f"{type(error).__name__}: {error}".splitlines()[0]
        reason, archive, checksum = future.result()
        if archive is None:
            return reason
        if hashlib.sha256(archive).hexdigest() != checksum:
            return ProcessLost("what came back was damaged on the way")
        part = part_of(self.folder, cell.id)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            packed.extractall(part, filter="data")
        if reason is not None:
            return keep_failed(self.folder, cell.id, reason)
        put_in_place(self.folder, cell.id)
        return None


def run_packed(job: dict) -> tuple[str | ProcessLost | None, bytes | None, str]:
    """On a worker: run the cell in a scratch folder.

    Returns the reason of a failure (None if there was none), the run folder as an archive, and the archive's
    hash.
    """
    cell: Cell = job["cell"]
    if problem := _mismatch(job["versions"], cell):
        return f"worker {socket.gethostname()}: {problem}", None, ""
    if cell.of_machine:
        cell = replace(cell, machine=measured_on(cell.parameters))
    with tempfile.TemporaryDirectory(prefix="tal-cell-") as scratch:
        notebook = Path(scratch) / cell.notebook.name
        notebook.write_text(job["notebook"], encoding="utf-8")
        runs = Path(scratch) / "runs"
        runs.mkdir()
        reason = warm_processes(job["threads"], job["memory_limit"]).run(
            cell, notebook, job["generation"], runs
        )
        if problem := _mismatch(job["versions"], cell):  # the files may have been changed while it ran
            return f"worker {socket.gethostname()}: {problem}", None, ""
        folder = runs / (cell.id if reason is None else f"{cell.id}.failed")
        if not folder.is_dir():
            return reason, None, ""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as packed:
            packed.add(folder, arcname=".")
        return reason, buffer.getvalue(), hashlib.sha256(buffer.getvalue()).hexdigest()


def _versions():
    return {
        "tal_lib": __version__,
        "commit": git_commit(),
        "code": code_state(),
        "plugins": plugins.contents(),
    }


def _mismatch(versions, cell):
    """The reason why a cell must not run on this worker, or None.

    With another library, other plug-ins or other data, the worker would give other numbers under the same id.
    """
    here = _versions()
    if any(here[name] != versions[name] for name in ("tal_lib", "commit")):
        return (
            f"has tal_lib {here['tal_lib']} at commit {here['commit'] or 'unknown'}, "
            f"the sweep {versions['tal_lib']} at {versions['commit'] or 'unknown'} "
            "(+: with uncommitted changes). Install the same on both, and restart a worker after an update."
        )
    if here["code"] != versions["code"]:
        return (
            f"has other code of tal_lib (hash {here['code']}, the sweep has {versions['code']}), "
            f"although both are at {here['commit'] or 'no commit'}. "
            "Commit it and check out the same commit on both, or copy the files."
        )
    for name, wanted in versions["plugins"].items():
        if here["plugins"].get(name) != wanted:
            return (
                f"{'has another copy of' if name in here['plugins'] else 'lacks'} the plug-in {name}. "
                "Copy the sweep's file there, and restart the worker with TAL_PLUGINS set to its path."
            )
    benchmarks = ", ".join(benchmarks_of(cell.parameters))
    if not benchmarks:
        return None
    try:
        local_hash = data_now(cell.parameters, cell.data_hash)
    except TalError as error:
        return str(error)
    return (
        None
        if local_hash == cell.data_hash
        else (
            f"has other data for {benchmarks} (hash {local_hash}, the sweep has {cell.data_hash}). Copy the "
            "same files there and point TAL_DATA at them."
        )
    )
