"""The headline from published files alone: kept detections and annotations, no ledger and no training.

    tables = recomputed("results/detections/equal/hapt.parquet", only={"fraction": [0.1, 1.0]})
    scores_of(tables, MAIN)      # means over folds and intervals, as from the ledger

The kept detections are the best 200 of each recording, with times in hundredths of a second. So the scores
differ a little from those of the ledger: means by less than `CLOSE` points, single folds and
ends of intervals by less than `CLOSE_FOLD`. On a small benchmark a hundredth of a second decides more:
`CLOSE_SMALL`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from tal_lib.data import Benchmark, load_benchmark
from tal_lib.errors import TalError
from tal_lib.reports.efficiency.runs import FLOOR
from tal_lib.reports.equal.arms import MAIN, Scores, scores_of
from tal_lib.reports.equal.pairs import COLUMNS
from tal_lib.reports.equal.ranking import ranking
from tal_lib.reports.tables import read_parquet
from tal_lib.study import Scored
from tal_lib.sweeps.detections import without_any

CLOSE = 0.3  # points of avg mAP, of a mean over folds: segments of a second feel a hundredth of one
# of one fold, or the end of an interval: one segment of a rare class is worth half a point at a tIoU
CLOSE_FOLD = 1.0
SMALL, CLOSE_SMALL = 100, 5.0  # annotated segments of a benchmark, of which one is worth points of a fold
RUN = ("model", "fraction", "fold", "seed", "subset_seed")


@dataclass(frozen=True, kw_only=True)
class Kept(Scored):
    """A model's kept detections, scored as a trained model is."""

    rows: pd.DataFrame

    @cached_property
    def detections(self) -> pd.DataFrame:
        return self.rows


def recomputed(
    path: str | Path,
    only: Mapping[str, Collection] | None = None,
    load: Callable[[str], Benchmark] = load_benchmark,
    arm: str = MAIN,
) -> dict[str, pd.DataFrame]:
    """The tables `data_efficiency` and `people` of a sweep, as its ledger has them.

    Args:
        path: a file of kept detections, or a folder of several (`tal_lib.sweeps.detections`).
        only: column → the values to read, for example `{"model": ["tridet"], "fraction": [0.1]}`.
        load: benchmark's name → the benchmark, with its annotations and folds.
        arm: the sweep of the detections.

    Raises:
        TalError: no such file, or nothing in it is asked for.
    """
    kept = _kept(Path(path), only or {})
    scores, people = [], []
    runs = kept.drop_duplicates(["benchmark", "cell"])[["benchmark", "cell", *RUN]].astype({"cell": str})
    whole = {name: load(name) for name in sorted(runs.benchmark.unique())}
    folds = {key: whole[key[0]].fold(key[1]) for key in set(zip(runs.benchmark, runs.fold.map(int)))}
    columns = ["recording", "start", "end", "label", "score"]
    of_run = dict(list(kept[kept.recording.notna()].groupby(["benchmark", "cell"], observed=True)[columns]))
    for row in runs.itertuples(index=False):
        detections = of_run.get((row.benchmark, row.cell), kept.loc[[], columns])
        about = row._asdict() | dict.fromkeys(("stream", "options", "recipe", "utc"), "")
        about |= {"preset": "compact", "sweep": arm, "cell": f"{row.cell}:{row.benchmark}"}
        plain = detections.astype({"recording": str, "label": str}).reset_index(drop=True)
        data = folds[row.benchmark, int(row.fold)]
        run = Kept(benchmark=data, model=None, rows=plain)  # pyright: ignore[reportArgumentType]
        scores.append(run.scores.rename("map").rename_axis("tiou").reset_index().assign(**about))
        people.append(run.by_person.assign(**about))
    return {"data_efficiency": pd.concat(scores, ignore_index=True), "people": pd.concat(people)}


def _kept(path, only):
    """The kept detections that are asked for, with times in seconds. A run without any has one row without
    a recording."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise TalError(
            "no detections were kept", where=path, remedy="Run the sweep, or take the file from git."
        )
    parts = []
    for file in files:
        table = read_parquet(file)
        empty = pd.DataFrame(without_any(table), columns=["cell", "benchmark", *RUN])
        table = pd.concat([table.astype({"cell": str, "benchmark": str, "model": str}), empty])
        for name, values in only.items():
            table = table[table[name].isin(list(values))]
        parts.append(table)
    kept = pd.concat(parts, ignore_index=True)
    if not len(kept):
        raise TalError(f"no detections of {dict(only)}", where=path, remedy="Select other runs.")
    return kept.assign(start=kept.start_cs / 100, end=kept.end_cs / 100)


def headline(tables: dict[str, pd.DataFrame], arm: str = MAIN) -> pd.DataFrame:
    """Means over folds with intervals, and avg mAP of each fold, of the complete models of an arm.

    `benchmark, fraction, model, mean, low, high, fold_0, fold_1, …`, in %. The mean over the tuned benchmarks
    (`mean`), where all are there, has no folds. The floor is left out.
    """
    scores: dict[tuple[str, float], Scores] = scores_of(tables, arm)
    keys = ["benchmark", "fraction", "model"]
    no_pairs = pd.DataFrame(columns=COLUMNS)  # they are for the letters, which are not wanted here
    ranked = ranking(scores, no_pairs)[[*keys, "mean", "low", "high"]].set_index(keys)
    folds = pd.concat({key: here.folds.T for key, here in scores.items()}, names=keys)
    folds.columns = [f"fold_{number}" for number in folds.columns]
    return ranked[ranked.index.get_level_values("model") != FLOOR].join(folds).reset_index()


def compared(path: str | Path, data: dict[str, pd.DataFrame], only=None, load=load_benchmark) -> pd.DataFrame:
    """The headline from detections minus the headline from the ledger, per number (points).

    Args:
        data: the ledger's tidy tables; the rest: as in `recomputed`.

    Returns:
        `benchmark, fraction, model`, and the differences of all numbers. Rows are the models of both.
    """
    return differences(recomputed(path, only, load), data)


def differences(tables: dict[str, pd.DataFrame], data: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The same from recomputed tables."""
    keys = ["benchmark", "fraction", "model"]
    again, known = headline(tables).set_index(keys), headline(_on_benchmarks_of(tables, data)).set_index(keys)
    both = again.index.intersection(known.index)
    return (again.loc[both] - known.loc[both]).reset_index()


def _on_benchmarks_of(tables, data):
    """The ledger's rows on the benchmarks of recomputed tables: the mean over benchmarks is over the same."""
    names = tables["data_efficiency"].benchmark.unique()
    return {
        name: rows[rows.benchmark.isin(names)] if "benchmark" in rows else rows for name, rows in data.items()
    }
