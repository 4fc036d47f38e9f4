import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib.evaluation import average_precision, diagnosis, mean_average_precision
from tal_lib.evaluation.average_precision import matches


def table(*rows, score=True):
    return pd.DataFrame(rows, columns=["recording", "start", "end", "label", *(["score"] if score else [])])


TRUTH = table(("a", 0.0, 10.0, "walk"), ("a", 20.0, 30.0, "sit"), ("b", 0.0, 10.0, "walk"), score=False)
DETECTIONS = table(
    ("a", 0.0, 9.0, "walk", 0.9),  # hit
    ("a", 0.0, 10.0, "walk", 0.8),  # the same segment again
    ("a", 20.0, 30.0, "walk", 0.7),  # classification error
    ("a", 20.0, 23.0, "sit", 0.6),  # tIoU 0.3
    ("a", 27.0, 40.0, "walk", 0.5),  # tIoU 0.15 with another class
    ("b", 50.0, 60.0, "walk", 0.4),  # no annotation there
)


def test_one_detection_of_each_kind():
    assert list(diagnosis.error_types(TRUTH, DETECTIONS)) == list(diagnosis.ERRORS)


def test_a_lower_threshold_turns_a_localization_error_into_a_hit():
    assert diagnosis.error_types(TRUTH, DETECTIONS, 0.3)[3] == diagnosis.HIT


def test_the_profile_counts_in_groups_of_the_annotated_segments():
    profile = diagnosis.false_positive_profile(TRUTH, DETECTIONS, upto=3).pivot(
        index="bucket", columns="error", values="value"
    )
    assert profile.loc["1G", diagnosis.HIT] == pytest.approx(100 / 3)
    assert profile.loc["2G", diagnosis.BACKGROUND] == pytest.approx(100 / 3)
    assert profile.loc[["1G", "2G"]].sum(axis=1).to_numpy() == pytest.approx([100, 100])
    assert profile.loc["3G"].sum() == 0  # six detections fill two groups of three


def test_removing_an_error_gives_the_map_of_the_detections_without_it():
    impact = diagnosis.error_impact(TRUTH, DETECTIONS, [0.5]).set_index("error").value
    before = mean_average_precision(TRUTH, DETECTIONS, [0.5]).mean()
    for number, kind in enumerate(diagnosis.ERRORS[1:], start=1):
        after = mean_average_precision(TRUTH, DETECTIONS.drop(index=number), [0.5]).mean()
        assert impact[kind] == pytest.approx(100 * (after - before), abs=1e-9)


def test_normalized_ap_is_ap_where_the_class_has_the_usual_number():
    rng = np.random.default_rng(0)
    hit = rng.random(40) < 0.4
    total = int(hit.sum()) + 3
    from tal_lib.evaluation.average_precision import interpolated_ap

    assert diagnosis.normalized_ap(hit, total, total) == pytest.approx(interpolated_ap(hit, total))
    assert diagnosis.normalized_ap(hit, total, 3 * total) > diagnosis.normalized_ap(
        hit, total, total
    )  # the same errors weigh less


def test_fifths_are_equally_full_and_equal_values_stay_together():
    bucket, spans = diagnosis.in_fifths(pd.Series(np.arange(100.0)))
    assert list(bucket.value_counts().loc[list(diagnosis.BUCKETS)]) == [20] * 5 and spans["XS"] == "0–19"
    bucket, spans = diagnosis.in_fifths(pd.Series([1.0] * 9 + [2.0]))
    assert len(spans) <= 2 and bucket.iloc[:9].nunique() == 1


segments = st.lists(
    st.tuples(
        st.sampled_from("ab"), st.integers(0, 30), st.integers(1, 12), st.sampled_from(["walk", "sit"])
    ),
    min_size=1,
    max_size=8,
)
scored = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(0, 30),
        st.integers(1, 12),
        st.sampled_from(["walk", "sit", "run"]),
        st.integers(1, 99),
    ),
    max_size=20,
)


@settings(deadline=None)
@given(segments, scored)
def test_hits_are_those_of_the_mean_average_precision(truth, detections):
    truth = table(*((r, float(s), float(s + n), label) for r, s, n, label in truth), score=False)
    detections = table(
        *((r, float(s), float(s + n), label, score / 100) for r, s, n, label, score in detections)
    )
    kinds = diagnosis.error_types(truth, detections)
    perfect = average_precision(truth, detections[kinds == diagnosis.HIT], [0.5])
    recall = perfect.set_index("label").ap  # of hits alone the AP is the recall
    hits = detections[kinds == diagnosis.HIT].label.value_counts()
    for label, total in truth.label.value_counts().items():
        assert recall[label] == pytest.approx(hits.get(label, 0) / total)
    owner = matches(truth, detections, [0.5])[0.5]
    taken = owner[owner >= 0]
    assert len(set(taken)) == len(taken) == (kinds == diagnosis.HIT).sum()
    assert (truth.label.to_numpy()[taken] == detections.label.to_numpy()[owner >= 0]).all()


def test_the_whole_diagnosis_of_perfect_detections_finds_nothing_wrong():
    perfect = TRUTH.assign(score=0.9)
    rows = diagnosis.diagnose(TRUTH, perfect, {"a": 60.0, "b": 60.0}, [0.5, 0.7])
    assert (rows[rows.analysis == "map_n"].value == 100).all() and (
        rows[rows.analysis == "missed"].value == 0
    ).all()
    assert (rows[rows.analysis == "impact"].value == 0).all()
    first = rows[(rows.analysis == "profile") & (rows.bucket == "1G")].set_index("error").value
    assert first[diagnosis.HIT] == 100


def test_detections_of_other_buckets_segments_are_not_counted_wrong():
    rows = diagnosis.by_characteristic(
        TRUTH, TRUTH.assign(score=[0.9, 0.8, 0.7]), {"a": 60.0, "b": 20.0}, [0.5]
    )
    assert (rows.map_n == 100).all() and set(rows.characteristic) == {"all", *diagnosis.CHARACTERISTICS}
    assert list(rows[rows.characteristic == "coverage"].segments) == [2, 1]


def test_no_detections_miss_everything():
    rows = diagnosis.diagnose(TRUTH, DETECTIONS.iloc[:0], {"a": 60.0, "b": 60.0}, [0.5])
    assert (rows[rows.analysis == "missed"].value == 100).all() and (
        rows[rows.analysis == "map_n"].value == 0
    ).all()
