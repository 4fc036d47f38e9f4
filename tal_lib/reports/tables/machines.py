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


def newest(table: pd.DataFrame, keys: tuple[str, ...] = MEASURED) -> pd.DataFrame:
    """The newest of all rows with the same keys. Longer lists of models or lengths measure a row again."""
    keys = [name for name in keys if name in table]
    return (
        table.sort_values("utc", kind="stable")
        .drop_duplicates(keys, keep="last")
        .sort_index()
        .reset_index(drop=True)
    )


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
