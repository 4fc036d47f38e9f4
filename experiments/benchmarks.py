"""The table of benchmarks: what each consists of, how scripted it is, its licence, and its floor.

    python experiments/benchmarks.py [NAME ...] [--root FOLDER] [--results FOLDER]

The floor is the avg mAP of `timeline_prior` with all training recordings, on the official split (where there
is none, on fold 0). Benchmarks whose annotations are not here are left out, and said so. ActivityNet takes
some minutes. Each row is written to `results/tables/benchmarks.csv` when it is computed; rows of benchmarks
that are not computed now are kept.
"""

import argparse
import sys
from dataclasses import asdict

import pandas as pd

from tal_lib import TalError
from tal_lib.data import load_benchmark
from tal_lib.data.composition import composition
from tal_lib.data.registry import BENCHMARKS
from tal_lib.provenance import provenance
from tal_lib.reports.layout import Layout
from tal_lib.reports.tables import read_csv, write_csv
from tal_lib.study import floor

# variants whose recordings another row has
LEFT_OUT = ("hapt_validation", "thumos14_prior", "activitynet_prior")


def row(name: str, root=None) -> dict:
    """One row of the table."""
    benchmark = load_benchmark(name, root)
    return (
        {"benchmark": name}
        | asdict(composition(benchmark))
        | {"floor": floor(benchmark), "licence": BENCHMARKS[name].licence}
        | provenance(data_hash=benchmark.data_hash)
    )


def main():
    """Compute, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=None)
    parser.add_argument("--root", help="data folder")
    parser.add_argument("--results", default=None, help="folder of the results (default: results)")
    arguments = parser.parse_args()
    layout = Layout(arguments.results) if arguments.results else Layout()
    for name in arguments.names or [name for name in BENCHMARKS if name not in LEFT_OUT]:
        try:
            written = write(row(name, arguments.root), layout)
        except TalError as error:
            print(f"{name}: left out ({error})", file=sys.stderr)
            continue
        shown = written[written.benchmark == name].drop(columns=["licence", *provenance()])
        print(shown.round(3).to_string(index=False), flush=True)


def write(new: dict, layout: Layout) -> pd.DataFrame:
    """Put a row into the table, in place of the older one of the same benchmark; returns the table."""
    table, before = pd.DataFrame([new]), read_csv(layout.table("benchmarks"))
    if len(before):
        table = pd.concat([before[before.benchmark != new["benchmark"]], table], ignore_index=True)
    order = {name: number for number, name in enumerate(BENCHMARKS)}
    table = table.sort_values("benchmark", key=lambda names: names.map(order), ignore_index=True)
    write_csv(table, layout.tables, "benchmarks")
    return table


if __name__ == "__main__":
    main()
