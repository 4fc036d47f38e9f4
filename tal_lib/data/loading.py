"""How features reach a model: kept in memory, or read again for each crop. The numbers are the same.

Three places set it, the first that is given counts: `tal train --in-memory … --workers …`; in Python
`benchmark.loading = Loading(…)`; the environment variables `TAL_IN_MEMORY` and `TAL_WORKERS`, which notebooks
and sweeps use too.

Random numbers are drawn where training runs, in the order of the recordings. Workers only read and copy. So
a training gives the same bits for any number of workers. Workers are threads: reading and copying do not hold
Python's lock, nothing is pickled, and no memory is doubled.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator

from tal_lib.process.available import available_memory
from tal_lib.provenance import usable_cores
from tal_lib.validation import Checked, validate

VARIABLES = {"in_memory": "TAL_IN_MEMORY", "workers": "TAL_WORKERS"}
COPIES = 2  # of features in memory: (T, D) as read, (D, T) for training
SHARE = 0.25  # of the available memory that features may take: other cells of a sweep run at the same time
MOST_WORKERS = 4  # chosen automatically
LARGEST = 64  # workers that can be asked for


def _in_memory(value):
    text = value.strip().lower() if isinstance(value, str) else value
    words: dict[Any, Any] = {"auto": "auto", "true": True, "false": False}
    if isinstance(text, bool):
        return text
    if not isinstance(text, str) or text not in words:
        raise ValueError("auto, true or false")
    return words[text]


def _workers(value):
    text = value.strip().lower() if isinstance(value, str) else value
    if text == "auto":
        return text
    if isinstance(text, bool) or not str(text).isdecimal() or int(text) > LARGEST:
        raise ValueError(f"auto or a whole number from 0 to {LARGEST}")
    return int(text)


InMemory = Annotated[Any, BeforeValidator(_in_memory)]  # "auto", True or False
Workers = Annotated[Any, BeforeValidator(_workers)]  # "auto" or a number
Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Loading(Checked):
    """How features reach a model."""

    # keep features in memory once read; auto: if COPIES × their size fit into SHARE of the available memory
    in_memory: InMemory = "auto"
    # threads that prepare the next batches; auto: none for features in memory, else up to MOST_WORKERS
    workers: Workers = "auto"

    @classmethod
    def default(cls) -> "Loading":
        """The values of the environment variables, else `auto`.

        Raises:
            TalError: a variable has a value that is not accepted.
        """
        kinds = {"in_memory": InMemory, "workers": Workers}
        return cls(
            **{
                name: validate(kinds[name], os.environ[variable], where=variable)
                for name, variable in VARIABLES.items()
                if os.environ.get(variable)
            }
        )

    def keeps(self, size: int) -> bool:
        """Whether features of `size` bytes stay in memory."""
        if self.in_memory != "auto":
            return self.in_memory
        available = available_memory()
        return available is None or COPIES * size <= SHARE * available

    def threads(self, in_memory: bool) -> int:
        """Number of threads that prepare batches of features that are in memory, or are not."""
        if self.workers != "auto":
            return self.workers
        return 0 if in_memory else max(1, min(MOST_WORKERS, usable_cores() - 1))


def prefetched(
    work: Iterable[Given], make: Callable[[Given], Made], threads: int
) -> Generator[Made, None, None]:
    """`make(item)` for each item of `work`, in order, made by threads ahead of their use.

    `work` is drawn in the caller's thread, at most `threads + 1` items ahead. With 0 threads nothing is made
    ahead. Close the iterator to stop early: waiting work is dropped, running work is awaited.
    """
    if threads == 0:
        yield from map(make, work)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="features") as pool:
        waiting = deque()
        try:
            for item in work:
                waiting.append(pool.submit(make, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
