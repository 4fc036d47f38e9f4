"""Many costs measured in several passes: what a shared machine does to one of them for a minute is outvoted by the other passes."""

import random
import statistics
from dataclasses import asdict, fields, replace

import pandas as pd
from tqdm.auto import tqdm

from tal_lib.cost.isolated import DoesNotFit
from tal_lib.cost.profile import CostRow, profile

SLOW = 2.0  # seconds of a network, above which one pass has to do


def profile_all(
    todo: list[dict], passes: int = 3, seed: int = 0, progress: bool = False
) -> list[CostRow | None]:
    """`profile(**one)` for each of a list, in several passes over all of them, each in an order of its own.

    Args:
        todo: arguments of `profile`; `min_seconds` is for all passes of one together. seed: of the orders.

    Returns:
        A row each, as `middle_pass` makes it of the passes; None for what does not fit into memory.
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
                    rows[place].append(profile(**arguments, counted=number == 0))
                except DoesNotFit:
                    never.add(place)
    return [None if place in never else middle_pass(mine) for place, mine in enumerate(rows)]


def cost_table(todo: list[dict], rows: list[CostRow | None]) -> pd.DataFrame:
    """A row a measurement: the fields of `CostRow`, and whether it fits. Of what does not fit only what was asked for is known."""
    asked = ("model", "preset", "device", "precision", "input_dim", "num_classes")
    records = [
        {"fits": True} | asdict(row)
        if row
        else {"fits": False, "length_steps": one["length"], "latency_s_raw": ()}
        | {name: one[name] for name in asked if name in one}
        for one, row in zip(todo, rows)
    ]
    return pd.DataFrame(records, columns=[*(field.name for field in fields(CostRow)), "fits"])


def middle_pass(rows: list[CostRow]) -> CostRow:
    """One row of several passes, the first of which counted MACs: the pass in the middle by latency, with the samples of all; medians of
    what else was measured."""
    by_latency = sorted(rows, key=lambda row: row.latency_s_median)
    middle = by_latency[(len(rows) - 1) // 2]
    median = lambda name: statistics.median(getattr(row, name) for row in rows)
    detect, raw = median("detect_s_median"), tuple(sample for row in rows for sample in row.latency_s_raw)
    return replace(
        middle,
        passes=len(rows),
        macs=rows[0].macs,
        uncounted_ops=rows[0].uncounted_ops,
        peak_memory_bytes=round(median("peak_memory_bytes")),
        detect_s_median=detect,
        detect_s_p90=median("detect_s_p90"),
        recordings_per_s=1 / detect,
        latency_samples=len(raw),
        latency_s_raw=raw,
    )
