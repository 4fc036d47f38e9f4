import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import TalError, models
from tal_lib.data import (
    Benchmark,
    FeatureSpec,
    class_split,
    limited_subset,
    load_benchmark,
    open_set,
    shuffled_names,
)
from tal_lib.data.standardise import standardise
from tal_lib.training import Recipe, fit
from tal_lib.training.checkpoints import Statistics

CLASSES = ("a", "b", "c", "d")


def benchmark(rows, asked=None, recordings=4):
    """Recordings of 100 s with one step of 2 s per second. A feature is (recording number, step number)."""
    names = [f"r{i}" for i in range(recordings)] + ["t"]

    def load(name):
        if asked is not None:
            asked.append(name)
        return np.stack([np.full(99, names.index(name)), np.arange(99)], 1)

    rows = [*rows, *(("t", 10.0 * i, 10.0 * i + 5, name) for i, name in enumerate(CLASSES))]
    table = pd.DataFrame({"recording": names, "split": ["train"] * recordings + ["test"], "duration": 100.0})
    return Benchmark(
        name="made",
        classes=CLASSES,
        tious=(0.5,),
        feature_spec=FeatureSpec(stride_s=1.0, window_s=2.0, streams={"one": 2}),
        recordings=table,
        annotations=pd.DataFrame(rows, columns=["recording", "start", "end", "label"]),
        load_features=load,
        source_hash="0",
    )


rows = st.lists(
    st.tuples(
        st.sampled_from(["r0", "r1", "r2", "r3"]),
        st.floats(0, 95),
        st.floats(0.5, 30),
        st.sampled_from(CLASSES),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(rows, st.sampled_from(["recordings", "stretches"]), st.integers(1, 3))
def test_nothing_unseen_can_be_learned(rows, keep, count):
    data = benchmark(
        [(name, start, min(start + length, 100.0), label) for name, start, length, label in rows]
    )
    seen, unseen = CLASSES[:count], CLASSES[count:]
    try:
        parts = open_set(data, seen, unseen, keep)
    except TalError as error:
        assert "no seen segment is left" in str(error)
        return
    hidden = data.annotations("train").query("label in @unseen")
    assert (
        parts.train.splits == ("train",)
        and parts.train.classes == seen
        and set(parts.train.annotations().label) <= set(seen)
    )
    for name in parts.train.recordings():
        x = parts.train.features(name)
        recording, steps = f"r{int(x[0, 0])}", x[:, 1]
        assert (x[:, 0] == x[0, 0]).all() and (np.diff(steps) == 1).all()
        instances = hidden[hidden.recording == recording]
        if keep == "recordings":
            assert instances.empty and len(steps) == 99
        for start, end in instances[["start", "end"]].itertuples(index=False):  # a step sees [step, step + 2]
            assert ((steps + 2 <= start + 1e-6) | (steps >= end - 1e-6)).all()
        # annotations moved with their stretch: each is where it was
        for row in parts.train.annotations_of([name]).itertuples(index=False):
            there = data.annotations_of([recording]).query("label == @row.label")
            start, end = row.start + steps[0], row.end + steps[0]
            assert ((there.start <= start + 1e-4) & (end - 1e-4 <= there.end)).any()
    assert set(parts.test.annotations().label) == set(unseen) and set(
        parts.test_all.annotations().label
    ) == set(CLASSES)
    assert not set(parts.train.recordings()) & set(parts.test_all.recordings())


@pytest.mark.parametrize("keep", ["recordings", "stretches"])
def test_a_model_of_a_class_split_knows_how_its_features_were_standardised(keep):
    """Its file has the statistics, and layouts of sensors reach its training."""
    data = benchmark([("r0", 10.0, 20.0, "a"), ("r1", 30.0, 40.0, "b"), ("r2", 5.0, 9.0, "c")])
    raw = {name: data.features(name).astype(float) for name in data.recordings()}
    layout = object()  # of sensors
    standard = Benchmark(
        name="made",
        classes=CLASSES,
        tious=(0.5,),
        feature_spec=data.feature_spec,
        recordings=data.table(),
        annotations=data.annotations(),
        load_features=standardise(raw, data.recordings("train")).load,
        standardise=lambda recordings: standardise(raw, recordings),
        source_hash="0",
    )
    split = open_set(standard, ("a", "b"), ("c", "d"), keep)
    known = Statistics.of(split.train)
    assert known is not None
    data.inertial = layout
    assert open_set(data, ("a", "b"), ("c", "d"), keep).train.inertial is layout
    for part in (split.train, split.test, split.test_all):
        for name in part.recordings():
            source = raw[name.partition("#")[0]]
            shown = part.features(name)
            offset = (
                0
                if len(shown) == len(source)
                else int(round(float(shown[0, 1] * known.std[1] + known.mean[1])))
            )
            expected = known.standardised(source[offset : offset + len(shown)])
            assert shown == pytest.approx(expected, abs=1e-4)
            restored = part.standardised.raw(name)
            assert restored == pytest.approx(source[offset : offset + len(shown)], abs=1e-3)


def test_recordings_without_an_event_are_tested_too():
    """A detection there is a false positive of the generalized evaluation."""
    table = pd.DataFrame(
        {"recording": ["r", "t", "none"], "split": ["train", "test", "test"], "duration": 100.0}
    )
    segments = [("r", 10.0, 20.0, "a"), ("t", 10.0, 20.0, "a"), ("t", 30.0, 40.0, "b")]
    data = Benchmark(
        name="made",
        classes=("a", "b"),
        tious=(0.5,),
        feature_spec=FeatureSpec(stride_s=1.0, window_s=2.0, streams={"one": 2}),
        recordings=table,
        annotations=pd.DataFrame(segments, columns=["recording", "start", "end", "label"]),
        load_features=lambda name: np.zeros((99, 2)),
        source_hash="0",
    )
    split = open_set(data, ("a",), ("b",), "stretches")
    assert split.test_all.recordings() == ["t", "none"] and split.test.recordings() == ["t"]


def test_training_asks_for_no_other_recording():
    asked = []
    data = benchmark(
        [("r0", 5, 15, "a"), ("r1", 5, 15, "b"), ("r1", 30, 40, "c"), ("r2", 3, 9, "b"), ("r3", 0, 9, "d")],
        asked,
    )
    parts = open_set(data, ["a", "b"], ["c", "d"])
    model = models.build("text_pyramid", input_dim=2, num_classes=2, width=16, head_width=16)
    recordings = limited_subset(parts.train, 1.0, 0)
    fit(model, parts.train, recordings, Recipe(epochs=2, min_steps=0), 0)
    assert set(asked) == set(recordings) == {"r0", "r2"}
    assert model.class_names == ("a", "b") and model.text.shape[0] == 2
    with pytest.raises(TalError, match="no recording 'r1'"):
        fit(model, parts.train, ["r1"], Recipe(epochs=1, min_steps=0), 0)


def test_impossible_splits_are_refused():
    data = benchmark([("r0", 5, 15, "a")])
    with pytest.raises(TalError, match="class 'd' must be in exactly one of the two lists, seen and unseen"):
        open_set(data, ["a", "b"], ["c"])
    with pytest.raises(TalError, match="class 'b' must"):
        open_set(data, ["a", "b"], ["b", "c", "d"])
    with pytest.raises(TalError, match="no seen segment is left to train on"):
        open_set(data, ["b", "c", "d"], ["a"])
    with pytest.raises(TalError, match="unknown value of keep .all.*recordings, stretches"):
        open_set(data, ["a", "b"], ["c", "d"], keep="all")


def test_shuffled_names_leave_no_class_its_own():
    data = load_benchmark("synthetic")
    view, given = shuffled_names(data, 3)
    assert sorted(given) == sorted(given.values()) == sorted(data.classes) and all(
        name != other for name, other in given.items()
    )
    assert view.annotations().label.tolist() == [given[label] for label in data.annotations().label]
    assert view.classes == data.classes and view.data_hash != data.data_hash


def test_ten_published_splits(real_data):
    real_data("thumos14/thumos14.json")
    data = load_benchmark("thumos14")
    splits = [class_split(data, 0.75, draw) for draw in range(10)]
    assert all(len(seen) == 15 and len(unseen) == 5 for seen, unseen in splits)
    assert len({tuple(unseen) for _, unseen in splits}) == 10
