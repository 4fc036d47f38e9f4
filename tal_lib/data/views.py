"""Views of a benchmark: the same recordings with other annotations."""

from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from tal_lib.data.benchmark import Benchmark
from tal_lib.data.tables import check_annotations
from tal_lib.files import digest

AGNOSTIC = "action"  # the one class of a class-agnostic benchmark
TOLERANCE_S = 1e-3


def view(
    benchmark: Benchmark,
    table: pd.DataFrame,
    annotations: pd.DataFrame,
    classes,
    loaders: dict[str, Any],
    what: list,
) -> Benchmark:
    """A benchmark with other recordings, annotations or classes.

    Args:
        loaders: `load_features`, and `load_part` and `count_steps` if there are any, of its recordings.
        what: how it differs, for its hash.
    """
    other = Benchmark(
        name=benchmark.name,
        classes=classes,
        tious=benchmark.tious,
        feature_spec=benchmark.feature_spec,
        recordings=table,
        annotations=annotations.reset_index(drop=True),
        **loaders,
        source_hash=lambda: digest(benchmark.data_hash, list(classes), what),
        ends_checked=False,
    )
    other.loading, other.taxonomy = benchmark.loading, benchmark.taxonomy
    other.inertial = benchmark.inertial
    if (known := benchmark.standardised) is not None:  # so are the features that the loaders give
        raw = lambda recording: loaders["load_features"](recording) * known.std + known.mean
        other._standardised = replace(known, raw=raw)
    return other


def whole(benchmark):
    """Loaders of a view whose recordings are those of the benchmark."""
    return {
        "load_features": benchmark.features,
        "load_part": benchmark.part,
        "count_steps": benchmark.steps,
    }


def class_agnostic(benchmark: Benchmark) -> Benchmark:
    """The benchmark with one class, `action`. A model trained on it gives proposals.

    `tal_lib.evaluation.fuse` multiplies them by class scores of whole recordings. ActionFormer and TriDet do
    so on ActivityNet.
    """
    return relabelled(
        benchmark, benchmark.annotations().assign(label=AGNOSTIC), (AGNOSTIC,), ["class-agnostic"]
    )


def distinct(benchmark: Benchmark) -> Benchmark:
    """The benchmark without the annotations that `distinct_annotations` leaves out."""
    annotations = distinct_annotations(benchmark.annotations())
    return relabelled(benchmark, annotations, benchmark.classes, ["distinct annotations"])


def relabelled(benchmark: Benchmark, annotations: pd.DataFrame, classes, what: list) -> Benchmark:
    """The same recordings, people and folds under other annotations.

    Its features are standardised as those of the benchmark are: by what a cell may learn from.

    Args:
        what: how it differs, for its hash.
    """
    other = copy(benchmark)
    other.__dict__.pop("data_hash", None)  # cached
    other.classes = tuple(classes)
    other._annotations = check_annotations(annotations, classes=other.classes, where=benchmark.name)
    other._source_hash = lambda: digest(benchmark.data_hash, list(classes), what)
    if not set(benchmark.classes) <= set(other.classes):
        other.taxonomy = None  # it is one of the benchmark's classes
    return other


def distinct_annotations(annotations: pd.DataFrame, tolerance: float = TOLERANCE_S) -> pd.DataFrame:
    """Annotations without those shorter than `tolerance` seconds, and without repetitions.

    An annotation is a repetition if an earlier one that is kept has its recording and label, and both its
    start and its end lie within `tolerance`.

    Source: the evaluation of ActionFormer's code, and its training on ActivityNet.
    """
    keep = np.zeros(len(annotations), dtype=bool)
    start, end = annotations.start.to_numpy(), annotations.end.to_numpy()
    for rows in annotations.groupby(["recording", "label"], sort=False).indices.values():
        kept: list[int] = []
        for row in np.sort(rows):
            repeated = (np.abs(start[row] - start[kept]) <= tolerance) & (
                np.abs(end[row] - end[kept]) <= tolerance
            )
            if end[row] - start[row] >= tolerance and not repeated.any():
                kept.append(row)
        keep[kept] = True
    return annotations[keep].reset_index(drop=True)  # pyright: ignore[reportReturnType]
