"""Memory of the processes that train and measure: what they keep, what they use, and what they may use."""

import ctypes
from contextlib import suppress
from pathlib import Path


def keep_freed(reserve: int = 0) -> None:
    """Let this process keep the memory that it frees, and reserve `reserve` bytes now (glibc only).

    By default glibc may return freed memory to the operating system and request it again. Page faults then
    dominate latency in one process and are absent in the next one with the same forward pass.
    """
    with suppress(OSError, AttributeError, MemoryError):
        for option, value in ((-1, -1), (-4, 0)):  # M_TRIM_THRESHOLD: never; M_MMAP_MAX: none
            ctypes.CDLL(None).mallopt(option, value)
        b"\1" * reserve  # the write allocates the pages; they are freed at once


def process_status(field: str) -> int:
    """A memory field of this process (`VmRSS`, `VmHWM`, `VmData`) in bytes.

    Raises:
        OSError: there is no /proc.
    """
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def allow_memory(more: int | None) -> tuple[int, int] | None:
    """Let this process use `more` bytes in addition to its present memory. Returns the previous limits.

    Linux only. On other systems, and with None, there is no limit, and the result is None.
    """
    if more is None or not Path("/proc/self/status").exists():
        return None
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (process_status("VmData") + more, before[1]))
    return before


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Python or torch means that memory ran out."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in text
        or "bad_alloc" in text
    )
