"""Accuracy of the proposal classifiers with oracle proposals.

    python experiments/given_boundaries.py [--runs FOLDER ...]

The proposal-based models of a sweep, trained on all recordings, classify the annotated segments of the test
recordings. Measured are the classification accuracy and avg mAP (%) with oracle proposals. The gap
between this avg mAP and the detector's avg mAP is due to its proposals. Writes
results/experiments/given_boundaries.csv.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tal_lib.data import collate, load_benchmark, make_item
from tal_lib.data.tables import DETECTION_COLUMNS
from tal_lib.evaluation import mean_average_precision
from tal_lib.models.parts.registry import has_separate_classifier
from tal_lib.provenance import provenance
from tal_lib.reports.layout import Layout
from tal_lib.reports.tables import write_csv
from tal_lib.sweeps.ledger import finished_runs
from tal_lib.training import load_model


@torch.no_grad()
def classify_annotated(model, data):
    """Classification accuracy on the annotated test segments, and the detections with these boundaries."""
    right, rows = [], []
    for recording in data.recordings("test"):
        batch = collate([make_item(data, recording)])
        features = model.classifier.features(batch.features.transpose(1, 2), None)
        chance = model.classifier(features, batch.segments[0][None])[0].softmax(-1)[:, :-1]
        right += (chance.argmax(1) == batch.labels[0]).tolist()
        for (start, end), each in zip(batch.to_seconds(0, batch.segments[0]).tolist(), chance.tolist()):
            rows += [(recording, start, end, label, score) for label, score in zip(data.classes, each)]
    return sum(right) / len(right), pd.DataFrame(rows, columns=DETECTION_COLUMNS)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", default=["runs/hapt"], help="run folders of sweeps")
    cells = [
        (record["parameters"], Path(runs) / name)
        for runs in parser.parse_args().runs
        for name, record in finished_runs(runs).items()
    ]
    rows = []
    for parameters, folder in sorted(
        cells, key=lambda cell: (cell[0].get("model", ""), cell[0].get("seed", 0))
    ):
        if parameters.get("fraction") != 1.0 or not has_separate_classifier(parameters["model"]):
            continue
        data = load_benchmark(parameters["benchmark"])
        share, detections = classify_annotated(load_model(folder / "model.pt").model.eval(), data)
        rows.append(
            {
                "benchmark": parameters["benchmark"],
                "model": parameters["model"],
                "seed": parameters["seed"],
                "named_rightly": 100 * share,
                "avg_map": 100
                * mean_average_precision(data.annotations("test"), detections, data.tious).mean(),
            }
        )
    table = pd.DataFrame(rows)
    print(table.round(1).to_string(index=False))
    write_csv(
        table.assign(**provenance(threads=torch.get_num_threads())), Layout().experiments, "given_boundaries"
    )


if __name__ == "__main__":
    main()
