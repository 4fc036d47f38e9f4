"""The environment of the processes that train and measure, and what memory they may take."""

import ctypes
from contextlib import suppress
from pathlib import Path


def keep_freed(reserve: int = 0) -> None:
    """From now on this process keeps the memory that it frees, and holds `reserve` bytes at once (glibc
    only).

    By default glibc may return freed memory to the operating system and request it again. Page faults then
    dominate latency in one process and are absent in the next one with the same forward pass.
    """
    with suppress(OSError, AttributeError, MemoryError):
        for option, value in ((-1, -1), (-4, 0)):  # M_TRIM_THRESHOLD: never; M_MMAP_MAX: none
            ctypes.CDLL(None).mallopt(option, value)
        b"\1" * reserve  # written, so that its pages are there; freed at once


def process_status(field: str) -> int:
    """A field of this process's memory (`VmRSS`, `VmHWM`, `VmData`) in bytes; OSError where there is no
    /proc.
    """
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def allow_memory(more: int | None) -> tuple[int, int] | None:
    """Let this process take `more` bytes above what it has; returns the previous limits, to restore them.

    Linux only. Elsewhere, and with None, there is no limit.
    """
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
