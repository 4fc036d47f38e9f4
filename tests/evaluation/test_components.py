"""Components of variance: known components by simulation, known answers, and designs that are refused."""

import numpy as np
import pandas as pd
import pytest

from tal_lib.evaluation.components import PARTS, components, variances

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
