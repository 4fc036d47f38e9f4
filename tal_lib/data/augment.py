"""What a training recording might have looked like: another instance of the class in a segment's place, sensors at another angle."""

import math
from dataclasses import replace

import torch

from tal_lib.data.batches import Item
from tal_lib.data.inertial import Inertial


class Augment:
    """Changes crops at random; the same draws from the same generator.

    Args:
        items: the training recordings, whole: where exchanged instances come from.
        exchange: probability, for each segment, that its steps are taken from a random instance of its class, in any training recording,
            brought to its length by repeating or leaving out steps. Its place and the background stay.
        rotate: standard deviation (degrees) of a random rotation of the sensors about each axis, one a crop; without effect where features
            are not `Inertial`.
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
        self.instances: dict[int, list[torch.Tensor]] = {}  # class -> features (D, n) of its instances
        for item in items if exchange else ():
            for label, (first, last) in zip(item.labels.tolist(), _steps(item)):
                if last > first:
                    self.instances.setdefault(label, []).append(item.features[:, first : last + 1])

    def __call__(self, item: Item) -> Item:
        if self.exchange:
            item = replace(item, features=self._exchanged(item))
        if self.rotate:
            item = replace(item, features=self.inertial.rotated(item.features, self.rotate, self.generator))
        return item

    def _exchanged(self, item):
        features = item.features.clone()
        for label, (first, last) in zip(item.labels.tolist(), _steps(item)):
            if last > first and float(torch.rand((), generator=self.generator)) < self.exchange:
                others = self.instances[label]
                other = others[int(torch.randint(len(others), (), generator=self.generator))]
                steps = (
                    torch.linspace(0, other.shape[1] - 1, last - first + 1).round().long()
                )  # blending steps would blur them
                features[:, first : last + 1] = other[:, steps]
        return features


def _steps(item):
    """First and last step within each segment of an item."""
    end = item.features.shape[1] - 1
    return [(max(0, math.ceil(start)), min(end, math.floor(stop))) for start, stop in item.segments.tolist()]
