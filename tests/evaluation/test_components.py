"""Components of variance: known components by simulation, known answers, and designs that are refused."""

import numpy as np
import pandas as pd
import pytest

from tal_lib.evaluation.components import PARTS, components, repeated, variances

KNOWN = {"person": 6.0, "subset": 2.0, "seed": 3.0, "subset_seed": 1.5, "rest": 2.5, "fold": 4.0}


def simulated(rng, known, folds=5, people=6, subsets=2, seeds=2):
    """One study: scores (folds, people, subset samples, seeds)."""
    draw = lambda name, *shape: rng.normal(0, known[name], (folds, *shape))
    return (
        draw("fold", 1, 1, 1)
        + draw("person", people, 1, 1)
        + draw("subset", 1, subsets, 1)
        + draw("seed", 1, 1, seeds)
        + draw("subset_seed", 1, subsets, seeds)
        + draw("rest", people, subsets, seeds)
    )


def table(scores):
    """A row per score."""
    places = np.indices(scores.shape).reshape(4, -1)
    return pd.DataFrame(dict(zip(("fold", "person", "subset_seed", "seed"), places))).assign(
        value=scores.ravel()
    )


def test_the_estimates_are_unbiased():
    """Mean variances of 1,500 simulated folds, against the known ones."""
    rng = np.random.default_rng(0)
    cubes = simulated(rng, KNOWN, folds=1500)
    mean = pd.DataFrame([variances(cube) for cube in cubes]).mean()
    expected = {name: KNOWN[name] ** 2 for name in ("person", "subset", "seed", "subset_seed")}
    expected |= {"person_subset": 0, "person_seed": 0, "residual": KNOWN["rest"] ** 2}
    for name, variance in expected.items():
        assert mean[name] == pytest.approx(variance, rel=0.12, abs=0.35), name


def test_a_large_study_has_its_known_components():
    scores = simulated(np.random.default_rng(1), KNOWN, folds=300)
    parts = components(table(scores))
    assert list(parts) == list(PARTS)
    for name, deviation in KNOWN.items():
        assert parts[name] == pytest.approx(deviation, rel=0.15), name


@pytest.mark.parametrize("name", PARTS)
def test_a_component_alone_is_seen_alone(name):
    known = dict.fromkeys(KNOWN, 0.0) | {name: 3.0}
    parts = components(table(simulated(np.random.default_rng(2), known, folds=400)))
    assert parts[name] == pytest.approx(3, rel=0.15)
    assert all(value < 0.8 for other, value in parts.items() if other != name)


def test_people_of_folds_may_differ_in_number():
    scores = simulated(np.random.default_rng(3), KNOWN, folds=200)
    rows = table(scores)
    uneven = rows[(rows.person < 4) | (rows.fold % 2 == 0)]
    assert components(uneven)["person"] == pytest.approx(KNOWN["person"], rel=0.15)


def test_what_has_no_components_is_refused():
    rows = table(simulated(np.random.default_rng(4), KNOWN))
    with pytest.raises(ValueError, match="1 missing"):
        components(rows.drop(index=3))
    with pytest.raises(ValueError, match="6 × 1 × 2"):
        components(rows[rows.subset_seed == 0])
    with pytest.raises(ValueError, match="1 fold"):
        components(rows[rows.fold == 0])


def test_a_repeat_with_another_seed_by_hand():
    """Two folds, one person each: variances 2, 8 (fold 0) and 0, 2 (fold 1) of the two samples; mean 3."""
    scores = np.array([[[[1, 3], [2, 6]]], [[[5, 5], [4, 6]]]], dtype=float)
    sd, low, high = repeated(table(scores), "seed")
    assert sd == pytest.approx(3**0.5)
    # 2 degrees of freedom: the quantile of p is -2 ln(1 - p)
    assert low == pytest.approx((6 / (-2 * np.log(0.025))) ** 0.5)
    assert high == pytest.approx((6 / (-2 * np.log(0.975))) ** 0.5)
    assert repeated(table(scores.swapaxes(2, 3)), "subset_seed") == pytest.approx((sd, low, high))


@pytest.mark.parametrize("apart", [0.0, 3.0])
def test_the_interval_of_a_repeat_covers_its_value(apart):
    """In 1,000 studies, whether or not two subset samples share what a seed changes."""
    known = KNOWN | {"seed": 3.0 - apart, "subset_seed": apart}
    true = (known["seed"] ** 2 + known["subset_seed"] ** 2 + known["rest"] ** 2 / 6) ** 0.5
    rng = np.random.default_rng(3)
    intervals = [repeated(table(simulated(rng, known)), "seed")[1:] for _ in range(1000)]
    assert np.mean([low <= true <= high for low, high in intervals]) >= 0.93
