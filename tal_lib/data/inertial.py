"""Features that are windows of three-axis inertial sensors, and their random rotation."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Inertial:
    """Layout of the columns: sensors × 3 axes × window samples, standardised by `mean` and `std` (D,)."""

    samples: int
    mean: np.ndarray
    std: np.ndarray

    def of(self, columns: slice) -> "Inertial":
        """The layout of some columns, which must hold whole sensors."""
        return Inertial(self.samples, self.mean[columns], self.std[columns])

    def rotated(self, features: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
        """Features (D, T) after one random rotation of all sensors.

        Args:
            degrees: standard deviation of the angle about each axis.

        Source: Um et al., Data Augmentation of Wearable Sensor Data for Parkinson's Disease Monitoring (ICMI
        2017). They use arbitrary angles.
        """
        return self.turned(features, random_rotation(degrees, generator))

    def turned(self, features: Tensor, turn: Tensor) -> Tensor:
        """Features (D, T) after the rotation `turn` (3, 3) of all sensors."""
        mean, std = (
            torch.from_numpy(np.asarray(part, dtype=np.float32))[:, None] for part in (self.mean, self.std)
        )
        signals = (features * std + mean).unflatten(0, (-1, 3, self.samples))
        return (torch.einsum("ij,sjwt->siwt", turn, signals).flatten(0, 2) - mean) / std


def random_rotation(degrees: float, generator: torch.Generator) -> Tensor:
    """A random rotation (3, 3); `degrees` is the standard deviation of the angle about each axis."""
    x, y, z = (torch.randn(3, generator=generator) * math.radians(degrees)).tolist()
    return torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]]))
