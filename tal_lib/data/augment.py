"""Augmentation of training recordings: instance mixing, and random rotation of inertial sensors."""

import math
from dataclasses import replace
from functools import partial

import torch

from tal_lib.data.batches import Item, Part, changed, read
from tal_lib.data.inertial import Inertial, random_rotation


class Augment:
    """Changes crops at random. The same generator state gives the same changes.

    Random numbers are drawn when it is called. Features that are not read yet are changed after reading.

    Args:
        items: the whole training recordings, the source of exchanged instances.
        exchange: probability that the steps of a segment are replaced. The new steps come from a random
            instance of the same class in any training recording. Steps are repeated or left out to fit the
            segment's length. The segment's position and the background do not change.
        rotate: standard deviation (degrees) of a random rotation of the sensors about each axis, one rotation
            per crop. It has no effect on features that are not `Inertial`.
    """

    def __init__(
        self,
        items: list[Item],
        inertial: Inertial | None,
        generator: torch.Generator,
        *,
        exchange: float = 0.0,
        rotate: float = 0.0,
    ):
        self.inertial, self.generator = inertial, generator
        self.exchange, self.rotate = exchange, rotate if inertial else 0.0
        self.instances: dict[int, list[torch.Tensor | Part]] = {}  # class -> features (D, n) of its instances
        for item in items if exchange else ():
            for label, (first, last) in zip(item.labels.tolist(), _steps(item)):
                if last > first:
                    self.instances.setdefault(label, []).append(item.features[:, first : last + 1])

    def __call__(self, item: Item) -> Item:
        if self.exchange:
            item = replace(item, features=changed(item.features, self._exchange(item)))
        if self.rotate:
            turn = random_rotation(self.rotate, self.generator)
            turned = partial(self.inertial.turned, turn=turn)  # pyright: ignore[reportOptionalMemberAccess]
            item = replace(item, features=changed(item.features, turned))
        return item

    def _exchange(self, item):
        """A function that exchanges instances in the item's features."""
        drawn = []
        for label, (first, last) in zip(item.labels.tolist(), _steps(item)):
            if last > first and float(torch.rand((), generator=self.generator)) < self.exchange:
                others = self.instances[label]
                drawn.append(
                    (first, last, others[int(torch.randint(len(others), (), generator=self.generator))])
                )
        return partial(_exchanged, drawn=drawn)


def _exchanged(features, drawn):
    """Features (D, T) in which other steps replace `first` to `last`, for each (first, last, other steps)."""
    features = features.clone()
    for first, last, other in drawn:
        steps = (
            torch.linspace(0, other.shape[1] - 1, last - first + 1).round().long()
        )  # interpolation would blur the steps
        features[:, first : last + 1] = read(other)[:, steps]
    return features


def _steps(item):
    """First and last step within each segment of an item."""
    end = item.features.shape[1] - 1
    return [(max(0, math.ceil(start)), min(end, math.floor(stop))) for start, stop in item.segments.tolist()]
