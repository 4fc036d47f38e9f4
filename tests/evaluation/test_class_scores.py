"""The field's files of class scores, and what they do to proposals."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest

from tal_lib import TalError
from tal_lib.evaluation import fuse, read_class_scores

CLASSES = ("run", "jump", "rest")


@pytest.mark.parametrize(
    "content",
    [
        {"results": {"a": [0.1, 0.7, 0.2], "b": [0.5, 0.5, 0.0]}, "class": ["jump", "run", "rest"]},
        {
            "results": {
                "a": [
                    {"label": "run", "score": 0.7},
                    {"label": "jump", "score": 0.1},
                    {"label": "rest", "score": 0.2},
                ],
                "b": [{"label": "run", "score": 0.5}, {"label": "jump", "score": 0.5}],
            }
        },
        {"a": {"run": 0.7, "jump": 0.1, "rest": 0.2}, "b": {"run": 0.5, "jump": 0.5, "rest": 0}},
        {"a": [0.7, 0.1, 0.2], "b": [[0.4, 0.6, 0.0], [0.6, 0.4, 0.0]]},
    ],
)
def test_the_fields_shapes_read_the_same(content, tmp_path):
    (tmp_path / "scores.json").write_text(json.dumps(content))
    arrays = {key: np.array(value) if isinstance(value, list) else value for key, value in content.items()}
    (tmp_path / "scores.pkl").write_bytes(pickle.dumps(arrays))
    for name in ("scores.json", "scores.pkl"):
        table = read_class_scores(tmp_path / name, CLASSES)
        assert table.columns.tolist() == list(CLASSES)
        np.testing.assert_allclose(table.loc["a"], [0.7, 0.1, 0.2])
        np.testing.assert_allclose(table.loc["b"], [0.5, 0.5, 0.0])


def test_ids_stay_as_written(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"v_0123456789a": [1, 0, 0]}))
    assert read_class_scores(tmp_path / "s.json", CLASSES).index.tolist() == ["v_0123456789a"]


def test_a_recording_may_list_its_best_classes_alone(tmp_path):
    content = {"a": [{"label": "run", "score": 0.9}], "b": [{"label": "rest", "score": "0.5"}]}
    (tmp_path / "s.json").write_text(json.dumps(content))
    table = read_class_scores(tmp_path / "s.json", CLASSES)
    assert table.to_numpy().tolist() == [[0.9, 0, 0], [0, 0, 0.5]]


def test_indices_are_read_by_label_id(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"a": {"7": 0.1, "8": 0.2, "9": 0.7}}))
    table = read_class_scores(tmp_path / "s.json", CLASSES, label_ids={7: "rest", 8: "jump", 9: "run"})
    assert table.loc["a"].tolist() == [0.7, 0.2, 0.1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": [0.1, 0.9]}', r"\(2,\) scores for 3 classes"),
        ('{"a": [0.1, NaN, 0.1]}', "not finite"),
        ("[1]", "unexpected structure"),
        ('{"a": [0.1', "not valid JSON"),
        ('{"results": {"a": [1, 2]}, "class": ["run", "rest"]}', "no scores for class 'jump'"),
        ("{}", "structure"),
        ('{"a": {"run": 1, "jump": 0}}', "recording a: no scores for class 'rest'"),
        ('{"a": {"run": 1, "jump": 0, "Rest": 1}}', "no scores for class 'rest'.*such as 'Rest'"),
        (
            '{"a": [{"label": "Run", "score": 1}, {"label": "rest", "score": 1}]}',
            "no scores for class 'run'.*'Run'",
        ),
        ('{"a": [{"label": "run", "score": NaN}]}', "recording a: scores.run: nan is not a finite number"),
        ('{"a": [{"label": "run", "score": "much"}]}', "recording a: scores.run: 'much' is not a number"),
        ('{"a": {"run": true, "jump": 0, "rest": 0}}', "recording a: scores.run: True is not a number"),
        ('{"a": [0.1, 0.2, "x"]}', "unexpected structure"),
        ('{"a": [[0.1, 0.2, 0.7], [0.1]]}', "unexpected structure"),
        ('{"a": [[0.1, 0.2, 1e999]]}', "not finite"),
        ('{"a": null}', "unexpected structure"),
        ('{"a": [1, 0, 0], "a": [0, 0, 1]}', "'a' is listed twice"),
        ('{"a": [1, 0, 1%s]}' % ("0" * 400), "an integer of 401 digits"),
    ],
)
def test_broken_files_are_named(text, message, tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(TalError, match=message) as caught:
        read_class_scores(path, CLASSES)
    assert "scores.json" in str(caught.value)


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    path = tmp_path / "scores.pkl"
    path.write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(TalError, match="not a pickle of plain values"):
        read_class_scores(path, CLASSES)
    assert not (tmp_path / "written").exists()
    path.write_bytes(pickle.dumps({"a": [1.0, 0.0, 0.0]})[:-4])
    with pytest.raises(TalError, match="not a pickle"):
        read_class_scores(path, CLASSES)


def test_a_small_pickle_of_endless_values_is_refused(tmp_path, monkeypatch):
    """Each list holds the one before ten times: 10^30 values."""
    monkeypatch.setattr("tal_lib.evaluation.class_scores.MOST_VALUES", 10_000)
    values = [1.0]
    for _ in range(30):
        values = [values] * 10
    path = tmp_path / "scores.pkl"
    path.write_bytes(pickle.dumps({"a": values}))
    assert path.stat().st_size < 2_000
    with pytest.raises(TalError, match="it holds more than 10,000 values"):
        read_class_scores(path, CLASSES)


def test_fusion_takes_the_best_classes_of_the_recording():
    proposals = pd.DataFrame(
        {
            "recording": ["a", "a", "b"],
            "start": [0.0, 4.0, 1.0],
            "end": [2.0, 9.0, 3.0],
            "score": [0.5, 1.0, 0.8],
        }
    )
    scores = pd.DataFrame([[0.7, 0.1, 0.2], [0.0, 0.4, 0.6]], index=["a", "b"], columns=CLASSES)
    fused = fuse(proposals, scores, top=2)
    rows = [(row.recording, row.start, row.label, round(row.score, 3)) for row in fused.itertuples()]
    assert rows == [
        ("a", 4, "run", 0.7),
        ("a", 0, "run", 0.35),
        ("a", 4, "rest", 0.2),
        ("a", 0, "rest", 0.1),
        ("b", 1, "rest", 0.48),
        ("b", 1, "jump", 0.32),
    ]
    with pytest.raises(TalError, match="no class scores for recording b"):
        fuse(proposals, scores.iloc[:1])
