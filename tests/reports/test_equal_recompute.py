"""The headline from detections alone: on a small study, and on the committed files where they are."""

import json
import os
from functools import partial

import numpy as np
import pandas as pd
import pytest

from tal_lib import TalError, evaluation
from tal_lib.data import load_benchmark
from tal_lib.data.registry import BENCHMARKS
from tal_lib.files import data_root
from tal_lib.reports.equal import factorial, recompute, tuning
from tal_lib.reports.equal.arms import MAIN, MEAN, PLAIN, TUNED, scores_of
from tal_lib.reports.layout import Layout
from tal_lib.reports.report import tidy_tables
from tal_lib.sweeps import detections as kept
from tal_lib.sweeps import read_all

KEYS = ["benchmark", "fraction", "model"]
MODELS = {"tridet": 0.1, "bilstm": 0.6}  # model → how far its detections are from the truth, s


def detections_of(truth, spread, seed):
    """Detections near the annotated segments, and as many false ones."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, spread, (len(truth), 2))
    near = truth.assign(
        start=truth.start + noise[:, 0],
        end=np.maximum(truth.end + noise[:, 1], truth.start + noise[:, 0] + 0.1),
        score=rng.random(len(truth)) + 0.3,
    )
    false = truth.assign(start=truth.start + 3, end=truth.end + 3, score=rng.random(len(truth)))
    detections = pd.concat([near, false], ignore_index=True)
    return detections.round({"start": 2, "end": 2})


@pytest.fixture(scope="module")
def published(tmp_path_factory, cell):
    """A study's kept detections, and its records with exact scores."""
    folder, records, parts = tmp_path_factory.mktemp("study"), [], []
    for fold in range(3):
        data = load_benchmark("synthetic", fold=fold)
        tested = data.recordings("test")
        truth = data.annotations_of(tested)
        groups = {recording: data.group(recording) for recording in tested}
        for model, spread in MODELS.items():
            detections = detections_of(truth, spread, fold)
            record = cell("equal", "synthetic", 1.0, model, fold, np.zeros(2))
            scores = evaluation.mean_average_precision(truth, detections, data.tious)
            people = evaluation.by_person(truth, detections, data.tious, groups)
            record["tables"] = {
                "data_efficiency": scores.rename("map").rename_axis("tiou").reset_index().to_dict("records"),
                "people": people.to_dict("records"),
            }
            records.append(record)
            rows = kept._rows(record["id"], record["parameters"], detections, best=100)
            parts.append(rows.assign(benchmark="synthetic"))
    file = folder / "detections" / MAIN / "synthetic.parquet"
    file.parent.mkdir(parents=True)
    table = pd.concat(parts, ignore_index=True)
    empty = {"cell": "c", "benchmark": "synthetic", "model": "stale", "fraction": 1.0, "fold": 1}
    table.attrs[kept.EMPTY] = json.dumps([empty | {"seed": 0, "subset_seed": 0}])
    table.to_parquet(file, index=False)
    return file, tidy_tables(records)


def test_the_headline_follows_from_the_detections_alone(published):
    file, data = published
    table = recompute.headline(recompute.recomputed(file))
    assert table.model.tolist() == ["tridet", "bilstm"] and table["mean"].iloc[0] > table["mean"].iloc[1] + 5
    differences = recompute.compared(file, data)
    assert len(differences) == 2 and {"mean", "low", "high", "fold_0", "fold_2"} <= set(differences)
    assert differences.set_index(KEYS).abs().max(axis=None) < recompute.CLOSE


def test_another_ledger_is_seen(published):
    file, data = published
    scores = data["data_efficiency"]
    wrong = scores.assign(map=scores["map"] - 0.01 * (scores.fold == 1))
    assert recompute.compared(file, data | {"data_efficiency": wrong}).fold_1.min() > 0.5


def test_a_part_of_the_runs_and_what_is_not_there(published, tmp_path):
    file, _ = published
    tables = recompute.recomputed(file.parent, only={"model": ["tridet"], "fold": [0, 1]})
    assert set(tables["people"].model) == {"tridet"} and set(tables["people"].fold) == {0, 1}
    nothing = recompute.recomputed(file, only={"model": ["stale"]})["data_efficiency"]
    assert (nothing["map"] == 0).all() and set(nothing.fold) == {1} and len(nothing) == 5
    with pytest.raises(TalError, match="no detections"):
        recompute.recomputed(file, only={"model": ["gaf"]})
    with pytest.raises(TalError, match="no detections were kept"):
        recompute.recomputed(tmp_path / "equal.parquet")


def with_plain(path):
    """Whether the detections of the plain arm are there too."""
    return (path.parent.parent / PLAIN / path.name).is_file()


# those with both arms first: the two tests of such a file follow each other, in one process of a run
COMMITTED = sorted(
    (Layout().results / "detections" / MAIN).glob("*.parquet"), key=lambda path: (not with_plain(path), path)
)
of_a_file = partial(
    pytest.mark.parametrize, "path", ids=lambda path: path.stem if path else "none", scope="module"
)


@pytest.fixture(scope="module")
def committed():
    """The tables of the committed ledgers that the headline needs."""
    needed = ("data_efficiency", "people")
    records = read_all(Layout().results)
    for record in records:
        record["tables"] = {name: rows for name, rows in record["tables"].items() if name in needed}
    return tidy_tables(records) | {"tuning_trials": tuning.trials(Layout().ledger / "tuning.jsonl")}


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """All models of a committed file at the smallest and the largest label fraction.

    They are recomputed once: the workers of a run share them in a folder of the run.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def recomputed(path, arm=MAIN):
        if path.stem not in BENCHMARKS or not BENCHMARKS[path.stem].is_here(data_root()):
            pytest.skip(f"{path.stem} is not on this machine")
        file = shared / f"recomputed_{arm}_{path.stem}.pickle"
        if not file.is_file():
            fractions = pd.read_parquet(path, columns=["fraction"]).fraction
            tables = recompute.recomputed(path, {"fraction": [fractions.min(), fractions.max()]}, arm=arm)
            part = file.with_suffix(f".{os.getpid()}")
            pd.to_pickle(tables, part)
            part.replace(file)
        return pd.read_pickle(file)

    return recomputed


@pytest.mark.slow
@of_a_file(COMMITTED or [None])
def test_the_committed_headline_follows_from_the_committed_detections(path, committed, again):
    """All models at the smallest and the largest label fraction: each fold, mean over folds, and interval."""
    if path is None:
        pytest.skip("no detections of the equal arm are in results/detections")
    differences = recompute.differences(again(path), committed).set_index(KEYS).abs()
    models = 6 if path.stem == "hapt_recomposed" else 9  # docs/protocol.md
    assert differences.index.get_level_values("model").nunique() == models
    assert differences["mean"].max() < recompute.CLOSE
    small = len(load_benchmark(path.stem).annotations()) < recompute.SMALL
    assert differences.max(axis=None) < (recompute.CLOSE_SMALL if small else recompute.CLOSE_FOLD)


@pytest.mark.slow
def test_the_committed_mean_over_benchmarks_follows_from_the_committed_detections(committed, again):
    """The first number of README: nine models at 10 and 100 %, mean over the four tuned benchmarks."""
    files = [path for path in COMMITTED if path.stem in TUNED]
    if len(files) < len(TUNED):
        pytest.skip("the detections of a tuned benchmark are not in results/detections")
    parts = [again(path) for path in files]
    tables = {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in parts[0]}
    every = recompute.headline(tables).set_index(KEYS)
    assert set(every.index.unique("benchmark")) == {*TUNED, MEAN}
    differences = recompute.differences(tables, committed).set_index(KEYS).loc[MEAN].abs()
    assert len(differences) == 18 and set(differences.index.unique("fraction")) == {0.1, 1.0}
    assert differences["mean"].max() < recompute.CLOSE
    assert differences[["low", "high"]].max(axis=None) < recompute.CLOSE_FOLD


PLAIN_TOO = list(filter(with_plain, COMMITTED))


@pytest.mark.slow
@of_a_file(PLAIN_TOO or [None])
def test_the_committed_recipe_effect_follows_from_the_committed_detections(path, committed, again):
    """The factorial, the study's first figure: what the recipe adds, and how far architectures are apart."""
    if path is None:
        pytest.skip("no detections of the plain arm are in results/detections")
    plain = path.parent.parent / PLAIN / path.name
    detected = {MAIN: again(path), PLAIN: again(plain, PLAIN)}
    arms = {arm: scores_of(tables, arm) for arm, tables in detected.items()}
    _, recomputed = factorial.factorial(arms[MAIN], arms[PLAIN])
    ledger = {arm: scores_of(committed, arm) for arm in arms}
    only = {arm: {key: of[key] for key in arms[arm]} for arm, of in ledger.items()}
    _, known = factorial.factorial(only[MAIN], only[PLAIN])
    assert recomputed.models.tolist() == known.models.tolist() == [9, 9]
    columns = ["recipe", "plain_sd", "equal_sd"]
    assert (recomputed[columns] - known[columns]).abs().max(axis=None) < recompute.CLOSE
    ends = ["recipe_low", "recipe_high"]
    assert (recomputed[ends] - known[ends]).abs().max(axis=None) < recompute.CLOSE_FOLD
