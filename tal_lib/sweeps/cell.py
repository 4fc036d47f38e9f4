"""Run one cell: its notebook on a warm kernel, in a temporary folder that is renamed when it is whole."""

import json
import os
import shutil
import time
from pathlib import Path

import papermill
from nbclient.exceptions import DeadKernelError

from tal_lib.files import write_json, write_text
from tal_lib.provenance import provenance
from tal_lib.sweeps.kernels import ENGINE, ForkedKernel
from tal_lib.sweeps.ledger import RESULT
from tal_lib.sweeps.recording import MEASURED

NOTEBOOK = "notebook.ipynb"


def run_cell(id: str, sweep: str, notebook: str, name: str, parameters: dict, data_hash: str, generation: int, runs: str, cwd: str,
             threads: int, memory_limit: int | None = None) -> str | None:
    """Execute the notebook into `<runs>/<id>`; in a fork of a nursery, because the kernel is a fork of this process.

    Args:
        notebook: path of the file; name: what it is called in results.
        memory_limit: bytes that the kernel may take (None: what there is).

    Returns:
        None if the run folder is whole, else why the notebook failed; then what it left is in `<runs>/<id>.failed`.
    """
    kernel = ForkedKernel(memory_limit)  # first: this process has no threads and no sockets yet
    folder = Path(runs)
    part = part_of(folder, id)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    started = time.monotonic()
    try:
        papermill.execute_notebook(notebook, part / NOTEBOOK, parameters=parameters | {"out_dir": str(part)}, progress_bar=False,
                                   log_output=False, cwd=cwd, engine_name=ENGINE, waiting=kernel)
        measured = json.loads((part / MEASURED).read_text())
    except DeadKernelError:
        code = kernel.poll()
        return keep_failed(folder, id, "the kernel died" + (f", killed by signal {-code} (the system does so when memory runs out)"
                                                            if code and code < 0 else ""))
    except papermill.PapermillExecutionError as error:
        return keep_failed(folder, id, f"{error.ename}: {error.evalue}")
    except Exception as error:
        return keep_failed(folder, id, f"{type(error).__name__}: {error}".strip())
    write_json(part / RESULT, {
        "id": id, "sweep": sweep, "notebook": name, "parameters": parameters, "generation": generation, "tables": measured["tables"],
        "seconds": round(time.monotonic() - started, 2),
        "provenance": provenance(device=measured["device_name"], threads=threads, config_hash=measured["config_hash"],
                                 data_hash=data_hash)})
    (part / MEASURED).unlink()
    put_in_place(folder, id)
    return None


def part_of(runs: Path, id: str) -> Path:
    """Where a run is written until it is whole."""
    return runs / f".{id}.part"


def put_in_place(runs: Path, id: str) -> None:
    """A whole temporary folder becomes the run folder: its files reach the disk first, then it is renamed."""
    part, folder, old = part_of(runs, id), runs / id, runs / f".{id}.old"
    for path in part.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    shutil.rmtree(runs / f"{id}.failed", ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():  # of a run that is made again: a folder is not replaced by another in one step
        os.replace(folder, old)
    os.replace(part, folder)
    shutil.rmtree(old, ignore_errors=True)


def keep_failed(runs: Path, id: str, reason: str) -> str:
    """What a failed run left becomes `<id>.failed`, with the reason beside it; the reason's first line."""
    part, failed = part_of(runs, id), runs / f"{id}.failed"
    reason = reason.strip() or "no message"
    try:
        part.mkdir(parents=True, exist_ok=True)
        write_text(part / "error.txt", reason + "\n")
        shutil.rmtree(failed, ignore_errors=True)
        os.replace(part, failed)
    except OSError as error:  # a full disk, most likely: the reason must be told all the same
        shutil.rmtree(part, ignore_errors=True)
        return f"{reason.splitlines()[0]} ({error})"
    return reason.splitlines()[0]
