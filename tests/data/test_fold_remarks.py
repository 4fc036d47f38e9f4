"""What a fold's test or training part lacks is told where a benchmark is checked."""

import numpy as np
import pandas as pd

from tal_lib.cli import main
from tal_lib.data import Benchmark, FeatureSpec, load_benchmark
from tal_lib.data.checks import fold_remarks


def made(labels, folds):
    """One recording with these labels for each item; `folds` has the tested recordings."""
    names = [f"r{number}" for number in range(len(labels))]
    rows = [(name, 1.0, 2.0, label) for name, inside in zip(names, labels) for label in inside]
    return Benchmark(
        name="made",
        classes=sorted(set("".join(labels))),
        tious=(0.5,),
        feature_spec=FeatureSpec(stride_s=1.0, window_s=1.0, streams={"one": 3}),
        recordings=pd.DataFrame({"recording": names, "split": "train", "duration": 9.0}),
        annotations=pd.DataFrame(rows, columns=["recording", "start", "end", "label"]),
        load_features=lambda name: np.zeros((9, 3), np.float32),
        source_hash="0",
        folds=folds,
    )


def test_classes_that_a_part_lacks_are_named():
    data = made(["xy", "xz", "xy"], (("r0",), ("r1",), ("r2",)))
    assert [remark.text for remark in fold_remarks(data)] == [
        "fold 0: the test part has no segment of 1 class (z): mAP is the mean over the other classes",
        "fold 1: the test part has no segment of 1 class (y): mAP is the mean over the other classes",
        "fold 1: the training part has no segment of 1 class (z): no model can learn them",
        "fold 2: the test part has no segment of 1 class (z): mAP is the mean over the other classes",
    ]
    assert fold_remarks(made(["xy", "yx"], (("r0",), ("r1",)))) == []
    assert fold_remarks(made(["abcdefg", "a"], (("r0",), ("r1",))))[-1].text.count(", ") == 5


def test_fold_4_of_sfinge3d(real_data, capsys):
    real_data("sfinge3d/sfinge3d.zip")
    data = load_benchmark("sfinge3d")
    for remark in fold_remarks(data):
        number, part = int(remark.text[5]), remark.text.split()[3]
        rows = data.fold(number).annotations({"training": "train"}.get(part, part))
        (label,) = set(data.classes) - set(rows.label)
        assert f"1 class ({label})" in remark.text
    assert [remark.text[:6] for remark in fold_remarks(data)] == ["fold 4"]
    assert main(["data", "check", "sfinge3d"]) == 0
    assert "folds: all recordings: fold 4: the test part has no segment of 1 class" in capsys.readouterr().out
