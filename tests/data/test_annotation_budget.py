"""Fewer people, and recordings annotated in part: what is kept, where it is, and what is cut away."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import TalError
from tal_lib.data import Benchmark, FeatureSpec, limited_subset, load_benchmark, partly_annotated
from tal_lib.data.annotation_budget import annotated_part, apart
from tal_lib.data.remarks import Remark
from tal_lib.data.standardise import standardise
from tal_lib.data.subsets import FULL_LABELS, people_order
from tal_lib.study import train_and_score

SHARES = st.floats(0.01, 1.0)
POSITIONS = st.floats(0, 1, exclude_max=True)


@st.composite
def timelines(draw, overlapping=False):
    """Starts and ends of segments, in order, and a duration; neighbours may touch."""
    at, rows = draw(st.floats(0, 5)), []
    for _ in range(draw(st.integers(0, 12))):
        end = at + draw(st.floats(0.3, 20))
        rows.append((at, end))
        at = end + draw(st.sampled_from([0.0, 0.4, 7.0]))
        if overlapping and draw(st.booleans()):
            at = max(rows[-1][0], end - 0.2)
    last = max((end for _, end in rows), default=1.0)
    return np.array(rows, dtype=float).reshape(-1, 2).T, last + draw(st.floats(0, 5))


def brute_force(starts, ends, duration, share):
    """Rows of each run of `count` neighbouring segments; the segments do not overlap."""
    count = max(1, round(share * len(starts)))
    return [list(range(first, first + count)) for first in range(len(starts) - count + 1)]


@settings(deadline=None)
@given(timelines(), SHARES, POSITIONS)
def test_a_part_is_one_of_all_parts_with_the_wanted_count(timeline, share, position):
    (starts, ends), duration = timeline
    part = annotated_part(starts, ends, duration, share, position)
    assert 0 <= part.start < part.end <= duration
    if not len(starts):
        assert part.end - part.start == pytest.approx(share * duration)
        return
    rows = part.segments.tolist()
    choices = brute_force(starts, ends, duration, share)
    assert rows == choices[min(int(position * len(choices)), len(choices) - 1)]
    inside = (starts >= part.start - 1e-9) & (ends <= part.end + 1e-9)
    outside = (ends <= part.start + 1e-9) | (starts >= part.end - 1e-9)
    assert np.flatnonzero(inside).tolist() == rows and (inside ^ outside).all()  # none is cut
    if share == 1:
        assert (part.start, part.end) == (0.0, duration)


@settings(deadline=None)
@given(timelines(overlapping=True), st.lists(SHARES, min_size=2, max_size=2), POSITIONS)
def test_a_smaller_part_lies_in_a_larger_one_and_no_segment_is_cut(timeline, shares, position):
    (starts, ends), duration = timeline
    small, large = (annotated_part(starts, ends, duration, share, position) for share in sorted(shares))
    assert large.start <= small.start + 1e-9 and small.end <= large.end + 1e-9
    assert set(small.segments) <= set(large.segments)
    for part in (small, large):
        for row, (start, end) in enumerate(zip(starts, ends)):
            whole = start >= part.start - 1e-9 and end <= part.end + 1e-9
            assert whole if row in part.segments else end <= part.start + 1e-9 or start >= part.end - 1e-9
    groups = len(apart(starts, ends))
    touched = sum(bool(set(group) & set(large.segments)) for group in apart(starts, ends))
    assert touched == (max(1, round(max(shares) * groups)) if groups else 0)


@given(POSITIONS, st.integers(1, 6))
def test_every_place_is_equally_likely(position, count):
    """Equal positions, equal places: a part is at place floor(position × places)."""
    starts = np.arange(6.0)
    part = annotated_part(starts, starts + 1, 6.0, count / 6, position)
    assert part.segments[0] == int(position * (6 - count + 1)) and len(part.segments) == count


def made(
    people=(1, 1, 2, 2, 3, 3, 4, 5, 6, 7), stride_s=0.5, window_s=1.0, standardised=True, notes=(), length=5.0
):
    """Recordings of 60 s: a segment every 9 s, six of them. Column 0 is the time of a step's centre."""
    names = [f"r{number}" for number in range(len(people))]
    steps = int((60 - window_s) / stride_s) + 1
    centres = np.arange(steps) * stride_s + window_s / 2
    features = {
        name: np.stack([centres, np.random.default_rng(number).normal(number, 1, steps)], 1)
        for number, name in enumerate(names)
    }
    rows = [
        (name, 4.3 + 9 * i, 4.3 + 9 * i + length, "xyz"[(i + number) % 3])
        for number, name in enumerate(names)
        for i in range(6)
    ]
    by_statistics_of = partial(standardise, features)
    return Benchmark(
        name="made",
        classes=("x", "y", "z"),
        tious=(0.5,),
        feature_spec=FeatureSpec(stride_s=stride_s, window_s=window_s, streams={"one": 2}),
        recordings=pd.DataFrame({"recording": names, "split": "train", "duration": 60.0}),
        annotations=pd.DataFrame(rows, columns=["recording", "start", "end", "label"]),
        load_features=features.__getitem__,
        source_hash="0",
        people={name: f"p{person}" for name, person in zip(names, people)},
        standardise=by_statistics_of if standardised else None,
        notes=notes,
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 50), st.lists(SHARES, min_size=2, max_size=2))
def test_people_are_nested_and_whole(seed, shares):
    fold = made().fold(0)
    small, large = (limited_subset(fold, 1.0, seed, people=share) for share in sorted(shares))
    assert set(small) <= set(large) and small == limited_subset(fold, 1.0, seed, people=min(shares))
    everyone = {fold.group(name) for name in fold.recordings("train")}
    for share, chosen in zip(sorted(shares), (small, large)):
        people = {fold.group(name) for name in chosen}
        assert len(people) == max(1, round(share * len(everyone)))
        assert set(chosen) == {name for name in fold.recordings("train") if fold.group(name) in people}
    half = limited_subset(fold, 0.5, seed, people=max(shares))
    assert half == large[: max(1, round(0.5 * len(large)))]
    assert people_order(fold, seed)[:1] == [fold.group(limited_subset(fold, 1.0, seed, people=0.01)[0])]


def test_all_people_are_the_sample_as_it_was():
    data = load_benchmark("synthetic")
    assert limited_subset(data, 0.3, 5) == limited_subset(data, 0.3, 5, people=1.0)


@pytest.mark.parametrize("length", [5.0, 9.0], ids=["apart", "touching"])
@pytest.mark.parametrize("standardised", [True, False])
@pytest.mark.parametrize(("stride_s", "window_s"), [(0.5, 1.0), (0.5, 0.5), (0.4, 3.2), (1.0, 0.2)])
def test_what_is_left_of_a_recording(stride_s, window_s, standardised, length):
    data = made(stride_s=stride_s, window_s=window_s, standardised=standardised, length=length).fold(1)
    chosen = limited_subset(data, 0.5, 0)
    part = partly_annotated(data, chosen, 0.5, 3)
    assert part.recordings() == data.recordings() and part.data_hash != data.data_hash
    for name in data.recordings():
        rows, before = part.annotations_of([name]), data.annotations_of([name])
        if name not in chosen:
            assert rows.equals(before) and part.duration(name) == 60.0
            assert part.steps(name) == data.steps(name)
            continue
        assert len(rows) == 3 and np.allclose(rows.end - rows.start, length)  # whole segments
        assert rows.end.max() <= part.duration(name) + 1e-9 and rows.start.min() >= 0
        assert part.steps(name) == len(part.features(name)) < data.steps(name)
        if standardised:
            statistics = part.standardised
            times = part.features(name)[:, 0] * statistics.std[0] + statistics.mean[0]
        else:
            times = part.features(name)[:, 0]
            assert np.array_equal(part.part(name, 1, 3), part.features(name)[1:3])
        offset = times[0] - window_s / 2  # seconds of the recording at which the part begins
        kept = before[(before.start > offset - 1e-4) & (before.end < offset + part.duration(name) + 1e-4)]
        assert kept.label.tolist() == rows.label.tolist()
        assert np.allclose(kept.start - offset, rows.start, atol=1e-4)
        left_out = before.drop(kept.index)
        hidden = [
            ((times > row.start + 1e-4) & (times < row.end - 1e-4)).sum() for row in left_out.itertuples()
        ]
        assert sum(hidden) <= (window_s < 2 * stride_s)  # none is centred on what was not annotated
        assert np.allclose(np.diff(times), stride_s)


def test_statistics_come_from_the_steps_that_are_left():
    data = made().fold(1)
    chosen = limited_subset(data, 0.5, 0)
    part = partly_annotated(data, chosen, 0.25, 3).learning_from(chosen)
    seen = np.concatenate([part.features(name) for name in chosen])
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(seen.std(0), 1, atol=1e-4)


def test_parts_are_nested_in_share_and_people_and_follow_the_seed():
    data = made()
    every = limited_subset(data, 1.0, 0)
    spans = {}
    for share in (1.0, 0.5, 0.25):
        part = partly_annotated(data, every, share, 7)
        starts = {name: part.standardised.raw(name)[0, 0] for name in every}
        spans[share] = {name: (starts[name], starts[name] + part.steps(name) * 0.5) for name in every}
    for name in every:
        for large, small in ((1.0, 0.5), (0.5, 0.25)):
            assert spans[large][name][0] <= spans[small][name][0]
            assert spans[small][name][1] <= spans[large][name][1]
    few = limited_subset(data, 1.0, 0, people=0.3)
    alone, again = partly_annotated(data, few, 0.5, 7), partly_annotated(data, every, 0.5, 7)
    assert alone.annotations_of(few).equals(again.annotations_of(few))
    other = partly_annotated(data, every, 0.5, 8)
    assert not other.annotations().equals(again.annotations())


def test_frame_skip_and_parts_go_together():
    skipped = made().every(2)
    part = partly_annotated(skipped, skipped.recordings("train"), 0.5, 0)
    name = part.recordings("train")[0]
    times = part.features(name)[:, 0] * part.standardised.std[0] + part.standardised.mean[0]
    assert np.allclose(np.diff(times), 1.0) and part.steps(name) == len(times)


def test_the_whole_is_the_benchmark_itself():
    data = made()
    assert partly_annotated(data, data.recordings(), 1.0, 0) is data


REMARK = Remark("all recordings", FULL_LABELS, "Made by a classifier that saw all labels.")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data: limited_subset(data, 1.0, 0, people=0.0), r"made: people: 0.0 is not in \(0, 1\]"),
        (lambda data: limited_subset(data, 1.0, 0, people=1.5), r"made: people: 1.5 is not in \(0, 1\]"),
        (
            lambda data: partly_annotated(data, ["r0"], float("nan"), 0),
            r"made: annotated: nan is not in \(0, 1\]",
        ),
        (lambda data: partly_annotated(data, ["r0"], 0.5, 0), "annotated 0.5: Made by.*Give annotated 1"),
        (lambda data: limited_subset(data, 1.0, 0, people=0.5), "people 0.5: Made by.*Give people 1"),
    ],
)
def test_a_share_that_does_not_exist_is_refused(call, message):
    with pytest.raises(TalError, match=message):
        call(made(notes=(REMARK,)))


def test_people_must_be_known():
    with pytest.raises(TalError, match="people 0.5: the people of its recordings are unknown"):
        limited_subset(load_benchmark("synthetic"), 1.0, 0, people=0.5)


def test_a_model_learns_from_the_part_and_is_tested_on_the_whole():
    fold = made().fold(1)
    run = train_and_score(
        fold,
        "timeline_prior",
        people=0.5,
        annotated=0.34,
        seed=1,
        recipe={"epochs": 1, "min_steps": 1},
        device="cpu",
    )
    assert run.recordings == limited_subset(fold, 1.0, 1, people=0.5)
    learned = run.benchmark.annotations_of(run.recordings)
    assert len(learned) == 2 * len(run.recordings)
    assert run.truth.equals(fold.annotations("test"))
