import numpy as np
import pandas as pd

from tal_lib.evaluation import wrong_names_map


def test_every_wrong_name_once():
    """Two of three classes are detected. Under wrong names, one of them fits by chance."""
    truth = pd.DataFrame(
        [("r", 0.0, 10.0, "a"), ("r", 20.0, 30.0, "b"), ("r", 40.0, 50.0, "c"), ("r", 0.0, 10.0, "c")],
        columns=["recording", "start", "end", "label"],
    )
    detections = truth.iloc[:2].assign(score=[0.9, 0.8])
    scores = wrong_names_map(truth, detections, ["a", "b", "c"], [0.5])
    # shift 1: a → b and b → c, both at the wrong place: 0
    # shift 2: a → c is right for one of two c: AP ½; b → a: 0; mAP 1/6
    assert np.isclose(scores[0.5], (0 + 1 / 6) / 2)
    assert wrong_names_map(truth[:1], detections[:1], ["a"], [0.5]).isna().all()
