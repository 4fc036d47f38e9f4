"""Recordings as tensors: one item per recording, several items padded into a batch.

The features of an item are a tensor, or a `Part`: some steps of a recording that are read when the batch is
made. Both have a shape and can be cut by `[:, first:last]`, so a crop reads only its own steps.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tal_lib.data.benchmark import Benchmark
from tal_lib.data.loading import prefetched

CropReach = Literal["step", "window", "edge"]  # how far segments reach beyond a crop; see training/recipes.py


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

    def pinned(self) -> "Batch":
        """The same batch in page-locked memory, from which a GPU copies while it computes."""
        return replace(self, features=self.features.pin_memory(), mask=self.mask.pin_memory())

    def to_seconds(self, index: int, steps: Tensor) -> Tensor:
        """Positions in steps → seconds of recording `index`, clipped to it."""
        seconds = steps * self.stride_s[index] + self.window_s[index] / 2
        return seconds.clamp(0, float(self.durations[index]))


class Part:
    """Features (D, T) of steps `first` to `last` (excluded) of a recording, not read yet.

    Args:
        changes: functions (D, T) → (D, T) that are applied in order after reading.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        recording: str,
        stream: str | None,
        first: int,
        last: int,
        changes: tuple[Callable[[Tensor], Tensor], ...] = (),
    ):
        self._source, self._changes = (benchmark, recording, stream), changes
        self._first, self._last = first, last
        columns = benchmark.feature_spec.columns(stream)
        self.shape = (columns.stop - columns.start, last - first)

    def __getitem__(self, key: tuple[slice, slice]) -> "Part":
        """`part[:, first:last]`: fewer steps. Not after a change, which would need the others."""
        every, steps = key
        if every != slice(None) or steps.step is not None or self._changes:
            raise TypeError("a part of a recording can be cut to fewer steps, and not after a change")
        first, last, _ = steps.indices(self.shape[1])
        return Part(*self._source, self._first + first, self._first + max(first, last))

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Part":
        """The same steps, changed after reading."""
        return Part(*self._source, self._first, self._last, (*self._changes, change))

    def read(self) -> Tensor:
        """The features (D, T).

        Raises:
            TalError: they cannot be read, or are NaN or infinite.
        """
        benchmark, recording, stream = self._source
        features = torch.from_numpy(benchmark.part(recording, self._first, self._last, stream)).T
        for number, change in enumerate(self._changes):
            features = change(features if number else features.contiguous())
        return features


def read(features: "Tensor | Part") -> Tensor:
    """Features (D, T) as a tensor, read now if they are not yet."""
    return features.read() if isinstance(features, Part) else features


def changed(features: "Tensor | Part", change: Callable[[Tensor], Tensor]) -> "Tensor | Part":
    """Features after a change, which waits until they are read."""
    return features.changed(change) if isinstance(features, Part) else change(features)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One recording, or a crop of one."""

    recording: str
    features: Tensor | Part  # (D, T)
    duration: float
    stride_s: float
    window_s: float
    classes: tuple[str, ...]
    segments: Tensor  # (N, 2) in steps
    labels: Tensor  # (N,)


def make_item(benchmark: Benchmark, recording: str, stream: str | None = None, *, lazy: bool = False) -> Item:
    """One recording of a benchmark as tensors, its annotations in steps.

    lazy: its features are a `Part`.
    """
    stride_s, window_s = benchmark.time_axis(recording)
    table = benchmark.annotations_of([recording])
    seconds = torch.from_numpy(table[["start", "end"]].to_numpy(float, copy=True)).float().reshape(-1, 2)
    index = {name: i for i, name in enumerate(benchmark.classes)}
    return Item(
        recording=recording,
        features=Part(benchmark, recording, stream, 0, benchmark.steps(recording))
        if lazy
        else torch.from_numpy(np.ascontiguousarray(benchmark.features(recording, stream).T)),
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
    """Pad items to the longest of them. Features that are not read yet are read now."""
    lengths = [item.features.shape[1] for item in items]
    first = items[0].features
    features = torch.zeros(
        (len(items), first.shape[0], max(lengths)),
        dtype=torch.float32 if isinstance(first, Part) else first.dtype,
    )
    for row, item in zip(features, items):
        row[:, : item.features.shape[1]] = read(item.features)
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


def _clipped(item: Item, first: float, last: float, keep: float) -> tuple[Tensor, Tensor]:
    """Segments between two positions (N, 2), and whether at least `keep` of each remains (N,)."""
    clipped = item.segments.clamp(first, last)
    return clipped, (clipped[:, 1] - clipped[:, 0]) >= keep * (item.segments[:, 1] - item.segments[:, 0])


def within_features(item: Item, *, keep: float = 0.5) -> Item:
    """Segments clipped at the end of the features; one is dropped if less than `keep` of it remains.

    Some of ActivityNet's videos lack frames. Source: ActionFormer's code.
    """
    end = item.features.shape[1] + item.window_s / 2 / item.stride_s
    clipped, kept = _clipped(item, -torch.inf, end, keep)
    return replace(item, segments=clipped[kept], labels=item.labels[kept])


def batches(groups: Iterable[list[Item]], benchmark: Benchmark, device: str) -> Generator[Batch, None, None]:
    """A batch on `device` of each group of items, prepared ahead by the workers of `benchmark.loading`.

    Groups are drawn in the caller's thread and in order, so random numbers do not depend on the workers.
    Close the generator to stop early.
    """
    pin = device.startswith("cuda")
    make = lambda items: collate(items).pinned() if pin else collate(items)
    for batch in prefetched(groups, make, benchmark.loading.threads(benchmark.in_memory)):
        yield batch.to(device)


def crop(
    item: Item,
    max_steps: int,
    generator: torch.Generator,
    *,
    keep: float = 0.5,
    shrink: tuple[float, float] = (0.9, 1.0),
    length: Literal["fraction", "steps"] = "fraction",
    reach: CropReach = "step",
    tries: int = 20,
) -> Item:
    """A random crop of at most `max_steps` steps.

    A segment is dropped if less than `keep` of it remains. A shorter recording is cropped to a random
    fraction of its length, drawn from `shrink` (ActionFormer's recipe). If a crop would hold no segment, it
    is drawn again, up to `tries` times. `length` and `reach` are options of a recipe, described there.
    """
    steps = item.features.shape[1]
    draw = lambda: float(torch.rand((), generator=generator))
    if length == "fraction":
        size = min(max_steps, max(1, round(steps * (shrink[0] + draw() * (shrink[1] - shrink[0])))))
    elif steps > max_steps:
        size = max_steps
    else:
        least, most = max(1, round(shrink[0] * steps)), min(steps, round(shrink[1] * steps))
        size = least + int(draw() * (most - least + 1))
    if size >= steps:
        return item
    window = item.window_s / 2 / item.stride_s
    before, after = {"step": (0.5, -0.5), "window": (window, window), "edge": (0.0, 0.0)}[reach]
    for _ in range(tries):
        first = int(draw() * (steps - size + 1))
        clipped, kept = _clipped(item, first - before, first + size + after, keep)
        if kept.any() or not len(item.segments):
            break
    return replace(
        item,
        features=item.features[:, first : first + size],
        segments=clipped[kept] - first,
        labels=item.labels[kept],
    )
