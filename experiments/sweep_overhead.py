"""Overhead of a sweep compared with the bare library calls, and the speed-up by a second job.

    python experiments/sweep_overhead.py --models window_cnn local_global actionformer

Bare: the library calls of 02_train_evaluate.ipynb (subset, fit, detect, propose, evaluate, write). One
process that has imported everything runs one training after another. Cells: the same trainings as a sweep on
warm kernels, each with its rendered notebook and figures. Both use one CPU thread. The sweep runs once with
one job and once with two. Run it on an idle machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from tal_lib import sweeps
from tal_lib.files import REPOSITORY, write_text
from tal_lib.process.environment import child_environment


def bare(benchmark: str, models: list[str], fraction: float, seeds: list[int]) -> float:
    """Seconds of the bare calls."""
    from tal_lib import evaluation
    from tal_lib.data import load_benchmark
    from tal_lib.study import train_and_score

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            for seed in seeds:
                data = load_benchmark(benchmark)
                run = train_and_score(data, model, fraction=fraction, seed=seed, out_dir=folder)
                _ = run.by_class, run.scores
                evaluation.average_recall(run.truth, run.proposals)
                evaluation.write_detections(Path(folder) / "detections.json", run.detections)
    return time.perf_counter() - started


def sweep(grid: Path, jobs: int, folder: Path) -> float:
    """Seconds of the sweep, from call to return, including the start of its fork servers."""
    started = time.perf_counter()
    result = sweeps.run(
        grid, jobs=jobs, results=folder / f"results{jobs}", runs=folder / f"runs{jobs}", progress=False
    )
    if not result.complete:
        raise SystemExit(f"cells failed: {result.failed}")
    return time.perf_counter() - started


def main():
    """Print seconds per cell, the overhead, and the speed-up by the second job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benchmark", default="hapt")
    parser.add_argument("--models", nargs="+", default=["window_cnn", "local_global", "actionformer"])
    parser.add_argument("--fraction", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", help="CSV")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        print(bare(arguments.benchmark, arguments.models, arguments.fraction, arguments.seeds))
        return
    rows = []
    for model in arguments.models:  # per model, so that bare and sweep run in the same state of the machine
        command = [
            sys.executable,
            __file__,
            "--bare",
            "--benchmark",
            arguments.benchmark,
            "--models",
            model,
            "--fraction",
            str(arguments.fraction),
            "--seeds",
            *map(str, arguments.seeds),
        ]
        plain = float(
            subprocess.run(
                command, env=child_environment(1), capture_output=True, text=True, check=True
            ).stdout
        )
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            block = {
                "notebook": str(REPOSITORY / "notebooks" / "02_train_evaluate.ipynb"),
                "grid": {"seed": arguments.seeds},
                "parameters": {
                    "benchmark": arguments.benchmark,
                    "model": model,
                    "fraction": arguments.fraction,
                },
            }
            grid = write_text(folder / "overhead.yaml", json.dumps({"cells": [block]}))
            one_job, two_jobs = sweep(grid, 1, folder), sweep(grid, 2, folder)
        cells = len(arguments.seeds)
        rows.append(
            {
                "model": model,
                "cells": cells,
                "bare_s": plain / cells,
                "one_job_s": one_job / cells,
                "two_jobs_s": two_jobs / cells,
                "overhead": one_job / plain - 1,
                "second_job": one_job / two_jobs,
            }
        )
        print(
            {
                name: round(value, 3) if isinstance(value, float) else value
                for name, value in rows[-1].items()
            },
            flush=True,
        )
    table = pd.DataFrame(rows)
    total = table[["bare_s", "one_job_s", "two_jobs_s"]].mul(table.cells, axis=0).sum()
    print(table.round(3).to_string(index=False))
    print(
        f"all: overhead {total.one_job_s / total.bare_s - 1:.1%}, "
        f"two jobs {total.one_job_s / total.two_jobs_s:.2f} times as fast as one"
    )
    if arguments.out:
        write_text(arguments.out, table.to_csv(index=False))


if __name__ == "__main__":
    main()
