"""Recordings that are annotated in part: a connected part of the timeline is kept, the rest is cut away.

So nothing that was not annotated is learned as background. The part is at a random place, by seed. It holds
whole segments: it begins and ends half-way between neighbouring segments. For one seed, a smaller part lies
inside a larger one.
"""

import math
import zlib
from collections.abc import Collection
from copy import copy
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tal_lib.data.benchmark import Benchmark
from tal_lib.data.standardise import standardise
from tal_lib.data.subsets import check_share
from tal_lib.data.tables import check_annotations
from tal_lib.files import digest

ROUNDING = 1e-9  # steps; times of cuts are sums of floats


@dataclass(frozen=True)
class Part:
    """A connected part of a recording."""

    start: float  # seconds
    end: float
    segments: np.ndarray  # rows of the segments that lie in it, in the order of time


def apart(starts: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """Rows of segments (N,) in groups, in the order of time. Segments that overlap are in one group."""
    order = np.lexsort((ends, starts))
    reach = np.maximum.accumulate(ends[order])
    return np.split(order, np.flatnonzero(starts[order][1:] >= reach[:-1]) + 1) if len(order) else []


def annotated_part(
    starts: np.ndarray, ends: np.ndarray, duration: float, share: float, position: float
) -> Part:
    """The part of a recording that holds a share of its segments, rounded, and at least one.

    Segments that overlap count as one. A recording without segments keeps this share of its time.

    Args:
        starts, ends: of the segments (N,), in seconds.
        position: where the part lies, in [0, 1). For one position, a smaller share's part is inside a
            larger one's, and uniform positions make every place equally likely.
    """
    groups = apart(starts, ends)
    if not groups:
        start = position * (1 - share) * duration
        return Part(start, start + share * duration, np.zeros(0, int))
    count = max(1, round(share * len(groups)))
    places = len(groups) - count + 1
    first = min(math.floor(position * places), places - 1)
    last = first + count
    middle = lambda index: (ends[np.concatenate(groups[:index])].max() + starts[groups[index]].min()) / 2
    return Part(
        float(middle(first)) if first else 0.0,
        float(middle(last)) if last < len(groups) else duration,
        np.concatenate(groups[first:last]),
    )


def steps_of(part: Part, stride_s: float, window_s: float, steps: int, duration: float) -> tuple[int, int]:
    """First and last (excluded) step of a part: those whose centres lie in it, at least one.

    The first step begins no later than the part, so that no segment loses its start.
    """
    centred = lambda time: (time - window_s / 2) / stride_s
    first = min(math.ceil(centred(part.start) - ROUNDING), math.floor(part.start / stride_s + ROUNDING))
    last = steps if part.end >= duration else math.floor(centred(part.end) + ROUNDING) + 1
    first = min(max(first, 0), steps - 1)
    return first, min(max(last, first + 1), steps)


def partly_annotated(benchmark: Benchmark, recordings: Collection[str], share: float, seed: int) -> Benchmark:
    """The benchmark in which only a part of these training recordings is annotated; the rest is cut away.

    The recordings keep their names and become shorter. Features are standardised by the steps that are left.

    Args:
        share: fraction of the segments of each recording, in (0, 1]; 1 is the benchmark itself.

    Raises:
        TalError: a share out of range, or below 1 for data that says nothing about few labels.
    """
    check_share(benchmark, "annotated", share)
    if share == 1:
        return benchmark
    lengths, spans, kept = {}, {}, []
    for name in recordings:
        table, duration = benchmark.annotations_of([name]), benchmark.duration(name)
        seeds = [seed, 23, zlib.crc32(name.encode("utf-8", "surrogateescape"))]
        position = float(np.random.default_rng(seeds).random())
        part = annotated_part(table.start.to_numpy(), table.end.to_numpy(), duration, share, position)
        stride_s, window_s = benchmark.time_axis(name)
        spans[name] = steps_of(part, stride_s, window_s, benchmark.steps(name), duration)
        offset = spans[name][0] * stride_s
        lengths[name] = part.end - offset
        rows = table.iloc[part.segments]
        kept.append(rows.assign(start=(rows.start - offset).clip(lower=0), end=rows.end - offset))
    others = benchmark.annotations()
    return _cut(
        benchmark,
        lengths,
        spans,
        pd.concat([others[~others.recording.isin(lengths)], *kept], ignore_index=True),
        ["annotated", share, seed, sorted(lengths)],
    )


def _cut(benchmark, lengths, spans, annotations, what):
    """The benchmark with shorter recordings.

    Args:
        lengths, spans: of the shorter recordings: seconds, and first and last (excluded) step.
        what: how it differs, for its hash.
    """
    view = copy(benchmark)
    view.__dict__.pop("data_hash", None)  # cached
    table = benchmark.table()
    table["duration"] = [lengths.get(name, benchmark.duration(name)) for name in table.recording]
    view._recordings = table.set_index("recording", drop=False)
    view._annotations = check_annotations(annotations, classes=benchmark.classes, where=benchmark.name)
    view._source_hash = lambda: digest(benchmark.data_hash, what)
    view._every, view._cache, view._steps, view._decided = 1, {}, {}, None
    first_and_last = lambda name: spans.get(name) or (0, benchmark.steps(name))

    def features(name):
        first, last = first_and_last(name)
        return benchmark.features(name)[first:last]

    def part(name, begin, end):
        first, last = first_and_last(name)
        return benchmark.part(name, first + begin, min(first + end, last))

    def count(name):
        first, last = first_and_last(name)
        return last - first

    view._load_features, view._load_part, view._count_steps = features, part, count
    before = benchmark.standardised
    if before is not None:
        every = benchmark._every
        raw = {name: before.raw(name)[::every][slice(*spans.get(name, (None,)))] for name in table.recording}
        view._standardise = lambda recordings: standardise(raw, recordings, before.samples)
        view._statistics_of_split = False
        view._standardise_by(lengths)
    return view
