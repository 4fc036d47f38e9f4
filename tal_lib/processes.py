"""The environment of the processes that train and measure, and what memory they may take."""

import ctypes
import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tal_lib.files import REPOSITORY

# glibc keeps freed memory for the next tensor, which else pays for fresh pages (results/allocator.csv)
KEEP_FREED = {"MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_MMAP_MAX_": "0"}


def child_environment(threads: int | None = None, keep_freed: bool = True) -> dict[str, str]:
    """This process's environment, with a number of threads, this library's path, and an allocator that keeps what is freed.

    keep_freed=False is for where memory is measured.
    """
    kept = {name: value for name, value in os.environ.items() if name not in KEEP_FREED}
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return kept | (KEEP_FREED if keep_freed else {}) | limits | {"PYTHONPATH": path}


def keep_freed(reserve: int = 0) -> None:
    """From here on this process keeps what memory it frees (glibc; elsewhere nothing happens), with `reserve` bytes of it there at once.

    By itself glibc gives memory back and takes it again by rules that depend on all that happened before: of two processes with the same
    forward pass one pays for thousands of fresh pages in every pass, the other for none.
    """
    with suppress(OSError, AttributeError, MemoryError):
        for option, value in ((-1, -1), (-4, 0)):  # M_TRIM_THRESHOLD: never; M_MMAP_MAX: none
            ctypes.CDLL(None).mallopt(option, value)
        b"\1" * reserve  # written, so that its pages are there; freed at once


def beside(function: Callable[[], object]) -> Callable[[], None]:
    """Begin a function in a fork, for what it writes; what is returned waits for its end and raises RuntimeError if it failed.

    Where processes cannot be forked it is run at once.
    """
    if not hasattr(os, "fork"):
        function()
        return lambda: None
    child = os.fork()
    if not child:
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def wait():
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            raise RuntimeError("a process that wrote a part of the results failed")

    return wait


def process_status(field: str) -> int:
    """A field of this process's memory (`VmRSS`, `VmHWM`, `VmData`) in bytes; OSError where there is no /proc."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def allow_memory(more: int | None) -> tuple[int, int] | None:
    """Let this process take `more` bytes above what it has (Linux; elsewhere, and with None, no limit); the limits before, to restore."""
    if more is None or not Path("/proc/self/status").exists():
        return None
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (process_status("VmData") + more, before[1]))
    return before
