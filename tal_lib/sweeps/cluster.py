"""Cells on the workers of a Dask cluster.

The driver sends a cell as its notebook, its parameters, and the name and hash of its data. The worker has the
library and the data. It returns the run folder as one archive with a hash. The driver unpacks the archive
under a temporary name and renames it, so that a run folder is always complete. No shared file system is
needed. Workers may join and leave: another worker runs the cell of a lost worker again.
"""

import hashlib
import io
import shutil
import socket
import tarfile
import tempfile
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from logging import ERROR
from pathlib import Path

import yaml

from tal_lib import __version__
from tal_lib.errors import TalError
from tal_lib.provenance import code_state, git_commit
from tal_lib.sweeps.certificates import SEE as SEE_CERTIFICATES
from tal_lib.sweeps.certificates import check_address, security, why_refused
from tal_lib.sweeps.folders import keep_failed, part_of, put_in_place
from tal_lib.sweeps.grid import Cell, measured_on
from tal_lib.sweeps.identity import about_data, benchmarks_of, data_of
from tal_lib.sweeps.local import ProcessLost, warm_processes

FORMS = "Use tls://HOST:PORT, tcp://HOST:PORT, local:N or slurm:CONFIG.yaml."
# cells at the scheduler per worker thread: a worker that has finished need not wait for the driver
AHEAD = 2
CONNECT_SECONDS = 20
SEE = "docs/cluster.md has an example."


class Cluster:
    """Runs cells on a cluster and writes the returned run folders into a folder.

    Args:
        address: `tls://HOST:PORT` or `tcp://HOST:PORT` (a running scheduler), `local:N` (N workers on this
            machine) or `slurm:CONFIG.yaml`.
        folder: folder of the run folders.
        threads: CPU threads per cell.
        memory_limit: bytes per kernel.
    """

    def __init__(self, address: str, folder: Path, threads: int, memory_limit: int | None = None):
        self.address, self.folder, self.threads, self.memory_limit = address, folder, threads, memory_limit

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
        self._started = {"local": _local, "slurm": _slurm}[kind](rest, certificates) if started_here else None
        try:
            self._client = Client(
                self._started or self.address,
                timeout=CONNECT_SECONDS,
                set_as_default=False,
                security=certificates,
            )
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            if started_here:
                self._started.close(timeout=10)  # pyright: ignore[reportOptionalMemberAccess]
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
        time, for any number of workers.
        """
        waiting, running = deque(cells), {}
        while waiting or running:
            while waiting and len(running) < (jobs or self._room()):
                cell = waiting.popleft()
                running[self._submit(cell, generations[cell.id])] = cell
            for future in self._ended(running):
                cell = running.pop(future)
                yield cell, self._receive(cell, future)
                future.release()

    def _room(self):
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        return AHEAD * max(1, sum(worker["nthreads"] for worker in workers.values()))

    def _submit(self, cell, generation):
        job = {
            "cell": replace(cell, notebook=Path(cell.notebook.name)),
            "notebook": cell.notebook.read_text(encoding="utf-8"),
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
        """Futures that have ended, at least one. Raises an error if the scheduler is lost."""
        from distributed import wait

        while True:
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
                    continue
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
    return {"tal_lib": __version__, "commit": git_commit(), "code": code_state()}


def _mismatch(versions, cell):
    """The reason why a cell must not run on this worker, or None.

    With another library or other data, the worker would give other numbers under the same id.
    """
    here = _versions()
    if any(here[name] != versions[name] for name in ("tal_lib", "commit")):
        return (
            f"has tal_lib {here['tal_lib']} at commit {here['commit'] or 'unknown'}, "
            f"the sweep {versions['tal_lib']} at {versions['commit'] or 'unknown'} "
            "(+: with uncommitted changes). Install the same on both."
        )
    if here["code"] != versions["code"]:
        return (
            f"has other code of tal_lib (hash {here['code']}, the sweep has {versions['code']}), "
            f"although both are at {here['commit'] or 'no commit'}. "
            "Commit it and check out the same commit on both, or copy the files."
        )
    benchmarks = ", ".join(benchmarks_of(cell.parameters))
    if not benchmarks:
        return None
    try:
        if (local_hash := data_of(cell.parameters)) != cell.data_hash:
            about_data.cache_clear()  # the worker's data may have been repaired since its last cell
            local_hash = data_of(cell.parameters)
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


def _local(number, certificates):
    """N workers on this machine, each with one process and one thread."""
    from distributed import LocalCluster

    if not number.isdigit() or int(number) < 1:
        raise TalError(f"cluster local:{number}", remedy="Give the number of workers: local:2.")
    return LocalCluster(
        n_workers=int(number),
        threads_per_worker=1,
        processes=True,
        memory_limit=0,
        dashboard_address=None,  # pyright: ignore[reportArgumentType]
        silence_logs=ERROR,
        **_encrypted(certificates),
    )


def _encrypted(certificates):
    """Options of a cluster that requires certificates; empty without certificates."""
    return {} if certificates is None else {"security": certificates, "protocol": "tls://"}


def read_description(path: str | Path) -> dict:
    """Read a Slurm cluster from a YAML file.

    Its entries are `jobs`, `gpu`, and the arguments of `dask_jobqueue.SLURMCluster`.
    """
    try:
        options = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TalError("cluster file not found", where=path, remedy=SEE) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise TalError(f"not valid YAML ({type(error).__name__})", where=path, remedy=SEE) from None
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise TalError("not a cluster description: no names and values in it", where=path, remedy=SEE)
    options = {"jobs": 1, "gpu": False, "worker_extra_args": []} | options
    for name, kind in (("jobs", int), ("gpu", bool), ("worker_extra_args", list)):
        if type(options[name]) is not kind:
            raise TalError(f"{name}: {options[name]!r} is not {kind.__name__}", where=path, remedy=SEE)
    return options


def _slurm(path, certificates):
    """Workers as Slurm jobs."""
    options = read_description(path)
    jobs, gpu = options.pop("jobs"), options.pop("gpu")
    try:
        from dask_jobqueue import SLURMCluster  # pyright: ignore[reportPrivateImportUsage]
    except ImportError:
        raise TalError(
            "sweeps on Slurm need dask-jobqueue", remedy="In the clone: pip install -e '.[cluster]'"
        ) from None
    if gpu:
        options["worker_extra_args"] = [*options["worker_extra_args"], "--resources", "GPU=1"]
    try:
        cluster = SLURMCluster(**_encrypted(certificates) | options)
    except (TypeError, ValueError) as error:
        raise TalError(f"not a cluster description ({error})", where=path, remedy=SEE) from None
    cluster.scale(jobs=jobs)
    return cluster
