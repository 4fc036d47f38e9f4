"""Standardised features: mean and standard deviation of each column, from chosen recordings only."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from tal_lib.data.inertial import Inertial

SMALLEST_STD = 1e-6  # added, so that a constant column becomes zero


@dataclass(frozen=True)
class Standardised:
    """Features as a function of the recording id, and the layout of inertial columns if they have one."""

    load: Callable[[str], np.ndarray]
    inertial: Inertial | None = None


def statistics(
    features: Mapping[str, np.ndarray], recordings: Collection[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (D,) over all steps of the chosen recordings, in the order of `features`.

    Args:
        features: recording id → array (T, D), of all recordings of the data set.
    """
    chosen = set(recordings)
    steps = np.concatenate([array for recording, array in features.items() if recording in chosen])
    return steps.mean(0), steps.std(0) + SMALLEST_STD


def standardise(
    features: Mapping[str, np.ndarray], recordings: Collection[str], samples: int | None = None
) -> Standardised:
    """Features that are standardised by the statistics of the chosen recordings.

    Args:
        samples: window length, if the columns are windows of three-axis sensors (`Inertial`).
    """
    mean, std = statistics(features, recordings)
    inertial = Inertial(samples, mean, std) if samples else None
    return Standardised(lambda recording: (features[recording] - mean) / std, inertial)
