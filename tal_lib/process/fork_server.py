"""A process that only imports. Every job is a fork of it, so a job starts at once and in a clean state.

`python -m tal_lib.process.fork_server MODULE …` imports the modules. It then reads orders as lines of JSON
from standard input. Each fork leads a process group. The group is killed when the fork has ended, when its
time limit is reached, and when the client process has ended. Then the temporary files of the fork and its
child processes are removed.
"""

import ctypes
import gc
import getpass
import importlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path

from tal_lib import plugins
from tal_lib.process.memory import out_of_memory

OUT_OF_MEMORY = 3  # exit code of a fork
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
LIBRARY = Path(__file__).parent.parent
# jsonschema, which nbformat imports, builds this grammar of IRIs in 1.6 s if it is installed; no notebook
# needs it
IRI_GRAMMAR = "rfc3987_syntax"


class Failed(Exception):
    """A job that returned no answer."""

    def __init__(self, message: str, code: int | None = None, timed_out: bool = False):
        super().__init__(message)
        self.code = code  # exit code of the fork; negative: a signal; None: the fork server has ended
        self.timed_out = timed_out

    @property
    def out_of_memory(self) -> bool:
        """Whether the job reported it, or was killed before its time limit, as the system does then."""
        return self.code == OUT_OF_MEMORY or (self.code == -signal.SIGKILL and not self.timed_out)


class ForkServer:
    """A fork server. It runs one job at a time."""

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

    def run(
        self,
        function: str,
        time_limit: float | None = None,
        imports: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        **job,
    ):
        """Run `function(**job)` in a fork. `function` is "module:name"; arguments and answer pass as JSON.

        Args:
            time_limit: seconds; then the fork and all its child processes are killed.
            imports: modules that the fork server should import before it forks.
            environment: all environment variables of the fork; None: those of the fork server.

        Raises:
            Failed: the function raised an error, was killed or took too long, or the fork server has ended.
        """
        # a killed process may still close its last file: what it leaves then is no reason to fail
        with tempfile.TemporaryDirectory(prefix="tal-job-", ignore_cleanup_errors=True) as folder:
            order = {
                "function": function,
                "imports": [function.split(":")[0], *imports],
                "job": job,
                "folder": folder,
                "environment": environment,
            }
            code = self._order(order, time_limit)
            if code == 0:
                try:
                    return json.loads((Path(folder) / "answer").read_text())
                except (OSError, json.JSONDecodeError):
                    raise Failed("its answer is missing or cut: is the disk full?", code) from None
            if code is None:
                raise Failed("its parent process has ended")
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
        """Exit code of the fork; None if the fork server has ended."""
        try:
            self._process.stdin.write((json.dumps(order) + "\n").encode())
        except (BrokenPipeError, ValueError):
            return None
        # the first line says that the fork has begun: the time limit does not include imports
        if not self._process.stdout.readline().strip():
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
        """Whether the library's files have changed since the import. Old and new modules must not mix."""
        return self._code != _code()

    def close(self):
        """End the fork server, with the job that it runs."""
        if not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _code():
    """This library's files and those of plug-ins, each with the time of its last change."""
    files = [*LIBRARY.rglob("*.py"), *(path for path in plugins.files() if path.is_file())]
    return {path: path.stat().st_mtime_ns for path in files}


def die_with_parent():
    """Let the operating system kill this process when its parent ends, for any reason (Linux only)."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        pass


def _answer(order):
    """In the fork: run the function and write its answer. Returns the exit code."""
    folder = Path(order["folder"])
    if order["environment"] is not None:
        os.environ.clear()
        os.environ.update(order["environment"])
    try:
        _put_temporary_files(folder / "temporary")
        module, name = order["function"].split(":")
        answer = getattr(importlib.import_module(module), name)(**order["job"])
        (folder / "answer").write_text(json.dumps(answer))
        return 0
    except BaseException as error:
        (folder / "error").write_text(traceback.format_exc())
        return OUT_OF_MEMORY if out_of_memory(error) else 1


def _put_temporary_files(folder):
    """Let this process and its child processes make temporary files in a new folder, which the client
    removes.

    Compiled graphs of torch stay in their own folder, because later jobs use them again.
    """
    with suppress(KeyError, OSError):  # a user without a name
        compiled = Path(tempfile.gettempdir(), f"torchinductor_{getpass.getuser()}")  # torch's default
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compiled))
    folder.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


def _kill_group(leader):
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _wait(child, folder):
    """Exit code of a fork.

    Standard input closes when the client dies. Then this process and the fork end, and the folder of the job
    is removed.
    """
    pidfd = os.pidfd_open(child) if hasattr(os, "pidfd_open") else None
    while True:
        ready = select.select([0] if pidfd is None else [0, pidfd], [], [], 0.05 if pidfd is None else None)[
            0
        ]
        if 0 in ready:
            _kill_group(child)
            select.select([] if pidfd is None else [pidfd], [], [], 1)  # until it writes no more
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if pidfd is not None:
                os.close(pidfd)
            _kill_group(child)  # child processes that are left
            return os.waitstatus_to_exitcode(status)


@contextmanager
def hidden(module: str):
    """Within the block a module that is not loaded cannot be imported, as if it were not installed."""
    hide = module not in sys.modules
    if hide:
        sys.modules[module] = None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        if hide:
            del sys.modules[module]


def _serve(imports):
    """Fork for every order, and report the exit code of each fork.

    The modules stay, so garbage is not looked for among them: not while they are imported, which takes a
    third less time so, and not by the forks, which would copy the memory of every module.
    """
    gc.disable()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the output of a job is not a reply
    with hidden(IRI_GRAMMAR):
        for name in imports:
            importlib.import_module(name)
    orders = os.fdopen(0, "rb", buffering=0, closefd=False)  # unbuffered: `_wait` polls it too
    while line := orders.readline():
        order = json.loads(line)
        for name in order["imports"]:
            with suppress(Exception):  # the job will raise the same error
                importlib.import_module(name)
        gc.freeze()
        child = os.fork()
        if not child:
            code = 1
            try:
                gc.enable()
                os.setpgid(0, 0)
                die_with_parent()
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                replies.close()
                code = _answer(order)
            finally:
                os._exit(code)
        try:
            os.setpgid(child, child)  # here too, because the order of the two processes is open
        except (PermissionError, ProcessLookupError):
            pass
        print("begun", file=replies, flush=True)
        print(_wait(child, order["folder"]), file=replies, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the client handles Ctrl-C
    _serve(sys.argv[1:])
