"""Run one cell, in a process of its own: `python -m tal_lib.sweeps.cell` reads it as JSON from standard input.

Exit code 0: the run folder is whole. 1: the notebook failed; what it left is in `<id>.failed`.
"""

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

from tal_lib.files import write_json, write_text
from tal_lib.provenance import provenance
from tal_lib.sweeps.ledger import RESULT
from tal_lib.sweeps.recording import MEASURED

NOTEBOOK = "notebook.ipynb"


def run_cell(job: dict) -> int:
    """Execute the notebook in a temporary folder and rename it when whole."""
    import papermill

    runs = Path(job["runs"])
    folder = runs / job["id"]
    part, failed, old = runs / f".{job['id']}.part", runs / f"{job['id']}.failed", runs / f".{job['id']}.old"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    started = time.time()
    try:
        papermill.execute_notebook(job["notebook"], part / NOTEBOOK, parameters=job["parameters"] | {"out_dir": str(part)},
                                   progress_bar=False, log_output=False, cwd=job["cwd"])
        measured = json.loads((part / MEASURED).read_text())
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".strip()
        if isinstance(error, papermill.PapermillExecutionError):
            reason = f"{error.ename}: {error.evalue}"
        write_text(part / "error.txt", reason + "\n")
        shutil.rmtree(failed, ignore_errors=True)
        os.replace(part, failed)
        return 1
    write_json(part / RESULT, {
        "id": job["id"], "sweep": job["sweep"], "notebook": Path(job["notebook"]).name, "parameters": job["parameters"],
        "tables": measured["tables"], "seconds": round(time.time() - started, 2),
        "provenance": provenance(device=measured["device_name"], threads=int(os.environ.get("OMP_NUM_THREADS", 0)) or None,
                                 config_hash=measured["config_hash"], data_hash=job["data_hash"])})
    (part / MEASURED).unlink()
    shutil.rmtree(failed, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():  # of a run that is made again: a folder is not replaced by another in one step
        os.replace(folder, old)
    os.replace(part, folder)
    shutil.rmtree(old, ignore_errors=True)
    return 0


def _die_with(parent):
    """Leave when the sweep is gone, so that no orphan finishes a cell that a new sweep has begun again."""

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(0, 9) if os.getpgrp() == os.getpid() else os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    job = json.load(sys.stdin)
    _die_with(job["driver"])
    raise SystemExit(run_cell(job))
