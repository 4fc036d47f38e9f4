"""Dense classification, then grouping: shared by models that label cells of time and join equal neighbours.

A cell is a step or a window. Class K is background.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tal_lib.data.batches import Batch
from tal_lib.models.parts.candidates import Candidates
from tal_lib.models.parts.conv import ceil_div
from tal_lib.models.parts.detector import Detector, DetectorConfig
from tal_lib.validation import Probability, require


@dataclass(frozen=True, kw_only=True)
class DenseConfig(DetectorConfig):
    """Options of every dense model."""

    # runs above each are candidates
    thresholds: tuple[Probability, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

    def check(self):
        super().check()
        require(len(self.thresholds) > 0, "thresholds: the list is empty", "Give at least one.")


def cell_instances(centres: Tensor, segments: Tensor) -> Tensor:
    """Row of the shortest segment around the centre of each cell, −1 for none; centres (N,), segments (M, 2)
    in steps."""
    if not len(segments):
        return torch.full_like(centres, -1, dtype=torch.long)
    inside = (centres[:, None] >= segments[:, 0]) & (centres[:, None] < segments[:, 1])
    lengths = torch.where(inside, segments[:, 1] - segments[:, 0], torch.inf)
    shortest, which = lengths.min(1)
    return torch.where(shortest.isfinite(), which, -1)


def instance_labels(instances: Tensor, labels: Tensor, background: int) -> Tensor:
    """Class of each cell from its instance (N,) and the labels (M,) of the instances; `background` without
    one."""
    return torch.cat([labels, labels.new_full((1,), background)])[instances]


def cell_targets(centres: Tensor, segments: Tensor, labels: Tensor, background: int) -> Tensor:
    """Class of each cell: that of the shortest segment around its centre, else `background`."""
    return instance_labels(cell_instances(centres, segments), labels, background)


def group_runs(probabilities: Tensor, thresholds) -> tuple[Tensor, ...]:
    """Runs of neighbouring cells whose probability reaches a threshold.

    Args:
        probabilities: (N, K).

    Returns:
        first cell, last cell (inclusive), mean probability and class of every run at every threshold.
    """
    sums = F.pad(probabilities.double().cumsum(0), (0, 0, 1, 0))
    parts = []
    for threshold in thresholds:
        above = F.pad((probabilities >= threshold).T.to(torch.int8), (1, 1))  # (K, N + 2)
        change = above.diff(dim=1)
        label, first = (change == 1).nonzero(as_tuple=True)
        last = (change == -1).nonzero(as_tuple=True)[1] - 1
        mean = (sums[last + 1, label] - sums[first, label]) / (last + 1 - first)
        parts.append((first, last, mean.float(), label))
    return tuple(torch.cat(part) for part in zip(*parts))


class DenseDetector(Detector):
    """A subclass gives `forward` → (logits (B, N, K + 1),) and the cells' geometry in steps."""

    config: DenseConfig

    def cell_stride(self) -> int:
        """Steps between cells."""
        return 1

    def cell_width(self) -> int:
        """Steps of a cell."""
        return 1

    def cells(self, steps: int) -> int:
        """Number of cells of a recording with that many steps."""
        return max(0, ceil_div(steps - self.cell_width(), self.cell_stride())) + 1

    def centres(self, cells: int, device=None) -> Tensor:
        """Centres (N,) of cells, in steps."""
        return torch.arange(cells, device=device) * self.cell_stride() + (self.cell_width() - 1) / 2

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        logits = outputs[0]
        centres = self.centres(logits.shape[1], logits.device)
        targets = [
            cell_targets(centres, segments, labels, self.num_classes)
            for segments, labels in zip(batch.segments, batch.labels)
        ]
        for target, steps in zip(targets, batch.mask.sum(1).tolist()):
            target[self.cells(steps) :] = -100  # padding
        loss = F.cross_entropy(logits.flatten(0, 1), torch.cat(targets), ignore_index=-100)
        return {"total": loss}

    def candidates(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        return self.grouped(outputs[0].softmax(-1), mask)

    def combined_candidates(self, members, outputs, weights, mask: Tensor) -> list[Candidates]:
        return self.grouped(
            sum(weight * output[0].softmax(-1) for output, weight in zip(outputs, weights)),  # pyright: ignore[reportArgumentType]
            mask,
        )

    def grouped(self, probabilities: Tensor, mask: Tensor) -> list[Candidates]:
        """Candidates from the probabilities (B, N, K + 1) of the cells."""
        candidates = []
        for recording_probabilities, steps in zip(probabilities, mask.sum(1).tolist()):
            cells = self.cells(steps)
            first, last, score, label = group_runs(
                recording_probabilities[:cells, :-1], self.config.thresholds
            )
            centres, half = self.centres(cells, recording_probabilities.device), self.cell_stride() / 2
            segments = torch.stack([centres[first] - half, centres[last] + half], -1)
            candidates.append(Candidates(segments, score, label))
        return candidates
