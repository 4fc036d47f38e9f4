"""Learning curves: mAP against annotation, power-law extrapolation, and the annotation that a target mAP
needs.

Sources: Hestness et al., Deep Learning Scaling is Predictable, Empirically (2017), for the form of the curve;
Viering and Loog, The Shape of Learning Curves (TPAMI 2022), for judging it by extrapolation.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares


@dataclass(frozen=True)
class PowerLaw:
    """mAP (%) = 100 − floor − scale · n^(−exponent), for n annotated segments (or recordings, or hours)."""

    scale: float
    exponent: float
    floor: float

    def __call__(self, amount):
        """mAP (%) at an amount of annotation."""
        return 100 - self.floor - self.scale * np.asarray(amount, dtype=float) ** -self.exponent


def fit_power_law(amount, map_percent) -> PowerLaw:
    """Least-squares fit to mAP. The floor, in [0, 100], is the error that no amount of annotation removes.

    Raises:
        ValueError: fewer than three different amounts.
    """
    n, error = np.asarray(amount, dtype=float), 100 - np.asarray(map_percent, dtype=float)
    if len(np.unique(n)) < 3:
        raise ValueError(f"{len(np.unique(n))} amounts of annotation, a power law with a floor needs three")
    unit = n.mean()  # normalise amounts, so that scale and exponent are less correlated
    fits = [
        least_squares(
            lambda p: p[0] * (n / unit) ** -p[1] + p[2] - error,
            [max(error.mean() - floor, 1), 0.7, floor],
            bounds=([0, 0.01, 0], [np.inf, 5, 100]),
        )
        for floor in (0.0, max(0.0, 0.9 * error.min()))
    ]
    scale, exponent, floor = min(fits, key=lambda fit: fit.cost).x
    return PowerLaw(float(scale * unit**exponent), float(exponent), float(floor))


def needed_for(target: float, amount, map_percent) -> float:
    """The smallest amount of annotation at which the measured curve reaches the `target` mAP (%).

    The curve is linear between measured points, over the logarithm of the amount. Infinite if it never
    reaches the mAP; the smallest measured amount if that reaches it already.
    """
    order = np.argsort(amount)
    n, score = np.asarray(amount, dtype=float)[order], np.asarray(map_percent, dtype=float)[order]
    above = np.flatnonzero(score >= target)
    if not len(above):
        return float("inf")
    first = above[0]
    if first == 0:
        return float(n[0])
    share = (target - score[first - 1]) / (score[first] - score[first - 1])
    return float(np.exp(np.log(n[first - 1]) + share * np.log(n[first] / n[first - 1])))


def area_under(amount, map_percent) -> float:
    """Mean mAP (%) along the curve, over log amount; NaN for a single amount."""
    order = np.argsort(amount)
    n, score = np.log(np.asarray(amount, dtype=float)[order]), np.asarray(map_percent, dtype=float)[order]
    return float(np.trapezoid(score, n) / (n[-1] - n[0])) if n[-1] > n[0] else float("nan")
