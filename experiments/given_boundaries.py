"""What the proposals' classifier alone can do: `python experiments/given_boundaries.py [--runs FOLDER ...]`.

The models that propose first, as a sweep has trained them on all recordings, classify the annotated segments of the test recordings:
share named rightly, and avg mAP (%) with those boundaries. What is missing to it, the proposals lose. Writes results/experiments/given_boundaries.csv.
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
    """Share of the annotated test segments that the classifier names rightly, and the detections it makes of them."""
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
        (one["parameters"], Path(runs) / name)
        for runs in parser.parse_args().runs
        for name, one in finished_runs(runs).items()
    ]
    rows = []
    for what, folder in sorted(cells, key=lambda cell: (cell[0].get("model", ""), cell[0].get("seed", 0))):
        if what.get("fraction") != 1.0 or not has_separate_classifier(what["model"]):
            continue
        data = load_benchmark(what["benchmark"])
        share, found = classify_annotated(load_model(folder / "model.pt").model.eval(), data)
        rows.append(
            {
                "benchmark": what["benchmark"],
                "model": what["model"],
                "seed": what["seed"],
                "named_rightly": 100 * share,
                "avg_map": 100 * mean_average_precision(data.annotations("test"), found, data.tious).mean(),
            }
        )
    table = pd.DataFrame(rows)
    print(table.round(1).to_string(index=False))
    write_csv(
        table.assign(**provenance(threads=torch.get_num_threads())), Layout().experiments, "given_boundaries"
    )


if __name__ == "__main__":
    main()
