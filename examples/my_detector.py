"""center_offsets: an example of a detector in a file outside the library. See docs/adding-a-model.md.

Every step predicts its class, and its distances to the segment's start and end.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.data import Batch
from tal_lib.models.parts.candidates import Candidates
from tal_lib.models.parts.dense import cell_instances, instance_labels
from tal_lib.models.parts.detector import Detector, DetectorConfig
from tal_lib.models.parts.registry import register


@dataclass(frozen=True, kw_only=True)
class CenterOffsetsConfig(DetectorConfig):
    """Options of center_offsets."""

    channels: int = 64
    kernel: int = 9  # steps, an odd number


@register("center_offsets", compact=CenterOffsetsConfig(), paper=CenterOffsetsConfig(channels=256))
class CenterOffsets(Detector):
    """forward: features (B, D, T) → class logits (B, T, K), distances to start and end in steps (B, T, 2)."""

    def __init__(self, config: CenterOffsetsConfig, input_dim: int, num_classes: int):
        super().__init__(config, input_dim, num_classes)
        self.first = nn.Conv1d(input_dim, config.channels, 1)
        self.second = nn.Conv1d(config.channels, config.channels, config.kernel, padding=config.kernel // 2)
        self.out = nn.Conv1d(config.channels, num_classes + 2, 1)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        keep = 1.0 if mask is None else mask.unsqueeze(1).to(features.dtype)  # (B, 1, T)
        x = F.relu(self.first(features)) * keep  # padded steps stay zero, so they change no valid step
        x = F.relu(self.second(x))
        logits, distances = self.out(x).transpose(1, 2).split([self.num_classes, 2], dim=-1)
        return logits, F.softplus(distances)

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        logits, distances = outputs
        times = torch.arange(logits.shape[1], device=logits.device, dtype=torch.float32)
        classes, shifts = [], []
        for index, (segments, labels) in enumerate(zip(batch.segments, batch.labels)):
            instances = cell_instances(times, segments)  # (T,): the shortest segment around each step, or −1
            valid, inside = batch.mask[index], (instances >= 0) & batch.mask[index]
            target = instance_labels(instances, labels, self.num_classes)
            target = F.one_hot(target, self.num_classes + 1)[:, :-1].float()
            classes.append(F.binary_cross_entropy_with_logits(logits[index], target, reduction="none")[valid])
            if inside.any():
                ends = segments[instances[inside]]  # (N, 2)
                truth = torch.stack([times[inside] - ends[:, 0], ends[:, 1] - times[inside]], 1)
                shifts.append((distances[index][inside].log1p() - truth.clamp(min=0).log1p()).abs())
        classification = torch.cat(classes).sum(-1).mean()
        regression = torch.cat(shifts).mean() if shifts else 0.0 * distances.sum()
        return {"classes": classification, "distances": regression, "total": classification + regression}

    def candidates(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        logits, distances = outputs
        results = []
        for scores, offsets, valid in zip(logits.sigmoid(), distances, mask):
            scores = scores * valid.unsqueeze(1)
            step, label = (scores > self.config.post.score_threshold).nonzero(as_tuple=True)
            segments = torch.stack([step - offsets[step, 0], step + offsets[step, 1]], 1)
            results.append(Candidates(segments, scores[step, label], label))
        return results
