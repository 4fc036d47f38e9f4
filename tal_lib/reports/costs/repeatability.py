"""Repeatability of latencies."""

import numpy as np
import pandas as pd

from tal_lib.cost.meters import QUIET


def repeatability(cost: pd.DataFrame) -> pd.DataFrame:
    """Cells whose latency was measured twice: `model, length_steps, first_s, again_s, change, quiet`.

    `change` is again / first − 1. `quiet` says whether the machine was quiet both times: the reference that
    was timed with the samples took at most `QUIET` times its fastest time on that machine and
    number of threads.
    """
    keys = ["benchmark", "preset", "device_name", "precision", "threads_used", "model", "length_steps"]
    slower = (
        cost.reference_s / cost.groupby(["device_name", "threads_used"]).reference_s.transform("min")
        if "reference_s" in cost
        else np.inf
    )
    both = (
        cost.assign(slower=slower)
        .fillna({"slower": np.inf})
        .pivot_table(index=keys, columns="repeat", values=["latency_s_median", "slower"])
    )
    if not {0, 1} <= set(both.latency_s_median.columns):
        return pd.DataFrame()
    times = both.latency_s_median[[0, 1]].rename(columns={0: "first_s", 1: "again_s"})
    times = times.assign(
        change=times.again_s / times.first_s - 1, quiet=(both.slower[[0, 1]] <= QUIET).all(axis=1)
    )
    return times.dropna().reset_index()


def repeats(table: pd.DataFrame) -> list[str]:
    """One or two sentences per machine on how far latencies repeat. table: from `repeatability`, may be
    empty."""
    sentences = []
    for machine, rows in table.groupby("device_name", sort=False) if len(table) else []:
        change = 100 * rows.change.abs()
        sentences.append(
            f"{len(rows)} latencies were measured twice on {machine}, in another order and in another "
            f"process. Half of the medians differ by less than {change.median():.1f} %, nine of ten by less "
            f"than {change.quantile(0.9):.1f} %, all by at most {change.max():.1f} %."
        )
        quiet = change[rows.quiet]
        if 0 < len(quiet) < len(rows):
            sentences[-1] += (
                f" For {len(quiet)} of them, a timed reference convolution shows that the machine was quiet "
                f"both times; these differ by at most {quiet.max():.1f} %."
            )
    return sentences


def write_repeatability(cost: pd.DataFrame, out) -> None:
    """Write the table of latencies that were measured twice, if there are any."""
    table = repeatability(cost) if "repeat" in cost else pd.DataFrame()
    if len(table):
        out.data(table, "repeatability")
