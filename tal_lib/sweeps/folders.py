"""Run folders: written under a temporary name, renamed when complete, kept as `.failed` after a failure."""

import os
import shutil
from pathlib import Path

from tal_lib.errors import TalError
from tal_lib.files import write_text
from tal_lib.sweeps.ledger import RESULT
from tal_lib.writing import LIST, adopt, is_ours, listed_in

NOTEBOOK = "notebook.ipynb"  # the executed notebook of a run
ERROR = "error.txt"  # the reason of a failed run
CHECKPOINTS = ".ipynb_checkpoints"  # Jupyter's copies of notebooks that were opened


def check_runs(runs: Path, ids: set[str]) -> None:
    """Raise `TalError` if a run would replace files that no run has written, or that were changed since."""
    for folder in runs.iterdir():
        if folder.name.strip(".").split(".")[0] not in ids:
            continue
        if not (folder.is_dir() and (not any(folder.iterdir()) or _is_run(folder))):
            raise TalError(
                "was not written by `tal sweep`", where=folder, remedy="Name other folders with --runs."
            )
        if NOTEBOOK in listed_in(folder):  # else it was interrupted, or an older version wrote it
            _refuse_foreign(folder)


def _is_run(folder):
    return any((folder / name).exists() for name in (RESULT, NOTEBOOK, ERROR, LIST))


def _refuse_foreign(folder):
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or CHECKPOINTS in path.parts:
            continue
        if path.name in (LIST, RESULT, ERROR):  # a power cut may have damaged them
            continue
        if not is_ours(path):
            raise TalError(
                "was not written by `tal sweep`, or was changed since",
                where=path,
                remedy="Move it elsewhere, or name other folders with --runs.",
            )


def part_of(runs: Path, id: str) -> Path:
    """Temporary folder of a run, until the run is complete."""
    return runs / f".{id}.part"


def put_in_place(runs: Path, id: str) -> None:
    """Rename a complete temporary folder to the run folder. Its files are synced to the disk first."""
    part, folder, old = part_of(runs, id), runs / id, runs / f".{id}.old"
    adopt(part)
    for path in part.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    shutil.rmtree(runs / f"{id}.failed", ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():  # of an earlier run: one folder cannot replace another in one step
        os.replace(folder, old)
    os.replace(part, folder)
    shutil.rmtree(old, ignore_errors=True)


def keep_failed(runs: Path, id: str, reason: str) -> str:
    """Rename the folder of a failed run to `<id>.failed` and write the reason into it.

    Returns the first line of the reason.
    """
    part, failed = part_of(runs, id), runs / f"{id}.failed"
    reason = reason.strip() or "no message"
    try:
        part.mkdir(parents=True, exist_ok=True)
        write_text(part / ERROR, reason + "\n")
        adopt(part)
        shutil.rmtree(failed, ignore_errors=True)
        os.replace(part, failed)
    except (OSError, TalError) as error:  # probably a full disk: the reason is reported anyway
        shutil.rmtree(part, ignore_errors=True)
        return f"{reason.splitlines()[0]} ({error})"
    return reason.splitlines()[0]
