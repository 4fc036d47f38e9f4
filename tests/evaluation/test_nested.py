"""Statistics over people nested in folds: known answers, properties, and coverage by simulation."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tal_lib.evaluation.average_precision import mean_average_precision
from tal_lib.evaluation.nested import (
    by_person,
    chance_above_zero,
    estimate,
    groups,
    holm,
    improvement,
    mean_of,
    nested_estimate,
    paired_estimate,
    pseudo_values,
)


def table(values):
    """One row a person of values (folds, people)."""
    folds, people = np.indices(np.shape(values))
    return pd.DataFrame({"fold": folds.ravel(), "person": people.ravel(), "value": np.ravel(values)})


def noise(rng, kind, shape):
    return rng.standard_normal(shape) if kind == "normal" else rng.standard_t(4, shape) / 2**0.5


@pytest.mark.parametrize("people", [3, 6, 14])
@pytest.mark.parametrize(("between", "within"), [(0, 4), (1, 4), (2, 4), (4, 4), (2, 0.5)])
@pytest.mark.parametrize("kind", ["normal", "heavy tails"])
def test_the_interval_covers_the_mean(people, between, within, kind):
    """At least 93 % of 500 simulated studies; 1.7 standard errors of that share are allowed for."""
    rng = np.random.default_rng(1)
    size, covered = 500, 0
    x = between * noise(rng, kind, (size, 5, 1)) + within * noise(rng, kind, (size, 5, people))
    for values in x:
        result = estimate(list(values))
        covered += result.low < 0 < result.high
    assert nested_estimate(table(x[0])) == estimate(list(x[0]))
    assert covered / size > 0.93 - 1.7 * (0.93 * 0.07 / size) ** 0.5


def test_without_variance_between_folds_it_is_the_pooled_t_interval():
    values = np.array([[1.0, 3.0], [3.0, 1.0], [2.0, 2.0]])
    result = nested_estimate(table(values))
    pooled = ((values - values.mean(1, keepdims=True)) ** 2).sum() / 3
    assert result.mean == 2 and result.between == 0
    assert result.high - 2 == pytest.approx(stats.t.ppf(0.975, 3) * (pooled / 6) ** 0.5)
    assert result.p == 2 * stats.t.sf(2 / (pooled / 6) ** 0.5, 2)  # of the folds


@pytest.mark.parametrize("between", [0.0, 0.6, 1.0])
def test_a_table_of_equal_models_rarely_has_a_difference(between):
    """Nine equal models, 36 pairs, Holm: at most 5 % of 400 simulated tables name a pair."""
    rng = np.random.default_rng(0)
    size, wrong = 400, 0
    for _ in range(size):
        models = between * rng.standard_normal((9, 5, 1)) + rng.standard_normal((9, 5, 6))
        pairs = itertools.combinations(models, 2)
        wrong += holm([estimate(list(first - other)).p for first, other in pairs]).min() < 0.05
    assert wrong / size <= 0.05 + 2 * (0.05 * 0.95 / size) ** 0.5


def test_where_folds_differ_it_is_the_t_interval_of_the_folds():
    values = np.array([[0.0, 0.2], [5.0, 5.2], [9.0, 9.2]])
    result = nested_estimate(table(values))
    expected = stats.ttest_1samp(values.mean(1), 0)
    assert result.p == pytest.approx(expected.pvalue)
    assert result.high == pytest.approx(expected.confidence_interval(0.95).high)


def test_draws_of_a_person_count_once_and_one_fold_is_refused():
    values = table(np.arange(6.0).reshape(3, 2))
    twice = pd.concat([values.assign(draw=0), values.assign(draw=1)])
    assert nested_estimate(twice) == nested_estimate(values)
    with pytest.raises(ValueError, match="1 folds with 2 people"):
        nested_estimate(values[values.fold == 0])


def test_pairs_are_by_person():
    rng = np.random.default_rng(0)
    ours = table(rng.normal(0, 30, (5, 6)))
    theirs = ours.assign(value=ours.value - 1 + 0.1 * rng.standard_normal(30)).sample(frac=1, random_state=1)
    result = paired_estimate(ours, theirs)
    assert 0.9 < result.low < 1 < result.high < 1.1 and result.p < 1e-4


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=12))
def test_pseudo_values_of_a_mean_are_the_values(values):
    values = np.array(values)
    without = np.array([np.delete(values, index).mean() for index in range(len(values))])
    assert np.allclose(pseudo_values(values.mean(), without), values)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.001]) == pytest.approx([0.9, 0.002])


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 7), st.randoms(use_true_random=False))
def test_letters_say_exactly_which_pairs_differ(count, random):
    names = [f"m{index}" for index in range(count)]
    differ = {pair: random.random() < 0.4 for pair in itertools.combinations(names, 2)}
    means = {name: -index for index, name in enumerate(names)}
    letters = groups(means, {pair: 0.01 if far else 0.5 for pair, far in differ.items()})
    assert all(letters.values())
    for (first, second), far in differ.items():
        assert far == (not set(letters[first]) & set(letters[second]))


def test_letters_of_a_clear_ranking():
    pairs = {("a", "b"): 0.3, ("a", "c"): 0.001, ("b", "c"): 0.2}
    assert groups({"a": 3, "b": 2, "c": 1}, pairs) == {"a": "a", "b": "ab", "c": "b"}


def test_models_whose_difference_is_unknown_share_a_letter():
    assert groups({"a": 3, "b": 2}, {("a", "b"): float("nan")}) == {"a": "a", "b": "a"}


def test_a_person_without_score_counts_for_neither_side():
    ours = table(np.arange(12.0).reshape(3, 4))
    ours.loc[0, "value"] = np.nan
    assert improvement(ours, ours.assign(value=ours.value - 1))[0] == 1.0


def test_an_improvement_of_everybody_is_no_point():
    ours = table(np.arange(30.0).reshape(5, 6))
    share, low, high = improvement(ours, ours.assign(value=ours.value - 1))
    assert share == 1 and 0.8 < low < 0.95 and high == 1
    assert improvement(ours, ours)[0] == 0.5


@pytest.mark.parametrize("people", [3, 14])
@pytest.mark.parametrize("between", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("chance", [0.5, 0.9])
def test_the_interval_of_the_chance_of_improvement_covers_it(people, between, chance):
    """At least 93 % of 300 simulated studies; 1.7 standard errors of that share are allowed for.

    `between` is the spread of folds over that of people. The real differences of `equal` have 0 to 0.85.
    """
    rng, size = np.random.default_rng(5), 300
    mean = stats.norm.ppf(chance) * (between**2 + 1) ** 0.5  # so a new person of a new fold is above zero
    noises = between * rng.standard_normal((size, 5, 1)) + rng.standard_normal((size, 5, people))
    intervals = [chance_above_zero(list(mean + study)) for study in noises]
    covered = np.mean([low <= chance <= high for _, low, high in intervals])
    assert covered > 0.93 - 1.7 * (0.93 * 0.07 / size) ** 0.5


def test_people_of_folds_that_differ_count_less():
    """Everybody is better in all three: with folds far apart, five folds are about five people."""
    alike = [np.array([1.0, 2.0, 3.0, 4.0])] * 5
    apart = [10 * fold + values / 10 for fold, values in enumerate(alike)]
    same = [np.ones(4)] * 5
    bounds = [chance_above_zero(folds) for folds in (same, alike, apart)]
    assert all(share == high == 1 for share, _, high in bounds)
    assert bounds[0][1] == pytest.approx(22 / 24 - stats.t.ppf(0.975, 15) * (22 / 24 * 2 / 24 / 24) ** 0.5)
    assert bounds[0][1] == pytest.approx(bounds[1][1])  # no variance between folds is seen
    assert bounds[2][1] == pytest.approx(7 / 9 - stats.t.ppf(0.975, 4) * (7 / 9 * 2 / 9 / 9) ** 0.5, abs=1e-3)


def test_what_a_person_adds():
    truth = pd.DataFrame(
        [("a", 0.0, 1.0, "x"), ("b", 0.0, 1.0, "x"), ("b", 2.0, 3.0, "x"), ("c", 0.0, 1.0, "x")],
        columns=["recording", "start", "end", "label"],
    )
    detections = truth[truth.recording != "c"].assign(score=1.0)  # nothing is detected in c
    people = by_person(truth, detections, [0.5], {"a": "p", "b": "q", "c": "r"}).set_index("person")
    assert people.segments.to_dict() == {"p": 1, "q": 2, "r": 1}
    assert people["without"].to_dict() == pytest.approx({"p": 2 / 3, "q": 1 / 2, "r": 1})
    assert people.score.to_dict() == pytest.approx(
        {"p": 3 * 0.75 - 4 / 3, "q": 3 * 0.75 - 1, "r": 3 * 0.75 - 2}
    )
    assert by_person(truth, detections, [0.5], {"a": "p", "b": "p", "c": "p"}).empty


@pytest.mark.parametrize("seed", range(4))
def test_what_a_person_adds_is_what_their_recordings_add(seed):
    """Bit by bit the mAP of tables without the person's rows: with ties, and classes that one person has."""
    rng = np.random.default_rng(seed)

    def table(rows, classes):
        start = rng.integers(0, 20, rows) / 2
        recording = rng.choice(list("abcdefgh"), rows)
        known = {"recording": recording, "start": start, "end": start + rng.integers(1, 6, rows) / 2}
        return pd.DataFrame(known | {"label": rng.choice(classes, rows)})

    truth, detections = table(30, list("xyz")), table(120, list("wxyz"))
    truth.loc[truth.recording == "a", "label"] = "only a"
    detections = detections.assign(score=rng.integers(0, 5, 120) / 5)[int(seed == 3) * 120 :]
    person_of = dict(zip("abcdefg", "ppqqrst"))  # nobody is known of h
    tious = [0.5, 0.3, 0.7]
    people = by_person(truth, detections, tious, person_of).set_index("person")
    for person in people.index:
        others = (rows[rows.recording.map(person_of).to_numpy() != person] for rows in (truth, detections))
        assert people["without"][person] == mean_average_precision(*others, tious).mean(), person
    alone = by_person(truth[truth.recording == "a"], detections, tious, person_of).set_index("person")
    assert np.isnan(alone["without"]["p"]) and not np.isnan(alone["without"]["q"])


@pytest.mark.parametrize("kinds", [("normal",) * 4, ("heavy tails",) * 4])
@pytest.mark.parametrize("between", [(0, 0, 0, 0), (2, 0, 4, 1), (4, 4, 4, 4), (0, 0, 0, 8)])
def test_the_interval_of_a_mean_over_benchmarks_covers_it(kinds, between):
    """Four benchmarks of different sizes and spreads: at least 93 % of 400 simulated studies."""
    rng = np.random.default_rng(2)
    size, covered = 400, 0
    shapes = [(5, 6), (5, 14), (5, 18), (5, 3)]
    draws = [
        fold * noise(rng, kind, (size, shape[0], 1)) + 4 * noise(rng, kind, (size, *shape))
        for kind, fold, shape in zip(kinds, between, shapes)
    ]
    for number in range(size):
        result = mean_of([estimate(list(values[number])) for values in draws])
        covered += result.low < 0 < result.high
    assert covered / size > 0.93 - 1.7 * (0.93 * 0.07 / size) ** 0.5


def test_a_mean_over_benchmarks_by_hand():
    first, second = (estimate([np.array(fold) for fold in folds]) for folds in FOLDS_OF_TWO)
    result = mean_of([first, second])
    variances = [each.between + each.within for each in (first, second)]
    error = sum(variances) ** 0.5 / 2
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 3 + variances[1] ** 2 / 2)  # people; folds
    assert result.mean == pytest.approx((2 + 4.6) / 2) and result.freedom == pytest.approx(freedom)
    assert result.high - result.mean == pytest.approx(stats.t.ppf(0.975, freedom) * error)
    of_folds = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 2)
    assert result.p == pytest.approx(2 * stats.t.sf(result.mean / error, of_folds))
    assert (result.folds, result.people) == (6, 12)
    still = estimate([np.ones(3), np.ones(3)])
    assert mean_of([still, still]).low == 1 and mean_of([still, still]).p == 0


FOLDS_OF_TWO = (
    ([1.0, 3.0], [3.0, 1.0], [2.0, 2.0]),  # no variance between folds
    ([0.0, 0.2], [5.0, 5.2], [8.5, 8.7]),  # nearly all of it is between folds
)


def test_the_chance_of_improvement_from_arrays_is_that_from_tables():
    rng = np.random.default_rng(3)
    ours, theirs = table(rng.normal(0.5, 1, (5, 6))), table(rng.normal(0, 1, (5, 6)))
    differences = [*(ours.value - theirs.value).to_numpy().reshape(5, 6)]
    assert chance_above_zero(differences) == improvement(ours, theirs)
    back = improvement(theirs, ours)
    assert chance_above_zero(differences) == pytest.approx((1 - back[0], 1 - back[2], 1 - back[1]))
