"""Standardised features: mean and standard deviation of each column, from chosen recordings only."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

SMALLEST_STD = 1e-6  # added, so that a constant column becomes zero


@dataclass(frozen=True, eq=False)
class Standardised:
    """Features of recordings, standardised by a mean and a standard deviation (D,).

    Args:
        raw: recording id → features (T, D) as they are in the files.
        samples: window length, if the columns are windows of three-axis sensors (`Inertial`).
    """

    raw: Callable[[str], np.ndarray]
    mean: np.ndarray
    std: np.ndarray
    samples: int | None = None

    def load(self, recording: str) -> np.ndarray:
        """Standardised features (T, D) of a recording."""
        return (self.raw(recording) - self.mean) / self.std

    @property
    def inertial(self):
        """The layout of inertial columns (`Inertial`), None if they have none."""
        from tal_lib.data.inertial import Inertial  # here: it imports torch

        return Inertial(self.samples, self.mean, self.std) if self.samples else None

    def by(self, other: "Standardised") -> "Standardised":
        """The same recordings, standardised by the statistics of others."""
        return replace(self, mean=other.mean, std=other.std)


def statistics(
    features: Mapping[str, np.ndarray], recordings: Collection[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (D,) over all steps of the chosen recordings, in the order of `features`.

    Args:
        features: recording id → array (T, D), of all recordings of the data set.
    """
    chosen = set(recordings)
    mean, std = mean_and_std(lambda: (array for name, array in features.items() if name in chosen))
    return mean, std + SMALLEST_STD


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
    assert total is not None, "no features to take statistics of"
    return count, total


def standardise(
    features: Mapping[str, np.ndarray], recordings: Collection[str], samples: int | None = None
) -> Standardised:
    """Features that are standardised by the statistics of the chosen recordings.

    Args:
        samples: window length, if the columns are windows of three-axis sensors (`Inertial`).
    """
    return Standardised(features.__getitem__, *statistics(features, recordings), samples)
