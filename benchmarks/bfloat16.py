"""What bfloat16 costs in accuracy: `python benchmarks/bfloat16.py [--runs FOLDER ...]`.

Every model that a sweep has trained on all recordings detects twice, in float32 and in bfloat16 (weights and activations); the rest of
the way, decoding and NMS, is float32 both times. Prints avg mAP (%) and writes results/bfloat16.csv.
"""

import argparse
import copy
import sys
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tal_lib.data import load_benchmark
from tal_lib.evaluation import mean_average_precision
from tal_lib.provenance import provenance
from tal_lib.reports.tables import write_csv
from tal_lib.sweeps.ledger import finished_runs
from tal_lib.training import detect_all, load_model


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", default=["runs/hapt", "runs/hapt_first"], help="run folders of sweeps")
    cells = [(one["parameters"], Path(runs) / name) for runs in parser.parse_args().runs for name, one in finished_runs(runs).items()]
    cells = [(what, folder) for what, folder in cells if what.get("fraction") == 1.0 and (folder / "model.pt").is_file()]
    rows = []
    for what, folder in sorted(cells, key=lambda cell: (cell[0]["model"], cell[0]["seed"])):
        data = load_benchmark(what["benchmark"])
        trained = load_model(folder / "model.pt")
        truth, values = data.annotations("test"), {}
        for name, model in (("float32", trained.model), ("bfloat16", copy.deepcopy(trained.model).to(torch.bfloat16))):
            found = detect_all(model, data, data.recordings("test"), stream=trained.stream)
            values[name] = 100 * mean_average_precision(truth, found, data.tious).mean()
        rows.append({"benchmark": what["benchmark"], "model": what["model"], "seed": what["seed"], **values,
                     "lost": values["float32"] - values["bfloat16"]})
        print("  ".join(f"{value:.2f}" if isinstance(value, float) else str(value) for value in rows[-1].values()), flush=True)
    table = pd.DataFrame(rows)
    print(table.groupby("model")[["float32", "bfloat16", "lost"]].mean().round(2).to_string())
    write_csv(table.assign(**provenance(threads=torch.get_num_threads())), "results", "bfloat16")


if __name__ == "__main__":
    main()
