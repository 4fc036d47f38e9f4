"""Rehearsal of the THUMOS14 study at full size, with generated features: does it run, what does it cost?

    python experiments/rehearsal.py [--models actionformer tridet] [--epochs 2] [--out build/rehearsal]

It takes over the cells of notebooks/sweeps/thumos14.yaml for some models at 10 and 100 % of the training
videos, on the benchmark `thumos14_rehearsal` (the published annotations, features of 2 × 1024 columns whose
signal is known; see tal_lib/data/rehearsal.py). On a GPU they run as they are. On a CPU they run with the
compact preset and few epochs. It also measures a training step of the published size, and its memory, in a
process of its own, and predicts the hours of the study from it.

No results table reads what it writes: ledger, run folders and measurements lie in `--out`. The page
results/notebooks/10_rehearsal.ipynb shows them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml

from tal_lib import evaluation, sweeps
from tal_lib.cli.options import typed
from tal_lib.data import limited_subset, load_benchmark, rehearsal, synthetic
from tal_lib.files import REPOSITORY, write_json, write_text
from tal_lib.process.environment import child_environment
from tal_lib.process.memory import process_status
from tal_lib.provenance import default_device, device_name, provenance, usable_cores
from tal_lib.reports import pages
from tal_lib.study import build_model
from tal_lib.sweeps.ledger import read_ledger
from tal_lib.training import detect_all, fit, recipe_for
from tal_lib.validation import Count

GRID = REPOSITORY / "notebooks" / "sweeps" / "thumos14.yaml"
PAGE = REPOSITORY / "notebooks" / "10_rehearsal.ipynb"
TRAINING = "02_train_evaluate.ipynb"
FRACTIONS = [0.1, 1.0]
MEASURED = "rehearsal.json"


def training_block() -> dict:
    """The block of thumos14.yaml that trains on samples of all fractions and seeds."""
    blocks = yaml.safe_load(GRID.read_text(encoding="utf-8"))["cells"]
    return next(
        block
        for block in blocks
        if block["notebook"] == TRAINING and block["parameters"]["benchmark"] == "thumos14"
    )


def rehearsal_grid(models: list[str], recipe: dict, on_gpu: bool) -> dict:
    """The grid of the rehearsal: `training_block` with other features, fewer models, fractions and seeds."""
    block = training_block()
    parameters = block["parameters"] | {"benchmark": rehearsal.NAME}
    if not on_gpu:
        parameters |= {"preset": "compact", "recipe": recipe}
    return {
        "name": "rehearsal",
        "cells": [
            block
            | {
                "notebook": str(PAGE.parent / TRAINING),
                "parameters": parameters,
                "grid": {"fraction": FRACTIONS, "model": models, "seed": [0]},
            }
        ],
    }


def measure(model: str, preset: str, steps: int) -> dict:
    """Seconds and memory of training steps and of detection at full size, in this process."""
    data, device = load_benchmark(rehearsal.NAME), default_device()
    torch.set_num_threads(usable_cores())
    plan = recipe_for(model, preset, epochs=1, min_steps=0)
    built = process_status("VmRSS")
    detector = build_model(data, model, preset=preset)
    train = sorted(data.recordings("train"), key=data.duration)[::-1]
    fit(detector, data, train[: plan.batch_size], plan, 0, device=device)  # first use of every kernel
    crops = train[: plan.batch_size * steps]
    result = fit(detector, data, crops, plan, 0, device=device)
    in_training = process_status("VmHWM") - built
    tested = sorted(data.recordings("test"), key=data.duration)
    tested = [tested[len(tested) // 2], tested[-1]]  # the median and the longest
    started = time.perf_counter()
    detect_all(result.model, data, tested, device=device)
    seconds = time.perf_counter() - started
    on_gpu = device.startswith("cuda")
    return {
        "model": model,
        "preset": preset,
        "device": device_name(device),
        "batch_size": plan.batch_size,
        "steps": result.steps,
        "step_s": result.seconds / result.steps,
        "detect_s_per_hour": 3600 * seconds / sum(map(data.duration, tested)),
        "training_gb": in_training / 1e9,
        "process_gb": process_status("VmHWM") / 1e9,
        "gpu_gb": torch.cuda.max_memory_allocated() / 1e9 if on_gpu else None,
    }


def predicted_hours(row: dict, data) -> float:
    """Hours of a model's cells in thumos14.yaml (`training_block`), from a measured step.

    Each cell trains for its recipe's epochs and goes through the test videos twice, for detections and for
    proposals.
    """
    grid = training_block()["grid"]
    plan = recipe_for(row["model"], row["preset"])
    hours = sum(map(data.duration, data.recordings("test"))) / 3600
    seconds = 0.0
    for fraction in grid["fraction"]:
        per_epoch = -(-len(limited_subset(data, fraction, 0)) // plan.batch_size)
        steps = per_epoch * max(plan.epochs, -(-plan.min_steps // per_epoch))
        seconds += len(grid["seed"]) * (steps * row["step_s"] + 2 * hours * row["detect_s_per_hour"])
    return seconds / 3600


def bounds(data) -> dict:
    """Floor and ceiling of the mAP, as mean over the tIoU thresholds."""
    truth = data.annotations("test")
    score = lambda detections: float(evaluation.mean_average_precision(truth, detections, data.tious).mean())
    floors = [score(synthetic.chance(data, seed=seed)) for seed in range(3)]
    return {"floor": statistics.mean(floors), "ceiling": score(rehearsal.matched_filter(data))}


def cells_of(ledger: Path) -> list[dict]:
    """One row per finished cell: conditions, average mAP, steps, seconds."""
    rows = []
    for record in read_ledger(ledger).values():
        scores = record["tables"]["data_efficiency"]
        training = record["tables"]["training_cost"][0]
        rows.append(
            {name: record["parameters"][name] for name in ("model", "preset", "fraction")}
            | {
                "train_recordings": scores[0]["train_recordings"],
                "avg_map": statistics.mean(row["map"] for row in scores),
                "steps": training["steps"],
                "step_s": training["train_seconds"] / training["steps"],
                "cell_s": record["seconds"],
            }
        )
    return sorted(rows, key=lambda row: (row["model"], row["fraction"]))


def in_own_process(model: str, steps: int, preset: str) -> dict:
    """`measure` in a process of its own, whose peak memory is that of this work alone."""
    command = [sys.executable, __file__, "--measure", model, "--preset", preset, "--steps", str(steps)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=child_environment(keep_freed=False)
    )
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments=None) -> int:
    """Measure, sweep, and write the page. Returns the exit code: 1 if a cell failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["actionformer", "tridet"])
    parser.add_argument("--epochs", type=typed(Count), default=2, help="on a CPU")
    parser.add_argument("--min-steps", type=typed(Count), default=60, help="on a CPU, for few recordings")
    parser.add_argument("--max-steps", type=typed(Count), default=2304, help="on a CPU: longest crop")
    parser.add_argument("--preset", default="paper", help="of the measured step")
    parser.add_argument("--steps", type=typed(Count), default=3, help="training steps to measure")
    parser.add_argument("--jobs", type=typed(Count), help="cells at a time (default: cores, or 1 on a GPU)")
    parser.add_argument("--out", default="build/rehearsal", help="folder of ledger, runs and measurements")
    parser.add_argument("--page", default=REPOSITORY / "results" / "notebooks" / PAGE.name)
    parser.add_argument("--measure", metavar="MODEL", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure:
        print(json.dumps(measure(given.measure, given.preset, given.steps)))
        return 0
    started, out = time.monotonic(), Path(given.out)
    on_gpu = default_device().startswith("cuda")
    data = load_benchmark(rehearsal.NAME)
    print(f"{data}: {data.feature_bytes / 1e9:.1f} GB of features, made when they are read", flush=True)
    measured = [in_own_process(model, given.steps, given.preset) for model in given.models]
    measured = [row | {"study_hours": predicted_hours(row, data)} for row in measured]
    recipe = {"epochs": given.epochs, "min_steps": given.min_steps, "max_steps": given.max_steps}
    grid = write_text(
        out / "rehearsal.yaml", yaml.safe_dump(rehearsal_grid(given.models, recipe, on_gpu), sort_keys=False)
    )
    result = sweeps.run(
        grid,
        jobs=given.jobs or (1 if on_gpu else usable_cores()),
        results=out / "results",
        runs=out / "runs",
    )
    for cell, reason in result.failed.items():
        print(f"failed  {cell}: {reason}")
    if result.failed:
        return 1
    config, origin = rehearsal.RehearsalConfig(), provenance()
    write_json(
        out / MEASURED,
        {
            "signal": config.signal,
            "feature_gb": data.feature_bytes / 1e9,
            "recordings": {split: len(data.recordings(split)) for split in data.splits},
            "minutes": (time.monotonic() - started) / 60,
            "git_commit": origin["git_commit"],
            "utc": origin["utc"],
            "measured": measured,
            "cells": cells_of(result.ledger),  # pyright: ignore[reportArgumentType]
        }
        | bounds(data),
    )
    page = pages.execute(PAGE, given.page, {"results": str(out.resolve())})
    print(f"page    {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
