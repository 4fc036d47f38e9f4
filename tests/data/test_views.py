"""Views of a benchmark: class-agnostic, and without repeated annotations."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib.data import class_agnostic, distinct, distinct_annotations
from tal_lib.evaluation import fuse
from tal_lib.study import train_and_score
from tal_lib.training import Recipe

COLUMNS = ["recording", "start", "end", "label"]


def table(*rows):
    return pd.DataFrame(rows, columns=COLUMNS).astype({"start": float, "end": float})


def test_what_is_left_out():
    rows = [
        ("a", 1.0, 2.0, "x"),
        ("a", 1.0005, 2.0009, "x"),  # repeats the first
        ("a", 1.0005, 2.0009, "y"),  # another class
        ("b", 1.0, 2.0, "x"),  # another recording
        ("a", 1.0014, 2.0, "x"),  # 1.4 ms from the first, and the second was left out
        ("a", 5.0, 5.0009, "x"),  # too short
        ("a", 5.0, 5.0011, "x"),
    ]
    kept = distinct_annotations(table(*rows))
    assert kept.to_numpy().tolist() == [list(rows[index]) for index in (0, 2, 3, 4, 6)]


times = st.integers(0, 12).map(lambda n: n // 4 + 0.0006 * (n % 4))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from("ab"), times, times, st.sampled_from("xy")), max_size=25))
def test_distinct_annotations_one_after_the_other(rows):
    kept = []
    for recording, start, end, label in rows:
        repeated = any(
            recording == other[0]
            and label == other[3]
            and abs(start - other[1]) <= 1e-3
            and abs(end - other[2]) <= 1e-3
            for other in kept
        )
        if end - start >= 1e-3 and not repeated:
            kept.append((recording, start, end, label))
    assert list(distinct_annotations(table(*rows)).itertuples(index=False, name=None)) == kept


def test_views_are_other_data(tiny):
    data = tiny([("a", 1, 2, "x"), ("a", 1, 2, "x"), ("b", 3, 4, "y")])
    one, apart = class_agnostic(data), distinct(data)
    assert one.classes == ("action",) and set(one.annotations().label) == {"action"}
    assert len(one.annotations()) == 3 and len(apart.annotations()) == 2 and apart.classes == data.classes
    assert len({data.data_hash, one.data_hash, apart.data_hash}) == 3
    assert one.recordings() == apart.recordings() == data.recordings()
    assert (one.features("a") == data.features("a")).all() and one.time_axis("a") == data.time_axis("a")


def test_a_class_agnostic_model_and_class_scores_give_detections(small):
    recipe = Recipe(epochs=1, min_steps=2)
    run = train_and_score(class_agnostic(small), "actionformer", recipe=recipe, fraction=0.2)
    assert run.model.num_classes == 1 and set(run.detections.label) == {"action"}
    names = small.recordings("test")
    scores = pd.DataFrame(0.01, index=names, columns=list(small.classes))
    scores[small.classes[2]], scores[small.classes[5]] = 0.81, 0.25
    proposals = run.detections.drop(columns="label")
    product, root = (fuse(proposals, scores, root=root) for root in (False, True))
    assert set(root.label) == {small.classes[2], small.classes[5]} and len(root) == 2 * len(proposals)
    assert root.score.to_numpy() == pytest.approx(product.score.to_numpy() ** 0.5)
    assert root.drop(columns="score").equals(product.drop(columns="score"))
