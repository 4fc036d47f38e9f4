import json
from functools import cache, partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import TalError
from tal_lib.cli import main
from tal_lib.data import (
    limited_subset,
    load_benchmark,
    open_set_split,
    published_open_set_split,
    published_subset,
    read_limited_annotations,
    write_limited_annotations,
)

synthetic = cache(partial(load_benchmark, "synthetic"))  # read by every example, changed by none


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), fractions=st.lists(st.floats(0.01, 1.0), min_size=2, max_size=2))
def test_nested_and_deterministic(seed, fractions):
    data = synthetic()
    small, large = (limited_subset(data, fraction, seed) for fraction in sorted(fractions))
    assert large[: len(small)] == small == limited_subset(data, min(fractions), seed)
    assert len(set(large)) == len(large) == max(1, round(max(fractions) * 40))
    assert set(limited_subset(data, 1.0, seed)) == set(data.recordings("train"))


def test_seeds_differ_and_classes_come_early():
    data = load_benchmark("synthetic")
    assert limited_subset(data, 0.2, 0) != limited_subset(data, 0.2, 1)
    seen = data.annotations_of(limited_subset(data, 0.4, 0)).label.nunique()
    assert seen == data.annotations("train").label.nunique()


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_bad_fraction(fraction, small):
    with pytest.raises(TalError, match="fraction"):
        limited_subset(small, fraction, 0)


def test_no_training_recordings(tiny):
    data = tiny([("a", 1, 2, "x")])
    data._recordings["split"] = "test"
    with pytest.raises(TalError):
        limited_subset(data, 0.5, 0)


def test_subset_files(tmp_path, small):
    path = write_limited_annotations(small, 0.25, 5, tmp_path)
    assert path.name == "synthetic_25p5.json"
    assert sorted(read_limited_annotations(path)) == sorted(limited_subset(small, 0.25, 5))


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("thumos14", "validation", "test"),
        ("activitynet", "training", "validation"),
        ("hacs", "training", "validation"),
    ],
)
def test_a_subset_file_loads_as_the_same_data_set(name, train, test, tmp_path):
    """Other frame rates give other times; a subset of another name is no part of the data set."""
    entry = {"duration": 9.0, "annotations": [{"label": "x", "segment": [1, 2]}]}
    rates = {"a": (train, 25.0), "b": (train, 30.0), "c": (test, 24.0), "d": (test, 30.0)}
    database = {id: entry | {"subset": subset, "fps": fps} for id, (subset, fps) in rates.items()}
    file = tmp_path / "root" / name / f"{name}.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"database": database}))
    whole = load_benchmark(name, tmp_path / "root")
    assert (
        main(
            [
                "data",
                "subset",
                name,
                "--fraction",
                "0.5",
                "--root",
                str(tmp_path / "root"),
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    again = tmp_path / "again" / name / f"{name}.json"
    again.parent.mkdir(parents=True)
    (tmp_path / f"{name}_50p0.json").rename(again)
    part = load_benchmark(name, tmp_path / "again")
    assert part.recordings("train") == limited_subset(whole, 0.5, 0) and len(part.recordings("train")) == 1
    assert part.recordings("test") == whole.recordings("test") == ["c", "d"]
    assert all(part.time_axis(id) == whole.time_axis(id) for id in part.recordings())


@given(seen=st.floats(0.01, 0.99), seed=st.integers(0, 100))
@settings(deadline=None, max_examples=30)
def test_open_set_is_a_partition(seen, seed):
    data = synthetic()
    known, unknown = open_set_split(data, seen, seed)
    assert (
        set(known) | set(unknown) == set(data.classes) and not set(known) & set(unknown) and known and unknown
    )
    assert (known, unknown) == open_set_split(data, seen, seed)


def test_published_lists(real_data):
    real_data("thumos14/limited_subsets")
    thumos, anet = load_benchmark("thumos14"), load_benchmark("activitynet")
    assert len(published_subset(thumos, 10, 0)) == 20 and len(published_subset(thumos, 100, 4)) == 200
    assert 900 < len(published_subset(anet, 10, 1)) < 1100
    prior = load_benchmark("thumos14_prior")
    assert limited_subset(prior, 0.1, 3) == published_subset(thumos, 10, 3) != limited_subset(thumos, 0.1, 3)
    assert prior.data_hash == thumos.data_hash and prior.name == "thumos14_prior"
    for data, total in ((thumos, 20), (anet, 200)):
        for share in (0.75, 0.5):
            for draw in range(10):
                seen, unseen = published_open_set_split(data, share, draw)
                assert len(seen) == share * total and set(seen) | set(unseen) == set(data.classes)
    with pytest.raises(TalError, match="splits_p33_0"):
        published_subset(thumos, 33, 0)
