"""Features that are windows of three-axis sensors, and what they would be with the device worn at another angle."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Inertial:
    """How columns hold signals: sensors × 3 axes × samples of the window, standardised by `mean` and `std` (D,)."""

    samples: int
    mean: np.ndarray
    std: np.ndarray

    def of(self, columns: slice) -> "Inertial":
        """The same for some columns, which hold whole sensors."""
        return Inertial(self.samples, self.mean[columns], self.std[columns])

    def rotated(self, features: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
        """Features (D, T) as the sensors would have given them, all turned by one random rotation.

        Args:
            degrees: standard deviation of the angle about each axis.

        Source: Um et al., Data Augmentation of Wearable Sensor Data for Parkinson's Disease Monitoring (ICMI 2017), there about any angle.
        """
        x, y, z = (torch.randn(3, generator=generator) * math.radians(degrees)).tolist()
        turn = torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]]))
        mean, std = (
            torch.from_numpy(np.asarray(part, dtype=np.float32))[:, None] for part in (self.mean, self.std)
        )
        signals = (features * std + mean).unflatten(0, (-1, 3, self.samples))
        return (torch.einsum("ij,sjwt->siwt", turn, signals).flatten(0, 2) - mean) / std
