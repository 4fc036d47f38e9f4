"""Recordings, annotations, features, subsets: everything before the model."""

from typing import TYPE_CHECKING

from tal_lib.data import synthetic
from tal_lib.data.annotation_budget import partly_annotated
from tal_lib.data.annotations import read_annotations, write_annotations
from tal_lib.data.benchmark import Benchmark, FeatureSpec
from tal_lib.data.checks import MISSING_LIST, Ready, check_benchmark, ready, write_missing
from tal_lib.data.loading import Loading
from tal_lib.data.open_set import OpenSet, class_split, open_set, shuffled_names
from tal_lib.data.registry import (
    Shape,
    list_benchmarks,
    load_benchmark,
    portable_name,
    register_benchmark,
    shape_of,
)
from tal_lib.data.subsets import (
    limited_subset,
    open_set_split,
    published_open_set_split,
    published_subset,
    read_limited_annotations,
    write_limited_annotations,
)
from tal_lib.data.transfer import also_tested
from tal_lib.data.views import class_agnostic, distinct, distinct_annotations

if TYPE_CHECKING:  # `__getattr__` gives them: their module imports torch
    from tal_lib.data.batches import Batch, collate, make_item

__all__ = [
    "MISSING_LIST",
    "Batch",
    "Benchmark",
    "FeatureSpec",
    "Loading",
    "OpenSet",
    "Ready",
    "Shape",
    "check_benchmark",
    "class_agnostic",
    "class_split",
    "collate",
    "distinct",
    "distinct_annotations",
    "limited_subset",
    "list_benchmarks",
    "load_benchmark",
    "make_item",
    "open_set",
    "open_set_split",
    "partly_annotated",
    "portable_name",
    "published_open_set_split",
    "published_subset",
    "read_annotations",
    "register_benchmark",
    "read_limited_annotations",
    "ready",
    "shape_of",
    "shuffled_names",
    "synthetic",
    "also_tested",
    "write_annotations",
    "write_limited_annotations",
    "write_missing",
]


def __getattr__(name):
    if name in ("Batch", "collate", "make_item"):
        from tal_lib.data import batches

        return getattr(batches, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
