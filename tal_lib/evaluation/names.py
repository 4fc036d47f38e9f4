"""The contribution of class names: the mAP of detections under permuted names."""

import pandas as pd

from tal_lib.evaluation.average_precision import mean_average_precision


def wrong_names_map(annotations: pd.DataFrame, detections: pd.DataFrame, classes, tious) -> pd.Series:
    """mAP by tIoU when every class has another class's name, averaged over K − 1 permutations.

    The names are shifted by 1 … K − 1 places, so each class gets each other name once. This is the chance
    level of a detector that localizes equally well but cannot read names. NaN for a single class.
    """
    classes = list(classes)
    moved = [dict(zip(classes, classes[shift:] + classes[:shift])) for shift in range(1, len(classes))]
    scores = [
        mean_average_precision(annotations, detections.assign(label=detections.label.map(names)), tious)
        for names in moved
    ]
    if not scores:
        return mean_average_precision(annotations, detections, tious) * float("nan")
    return sum(scores) / len(scores)  # pyright: ignore[reportReturnType]
