"""Recordings as tensors: one item per recording, several items padded into a batch."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tal_lib.data.benchmark import Benchmark


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Padded recordings. Models measure time in steps; `to_seconds` converts steps to seconds."""

    recordings: tuple[str, ...]
    features: Tensor  # (B, D, T) float32, zero where padded
    mask: Tensor  # (B, T) bool, True at valid steps
    durations: Tensor  # (B,) seconds
    stride_s: Tensor  # (B,) seconds between steps
    window_s: Tensor  # (B,) seconds that one step sees
    classes: tuple[str, ...]
    segments: tuple[Tensor, ...] = ()  # per recording (N, 2), in steps; empty tuple at inference
    labels: tuple[Tensor, ...] = ()  # per recording (N,), class indices

    def __len__(self):
        return len(self.recordings)

    @property
    def full(self) -> bool:
        """Whether no step is padding."""
        return bool(self.mask.all())

    def to(self, device) -> "Batch":
        """The same batch on another device."""
        move = lambda value: value.to(device, non_blocking=True)
        return replace(
            self,
            features=move(self.features),
            mask=move(self.mask),
            segments=tuple(map(move, self.segments)),
            labels=tuple(map(move, self.labels)),
        )

    def to_seconds(self, index: int, steps: Tensor) -> Tensor:
        """Positions in steps → seconds of recording `index`, clipped to it."""
        seconds = steps * self.stride_s[index] + self.window_s[index] / 2
        return seconds.clamp(0, float(self.durations[index]))


@dataclass(frozen=True, kw_only=True)
class Item:
    """One recording, or a crop of one."""

    recording: str
    features: Tensor  # (D, T)
    duration: float
    stride_s: float
    window_s: float
    classes: tuple[str, ...]
    segments: Tensor  # (N, 2) in steps
    labels: Tensor  # (N,)


def make_item(benchmark: Benchmark, recording: str, stream: str | None = None) -> Item:
    """One recording of a benchmark as tensors, its annotations in steps."""
    stride_s, window_s = benchmark.time_axis(recording)
    table = benchmark.annotations_of([recording])
    seconds = torch.from_numpy(table[["start", "end"]].to_numpy(float, copy=True)).float().reshape(-1, 2)
    index = {name: i for i, name in enumerate(benchmark.classes)}
    return Item(
        recording=recording,
        features=torch.from_numpy(np.ascontiguousarray(benchmark.features(recording, stream).T)),
        duration=benchmark.duration(recording),
        stride_s=stride_s,
        window_s=window_s,
        classes=benchmark.classes,
        segments=(seconds - window_s / 2) / stride_s,
        labels=torch.tensor([index[label] for label in table.label], dtype=torch.long),
    )


def unannotated(
    recording: str,
    features: Tensor,
    duration: float,
    stride_s: float,
    window_s: float,
    classes: tuple[str, ...],
) -> Item:
    """An item for inference: features (D, T) without annotations."""
    return Item(
        recording=recording,
        features=features,
        duration=duration,
        stride_s=stride_s,
        window_s=window_s,
        classes=classes,
        segments=torch.zeros(0, 2),
        labels=torch.zeros(0, dtype=torch.long),
    )


def collate(items: list[Item]) -> Batch:
    """Pad items to the longest of them."""
    lengths = [item.features.shape[1] for item in items]
    features = items[0].features.new_zeros(len(items), items[0].features.shape[0], max(lengths))
    for row, item in zip(features, items):
        row[:, : item.features.shape[1]] = item.features
    return Batch(
        recordings=tuple(item.recording for item in items),
        features=features,
        mask=torch.arange(max(lengths)) < torch.tensor(lengths)[:, None],
        durations=torch.tensor([item.duration for item in items]),
        stride_s=torch.tensor([item.stride_s for item in items]),
        window_s=torch.tensor([item.window_s for item in items]),
        classes=items[0].classes,
        segments=tuple(item.segments for item in items),
        labels=tuple(item.labels for item in items),
    )


def crop(
    item: Item,
    max_steps: int,
    generator: torch.Generator,
    *,
    keep: float = 0.5,
    shrink: tuple[float, float] = (0.9, 1.0),
) -> Item:
    """A random crop of at most `max_steps` steps.

    A segment is dropped if less than `keep` of it remains. A shorter recording is cropped to a random
    fraction of its length, drawn from `shrink` (ActionFormer's recipe). If a crop would hold no segment, it
    is drawn again, a few times.
    """
    steps = item.features.shape[1]
    draw = lambda: float(torch.rand((), generator=generator))
    size = min(max_steps, max(1, round(steps * (shrink[0] + draw() * (shrink[1] - shrink[0])))))
    if size >= steps:
        return item
    for _ in range(20):
        first = int(draw() * (steps - size + 1))
        clipped = item.segments.clamp(first - 0.5, first + size - 0.5)
        kept = (clipped[:, 1] - clipped[:, 0]) >= keep * (item.segments[:, 1] - item.segments[:, 0])
        if kept.any() or not len(item.segments):
            break
    return replace(
        item,
        features=item.features[:, first : first + size],
        segments=clipped[kept] - first,
        labels=item.labels[kept],
    )
