"""Extrapolated cost of a data-efficiency study on ActivityNet, from MACs and training speed.

    python experiments/study_cost.py [--preset paper] [--gmacs-per-second 1000]

A training step counts as three forward passes, because the backward pass costs about two. The number of
epochs is that of the recipe. CPU hours use the MACs per second that each model reached in training on HAPT
(results/tables/training_step.csv). Models without a row there use the median. GPU hours use the speed that
the user gives, because none was measured.
"""

import argparse

import pandas as pd

from tal_lib import models
from tal_lib.cost import count_macs
from tal_lib.data import shape_of
from tal_lib.reports.layout import Layout
from tal_lib.training import recipe_for

MODELS = [
    "local_global",
    "actionformer",
    "tridet",
    "temporalmaxer",
    "afsd",
    "gaf",
    "tadtr",
    "action_mamba",
    "bilstm",
    "window_cnn",
    "bsn",
    "bmn",
    "prn",
    "tcanet",
    "ssn",
    "stale",
]
TRAIN, TEST, STEPS = 10_024, 4_926, 192  # recordings of ActivityNet v1.3, and steps after resizing
FRACTIONS, SEEDS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0), 5


def measured_speed() -> pd.Series:
    """GMACs per second of one CPU thread in training on HAPT, by model.

    A step counts as three forward passes of two crops of 576 steps.
    """
    steps = pd.read_csv(Layout().table("training_step"))
    steps = steps[steps.preset == "compact"].groupby("model").steps_per_s.median()
    shape = shape_of("hapt")
    forward = {
        name: count_macs(
            models.build(name, input_dim=shape.input_dim, num_classes=shape.num_classes), shape.input_dim, 576
        )[0]
        for name in steps.index
    }
    return steps * 3 * 2 * pd.Series(forward) / 1e9


def main():
    """Print the table and its sums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="paper")
    parser.add_argument(
        "--gmacs-per-second", type=float, default=1000, help="assumed speed of a GPU in training"
    )
    arguments = parser.parse_args()
    shape, speed, rows = shape_of("activitynet"), measured_speed(), []
    for name in MODELS:
        model = models.build(
            name, input_dim=shape.input_dim, num_classes=shape.num_classes, preset=arguments.preset
        )
        gmacs = count_macs(model, shape.input_dim, STEPS)[0] / 1e9
        recipe = recipe_for(name, arguments.preset)
        passes = SEEDS * sum(3 * recipe.epochs * TRAIN * share + TEST for share in FRACTIONS)
        rows.append(
            {
                "model": name,
                "GMACs": round(gmacs, 2),
                "epochs": recipe.epochs,
                "PMACs": passes * gmacs / 1e6,
                "CPU core hours": passes * gmacs / speed.get(name, speed.median()) / 3600,
                "GPU hours": passes * gmacs / arguments.gmacs_per_second / 3600,
                "weights GB": len(FRACTIONS) * SEEDS * sum(p.numel() * 4 for p in model.parameters()) / 1e9,
            }
        )
    table = pd.DataFrame(rows)
    print(table.round(1).to_string(index=False))
    print(
        f"\n{len(MODELS)} models × {len(FRACTIONS)} fractions × {SEEDS} seeds = "
        f"{len(MODELS) * len(FRACTIONS) * SEEDS} cells of {shape.input_dim} columns, "
        f"{shape.num_classes} classes, {STEPS} steps, preset {arguments.preset}"
    )
    print(table[["PMACs", "CPU core hours", "GPU hours", "weights GB"]].sum().round(0).to_string())
    print(
        f"median speed in training on one CPU thread: {speed.median():.0f} GMAC/s; "
        f"GPU hours at {arguments.gmacs_per_second:g} GMAC/s"
    )


if __name__ == "__main__":
    main()
