"""timeline_prior: a detector that sees nothing. It is the floor of every table.

It remembers the annotated segments of the training recordings as fractions of their durations. On a test
recording it proposes all of them, stretched to that recording's duration. The score of a segment is its
agreement with the training recordings: the mean, over these, of the largest tIoU with a segment of its class.
Then soft-NMS, as for every detector. Features are never read. Stretching does not change tIoU, so the scores
would be the same for every test recording, and the order of the recordings' names would decide which of them
come first. Therefore each score is lowered by a random part of at most `NOISE`, drawn from the hash of the
recording's id. A recording is remembered once, however often it is shown. The order of recordings and of
annotations does not count.

Where recordings follow a script, this reaches much: a detector must be compared with it before its mAP says
anything about the features.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.errors import TalError
from tal_lib.models.parts.candidates import Candidates, PostProcess
from tal_lib.models.parts.detector import Detector, DetectorConfig
from tal_lib.models.parts.registry import FLOOR, register
from tal_lib.segments import interval_iou

NOISE = 1e-3  # of a score; more than what rounding takes away, less than what differs between segments

Capacity = Annotated[int, Field(ge=1, le=2**24)]


@dataclass(frozen=True, kw_only=True)
class TimelinePriorConfig(DetectorConfig):
    """Options of timeline_prior."""

    capacity: Capacity = 2**16  # segments that can be remembered; more are refused


SIMPLE = TimelinePriorConfig(post=PostProcess(voting_tiou=0.0))  # soft-NMS alone


@register("timeline_prior", family=FLOOR, compact=SIMPLE, paper=SIMPLE)
class TimelinePrior(Detector):
    """Training stores the timelines: whole recordings, no gradient.

    forward: features (B, D, T) → durations (B,) and offsets (B,), in steps, and numbers of the recordings
    (B,). Those of a batch come from `run`.
    """

    config: TimelinePriorConfig
    not_exportable = "it has no network: it reads the duration only"

    def __init__(self, config: TimelinePriorConfig, input_dim: int, num_classes: int):
        super().__init__(config, input_dim, num_classes)
        # rows: start and end as fractions of the duration, class, number of the recording (0: unused)
        self.timelines: Tensor
        self.register_buffer("timelines", torch.zeros(config.capacity, 4, dtype=torch.float64))
        self._scored: tuple = ()  # state of the timelines, and what was computed from them
        self.unused = nn.Parameter(torch.zeros(()))  # an optimizer needs a parameter

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        batch, _, steps = features.shape
        durations = features.new_full((batch,), steps) if mask is None else mask.sum(1).to(features.dtype)
        numbers = torch.ones(batch, dtype=torch.float64, device=durations.device)
        return durations, durations.new_full((batch,), 0.5), numbers

    def run(self, batch: Batch) -> tuple[Tensor, ...]:
        """Durations (B,) and positions of the recordings' starts before the first step's centre (B,), both in
        steps, and the recordings' numbers (B,)."""
        self.name_classes(batch.classes)
        device = self.timelines.device
        stride = batch.stride_s.to(device)
        numbers = torch.tensor(list(map(number_of, batch.recordings)), dtype=torch.float64, device=device)
        return batch.durations.to(device) / stride, batch.window_s.to(device) / (2 * stride), numbers

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        """Remember the batch's timelines that are new. The loss is zero.

        Raises:
            TalError: more segments than `capacity`.
        """
        durations, offsets, _ = outputs
        about = zip(batch.recordings, batch.segments, batch.labels, durations, offsets)
        for recording, segments, labels, duration, offset in about:
            number, used = number_of(recording), int((self.timelines[:, 3] > 0).sum())
            if (self.timelines[:used, 3] == number).any():
                continue
            if used + len(labels) > self.config.capacity:
                raise TalError(
                    f"capacity: {self.config.capacity} is too small for the training segments: {used} are "
                    f"remembered and recording {recording} has {len(labels)} more",
                    remedy="Set the option capacity to their number at least, or leave it out.",
                )
            rows = self.timelines[used : used + len(labels)]
            rows[:, :2] = (segments.double() + offset) / duration
            rows[:, 2], rows[:, 3] = labels, number
        return {"total": 0.0 * self.unused}

    def candidates(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        fractions, scores, labels = self._best()
        return [
            Candidates(
                (fractions * duration - offset).to(duration),
                (scores * (1 - NOISE * uniform(number, len(scores)))).to(duration),
                labels,
            )
            for duration, offset, number in zip(*outputs)
        ]

    def _best(self):
        """The best candidates: fractions of the duration (N, 2), scores (N,), classes (N,). Computed once."""
        state = (id(self.timelines), self.timelines._version, self.config.post.max_candidates)
        if not self._scored or self._scored[0] != state:
            timelines = in_order(self.timelines[self.timelines[:, 3] > 0])
            labels = timelines[:, 2].long()
            recordings = timelines[:, 3].unique(return_inverse=True)[1] + 1
            scores = agreement(timelines[:, :2], labels, recordings)
            best = scores.argsort(descending=True, stable=True)[: self.config.post.max_candidates]
            self._scored = state, (timelines[best, :2], scores[best], labels[best])
        return self._scored[1]


def number_of(recording: str) -> int:
    """The number of a recording in the timelines: 52 bits of a hash of its id, above 0.

    It is exact in float64. A training that is resumed knows by it which recordings were remembered.
    """
    return int.from_bytes(hashlib.sha256(recording.encode()).digest()[:8], "big") // 2**12 + 1


def uniform(number: Tensor, count: int) -> Tensor:
    """Random values (count,) in [0, 1) that a recording's number determines."""
    values = torch.rand(count, generator=torch.Generator().manual_seed(int(number)), dtype=torch.float64)
    return values.to(number.device)


def in_order(timelines: Tensor) -> Tensor:
    """The rows (N, 4) by class, start, end and recording, so that ties do not depend on what came first."""
    columns = timelines.cpu().numpy().T
    order = np.lexsort((columns[3], columns[1], columns[0], columns[2]))
    return timelines[torch.from_numpy(order).to(timelines.device)]


def agreement(segments: Tensor, labels: Tensor, recordings: Tensor) -> Tensor:
    """Agreement (N,) of each segment with all recordings: the mean of its largest tIoU in each, same class.

    Args:
        segments: (N, 2); labels, recordings: (N,), recordings from 1. A recording without a segment of the
            class agrees by 0.
    """
    scores = segments.new_zeros(len(segments))
    count = int(recordings.max()) if len(recordings) else 0
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        owners = recordings[rows] - 1
        for part in rows.split(512):  # limits the memory
            overlaps = interval_iou(segments[part, None], segments[None, rows])
            best = segments.new_zeros(len(part), count)
            best.scatter_reduce_(1, owners.expand(len(part), -1), overlaps, "amax")
            scores[part] = best.mean(1)
    return scores
