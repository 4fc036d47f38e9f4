"""A measurement in a process of its own: nothing that ran before it is in its memory, and nothing of it stays.

Starting Python and importing torch takes seconds, so a nursery (`python -m tal_lib.cost.isolated`) does that once and never computes;
every measurement is a fork of it, pinned to as many cores as it has threads. Jobs and answers pass as lines of JSON.
"""

import atexit
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from tal_lib.errors import TalError
from tal_lib.processes import child_environment

DOES_NOT_FIT = 3  # exit code
_nurseries: dict[int, subprocess.Popen] = {}  # by number of threads


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
        order = {"module": function.__module__, "function": function.__qualname__, "folder": folder, "job": {"threads": threads} | job}
        code = _send(_nursery(threads), order)
        if code in (DOES_NOT_FIT, -9):
            raise DoesNotFit(f"{subject} does not fit into memory", remedy="Try a shorter length, or a machine with more memory.")
        if code:
            error = Path(folder) / "error"
            last = (error.read_text().strip().splitlines() if error.is_file() else ["no message"])[-1]
            raise TalError(f"{subject}: the measuring process ended with {code} ({last})",
                           remedy="Try the same call in a Python session to see where it fails.")
        return json.loads((Path(folder) / "answer").read_text())


def _nursery(threads):
    nursery = _nurseries.get(threads)
    if nursery is None or nursery.poll() is not None:
        nursery = _nurseries[threads] = subprocess.Popen(
            [sys.executable, "-m", __name__], env=child_environment(threads, keep_freed=False), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return nursery


def _send(nursery, order):
    """Exit code of the fork, negative if a signal ended it; 1 if the nursery itself is gone."""
    try:
        nursery.stdin.write(json.dumps(order) + "\n")
        nursery.stdin.flush()
        answer = nursery.stdout.readline()
    except BrokenPipeError:
        answer = ""
    return int(answer) if answer.strip() else 1


@atexit.register
def _dismiss():
    for nursery in _nurseries.values():
        nursery.stdin.close()
        nursery.wait()


def _out_of_memory(error):
    text = str(error)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text \
        or "bad_alloc" in text


def _measure(order):
    """In the fork: run the function, write what it gives; the exit code."""
    threads, folder = order["job"]["threads"], Path(order["folder"])
    if hasattr(os, "sched_setaffinity"):  # the last cores: the first serve the system's own work
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    try:
        answer = getattr(sys.modules[order["module"]], order["function"])(**order["job"])
        (folder / "answer").write_text(json.dumps(answer))
        return 0
    except BaseException as error:
        (folder / "error").write_text(traceback.format_exc())
        return DOES_NOT_FIT if _out_of_memory(error) else 1


def _serve():
    """Fork for every job that comes in; say how each ended."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a measurement prints is not a reply
    for line in sys.stdin:
        order = json.loads(line)
        importlib.import_module(order["module"])
        child = os.fork()
        if not child:
            code = 1
            try:
                code = _measure(order)
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        replies.write(f"{os.waitstatus_to_exitcode(status)}\n")
        replies.flush()


if __name__ == "__main__":
    _serve()
