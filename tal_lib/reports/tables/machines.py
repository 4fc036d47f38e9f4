"""Rows from several machines, and repeated measurements."""

import re

import pandas as pd

MEASURED = (
    "benchmark",
    "model",
    "preset",
    "options",
    "device_name",
    "precision",
    "threads_used",
    "length_steps",
    "repeat",
)

# what a machine may lack: a counter of energy, a GPU
OPTIONAL = ("energy_j", "gpu_utilisation", "peak_reserved_bytes")


def measured_columns(table: pd.DataFrame) -> pd.DataFrame:
    """The table without those of the `OPTIONAL` columns that no machine could measure."""
    empty = [name for name in OPTIONAL if name in table and table[name].isna().all()]
    return table.drop(columns=empty)


def newest(table: pd.DataFrame, keys: tuple[str, ...] = MEASURED) -> pd.DataFrame:
    """The newest of all rows with the same keys. Longer lists of models or lengths measure a row again."""
    keys = [name for name in keys if name in table]
    return (
        table.sort_values("utc", kind="stable")
        .drop_duplicates(keys, keep="last")
        .sort_index()
        .reset_index(drop=True)
    )


NETWORK = ["benchmark", "model", "preset", "options"]
SAME_SLOPE = 0.03  # relative; windows round the lengths


def of_the_present_network(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of costs without those of a model that was another network when they were measured.

    MACs grow linearly with the length. A cell in which a model's MACs per further step differ from those of
    its newest cell was made by another network, and its rows of that model are left out. Cells with a single
    length stay.
    """
    names = [name for name in NETWORK if name in table]
    if table.empty or not {*names, "length_steps", "macs", "utc", "cell"} <= set(table):
        return table
    former = set()
    for key, rows in table.dropna(subset=["macs"]).groupby(names, dropna=False):
        slopes = rows.groupby("cell").apply(_slope, include_groups=False).dropna()
        if len(slopes) > 1:
            times = rows.groupby("cell").utc.max()[slopes.index]
            present = slopes[times.idxmax()]
            former |= {(*key, cell) for cell in slopes.index[(slopes / present - 1).abs() > SAME_SLOPE]}
    keys = table[[*names, "cell"]].itertuples(index=False, name=None)
    return table[[key not in former for key in keys]].reset_index(drop=True)


def with_counted_macs(table: pd.DataFrame) -> pd.DataFrame:
    """MACs of rows without a count (`counted` was false), from rows of the same network at the same length.

    MACs are the same on every device and in every precision. The number of parameters must be the same too,
    or the network has changed in between. Rows without such a partner keep none.
    """
    names = [name for name in (*NETWORK, "params", "length_steps") if name in table]
    if not {"macs", "params", "length_steps"} <= set(table) or table.macs.notna().all():
        return table
    counted = table.dropna(subset=["macs"]).sort_values("utc", kind="stable")
    counted = counted.drop_duplicates(names, keep="last")[[*names, "macs", "uncounted_ops"]]
    partner = table[names].merge(counted, on=names, how="left").set_index(table.index)
    lacking = table.macs.isna()
    return table.assign(
        macs=table.macs.where(~lacking, partner.macs),
        uncounted_ops=table.uncounted_ops.where(~lacking, partner.uncounted_ops),
    )


def _slope(rows):
    """MACs per further step, from the two longest lengths of a cell; NaN if it has one."""
    by_length = rows.groupby("length_steps").macs.max().sort_index()
    if len(by_length) < 2:
        return float("nan")
    return float(by_length.diff().iloc[-1] / (by_length.index[-1] - by_length.index[-2]))


def main_machine(table: pd.DataFrame) -> str:
    """The machine with the most rows."""
    return table.device_name.value_counts().sort_index().idxmax()


def on_main_machine(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the machine with the most rows. Times of different machines are not comparable."""
    if table.empty or "device_name" not in table:
        return table
    return table[table.device_name == main_machine(table)]


def machine_suffix(device_name: str, main: str) -> str:
    """The name suffix of tables and figures from another machine; empty for the main machine."""
    return "" if device_name == main else "_" + re.sub(r"[^a-z0-9]+", "_", device_name.lower()).strip("_")
