"""The environment of the processes that train and measure."""

import os

from tal_lib.files import REPOSITORY

# glibc keeps freed memory for the next tensor. Otherwise the tensor pays for fresh pages
# (results/experiments/allocator.csv).
KEEP_FREED = {"MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_MMAP_MAX_": "0"}


def child_environment(threads: int | None = None, keep_freed: bool = True) -> dict[str, str]:
    """This process's environment, with a number of threads, the library's path, and the allocator's settings.

    keep_freed: the allocator keeps freed memory. Use False to measure memory.
    """
    kept = {name: value for name, value in os.environ.items() if name not in KEEP_FREED}
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return kept | (KEEP_FREED if keep_freed else {}) | limits | {"PYTHONPATH": path}
