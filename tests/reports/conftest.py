"""Names that a user can give to classes, recordings and benchmarks, and that have done harm somewhere."""

import numpy as np
import pytest

from tal_lib.provenance import COLUMNS


@pytest.fixture(scope="session")
def hostile_names():
    return [
        "<img src=x onerror=alert(1)>",
        "a|b",
        "a\nb",
        "=cmd()",
        "100%",
        "a_b",
        "~^\\",
        "Ω",
        "$x$",
        "[a](javascript:alert(1))",
        "![a](http://b.c/d.png)",
        "@SUM(A1)",
        "-- x",
        "&lt;b&gt;",
        "`x` **y** __z__",
        "\u202eevil",
    ]


FOLDS, PEOPLE = 5, 6


def _cell(sweep, benchmark, fraction, model, fold, scores, bias=0.01, **changes):
    """A record of a run: scores (P,) of the fold's people in %; its avg mAP is their mean and a bias."""
    parameters = {
        "benchmark": benchmark,
        "model": model,
        "preset": "compact",
        "fold": fold,
        "fraction": fraction,
        "seed": 0,
        "subset_seed": 0,
        "stream": "",
        "options": {},
        "recipe": {"exchange": 0.3} if sweep != "plain" else {},
    }
    utc = changes.pop("utc", "2026-01-01T00:00:00")
    parameters |= changes
    key = "_".join(str(value) for value in parameters.values())
    avg_map = float(np.mean(scores)) / 100 + bias
    people = [
        {"person": f"p{fold}{number}", "segments": 10, "without": 0.5, "score": score / 100}
        for number, score in enumerate(scores)
    ]
    return {
        "id": f"{sweep}_{key}",
        "sweep": sweep,
        "notebook": "02_train_evaluate.ipynb",
        "parameters": parameters,
        "provenance": dict.fromkeys(COLUMNS, "p") | {"utc": utc},
        "tables": {
            "data_efficiency": [{"tiou": 0.3, "map": avg_map + 0.1}, {"tiou": 0.7, "map": avg_map - 0.1}],
            "people": people,
        },
    }


@pytest.fixture(scope="session")
def cell():
    """The record of one run; see `_cell`."""
    return _cell


@pytest.fixture(scope="session")
def study():
    """A study with known effects: records of the arms `equal` and `plain`, and of the floor.

    effects: model → points above 70 in the arm `equal`; `plain` is 5 points lower for every model. People and
    folds differ by the same amounts for all models; 1 point of noise is of a model and person alone.
    """

    def make(effects, benchmarks=("hapt",), fractions=(0.1, 1.0), arms=("equal", "plain"), noise=1.0, seed=0):
        rng = np.random.default_rng(seed)
        records = []
        for benchmark in benchmarks:
            for fraction in fractions:
                shared = rng.normal(0, 2, (FOLDS, 1)) + rng.normal(0, 6, (FOLDS, PEOPLE))
                for fold in range(FOLDS):
                    where = benchmark, fraction
                    for arm in arms:
                        base = 65 + 5 * (arm == "equal") + shared[fold]
                        for model, effect in effects.items():
                            scores = base + effect + rng.normal(0, noise, PEOPLE)
                            records.append(_cell(arm, *where, model, fold, scores))
                    floor = np.full(PEOPLE, 30.0) + shared[fold]
                    records.append(_cell("equal", *where, "timeline_prior", fold, floor))
        return records

    return make
