"""The environment of the processes that train and measure, and what memory they may take."""

import ctypes
from contextlib import suppress
from pathlib import Path


def keep_freed(reserve: int = 0) -> None:
    """From here on this process keeps what memory it frees (glibc; elsewhere nothing happens), with `reserve` bytes of it there at once.

    By itself glibc gives memory back and takes it again by rules that depend on all that happened before: of two processes with the same
    forward pass one pays for thousands of fresh pages in every pass, the other for none.
    """
    with suppress(OSError, AttributeError, MemoryError):
        for option, value in ((-1, -1), (-4, 0)):  # M_TRIM_THRESHOLD: never; M_MMAP_MAX: none
            ctypes.CDLL(None).mallopt(option, value)
        b"\1" * reserve  # written, so that its pages are there; freed at once


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


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception, of Python or of torch, says that memory ran out."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in text
        or "bad_alloc" in text
    )
