"""A process that only imports; every job is a fork of it, so it starts at once and in a clean state.

`python -m tal_lib.process.fork_server MODULE …` imports the modules. It then takes orders as lines of JSON on
standard input. Each fork leads a process group. The group is killed when the fork has ended, when its time is
over, and when the process that gave the order is gone.
"""

import ctypes
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

from tal_lib import plugins
from tal_lib.process.memory import out_of_memory

OUT_OF_MEMORY = 3  # exit code of a fork
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
LIBRARY = Path(__file__).parent.parent


class Failed(Exception):
    """A job that gave no answer."""

    def __init__(self, message: str, code: int | None = None, timed_out: bool = False):
        super().__init__(message)
        self.code = (
            code  # exit code of the fork, negative if a signal ended it, None if the fork server is gone
        )
        self.timed_out = timed_out

    @property
    def out_of_memory(self) -> bool:
        """Whether it said so, or was killed the way the system kills what takes too much."""
        return self.code == OUT_OF_MEMORY or (self.code == -signal.SIGKILL and not self.timed_out)


class ForkServer:
    """One fork server; it runs one job at a time."""

    def __init__(self, environment: dict[str, str], imports: tuple[str, ...] = ()):
        self._code = _code()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *imports],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )

    def run(self, function: str, time_limit: float | None = None, imports: tuple[str, ...] = (), **job):
        """`function(**job)` in a fork; `function` is "module:name", arguments and answer pass as JSON.

        Args:
            time_limit: seconds, then the fork and all that it has started are killed.
            imports: modules that the fork server should have before it forks.

        Raises:
            Failed: it raised, was killed, took too long, or the fork server itself is gone.
        """
        with tempfile.TemporaryDirectory(prefix="tal-job-") as folder:
            order = {
                "function": function,
                "imports": [function.split(":")[0], *imports],
                "job": job,
                "folder": folder,
            }
            code = self._order(order, time_limit)
            if code == 0:
                try:
                    return json.loads((Path(folder) / "answer").read_text())
                except (OSError, json.JSONDecodeError):
                    raise Failed("its answer is missing or cut: is the disk full?", code) from None
            if code is None:
                raise Failed("the process it was to be forked from is gone")
            try:
                message = (Path(folder) / "error").read_text().strip().splitlines()[-1]
            except (OSError, IndexError):
                message = (
                    f"killed by signal {-code}"
                    if code < 0
                    else f"it ended with exit code {code} and no message"
                )
            raise Failed(message, code)

    def _order(self, order, time_limit):
        """Exit code of the fork; None if the fork server is gone."""
        try:
            self._process.stdin.write((json.dumps(order) + "\n").encode())
        except (BrokenPipeError, ValueError):
            return None
        if not self._process.stdout.readline().strip():  # the fork has begun; imports before it do not count
            return None
        if time_limit and not select.select([self._process.stdout], [], [], time_limit)[0]:
            self.close()
            raise Failed(f"took longer than {time_limit:g} s", -signal.SIGKILL, timed_out=True)
        answer = self._process.stdout.readline()
        return int(answer) if answer.strip() else None

    @property
    def alive(self) -> bool:
        return self._process.poll() is None and not self._process.stdin.closed

    @property
    def outdated(self) -> bool:
        """Whether the library's files have changed since the import: old and new modules must not be
        mixed.
        """
        return self._code != _code()

    def close(self):
        """End it, with the job that it runs."""
        if not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _code():
    """This library's files and those of plug-ins, each with the time of its last change."""
    files = [*LIBRARY.rglob("*.py"), *(path for path in plugins.files() if path.is_file())]
    return {path: path.stat().st_mtime_ns for path in files}


def die_with_parent():
    """Have this process killed when its parent ends, however that ends (Linux; elsewhere nothing)."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        pass


def _answer(order):
    """In the fork: run the function, write what it gives; the exit code."""
    folder = Path(order["folder"])
    try:
        module, name = order["function"].split(":")
        answer = getattr(importlib.import_module(module), name)(**order["job"])
        (folder / "answer").write_text(json.dumps(answer))
        return 0
    except BaseException as error:
        (folder / "error").write_text(traceback.format_exc())
        return OUT_OF_MEMORY if out_of_memory(error) else 1


def _kill_group(leader):
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _wait(child):
    """Exit code of a fork. Ends both when standard input closes, which happens when the client dies."""
    pidfd = os.pidfd_open(child) if hasattr(os, "pidfd_open") else None
    while True:
        ready = select.select([0] if pidfd is None else [0, pidfd], [], [], 0.05 if pidfd is None else None)[
            0
        ]
        if 0 in ready:
            _kill_group(child)
            os._exit(0)
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if pidfd is not None:
                os.close(pidfd)
            _kill_group(child)  # what it has started and left behind
            return os.waitstatus_to_exitcode(status)


def _serve(imports):
    """Fork for every order that comes in; say how each ended."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a job prints is not a reply
    for name in imports:
        importlib.import_module(name)
    orders = os.fdopen(0, "rb", buffering=0, closefd=False)  # no reading ahead: `_wait` looks at what is left
    while line := orders.readline():
        order = json.loads(line)
        for name in order["imports"]:
            with suppress(Exception):  # the job itself will show what is wrong with it
                importlib.import_module(name)
        child = os.fork()
        if not child:
            code = 1
            try:
                os.setpgid(0, 0)
                die_with_parent()
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                replies.close()
                code = _answer(order)
            finally:
                os._exit(code)
        try:
            os.setpgid(child, child)  # here too: whichever comes first
        except (PermissionError, ProcessLookupError):
            pass
        print("begun", file=replies, flush=True)
        print(_wait(child), file=replies, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who orders
    _serve(sys.argv[1:])
