"""Scores at the levels of a class taxonomy."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib.errors import TalError
from tal_lib.evaluation import mean_average_precision
from tal_lib.evaluation.taxonomy import (
    Taxonomy,
    map_at_level,
    mean_precision,
    precision_by_class,
    read_taxonomy,
)

KITCHEN = Taxonomy(
    ("dish", "verb"),
    {"cut tomato": ("salad", "cut"), "cut cheese": ("salad", "cut"), "add oil": ("dressing",)},
)
TRUTH = pd.DataFrame(
    [("a", 0.0, 10.0, "cut tomato"), ("a", 20.0, 30.0, "add oil")],
    columns=["recording", "start", "end", "label"],
)
DETECTIONS = pd.DataFrame(
    [
        ("a", 0.0, 10.0, "cut cheese", 0.9),
        ("a", 0.0, 10.0, "cut tomato", 0.5),
        ("a", 20.0, 26.0, "add oil", 0.8),
    ],
    columns=["recording", "start", "end", "label", "score"],
)


def test_a_level_forgives_a_confusion_below_it():
    assert KITCHEN.at("verb") == {"cut tomato": "cut", "cut cheese": "cut", "add oil": "add oil"}
    assert KITCHEN.at("dish")["add oil"] == "dressing" and KITCHEN.at("class")["add oil"] == "add oil"
    assert KITCHEN.coarsen(DETECTIONS, "verb").score.tolist() == [0.9, 0.8]
    by_class = mean_average_precision(TRUTH, DETECTIONS, [0.5])
    assert by_class[0.5] == map_at_level(TRUTH, DETECTIONS, [0.5], KITCHEN, "class")[0.5] == 1.0
    worse = DETECTIONS[DETECTIONS.label != "cut tomato"]
    assert map_at_level(TRUTH, worse, [0.5], KITCHEN, "class")[0.5] == 0.5
    assert map_at_level(TRUTH, worse, [0.5], KITCHEN, "verb")[0.5] == 1.0


def test_one_segment_of_two_related_classes_is_one_above_them():
    truth = pd.concat([TRUTH, TRUTH[:1].assign(label="cut cheese")], ignore_index=True)
    scores = map_at_level(truth, truth.assign(score=1.0), [0.5], KITCHEN, "verb")
    assert scores[0.5] == 1.0 and len(KITCHEN.coarsen(truth, "class")) == 3


def test_mean_precision_counts_time():
    table = precision_by_class(TRUTH, DETECTIONS).set_index("label")
    assert table.loc["cut cheese"].tolist() == [10.0, 0.0, 0.0]  # it covers the better-scored moment
    assert table.loc["cut tomato"].tolist() == [0.0, 0.0, 0.0]
    assert table.loc["add oil"].tolist() == [6.0, 6.0, 1.0]
    assert mean_precision(TRUTH, DETECTIONS, KITCHEN, "class") == pytest.approx(1 / 3)
    assert mean_precision(TRUTH, DETECTIONS, KITCHEN, "dish") == 1.0
    assert mean_precision(TRUTH, DETECTIONS, KITCHEN, "class", threshold=0.85) == 0.0


segments = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 12), st.sampled_from("xyz"), st.integers(0, 1000)),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(segments, segments)
def test_precision_equals_a_count_of_seconds(truth, detected):
    """Segments with whole seconds: counting second by second gives the same."""
    tables = []
    for rows in (truth, detected):
        rows = [("a", float(s), float(s + d), label, n + i / 100) for i, (s, d, label, n) in enumerate(rows)]
        tables.append(pd.DataFrame(rows, columns=["recording", "start", "end", "label", "score"]))
    truth, detected = tables[0].drop(columns="score"), tables[1]
    given_s, right = {}, {}
    for second in np.arange(0.5, 45):
        cover = detected[(detected.start < second) & (detected.end > second)]
        if len(cover):
            label = cover.sort_values("score", kind="stable").label.iloc[-1]
            given_s[label] = given_s.get(label, 0) + 1
            hit = ((truth.start < second) & (truth.end > second) & (truth.label == label)).any()
            right[label] = right.get(label, 0) + int(hit)
    table = precision_by_class(truth.astype({"start": float, "end": float}), detected).set_index("label")
    for label in table.index:
        assert table.given_s[label] == pytest.approx(given_s.get(label, 0))
        assert table.right_s[label] == pytest.approx(right.get(label, 0))


def test_both_forms_are_read(tmp_path):
    taxonomy_file = tmp_path / "taxonomy.json"
    taxonomy_file.write_text(
        json.dumps({"levels": ["dish"], "classes": {"cut": ["salad"], "pour": ["dressing"]}})
    )
    assert read_taxonomy(taxonomy_file, ["cut"]) == Taxonomy(
        ("dish",), {"cut": ("salad",), "pour": ("dressing",)}
    )
    nodes = [
        ("Root", None),
        ("Sports", "Root"),
        ("Throwing", "Sports"),
        ("Javelin throw", "Throwing"),
        ("Ironing", "Root"),
    ]
    published = tmp_path / "activity_net.json"
    published.write_text(json.dumps({"taxonomy": [{"nodeName": a, "parentName": b} for a, b in nodes]}))
    taxonomy = read_taxonomy(published, ["Javelin throw", "Ironing"])
    assert taxonomy.levels == ("1", "2")
    assert taxonomy.at("1") == {"Javelin throw": "Sports", "Ironing": "Ironing"}
    assert taxonomy.at("2")["Javelin throw"] == "Throwing"


def nodes(*pairs):
    return {"taxonomy": [{"nodeName": name, "parentName": parent} for name, parent in pairs]}


def test_a_node_that_is_listed_twice_alike_is_one(tmp_path):
    path = tmp_path / "taxonomy.json"
    path.write_text(json.dumps(nodes(("R", None), ("a", "R"), ("cut", "a"), ("cut", "a"), (7, "a"))))
    assert read_taxonomy(path, ["cut", "7"]).at("1") == {"cut": "a", "7": "a"}


@pytest.mark.parametrize(
    "content, message",
    [
        ([], "unexpected structure"),
        ({"levels": ["a"], "classes": {"cut": ["x", "y"]}}, "more ancestors than there are levels"),
        ({"levels": ["a", "a"], "classes": {"cut": []}}, "two levels of one name"),
        ({"levels": 3, "classes": {}}, "unexpected structure"),
        ({"levels": "ab", "classes": {"cut": ["x"]}}, "'levels' is not a list"),
        ({"levels": ["a", "b"], "classes": {"cut": "xy"}}, "'cut' is not a list"),
        ({"levels": ["a"], "classes": {"cut": [None]}}, "'cut' is not a list"),
        ({"levels": ["a"], "classes": {"pour": ["x"]}}, "no class 'cut'"),
        ({"taxonomy": [{"nodeName": "cut", "parentName": "b"}, {"nodeName": "b", "parentName": "c"},
                       {"nodeName": "c", "parentName": "b"}]}, "its own ancestor"),
        ({"taxonomy": [{"name": "cut"}]}, "unexpected structure"),
        (nodes(("R", None), ("a", "R"), ("b", "R"), ("cut", "a"), ("cut", "b")),
         "two nodes are called 'cut', below 'a' and 'b'"),
        (nodes(("R", None), ("cut", "R"), ("fine", "cut"), ("coarse", "cut")),
         "class 'cut' is an inner node, above coarse, fine. Only leaves are classes"),
        (nodes(("R", None), ("cut", "kitchen")), "the parent 'kitchen' of 'cut' is not a node"),
        (nodes(("cut", "cut")), "'cut' is its own ancestor"),
        (nodes(("R", None), ("cut", "R"), ("a", "b"), ("b", "a")), "its own ancestor"),
    ],
)  # fmt: skip
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "taxonomy.json"
    path.write_text(json.dumps(content))
    with pytest.raises(TalError, match=message):
        read_taxonomy(path, ["cut"])
    with pytest.raises(TalError, match="verb"):
        KITCHEN.at("colour")
