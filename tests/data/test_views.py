"""Views of a benchmark: class-agnostic, and without repeated annotations."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib.data import class_agnostic, distinct, distinct_annotations
from tal_lib.data.benchmark import Benchmark, FeatureSpec
from tal_lib.data.open_set import shuffled_names
from tal_lib.data.standardise import standardise
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
    agnostic, apart = class_agnostic(data), distinct(data)
    assert agnostic.classes == ("action",) and set(agnostic.annotations().label) == {"action"}
    assert (
        len(agnostic.annotations()) == 3 and len(apart.annotations()) == 2 and apart.classes == data.classes
    )
    assert len({data.data_hash, agnostic.data_hash, apart.data_hash}) == 3
    assert agnostic.recordings() == apart.recordings() == data.recordings()
    assert (agnostic.features("a") == data.features("a")).all() and agnostic.time_axis("a") == data.time_axis(
        "a"
    )


def test_views_keep_folds_people_and_the_standardisation_of_what_is_learned_from():
    rng = np.random.default_rng(0)
    names = [f"r{number}" for number in range(10)]
    features = {name: rng.normal(number, 1 + number, (20, 2)) for number, name in enumerate(names)}
    whole = Benchmark(
        name="varied",
        classes=("x", "y", "z"),
        tious=(0.5,),
        feature_spec=FeatureSpec(stride_s=1.0, window_s=1.0, streams={"one": 2}),
        recordings=pd.DataFrame({"recording": names, "split": "train", "duration": 20.0}),
        annotations=table(*((name, 1, 5, "xyz"[number % 3]) for number, name in enumerate(names))),
        load_features=features.__getitem__,
        source_hash="0",
        people={name: f"person {int(name[1:]) // 2}" for name in names},
        standardise=partial(standardise, features),
    ).fold(1)
    few = whole.recordings("train")[:2]
    expected = whole.learning_from(few)
    for other in (class_agnostic(whole), distinct(whole), shuffled_names(whole, 0)[0]):
        assert (other.people, other.folds, other.partition) == (whole.people, whole.folds, "fold 1")
        for name in names:
            assert np.array_equal(other.features(name), whole.features(name))
            assert np.array_equal(other.learning_from(few).features(name), expected.features(name))
    assert np.concatenate([expected.features(name) for name in few]).mean(0) == pytest.approx(
        [0, 0], abs=1e-5
    )


def test_a_taxonomy_is_one_of_its_own_classes(tiny):
    data = tiny([("a", 1, 2, "x")])
    data.taxonomy = Path("taxonomy.json")
    assert class_agnostic(data).taxonomy is None and distinct(data).taxonomy == data.taxonomy


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
