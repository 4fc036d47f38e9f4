"""Several sweeps, one after the other, in slices of limited time. `make gpu` runs the GPU's sweeps.

    python -m tal_lib.sweeps.slices --minutes 10 --slices 1 gpu_check inference_cost_gpu

A slice ends on time: no cell begins after it. A cell that is still running is stopped, and a later slice
runs it again. The ledger keeps finished cells, so the same command continues the work, also on another day.
A slice starts with the first sweep that is not done: name the most important sweeps first. A sweep whose
next cell is longer than a slice comes last.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tal_lib.cost.meters import energy_source
from tal_lib.errors import TalError
from tal_lib.provenance import checked_device, device_name, usable_cores
from tal_lib.sweeps.runner import run
from tal_lib.validation import Count, Positive, validate

RESERVE = 20.0  # seconds of a slice in which no cell runs: to stop the last one, and to write the ledger
GPU = ("gpu_check", "inference_cost_gpu", "training_cost_gpu", "extraction_gpu")  # in order of value


def run_slices(
    grids: Sequence[str | Path],
    *,
    minutes: float = 10.0,
    slices: int | None = None,
    jobs: int = 1,
    results: str | Path = "results",
    runs: str | Path = "runs",
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> bool:
    """Run sweeps in slices until all is done, or `slices` of them are over.

    A cell that fails is not tried again by this call. A sweep that cannot be planned (its data are missing)
    is reported once, and the others run. It ends when every sweep that is left had a slice of its own in
    which no cell ended: they need longer slices.

    Args:
        jobs: cells at a time that measure no time; the others run one by one.

    Returns:
        Whether nothing failed and nothing is left.

    Raises:
        TalError: not a positive number of minutes or slices.
    """
    minutes = validate(Positive, minutes, name="minutes")
    slices = validate(Count | None, slices, name="slices")
    failed: dict[str, str] = {}
    refused: dict[str | Path, str] = {}
    stuck: set[str | Path] = set()  # grids that ended no cell in a slice of their own; they come last
    number, done, left = 0, 0, True
    while left and (slices is None or number < slices):
        number, began = number + 1, time.monotonic()
        deadline = began + max(1.0, 60 * minutes - RESERVE)
        done, left, known = 0, False, (set(failed), set(refused), set(stuck))
        for grid in sorted(grids, key=stuck.__contains__):
            if grid in refused:
                continue
            if time.monotonic() >= deadline:
                left = True
                break
            is_first = time.monotonic() - began < 6 * minutes  # nearly the whole slice is left
            try:
                result = run(
                    grid,
                    jobs=jobs,
                    results=str(results),
                    runs=str(runs),
                    seconds=deadline - time.monotonic(),
                    without=failed.keys(),
                    progress=progress,
                )
            except TalError as error:
                refused[grid] = str(error)
                say(f"{grid}: not run: {error}")
                continue
            done += result.done_now
            if result.done_now:
                stuck.discard(grid)
            elif is_first and result.left and not result.failed:
                stuck.add(grid)
            left = left or result.left > 0
            failed |= result.failed
            for cell, reason in result.failed.items():
                say(f"{grid}: cell {cell} failed: {reason}")
        spent = (time.monotonic() - began) / 60
        rest = "cells are left" if left else "no cell is left"
        say(f"slice {number}: {done} cells done in {spent:.1f} minutes; {rest}")
        if left and not done and (set(failed), set(refused), stuck) == known:
            break
    if left and not done and stuck:
        of = ", ".join(sorted(Path(grid).stem for grid in stuck))
        say(f"No cell of {of} ended within {minutes:g} minutes. Give longer slices.")
    elif left:
        say("Run the same command to continue.")
    return not (failed or refused or left)


def main(argv: list[str] | None = None) -> int:
    """Run the GPU's sweeps, or those named; returns the exit code: 0 all done, 1 not yet or some failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tal_lib.sweeps.slices",
        description="Run sweeps in slices of limited time. Run the same command to continue (docs/gpu.md).",
    )
    parser.add_argument("grids", nargs="*", default=list(GPU), metavar="GRID", help="default: the GPU grids")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of a slice (default: 10)")
    parser.add_argument(
        "--slices", type=int, default=None, help="number of slices (default: until all cells are done)"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=None,
        help="number of cells in parallel, unless they measure time (default: all cores)",
    )
    parser.add_argument("--results", default="results", help="folder of the ledgers (default: results)")
    parser.add_argument("--runs", default="runs", help="folder of the run folders (default: runs)")
    arguments = parser.parse_args(argv)
    try:
        if set(arguments.grids) & set(GPU):
            print(device_name(checked_device("cuda")), flush=True)
            if not energy_source("cuda"):
                print("NVML reports no energy. If nvidia-ml-py is missing: .venv/bin/pip install -e '.[gpu]'")
        done = run_slices(
            arguments.grids,
            minutes=arguments.minutes,
            slices=arguments.slices,
            jobs=arguments.jobs or usable_cores(),
            results=arguments.results,
            runs=arguments.runs,
        )
    except TalError as error:
        print("tal:", error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted. Finished cells are kept. Run the same command to continue.", file=sys.stderr)
        return 130
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
