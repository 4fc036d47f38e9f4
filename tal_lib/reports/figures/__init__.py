"""The figures: tidy table in, axes out; one small function each, by topic."""

import inspect
import re

from tal_lib.reports.figures.accuracy import (
    average_recall,
    data_efficiency,
    map_by_tiou,
    open_set,
    probability_matrix,
    variants,
)
from tal_lib.reports.figures.cost import (
    accuracy_against_cost,
    accuracy_over_time,
    cost_against_length,
    inference_length,
    pareto_front,
    speed_and_loss,
    where_time_goes,
    window_accuracy,
)
from tal_lib.reports.figures.diagnosis import (
    class_matrix,
    error_impact,
    error_profile,
    errors_by_fraction,
    sensitivity,
)
from tal_lib.reports.figures.equal import expected_best, factorial
from tal_lib.reports.figures.factors import annotation_budget, size_curves, training_time
from tal_lib.reports.figures.prior import beside_prior, curves_beside_prior
from tal_lib.reports.figures.recordings import (
    ap_by_class,
    gap_lengths,
    loss_curve,
    recording,
    segment_lengths,
    timeline,
)


def described(source: str) -> str:
    """What the figures show that some code draws: the first lines of their functions' docstrings.

    source: Python code, such as a notebook's cell; functions are known by `figures.NAME(`.
    """
    names = dict.fromkeys(re.findall(r"\bfigures\.(\w+)\(", source))
    drawn = [globals()[name] for name in names if name in __all__]
    texts = [" ".join((inspect.getdoc(function) or "").split("\n\n")[0].split()) for function in drawn]
    return " ".join(texts).replace("`", "")


__all__ = [
    "accuracy_against_cost",
    "accuracy_over_time",
    "annotation_budget",
    "ap_by_class",
    "average_recall",
    "beside_prior",
    "class_matrix",
    "cost_against_length",
    "curves_beside_prior",
    "data_efficiency",
    "described",
    "error_impact",
    "error_profile",
    "errors_by_fraction",
    "expected_best",
    "factorial",
    "gap_lengths",
    "inference_length",
    "loss_curve",
    "map_by_tiou",
    "open_set",
    "pareto_front",
    "probability_matrix",
    "recording",
    "segment_lengths",
    "sensitivity",
    "size_curves",
    "speed_and_loss",
    "timeline",
    "training_time",
    "variants",
    "where_time_goes",
    "window_accuracy",
]
