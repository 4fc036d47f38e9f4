"""Measure many costs in several passes, so that a disturbance of a shared machine affects only one pass."""

import random
import statistics
from dataclasses import asdict, fields, replace

import pandas as pd
from tqdm.auto import tqdm

from tal_lib.cost.isolated import DoesNotFit
from tal_lib.cost.profile import CostRow, memory_statistics, profile

SLOW = 20.0  # seconds per forward pass; slower networks are measured in one pass only


def profile_all(
    todo: list[dict], passes: int = 3, seed: int = 0, progress: bool = False, counted: bool = True
) -> list[CostRow | None]:
    """Call `profile` for every item of a list, in several passes over the list. Each pass has a random order.

    Args:
        todo: arguments of `profile`, one dict per measurement; `min_seconds` is the sum over all passes.
        seed: of the random orders.
        counted: whether MACs are counted, in the first pass.

    Returns:
        One row per measurement, combined by `middle_pass`; None if it does not fit into memory.
    """
    rows: list[list[CostRow]] = [[] for _ in todo]
    orders, never = random.Random(seed), set()
    with tqdm(total=passes * len(todo), disable=not progress, mininterval=5) as bar:
        for number in range(passes):
            for place in orders.sample(range(len(todo)), len(todo)):
                bar.update()
                if place in never or number and rows[place][0].latency_s_median > SLOW:
                    continue
                arguments = todo[place] | {"min_seconds": todo[place].get("min_seconds", 1.0) / passes}
                try:
                    rows[place].append(profile(**arguments, counted=counted and number == 0))
                except DoesNotFit:
                    never.add(place)
    return [None if place in never else middle_pass(measured) for place, measured in enumerate(rows)]


def cost_table(todo: list[dict], rows: list[CostRow | None]) -> pd.DataFrame:
    """One row per measurement: the fields of `CostRow`, and whether it fits into memory.

    If a measurement does not fit, its row has only the arguments.
    """
    asked = ("model", "preset", "device", "precision", "input_dim", "num_classes")
    records = [
        {"fits": True} | asdict(row)
        if row
        else {
            "fits": False,
            "length_steps": arguments["length"],
            "latency_s_raw": (),
            "peak_memory_bytes_raw": (),
        }
        | {name: arguments[name] for name in asked if name in arguments}
        for arguments, row in zip(todo, rows)
    ]
    return pd.DataFrame(records, columns=[*(field.name for field in fields(CostRow)), "fits"])


def middle_pass(rows: list[CostRow]) -> CostRow:
    """Combine several passes into one row. The first pass must have counted the MACs.

    The pass with the median latency counts. It gets the samples of all passes, the medians of the other
    measures, and the statistics of all measured peaks of memory.
    """
    by_latency = sorted(rows, key=lambda row: row.latency_s_median)
    middle = by_latency[(len(rows) - 1) // 2]
    median = lambda name: statistics.median(getattr(row, name) for row in rows)
    detect, raw = median("detect_s_median"), tuple(sample for row in rows for sample in row.latency_s_raw)
    return replace(
        middle,
        passes=len(rows),
        macs=rows[0].macs,
        uncounted_ops=rows[0].uncounted_ops,
        **memory_statistics([peak for row in rows for peak in row.peak_memory_bytes_raw]),
        detect_s_median=detect,
        detect_s_p90=median("detect_s_p90"),
        recordings_per_s=1 / detect,
        latency_samples=len(raw),
        latency_s_raw=raw,
    )
