"""A model of one benchmark tested on others: the same features, classes and test people, or one error."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from tal_lib import TalError
from tal_lib.data import Benchmark, FeatureSpec, also_tested, limited_subset, load_benchmark
from tal_lib.data.registry import BENCHMARKS, Entry
from tal_lib.data.standardise import standardise
from tal_lib.study import train_and_score

SPEC = FeatureSpec(stride_s=1.0, window_s=1.0, streams={"one": 3})
HAPT_FAMILY = ("hapt_recomposed_test", "hapt_recomposed_2", "hapt_recomposed_3", "hapt_recomposed_6")


def made(name="made", prefix="r", people=True, classes=("x", "y"), spec=SPEC, standardised=True, **more):
    """Ten recordings of 20 s of five people; recordings have other names and features by `prefix`."""
    names = [f"{prefix}{number}" for number in range(10)]
    features = {
        recording: np.random.default_rng([number, len(prefix)])
        .normal(number + 10 * len(prefix), 2, (20, spec.dim))
        .astype(np.float32)
        for number, recording in enumerate(names)
    }
    return Benchmark(
        name=name,
        classes=classes,
        tious=(0.5,),
        feature_spec=spec,
        recordings=pd.DataFrame(
            {"recording": names, "split": ["train"] * 8 + ["test"] * 2, "duration": 20.0}
        ),
        annotations=pd.DataFrame({"recording": names, "start": 3.0, "end": 8.0, "label": list(classes) * 5}),
        load_features=features.__getitem__,
        source_hash=prefix,
        people={recording: f"p{number // 2}" for number, recording in enumerate(names)} if people else None,
        standardise=partial(standardise, features) if standardised else None,
        **more,
    )


@pytest.fixture
def known(monkeypatch):
    """Makes benchmarks loadable by name."""

    def add(*benchmarks):
        for benchmark in benchmarks:
            entry = Entry(lambda root, made=benchmark: made, "", "", None)
            monkeypatch.setitem(BENCHMARKS, benchmark.name, entry)

    return add


def test_others_are_the_same_fold_standardised_as_what_was_learned(known):
    known(made(), made("other", "other"))
    data = load_benchmark("made", fold=2)
    ((name, (other, tested)),) = also_tested(data, ["other"], fold=2).items()
    assert name == other.name == "other" and tested == other.recordings("test")
    assert set(map(other.group, tested)) == set(map(data.group, data.recordings("test")))
    recordings = limited_subset(data, 0.3, 0)
    run = train_and_score(data, "timeline_prior", recordings=recordings, device="cpu")
    test = run.on(other, tested)
    learned = data.learning_from(recordings).standardised
    raw = made("other", "other").standardised.raw
    for recording in tested:
        expected = (raw(recording) - learned.mean) / learned.std
        assert np.array_equal(test.benchmark.features(recording), expected)
    assert set(test.truth.recording) == set(tested) and len(test.scores) == 1
    assert run.benchmark.features(recordings[0]).mean() == pytest.approx(0, abs=1)  # the run is as it was


def test_features_that_are_used_as_they_are_stay(known):
    known(made(standardised=False), made("other", "other", standardised=False))
    data = load_benchmark("made", fold=0)
    other, _ = also_tested(data, ["other"], fold=0)["other"]
    assert np.array_equal(
        other.features("other3"), made("other", "other", standardised=False).features("other3")
    )


OTHERS = {
    "other classes": (made("other", "o", classes=("x", "z")), "other has other classes than made: 2 .x, z"),
    "the order of classes": (made("other", "o", classes=("y", "x")), "other has other classes than made"),
    "other columns": (
        made("other", "o", spec=FeatureSpec(stride_s=1.0, window_s=1.0, streams={"one": 2})),
        "other has other columns than made: {'one': 2}, not {'one': 3}",
    ),
    "other steps": (
        made("other", "o", spec=FeatureSpec(stride_s=0.5, window_s=1.0, streams={"one": 3})),
        "other has other seconds between steps than made: 0.5, not 1.0",
    ),
    "features as they are": (
        made("other", "o", standardised=False),
        "the features of made are standardised, those of the other",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_the_model_cannot_be_tested_on_is_refused(known, case):
    other, message = OTHERS[case]
    known(made(), other)
    with pytest.raises(TalError, match=message) as error:
        also_tested(load_benchmark("made"), ["other"])
    assert len(str(error.value).splitlines()) == 1


def test_a_training_recording_is_refused(known):
    """Where people are unknown, recordings are compared."""
    known(made(people=False), made("other", "r", people=False, folds=[("r1", "r2"), ("r3",)]))
    with pytest.raises(TalError, match="other tests on r3, of the training part of made"):
        also_tested(load_benchmark("made", fold=1), ["other"], fold=1)


def test_a_test_person_of_the_training_part_is_refused(known):
    other = made("other", "other", folds=[("p0",), ("p1",), ("p2", "p3", "p4")])
    known(made(folds=[("p0",), ("p2",), ("p1", "p3", "p4")]), other)
    also_tested(load_benchmark("made", fold=0), ["other"], fold=0)
    with pytest.raises(TalError, match="other tests on p1, of the training part of made, fold 1"):
        also_tested(load_benchmark("made", fold=1), ["other"], fold=1)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nonesuch"], "no benchmark 'nonesuch'"),
        (["made"], "also: made is tested already"),
        (["other", "other"], "also: other is tested already"),
    ],
)
def test_names_are_checked(known, names, message):
    known(made(), made("other", "other"))
    with pytest.raises(TalError, match=message):
        also_tested(load_benchmark("made"), names)


def test_a_fold_that_the_other_lacks_is_refused(known):
    known(made(), made("other", "other", folds=[("p4",)]))
    with pytest.raises(TalError, match="other: fold 3 does not exist"):
        also_tested(load_benchmark("made", fold=3), ["other"], fold=3)


@pytest.fixture(scope="module")
def hapt_fold(real_data):
    real_data("hapt/hapt.zip")
    return load_benchmark("hapt", fold=3)


@pytest.mark.parametrize("name", HAPT_FAMILY)
def test_recomposed_folds_test_the_people_of_hapts_folds(hapt_fold, name):
    """No training person of the fold is tested, whatever the official split says of him."""
    other, tested = also_tested(hapt_fold, [name], fold=3)[name]
    people = {hapt_fold.group(recording) for recording in hapt_fold.recordings("test")}
    assert {other.group(recording) for recording in tested} == people
    assert not people & {hapt_fold.group(recording) for recording in hapt_fold.recordings("train")}
    assert not set(tested) & set(hapt_fold.recordings())  # rejoined, all of them
    assert other.partition == "fold 3" and len(other.folds) == 5 and other.name == name
    learned = hapt_fold.learning_from(limited_subset(hapt_fold, 0.1, 0))
    seen = other.standardised_as(learned)
    assert np.array_equal(seen.standardised.mean, learned.standardised.mean)
    if name == "hapt_recomposed_test":
        assert other.recordings("train") == hapt_fold.recordings("train")
        assert other.annotations("train").equals(hapt_fold.annotations("train"))
        recording = hapt_fold.recordings("train")[0]
        assert np.array_equal(seen.features(recording), learned.features(recording))
        original, recomposed = hapt_fold.annotations("test"), other.annotations("test")
        assert sorted(original.label) == sorted(recomposed.label)  # every segment, in another order
