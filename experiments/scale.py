"""A simulated sweep of 100,000 cells: time of planning, resuming and reporting, and size of the files.

    python experiments/scale.py --cells 100000

No cell is trained. Run folders and ledger lines are copies of committed ones with other ids. They are in a
temporary folder that is deleted afterwards.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path

import pandas as pd

from tal_lib.files import REPOSITORY, write_text
from tal_lib.reports.report import report
from tal_lib.sweeps import grid as grids
from tal_lib.sweeps.ledger import RESULT, finished_runs, ledgers, read_ledger, update_ledger

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
FRACTIONS = [0.1, 0.2, 0.4, 0.6, 0.8, 1.0]


def write_grid(folder: Path, cells: int) -> Path:
    """Write a grid like hapt.yaml, with enough seeds for this many cells."""
    seeds = list(range(-(-cells // (len(MODELS) * len(FRACTIONS)))))
    block = {
        "notebook": str(REPOSITORY / "notebooks" / "02_train_evaluate.ipynb"),
        "parameters": {"benchmark": "synthetic"},
        "grid": {"model": MODELS, "fraction": FRACTIONS, "seed": seeds},
    }
    return write_text(folder / "scale.yaml", json.dumps({"name": "scale", "cells": [block]}))


def pretend(cells, templates):
    """Yield one record per cell: a committed one with the same model and fraction, with small noise."""
    noise = random.Random(0)
    for cell in cells:
        record = json.loads(templates[cell.parameters["model"], cell.parameters["fraction"]])
        shift = noise.gauss(0, 0.01)
        for row in record["tables"]["data_efficiency"]:
            row["map"] = min(1.0, max(0.0, row["map"] + shift))
        yield record | {"id": cell.id, "sweep": "scale", "parameters": cell.parameters}


def main():
    """Print the table of stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--out", help="CSV (default: only print)")
    arguments = parser.parse_args()
    committed = [
        record
        for record in ledgers(REPOSITORY / "results")
        if record["notebook"] == "02_train_evaluate.ipynb"
        and record["parameters"]["benchmark"] == "hapt"
        and not record["parameters"]["options"]
    ]
    templates = {
        (record["parameters"]["model"], record["parameters"]["fraction"]): json.dumps(record)
        for record in committed
    }
    stages = []

    def stage(name, function):
        started = time.perf_counter()
        value = function()
        stages.append(
            {
                "stage": name,
                "cells": count,
                "seconds": round(time.perf_counter() - started, 1),
                "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            }
        )
        print(stages[-1], flush=True)
        return value

    with tempfile.TemporaryDirectory(prefix="tal-scale-") as temporary:
        folder, count = Path(temporary), arguments.cells
        path = write_grid(folder, count)
        cells = stage("plan the grid", lambda: grids.plan(path))
        count = len(cells)
        half = len(cells) // 2
        ledger, runs = folder / "results" / "ledger" / "scale.jsonl", folder / "runs" / "scale"
        records = pretend(cells, templates)
        size = 0
        # run folders of all cells; the driver was killed, so the ledger has only the first half
        for record in records:
            size += len(json.dumps(record))
            (runs / record["id"]).mkdir(parents=True)
            (runs / record["id"] / RESULT).write_text(json.dumps(record))
        update_ledger(
            ledger, {record["id"]: record for _, record in zip(range(half), pretend(cells, templates))}
        )

        def resume():
            update_ledger(ledger, finished_runs(runs, ledger))
            known = {record["id"] for record in ledgers(folder / "results")}
            return [cell for cell in cells if cell.id not in known]

        waiting = stage("resume: half in the ledger, half only in run folders", resume)
        assert not waiting and len(read_ledger(ledger)) == count
        assert stage("resume: all in the ledger", resume) == []
        stage(
            "add one cell to the ledger",
            lambda: update_ledger(ledger, {"new": {"id": "new"} | next(pretend(cells[:1], templates))}),
        )
        stage(
            "report: every table and figure",
            lambda: report(folder / "results", folder / "figures", folder / "runs", render=False),
        )
        ledger_mb = ledger.stat().st_size / 1e6
        tables_mb = sum(table.stat().st_size for table in (folder / "results" / "tables").iterdir()) / 1e6
    print(pd.DataFrame(stages).to_string(index=False))
    print(
        f"ledger {ledger_mb:,.0f} MB ({1e3 * ledger_mb / count:.1f} kB per cell), tables {tables_mb:,.0f} MB"
    )
    if arguments.out:
        table = pd.DataFrame(stages).assign(ledger_mb=round(ledger_mb), tables_mb=round(tables_mb))
        write_text(arguments.out, table.to_csv(index=False))


if __name__ == "__main__":
    main()
