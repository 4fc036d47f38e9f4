"""Notebooks on warm kernels: a kernel is a fork of a process that has already imported what notebooks need.

Starting such a kernel takes almost no time. Papermill runs a notebook through an engine. `ENGINE` is the name
of the engine here. It uses the forked kernel, and it cuts the output of a cell that prints too much.
"""

import json
import os
import signal
import time

from ipykernel.kernelapp import IPKernelApp
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from tal_lib.process import progress
from tal_lib.process.fork_server import die_with_parent
from tal_lib.process.memory import allow_memory
from tal_lib.provenance import git_commit

ENGINE = "warm"
LONGEST_OUTPUT = 1_000_000  # characters that a cell may print


class ForkedKernel:
    """A child process that waits to become an IPython kernel.

    Fork it before this process has threads or sockets. The methods are those of `subprocess.Popen` that the
    kernel manager uses.
    """

    stdin = stdout = stderr = None

    def __init__(self, memory_limit: int | None = None):
        waiting, self._go = os.pipe()
        self.returncode = None
        self.pid = os.fork()
        if not self.pid:
            os.close(self._go)
            _become_kernel(waiting, memory_limit)
        os.close(waiting)

    def start(self, connection_file: str, cwd: str | None, env: dict[str, str] | None):
        """Let the kernel read its ports from a connection file and begin."""
        with os.fdopen(self._go, "w") as pipe:
            json.dump({"file": connection_file, "cwd": cwd, "env": dict(env or os.environ)}, pipe)

    def poll(self):
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout=None):
        while self.poll() is None:
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, signum):
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


def _become_kernel(waiting, memory_limit):
    """In the fork: wait for the order, then run a kernel until it is stopped."""
    code = 1
    try:
        die_with_parent()
        with os.fdopen(waiting) as pipe:
            order = json.loads(pipe.read() or "null")
        if order:  # empty if no run needs the kernel any more
            os.environ.clear()
            os.environ.update(order["env"] | progress.OFF)
            os.chdir(order["cwd"] or ".")
            allow_memory(memory_limit)
            IPKernelApp.launch_instance(argv=["-f", order["file"]])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        os._exit(code)


class _Provisioner(LocalProvisioner):
    """Provides the waiting kernel instead of starting a process."""

    async def launch_kernel(self, cmd, **kwargs):
        self.process = self.parent.waiting  # pyright: ignore[reportOptionalMemberAccess]
        self.process.start(
            self.parent.connection_file,  # pyright: ignore[reportOptionalMemberAccess]
            kwargs.get("cwd"),
            kwargs.get("env"),
        )
        self.pid, self.pgid, self.cwd = (
            self.process.pid,
            None,
            kwargs.get("cwd") or os.getcwd(),
        )  # None: the kernel does not lead its process group
        return self.connection_info


class WarmKernelManager(AsyncKernelManager):
    """A kernel manager with one kernel, forked beforehand."""

    def __init__(self, waiting: ForkedKernel, **traits):
        super().__init__(**traits)
        self.waiting = waiting
        self._kernel_spec = KernelSpec(
            argv=["python", "-f", "{connection_file}"], display_name="Python 3", language="python"
        )
        self.provisioner = _Provisioner(
            kernel_id=self.kernel_id or "warm", kernel_spec=self._kernel_spec, parent=self
        )


class _Client(PapermillNotebookClient):
    """Cuts the output of a cell after `LONGEST_OUTPUT` characters, and notes it in the notebook."""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "stream":
            printed = self._printed[cell_index] = self._printed.get(cell_index, 0) + len(
                msg["content"]["text"]
            )
            if printed > LONGEST_OUTPUT:
                before = printed - len(msg["content"]["text"])
                if before > LONGEST_OUTPUT:
                    return None
                msg["content"]["text"] = (
                    msg["content"]["text"][: LONGEST_OUTPUT - before]
                    + f"\n… cut: this cell printed more than {LONGEST_OUTPUT:,} characters\n"
                )
        return super().process_message(msg, cell, cell_index)

    def reset_execution_trackers(self):
        self._printed = {}
        super().reset_execution_trackers()


class _Engine(NBClientEngine):
    """Papermill's standard engine, with the client and the kernel of this module."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man,
        kernel_name,
        log_output=False,
        start_timeout=60,
        execution_timeout=None,
        waiting=None,
        **_,
    ):
        manager = WarmKernelManager(waiting) if waiting else None
        return _Client(
            nb_man,
            km=manager,
            timeout=execution_timeout,
            startup_timeout=start_timeout,
            kernel_name=kernel_name,
            log_output=log_output,
        ).execute()


papermill_engines.register(ENGINE, _Engine)
git_commit()  # read it now: forks run the code imported here, even if the files change later
