"""What names are worth: the mAP of detections under wrong names."""

import pandas as pd

from tal_lib.evaluation.average_precision import mean_average_precision


def wrong_names_map(annotations: pd.DataFrame, detections: pd.DataFrame, classes, tious) -> pd.Series:
    """mAP by tIoU when every class is called by another one's name, averaged over all wrong names.

    The names are moved round by 1 … K − 1 places, so each class has each other name once: the chance level of a detector that finds
    segments as well but cannot read. NaN for a single class.
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
