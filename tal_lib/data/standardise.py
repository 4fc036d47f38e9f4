"""Mean and standard deviation of features that need not fit into memory together."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


def mean_and_std(features: Callable[[], Iterable[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (D,) of the columns of several arrays (T, D), one in memory at a time.

    `features()` is called twice. The results equal those of `np.concatenate(…).mean(0)` and `.std(0)` to the
    last bit, because rows are added in the same order.
    """
    count, total = _sum_of_rows(features())
    mean = total / total.dtype.type(count)
    _, squares = _sum_of_rows((part - mean) ** 2 for part in features())
    return mean, np.sqrt(squares / squares.dtype.type(count))


def _sum_of_rows(parts):
    """Number of rows, and their sum (D,), added one row after another."""
    total: Any = None
    count = 0
    for part in parts:
        rows = part if total is None else np.concatenate([total[None], part])
        count, total = count + len(part), np.add.reduce(rows, axis=0)
    return count, total
