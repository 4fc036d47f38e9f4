"""Cells on this machine, a few at a time, each in a process group of its own with a warm kernel."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Empty, SimpleQueue

from tal_lib.files import REPOSITORY
from tal_lib.nursery import Failed, Nursery
from tal_lib.sweeps.cell import keep_failed, part_of
from tal_lib.sweeps.grid import Cell
from tal_lib.sweeps.kernels import IMPORTS, kernel_environment

RUN_CELL = "tal_lib.sweeps.cell:run_cell"
LEAST_FREE = 2**20  # bytes of disk, below which nothing can be written


class Gone(Exception):
    """A cell's process ended without an answer: nothing is known about the cell."""


class WarmProcesses:
    """Nurseries, as many as cells run at once; each runs one cell after another."""

    def __init__(self, threads: int, memory_limit: int | None = None):
        self.threads, self.memory_limit = threads, memory_limit
        self._idle: SimpleQueue[Nursery] = SimpleQueue()
        self._all: list[Nursery] = []
        self._closed = False

    def run(self, cell: Cell, notebook: Path, generation: int, folder: Path) -> str | Gone | None:
        """Run one cell into `<folder>/<id>`: None, or why it failed."""
        nursery = None
        try:
            nursery = self._borrow()
            return nursery.run(RUN_CELL, time_limit=cell.time_limit, id=cell.id, sweep=cell.sweep, notebook=str(notebook),
                               name=cell.notebook.name, parameters=cell.parameters, data_hash=cell.data_hash, generation=generation,
                               runs=str(folder), cwd=str(REPOSITORY), threads=self.threads, memory_limit=self.memory_limit)
        except Failed as failed:
            if failed.timed_out:
                return keep_failed(folder, cell.id, f"stopped after its time limit of {cell.time_limit / 60:g} minutes")
            shutil.rmtree(part_of(folder, cell.id), ignore_errors=True)
            return Gone(str(failed))
        finally:
            if nursery is not None and nursery.alive:
                self._idle.put(nursery)

    def _borrow(self):
        try:
            while not (nursery := self._idle.get_nowait()).alive:
                pass
            return nursery
        except Empty:
            if self._closed:
                raise Failed("the sweep has ended") from None
            nursery = Nursery(kernel_environment(self.threads), IMPORTS)
            self._all.append(nursery)
            return nursery

    def close(self):
        """End all, with what they run; none begins any more."""
        self._closed = True
        for nursery in self._all:
            nursery.close()


class Local:
    """Runs cells into a folder, `jobs` at a time, each with so many CPU threads."""

    def __init__(self, folder: Path, jobs: int, threads: int, memory_limit: int | None = None):
        self.folder, self.jobs, self._processes = folder, jobs, WarmProcesses(threads, memory_limit)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._processes.close()

    def run(self, cells: list[Cell], generations: dict[str, int], jobs: int | None = None) -> Iterator[tuple[Cell, str | Gone | None]]:
        """Each cell with None, or with why it failed, as they end; `Gone` where its process was lost."""
        pool = ThreadPoolExecutor(jobs or self.jobs)
        futures = {pool.submit(self._processes.run, cell, cell.notebook, generations[cell.id], self.folder): cell for cell in cells}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:  # Ctrl-C and a full disk too: no further cell begins, those under way are stopped
            pool.shutdown(wait=False, cancel_futures=True)


def disk_is_full(folder: Path, reason: str) -> bool:
    """Whether a failure is one of the disk, which every further cell would share."""
    return "No space left" in reason or "Disk quota exceeded" in reason or shutil.disk_usage(folder).free < LEAST_FREE
