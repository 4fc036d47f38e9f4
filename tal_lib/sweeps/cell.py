"""Run one cell: its notebook on a warm kernel, in a temporary folder that is renamed when complete."""

import json
import shutil
import time
from pathlib import Path

import pandas
import papermill
from nbclient.exceptions import DeadKernelError

from tal_lib.files import write_json
from tal_lib.provenance import device_name, provenance
from tal_lib.sweeps.folders import NOTEBOOK, keep_failed, part_of, put_in_place
from tal_lib.sweeps.kernels import ENGINE, ForkedKernel
from tal_lib.sweeps.ledger import RESULT
from tal_lib.sweeps.recording import MEASURED

COLUMNS = 20  # of a table as text: what pandas shows where a kernel imports it, and no terminal


def run_cell(
    id: str,
    sweep: str,
    notebook: str,
    name: str,
    parameters: dict,
    data_hash: str,
    generation: int,
    runs: str,
    cwd: str,
    threads: int,
    memory_limit: int | None = None,
    machine: str = "",
    code: dict[str, str] | None = None,
) -> str | None:
    """Execute the notebook into `<runs>/<id>`.

    Call it in a fork of a fork server, because the kernel is a fork of this process.

    Args:
        notebook: path of the file.
        name: name of the notebook in results.
        memory_limit: bytes that the kernel may use; None: no limit.
        machine: as in the cell; stored in the record if it is not empty.
        code: as in the cell: area -> version, of the code that makes the numbers.

    Returns:
        None if the run folder is complete. Otherwise the reason of the failure; the files are then in
            `<runs>/<id>.failed`.
    """
    kernel = ForkedKernel(memory_limit)  # first, while this process has no threads and no sockets
    folder = Path(runs)
    part = part_of(folder, id)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    started = time.monotonic()
    try:
        _execute(notebook, part / NOTEBOOK, parameters | {"out_dir": str(part)}, cwd, kernel)
        if not (part / MEASURED).is_file():
            return keep_failed(folder, id, f"{name} recorded nothing: it must call tal_lib.sweeps.record")
        measured = json.loads((part / MEASURED).read_text())
        # the default GPU of a process that sees one; with `cuda:1`, or the CPU as default, it is another name
        if parameters.get("device") == "cuda" and measured["device_name"] not in (
            machine or measured["device_name"],
            device_name("cpu"),
        ):
            problem = f"it ran on {measured['device_name']}, and was planned for {machine}"
            return keep_failed(
                folder, id, f"{problem}: the default GPU and those of --gpus must be of one kind"
            )
    except DeadKernelError:
        status = kernel.poll()
        return keep_failed(
            folder,
            id,
            "the kernel died"
            + (
                f", killed by signal {-status} (the system does so when memory runs out)"
                if status and status < 0
                else ""
            ),
        )
    except papermill.PapermillExecutionError as error:
        return keep_failed(folder, id, f"{error.ename}: {error.evalue}")
    except Exception as error:
        return keep_failed(folder, id, f"{type(error).__name__}: {error}".strip())
    write_json(
        part / RESULT,
        ({"machine": machine} if machine else {})
        | {
            "id": id,
            "sweep": sweep,
            "notebook": name,
            "parameters": parameters,
            "code": code,
            "generation": generation,
            "tables": measured["tables"],
            "seconds": round(time.monotonic() - started, 2),
            "provenance": provenance(
                device=machine or measured["device_name"],
                threads=threads,
                config_hash=measured["config_hash"],
                data_hash=data_hash,
            ),
        },
    )
    (part / MEASURED).unlink()
    put_in_place(folder, id)
    return None


def run_page(notebook: str, target: str, parameters: dict, cwd: str) -> None:
    """Execute a notebook that is no cell into the file `target`. Call it in a fork, as `run_cell`."""
    pandas.set_option("display.max_columns", COLUMNS)
    kernel = ForkedKernel()
    _execute(notebook, target, parameters, cwd, kernel)


def _execute(notebook, target, parameters, cwd, kernel):
    papermill.execute_notebook(
        notebook,
        target,
        parameters=parameters,
        progress_bar=False,
        log_output=False,
        cwd=cwd,
        engine_name=ENGINE,
        waiting=kernel,
    )
