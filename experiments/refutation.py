"""The equal comparison attacked from its detections and the annotations alone.

    python experiments/refutation.py [--benchmarks hapt sfinge3d rendered urfall]

It reads no ledger and no table. It computes avg mAP with an evaluator of its own (below), and asks how the
ranking changes: without fold 0, which chose the settings; at single tIoUs; class by class; with fewer
detections. It writes `results/experiments/refutation.csv`, which docs/refutation.md explains.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.data import load_benchmark
from tal_lib.files import REPOSITORY
from tal_lib.sweeps.detections import without_any

RESULTS = REPOSITORY / "results"
TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
RUN = ("fold", "model", "fraction")  # what tells the runs of a file apart
MOST = (1, 5, 20)  # detections of a recording, the best ones
SINGLE = (0.3, 0.5, 0.7)  # tIoUs asked for alone


def average_precision(detections: pd.DataFrame, truth: pd.DataFrame, tiou: float) -> float:
    """AP of one class: detections in order of their score, each takes the free segment that it fits best.

    Precision is interpolated (the largest at this recall or a higher one) and summed over the recalls.
    """
    free = {name: list(zip(rows.start, rows.end)) for name, rows in truth.groupby("recording")}
    hits = np.zeros(len(detections), bool)
    order = detections.sort_values("score", ascending=False, kind="stable")
    for place, row in enumerate(order.itertuples()):
        segments = free.get(row.recording, [])
        overlaps = [
            max(0.0, min(row.end, end) - max(row.start, start))
            / max(1e-9, max(row.end, end) - min(row.start, start))
            for start, end in segments
        ]
        if overlaps and max(overlaps) >= tiou:
            segments.pop(int(np.argmax(overlaps)))
            hits[place] = True
    right = np.cumsum(hits)
    precision = np.maximum.accumulate((right / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float(precision[hits].sum() / len(truth)) if len(truth) else float("nan")


def scores(detections: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """AP in percent: a row per class, a column per tIoU."""
    return pd.DataFrame(
        {
            tiou: {
                label: 100 * average_precision(detections[detections.label == label], segments, tiou)
                for label, segments in truth.groupby("label")
            }
            for tiou in TIOUS
        }
    )


def variations(run: pd.DataFrame, truth: pd.DataFrame) -> dict[str, float]:
    """avg mAP of a run's detections (recording, start, end, label, score) in every variation."""
    by_class = scores(run, truth)
    values = {"all": by_class.to_numpy().mean()}
    values |= {f"tIoU {tiou}": by_class[tiou].mean() for tiou in SINGLE}
    values["median class"] = by_class.mean(axis=1).median()
    best_first = run.sort_values("score", ascending=False, kind="stable")
    for most in MOST:
        few = best_first.groupby("recording", observed=True).head(most)
        values[f"best {most} per recording"] = scores(few, truth).to_numpy().mean()
    return values


def main(benchmarks: list[str], folder: Path, out: Path) -> pd.DataFrame:
    """Score every kept run in every variation; one row per benchmark, arm, model, fraction, fold, variation.

    A run that detected nothing has no rows in the file, whose metadata names it.
    """
    rows = []
    for file in (file for name in benchmarks for file in sorted(folder.glob(f"*/{name}.parquet"))):
        kept = pd.read_parquet(file)
        kept = kept.assign(start=kept.start_cs / 100, end=kept.end_cs / 100)
        runs = list(kept.groupby(list(RUN), observed=True))
        runs += [(tuple(run[name] for name in RUN), kept.iloc[:0]) for run in without_any(kept)]
        runs = [(key, run) for key, run in runs if key[0] >= 0]  # the official split is for others to compare
        truths = {fold: load_benchmark(file.stem, fold=fold).annotations("test") for (fold, *_), _ in runs}
        for key, run in runs:
            about = {"benchmark": file.stem, "arm": file.parent.name, **dict(zip(RUN, key))}
            rows += [
                about | {"variation": variation, "map": value}
                for variation, value in variations(run, truths[key[0]]).items()
            ]
    table = pd.DataFrame(rows)[["benchmark", "arm", "model", "fraction", "fold", "variation", "map"]]
    table.to_csv(out, index=False, float_format="%.3f")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--benchmarks", nargs="+", default=["hapt", "sfinge3d", "rendered", "urfall"])
    parser.add_argument("--detections", type=Path, default=RESULTS / "detections")
    parser.add_argument("--out", type=Path, default=RESULTS / "experiments" / "refutation.csv")
    arguments = parser.parse_args()
    table = main(arguments.benchmarks, arguments.detections, arguments.out)
    means = (
        table.groupby(["benchmark", "arm", "variation", "fraction", "model"])
        .map.mean()
        .unstack("model")
        .round(1)
    )
    print(means.to_string())
