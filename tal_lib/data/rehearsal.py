"""A stand-in of THUMOS14 at full shape: its published annotations, generated features with a known signal.

It shows that a study of this size runs, and what it costs, before features are at hand. Its mAP is no result.

A feature step is noise of unit variance in 2 × 1024 columns. While a class is active, the class's pattern is
added. The pattern has the length `signal`, half of its energy in each stream. So a matched filter sees each
step of an action `signal` standard deviations above the noise (d′ = `signal`), and no detector sees more.
`synthetic.chance` is the floor of the mAP. `matched_filter`, which knows the patterns, is the ceiling.

Nothing is stored: noise is made in blocks from the seed, the recording's id and the block's number, so a crop
costs only its own blocks.
"""

import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tal_lib.data import videos
from tal_lib.data.benchmark import Benchmark
from tal_lib.data.spec import time_axis
from tal_lib.files import digest

NAME = "thumos14_rehearsal"
BLOCK = 128  # steps that are generated together


@dataclass(frozen=True, kw_only=True)
class RehearsalConfig:
    """Strength of the signal, and the seed."""

    seed: int = 0
    signal: float = 6.0  # length of a class's pattern; the noise has unit variance in each column


def patterns(config: RehearsalConfig, classes: int, widths: tuple[int, ...]) -> np.ndarray:
    """Orthonormal patterns (K, D), float32: one per class, with equal energy in each stream.

    Args:
        widths: columns of each stream; each at least `classes`.
    """
    rng = np.random.default_rng([config.seed, zlib.crc32(b"patterns")])
    streams = [np.linalg.qr(rng.standard_normal((width, classes)))[0].T for width in widths]
    return (np.hstack(streams) / np.sqrt(len(widths))).astype(np.float32)


def noise(config: RehearsalConfig, recording: str, first: int, last: int, dim: int) -> np.ndarray:
    """Noise (last - first, dim) of steps `first` to `last` (excluded): the same for any division in calls."""
    blocks = range(first // BLOCK, -(-last // BLOCK))
    name = zlib.crc32(recording.encode())
    made = [
        np.random.default_rng([config.seed, name, block]).standard_normal((BLOCK, dim), np.float32)
        for block in blocks
    ]
    skipped = blocks.start * BLOCK
    return np.concatenate(made)[first - skipped : last - skipped] if made else np.zeros((0, dim), np.float32)


def activity(segments: pd.DataFrame, classes: tuple[str, ...], centres: np.ndarray, window_s: float):
    """How much of each step's window lies in segments of each class, 0 to 1: (T, K), float32."""
    active = np.zeros((len(centres), len(classes)), np.float32)
    for start, end, label in segments[["start", "end", "label"]].itertuples(index=False):
        inside = np.minimum(centres + window_s / 2, end) - np.maximum(centres - window_s / 2, start)
        column = active[:, classes.index(label)]
        np.maximum(column, np.clip(inside / window_s, 0, 1), out=column)
    return active


def load(root: Path, config: RehearsalConfig | None = None) -> Benchmark:
    """The stand-in. It needs `thumos14/thumos14.json` below the data root, and no features.

    Features are made again for each crop unless `Loading.in_memory` is True.
    """
    config = config or RehearsalConfig()
    content, path = videos.thumos14_annotations(root)
    recordings, spec = time_axis(videos.THUMOS14, content.recordings, path)
    classes = tuple(sorted(content.segments.label.unique()))
    known = patterns(config, len(classes), tuple(spec.streams.values()))
    by_recording: Any = dict(tuple(content.segments.groupby("recording")))
    none: Any = content.segments.iloc[:0]

    def steps(recording):
        stride_s, window_s = benchmark.time_axis(recording)
        return max(1, int((benchmark.duration(recording) - window_s) / stride_s + 1e-9) + 1)

    def part(recording, first, last):
        stride_s, window_s = benchmark.time_axis(recording)
        last = min(last, steps(recording))
        centres = np.arange(first, last) * stride_s + window_s / 2
        active = activity(by_recording.get(recording, none), classes, centres, window_s)  # pyright: ignore[reportArgumentType]
        return noise(config, recording, first, last, spec.dim) + config.signal * (active @ known)

    benchmark = Benchmark(
        name=NAME,
        classes=classes,
        tious=videos.TIOUS,
        feature_spec=spec,
        recordings=recordings,
        annotations=content.segments,
        load_features=lambda recording: part(recording, 0, steps(recording)),
        load_part=part,
        count_steps=steps,
        source_hash=digest("rehearsal 1", asdict(config)),
        where=str(path),
        notes=content.repairs,
        ends_checked=False,
    )
    if benchmark.loading.in_memory == "auto":
        benchmark.loading = replace(benchmark.loading, in_memory=False)
    return benchmark


def matched_filter(
    benchmark: Benchmark, split: str = "test", config: RehearsalConfig | None = None
) -> pd.DataFrame:
    """Detections of a detector that knows the patterns: a likelihood-ratio test of each step and class.

    A step belongs to a class if its projection on the pattern is above half of the signal. Gaps and
    detections of one step are removed by a median over three steps. A detection's score is the sum of the
    projection over its steps, divided by the standard deviation of that sum in noise.
    """
    config = config or RehearsalConfig()
    known = patterns(config, len(benchmark.classes), tuple(benchmark.feature_spec.streams.values()))
    rows = []
    for recording in benchmark.recordings(split):
        stride_s, window_s = benchmark.time_axis(recording)
        projected = benchmark.features(recording) @ known.T  # (T, K), unit variance in noise
        active = np.pad(projected > config.signal / 2, ((1, 1), (0, 0)))
        active = active[:-2].astype(int) + active[1:-1] + active[2:] >= 2  # the median of three
        change = np.diff(np.pad(active, ((1, 1), (0, 0))).astype(int), axis=0)
        for number, label in enumerate(benchmark.classes):
            starts, ends = np.flatnonzero(change[:, number] == 1), np.flatnonzero(change[:, number] == -1)
            for first, last in zip(starts, ends):
                score = projected[first:last, number].sum() / np.sqrt(last - first)
                begin, end = (at * stride_s + (window_s - stride_s) / 2 for at in (first, last))
                rows.append((recording, begin, end, label, float(score)))
    return pd.DataFrame(rows, columns=["recording", "start", "end", "label", "score"])
