"""Folds: every recording is tested once, no person is on both sides, and nothing is learned from the test."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import TalError
from tal_lib.data import Benchmark, FeatureSpec, limited_subset, load_benchmark
from tal_lib.data.folds import seeded_folds
from tal_lib.data.registry import portable_name
from tal_lib.data.standardise import standardise
from tal_lib.study import train_and_score
from tal_lib.sweeps.identity import check_fold_of


def made(people=(1, 1, 2, 2, 3, 3, 4, 5, 6, 7), official=4, **more):
    """Recordings of 20 s whose features have the mean and the spread of their own number."""
    names = [f"r{number}" for number in range(len(people))]
    features = {
        name: np.random.default_rng(number).normal(number, 1 + number, (20, 3)).astype(np.float32)
        for number, name in enumerate(names)
    }
    return Benchmark(
        name="made",
        classes=("x", "y"),
        tious=(0.5,),
        feature_spec=FeatureSpec(stride_s=1.0, window_s=1.0, streams={"one": 3}),
        recordings=pd.DataFrame(
            {
                "recording": names,
                "split": ["test" if i < official else "train" for i in range(len(names))],
                "duration": 20.0,
            }
        ),
        annotations=pd.DataFrame(
            {"recording": names, "start": 3.0, "end": 8.0, "label": ["x", "y"] * (len(names) // 2)}
        ),
        load_features=standardise(features, names[official:]).load,
        source_hash="0",
        people={name: f"p{person}" for name, person in zip(names, people)},
        standardise=lambda recordings: standardise(features, recordings),
        **more,
    )


@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=40),
    st.integers(2, 7),
    st.integers(0, 3),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_folds_are_a_partition_of_the_groups(groups, count, seed, kinds):
    names = [f"g{number}" for number in groups]
    kind = {name: name[-1] for name in names} if kinds else None
    folds = seeded_folds(names, count, seed, kind)
    assert folds == seeded_folds(reversed(names), count, seed, kind)  # the order does not count
    assigned = [name for fold in folds for name in fold]
    groups = set(names)
    if len(groups) == 1:
        assert folds == ()
        return
    assert sorted(assigned) == sorted(groups) and len(folds) == min(count, len(groups))
    assert max(map(len, folds)) - min(map(len, folds)) <= 1


def test_kinds_are_shared_evenly():
    kinds = {f"{kind}{number}": kind for kind in "ab" for number in range(10)}
    for fold in seeded_folds(kinds, kinds=kinds):
        assert sorted(name[0] for name in fold) == ["a", "a", "b", "b"]


def test_nobody_is_on_both_sides_and_everyone_is_tested_once():
    data, tested = made(), []
    for number in range(len(data.folds)):
        fold = data.fold(number)
        train, test = fold.recordings("train"), fold.recordings("test")
        assert sorted(train + test) == sorted(data.recordings())
        assert not {*map(fold.group, train)} & {*map(fold.group, test)}
        assert len(fold.annotations("test")) == len(test)
        tested += test
    assert sorted(tested) == sorted(data.recordings())
    assert data.people == tuple(f"p{number}" for number in range(1, 8)) and data.group("r3") == "p2"


def test_the_official_split_is_the_benchmark_itself():
    data = made()
    assert data.fold(None) is data and data.fold(-1) is data and len(data.recordings("test")) == 4


@pytest.mark.parametrize("number", [5, -2, 99])
def test_a_fold_that_does_not_exist(number):
    with pytest.raises(TalError, match=f"made: fold {number} does not exist. Choose 0 to 4, or -1"):
        made().fold(number)


def test_one_person_has_no_folds():
    with pytest.raises(TalError, match="fold 0 does not exist.*has no folds"):
        made(people=[1] * 10).fold(0)


def test_hash_and_name_of_a_fold():
    data = made()
    hashes = {data.data_hash, *(data.fold(number).data_hash for number in range(5))}
    assert len(hashes) == 6 and "fold 3" in repr(data.fold(3)) and data.fold(2).name == "made"
    assert data.fold(2).fold(3).data_hash == data.fold(3).data_hash


def test_statistics_come_from_the_training_part_of_the_fold():
    fold = made().fold(1)
    seen = np.concatenate([fold.features(name) for name in fold.recordings("train")])
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(seen.std(0), 1, atol=1e-4)


def test_a_cell_standardises_by_the_recordings_that_it_learns_from():
    fold = made().fold(1)
    chosen = limited_subset(fold, 0.3, 0)
    seen = np.concatenate([fold.learning_from(chosen).features(name) for name in chosen])
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)
    whole = fold.learning_from(fold.recordings("train"))
    other = fold.learning_from(reversed(fold.recordings("train")))
    for name in fold.recordings():  # any order, and equal to the fold's own
        assert np.array_equal(whole.features(name), fold.features(name))
        assert np.array_equal(other.features(name), fold.features(name))
    quick = {"epochs": 1, "min_steps": 1}
    run = train_and_score(fold, "window_cnn", recordings=chosen, recipe=quick)
    assert np.array_equal(run.benchmark.features("r0"), fold.learning_from(chosen).features("r0"))


def test_fixed_statistics_stay_for_the_official_split_only():
    data = made(statistics_of_split=True)
    assert data.learning_from(["r9"]) is data
    fold = data.fold(0)
    assert not np.array_equal(
        fold.learning_from(fold.recordings("train")[:2]).features("r0"), fold.features("r0")
    )


def test_subsets_of_a_fold_are_nested_in_its_training_part():
    fold = load_benchmark("synthetic", fold=2)
    before = set()
    for fraction in (0.1, 0.3, 0.6, 1.0):
        chosen = set(limited_subset(fold, fraction, 7))
        assert before <= chosen <= set(fold.recordings("train"))
        before = chosen
    assert before == set(fold.recordings("train"))


def test_validation_holds_out_training_people_of_a_fold():
    fold = made().fold(0)
    part = fold.validation()
    assert set(part.recordings()) == set(fold.recordings("train")) and "validation" in repr(part)
    sides = [{*map(part.group, part.recordings(split))} for split in ("train", "test")]
    assert not sides[0] & sides[1]
    assert sorted(sides[1]) == sorted({*map(fold.group, fold.recordings("train"))})[::4]
    assert set(part.annotations().recording) == set(part.recordings())
    with pytest.raises(TalError, match="fold 0 does not exist"):
        part.fold(0)


def test_validation_by_name():
    data = load_benchmark("synthetic_validation", fold=1)
    whole = load_benchmark("synthetic", fold=1)
    assert data.name == "synthetic_validation" and set(data.recordings()) == set(whole.recordings("train"))


@pytest.mark.parametrize("name", ["synthetic", "sfinge3d", "folder"])
def test_a_validation_part_never_has_a_test_recording(name, clips, real_data):
    """Of any benchmark and fold: three quarters of the groups of the fold's training part, and the rest."""
    if name == "folder":
        name = str(clips(12, 3))
    elif name != "synthetic":
        real_data("sfinge3d/sfinge3d.zip")
    for fold in (0,) if name == "sfinge3d" else (0, 3):
        whole, part = (load_benchmark(each, fold=fold) for each in (name, f"{name}_validation"))
        sides = [part.recordings(split) for split in ("train", "test")]
        assert set(sides[0] + sides[1]) == set(whole.recordings("train")) and part.name.endswith(
            "_validation"
        )
        assert not set(part.recordings()) & set(whole.recordings("test"))
        assert set(part.annotations().recording) <= set(whole.recordings("train"))
        groups = [{whole.group(recording) for recording in side} for side in sides]
        assert not groups[0] & groups[1] and len(groups[1]) == -(-len(groups[0] | groups[1]) // 4)


def test_the_validation_part_of_a_folder_has_a_portable_name(clips, monkeypatch):
    monkeypatch.setenv("TAL_FOLDERS", "{}")
    folder = clips(9, 3)
    assert portable_name(f"{folder}_validation") == "clips_validation"
    part = load_benchmark("clips_validation", fold=2)
    assert set(part.recordings()) == set(load_benchmark("clips", fold=2).recordings("train"))
    check_fold_of("clips_validation", 4, "here")
    with pytest.raises(TalError, match="here, benchmark clips_validation: fold 5 does not exist"):
        check_fold_of("clips_validation", 5, "here")
    with pytest.raises(TalError, match="no benchmark 'other_validation', and none called 'other'"):
        load_benchmark("other_validation")


def test_a_folder_of_that_name_comes_first(clips):
    clips(9, 3)
    folder = clips(4, 1, name="clips_validation")
    assert len(load_benchmark(str(folder)).recordings()) == 5


def test_hapt_has_five_folds_of_six_people(real_data):
    real_data("hapt/hapt.zip")
    data = load_benchmark("hapt")
    assert [len(fold) for fold in data.folds] == [6] * 5 and len(data.people) == 30
    official, named = data.validation(), load_benchmark("hapt_validation")
    assert official.recordings("test") == named.recordings("test")
    for name in named.recordings():
        assert np.array_equal(official.features(name), named.features(name))
    assert data.learning_from(data.recordings("train")[:3]) is data  # as the committed results have it
    fold = load_benchmark("hapt_validation", fold=3)
    assert set(fold.recordings()) == set(data.fold(3).recordings("train"))
    rotated = data.fold(3).inertial
    assert rotated is not None and not np.array_equal(rotated.mean, data.inertial.mean)


def test_published_subsets_are_those_of_the_official_split(real_data):
    real_data("thumos14")
    with pytest.raises(TalError, match="fold 0: the published subsets.*Use thumos14 for folds"):
        limited_subset(load_benchmark("thumos14_prior", fold=0), 0.1, 0)


def test_a_users_folder_has_folds(clips):
    data = load_benchmark(str(clips()))
    assert len(data.folds) == 5 and data.people == ()
    assert len(data.fold(4).recordings("test")) in (1, 2)
