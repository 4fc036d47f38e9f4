"""A measurement in a process of its own: nothing that ran before it is in its memory, and nothing of it stays.

The process is pinned to as many cores as it has threads. `python -m tal_lib.cost.isolated` is that process: it reads a job as JSON
from standard input and writes what the function returned into a file.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tal_lib.errors import TalError
from tal_lib.processes import child_environment

DOES_NOT_FIT = 3  # exit code


class DoesNotFit(TalError):
    """What was measured needs more memory than there is, or than it was allowed."""


def isolated(function: Callable, subject: str, threads: int, **job):
    """`function(threads=threads, **job)` of this library in a fresh process on as many cores; arguments and result pass as JSON.

    Args:
        subject: what is measured, for messages.

    Raises:
        DoesNotFit: the process ran out of memory. TalError: it failed otherwise.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        order = {"module": function.__module__, "function": function.__qualname__, "threads": threads, "job": {"threads": threads} | job}
        done = subprocess.run([sys.executable, "-m", __name__, str(answer)], input=json.dumps(order), text=True,
                              env=child_environment(threads, keep_freed=False), capture_output=True)
        if done.returncode in (DOES_NOT_FIT, -9):
            raise DoesNotFit(f"{subject} does not fit into memory", remedy="Try a shorter length, or a machine with more memory.")
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise TalError(f"{subject}: the measuring process ended with {done.returncode} ({last})",
                           remedy="Try the same call in a Python session to see where it fails.")
        return json.loads(answer.read_text())


def _out_of_memory(error):
    text = str(error)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text \
        or "bad_alloc" in text


def _main():
    order = json.load(sys.stdin)
    if hasattr(os, "sched_setaffinity"):  # the last cores: the first serve the system's own work
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-order["threads"]:])
    try:
        answer = getattr(importlib.import_module(order["module"]), order["function"])(**order["job"])
    except Exception as error:
        if not _out_of_memory(error):
            raise
        return DOES_NOT_FIT
    Path(sys.argv[1]).write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
