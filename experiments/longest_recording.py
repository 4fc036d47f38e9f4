"""The longest recording that fits into a given memory: what the study says, and what really runs.

    python experiments/longest_recording.py [MODEL ...] --limit 2

The study reads this length off a line through measured peaks of resident memory
(`results/tables/longest_recording.csv`). Here forward passes run: first at the stated length, then at lengths
that are 5 % longer or shorter, until two neighbours are known: the longest that fits, and the next, which
does not. A length fits if the peak of resident memory is within the limit. The statement holds if it is
within 10 % (`tolerance`) of the longest that fits. It may then need a little more than the limit. Where the
study states a bound (`>`), it holds if the bound fits.

`fits_reserved` tells whether the same pass runs if the system lets the process *reserve* no more than the
limit (Linux, RLIMIT_DATA). Allocators reserve more than they touch, so this is stricter. It needs no quiet
machine, but twice the limit of free memory. Writes results/experiments/longest_recording.csv, one row per
length.
"""

import argparse
from collections.abc import Callable, Iterator

import pandas as pd

from tal_lib.cost import DoesNotFit, peak_within
from tal_lib.cost.growth import FAR
from tal_lib.data import shape_of
from tal_lib.errors import TalError
from tal_lib.files import write_text
from tal_lib.provenance import device_name, git_commit
from tal_lib.reports.costs.growth import rounded_down
from tal_lib.reports.layout import Layout
from tal_lib.reports.tables import read_csv

MODELS = ("window_cnn", "bilstm", "temporalmaxer")
STEP = 1.05  # ratio of neighbouring lengths
TOLERANCE = 0.1  # relative, of a statement
TRIES = 20


def stated(name: str, limit_gb: float, condition: str, layout: Layout) -> tuple[int, bool]:
    """The longest recording (steps) that fits by the study's table, as readers see it: rounded down.

    A length beyond `FAR` times the longest measured one is not stated: then this bound, and True.

    Raises:
        TalError: the table does not say it.
    """
    path = layout.table("longest_recording")
    table = read_csv(path)
    if len(table):
        table = table[(table.condition == condition) & (table.model == name) & (table.limit_gb == limit_gb)]
    steps = table.steps.dropna() if len(table) else []
    if not len(steps) or steps.iloc[0] < 1:
        raise TalError(
            f"no length of {name} for {limit_gb:g} GB under {condition}",
            where=path,
            remedy="Run `tal sweep inference_cost` and `tal report` first, or name another model.",
        )
    row = table.loc[steps.index[0]]
    if row.steps > FAR * row.longest_steps:
        return round(FAR * row.longest_steps), True
    return round(rounded_down(row.steps, bool(row.extrapolated))), False


def around(start: int, fits: Callable[[int], bool]) -> Iterator[tuple[int, bool]]:
    """(length, whether it fits) of each tried length, until a length that fits has a next one that does not.

    Lengths are `start` times powers of `STEP`.
    """
    known = {}
    power = 0
    for _ in range(TRIES):
        steps = round(start * STEP**power)
        known[power] = fits(steps)
        yield steps, known[power]
        power += 1 if known[power] else -1
        if power in known or steps <= 1:
            return


def measure(name: str, limit_gb: float, condition: str, layout: Layout) -> pd.DataFrame:
    """One row per tried length of a model: `fits`, `fits_reserved`, and whether the statement `holds`."""
    benchmark, *words = condition.split("_")
    shape, preset = shape_of(benchmark), "paper" if "paper" in words else "compact"
    limit, peaks, reserved = int(1e9 * limit_gb), {}, {}

    def peak_of(steps, allowed):
        try:
            return peak_within(
                name, shape.input_dim, steps, allowed, num_classes=shape.num_classes, preset=preset
            )
        except DoesNotFit:
            return None

    def fits(steps):
        peaks[steps] = peak_of(steps, 2 * limit)
        within = peaks[steps] is not None and peaks[steps] <= limit
        reserved[steps] = within and peak_of(steps, limit) is not None
        return within

    start, bound = stated(name, limit_gb, condition, layout)
    rows = pd.DataFrame(around(start, fits), columns=["length_steps", "fits"])
    longest = rows[rows.fits].length_steps.max()  # NaN if nothing fits
    return rows.assign(
        condition=condition,
        model=name,
        limit_gb=limit_gb,
        stated_steps=start,
        peak_memory_bytes=rows.length_steps.map(peaks),
        fits_reserved=rows.length_steps.map(reserved),
        tolerance=TOLERANCE,
        holds=bool(longest >= start if bound else abs(start / longest - 1) <= TOLERANCE),
    )


def main():
    """Print and write the tried lengths of every model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--limit", type=float, default=2.0, help="GB (default: 2)")
    parser.add_argument(
        "--condition", default="thumos14_cpu", help="of longest_recording.csv (default: thumos14_cpu)"
    )
    parser.add_argument("--results", default=None, help="folder of the results (default: results)")
    chosen = parser.parse_args()
    layout, tables = Layout(chosen.results) if chosen.results else Layout(), []
    for name in chosen.models:
        try:
            table = measure(name, chosen.limit, chosen.condition, layout)
        except TalError as error:
            parser.exit(2, f"{error}\n")
        fitting, others = table[table.fits].length_steps, table[~table.fits].length_steps
        print(
            f"{name}: stated {table.stated_steps[0]:,}; fits {fitting.max():,.0f}, does not fit "
            f"{others.min():,.0f}; {'holds' if table.holds[0] else 'DOES NOT HOLD'}",
            flush=True,
        )
        tables.append(table)
    about = {"device_name": device_name(), "git_commit": git_commit()}
    path = layout.experiments / "longest_recording.csv"
    measured, others = pd.concat(tables).assign(**about), read_csv(path)
    if len(others):
        same = others.model.isin(chosen.models) & (others.condition == chosen.condition)
        same &= (others.limit_gb == chosen.limit) & (others.device_name == about["device_name"])
        others = others[~same]
    write_text(path, pd.concat([others, measured]).to_csv(index=False))
    print(path)


if __name__ == "__main__":
    main()
